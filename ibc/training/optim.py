"""The optimiser, its number format and the norms of its gradients.

Not torch.optim: its first optimiser in a process imports torch's compiler, which takes two seconds
in every worker and in every command that times a step, and nothing is compiled here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class AdamW:
    """Steps parameters in place, to the bits of `torch.optim.AdamW(..., fused=True)`.

    parameters: leaves on one device; those without a gradient, and their moments, are not changed.
    The learning rate is given to each step.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.betas, self.weight_decay = betas, weight_decay
        self._moments: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take one step along the present gradients."""
        stepped = {i: p for i, p in enumerate(self.parameters) if p.grad is not None}
        if not stepped:
            return
        for i, parameter in stepped.items():
            if i not in self._moments:
                self._moments[i] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        first, second, counts = (
            [self._moments[i][name] for i in stepped] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        torch._foreach_add_(counts, 1)
        torch._fused_adamw_(
            list(stepped.values()),
            [p.grad for p in stepped.values() if p.grad is not None],
            first,
            second,
            [],
            counts,
            lr=learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The moments by the parameter's number, laid out as torch.optim does."""
        return {"state": {i: dict(moments) for i, moments in sorted(self._moments.items())}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`, or that of torch.optim.AdamW."""
        self._moments = {
            int(i): {
                name: value.to(self.parameters[int(i)].device, copy=True)
                for name, value in moments.items()
            }
            for i, moments in state["state"].items()
        }


def fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 fast: CUDA devices that support it, CPUs with units for it.

    CPUs without AMX-BF16 or AVX512-BF16 emulate it, tens of times slower.
    """
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has bf16 matrix or vector units."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(flags & {"amx_bf16", "avx512_bf16"})


@torch.no_grad()
def norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """The Euclidean norm of the gradient of every part, such as "encoder.trunk"; 0 without any.

    Synchronises with a GPU, so it is for some steps of an epoch, not for each.
    """
    groups: dict[str, list[torch.Tensor]] = {}
    for name, parameter in parameters.items():
        part = ".".join(name.split(".")[:-1][:2]) or name
        found = groups.setdefault(part, [])
        if parameter.grad is not None:
            found.append(parameter.grad)
    values = [
        torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        for grads in groups.values()
    ]
    device = next(iter(parameters.values())).device if parameters else torch.device("cpu")
    listed = torch.stack([v.to(device) for v in values]).tolist() if values else []
    return dict(zip(groups, listed, strict=True))
