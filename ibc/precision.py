"""Which number format a device computes matrix products in at full speed."""

from pathlib import Path

import torch


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 for "auto", "fp32" or "bf16".

    "auto" takes bfloat16 only where it is fast: CUDA cards that support it and CPUs with
    AMX-BF16 or AVX512-BF16. CPUs without those units emulate it, tens of times slower.
    """
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has bf16 matrix or vector units."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(flags & {"amx_bf16", "avx512_bf16"})
