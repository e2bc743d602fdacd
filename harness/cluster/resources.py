"""The CPUs and GPUs of this machine or of a cluster, and how many trials they can run."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UserError


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of each trial; with shares below 1 several trials use one."""

    cpus: float
    gpus: float


def available_cpus() -> int:
    """Return the number of CPUs that this process's affinity and control group allow."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, math.ceil(int(quota) / int(period))))


_DEVICES = Path("/dev")
# Device files of NVIDIA's driver, its embedded devices, the Windows Subsystem for Linux, and AMD's
# driver. CUDA and ROCm can use no GPU without one of them.
_GPU_FILES = ("nvidia*", "nvhost*", "dxg", "kfd")


def available_gpus() -> int:
    """Return how many GPUs torch can use; without a GPU's driver torch is not imported."""
    if not any(any(_DEVICES.glob(name)) for name in _GPU_FILES):
        return 0
    import torch

    return torch.cuda.device_count()


def check_resources(cpus: float, gpus: float, *, what: str = "a trial") -> int:
    """Return how many times (cpus, gpus) fit into this machine; UserError when not once."""
    have_cpus, have_gpus = available_cpus(), available_gpus()
    return slots(cpus, gpus, have_cpus, have_gpus, what=what, where="this machine")


def slots(
    cpus: float, gpus: float, have_cpus: float, have_gpus: float, *, what: str, where: str
) -> int:
    """Return how many times (cpus, gpus) fit into the available ones; UserError when not once."""
    if not (cpus > 0 and math.isfinite(cpus)) or (cpus > 1 and cpus != int(cpus)):
        raise UserError(
            f"the CPUs of {what} must be a whole number or a share below 1, given {cpus:g}"
        )
    if not (gpus >= 0 and math.isfinite(gpus)) or (gpus > 1 and gpus != int(gpus)):
        raise UserError(
            f"the GPUs of {what} must be a whole number or a share below 1, given {gpus:g}"
        )
    if cpus > have_cpus:
        raise UserError(f"{what} must fit into the {have_cpus:g} CPUs of {where}, given {cpus:g}")
    if gpus > have_gpus:
        raise UserError(f"{what} must fit into the {have_gpus:g} GPUs of {where}, given {gpus:g}")
    return _fit(cpus, gpus, have_cpus, have_gpus)


def _fit(cpus: float, gpus: float, have_cpus: float, have_gpus: float) -> int:
    fit = math.floor(have_cpus / cpus + 1e-9)
    if not gpus:
        return fit
    if gpus > 1:
        return min(fit, math.floor(have_gpus / gpus))
    # A share is of one GPU: the rests of several GPUs do not add up.
    return min(fit, math.floor(1 / gpus + 1e-9) * math.floor(have_gpus))


def cluster_slots(resources: Resources) -> int:
    """Return how many trials fit into the connected Ray; UserError when none does.

    A trial runs on one node: two nodes of one CPU each cannot run a trial of two CPUs.
    """
    nodes = _nodes()
    if not nodes:
        raise UserError("the cluster must have a living node, it has none")
    # The error names the node that comes closest.
    largest = max(nodes, key=lambda node: (min(node[0], resources.cpus), node[1], node[0]))
    where = f"the cluster's largest node ({len(nodes)} in all)" if len(nodes) > 1 else "the cluster"
    slots(resources.cpus, resources.gpus, *largest, what="a trial", where=where)
    return cluster_room(resources)


def cluster_room(resources: Resources) -> int:
    """Return how many trials fit into the nodes of the connected Ray, possibly 0."""
    return sum(
        _fit(resources.cpus, resources.gpus, *node)
        for node in _nodes()
        if resources.cpus <= node[0] and resources.gpus <= node[1]
    )


def _nodes() -> list[tuple[float, float]]:
    """Return the CPUs and GPUs of each living node of the cluster."""
    import ray

    return [
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
