"""The CPUs and GPUs of this machine or of a cluster, and how many trials they can run."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UserError


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs of a machine or of each trial; with shares below 1 several trials use one."""

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


def slots(asked: Resources, have: Resources | None = None, where: str = "this machine") -> int:
    """Return how many trials fit into what there is, else this machine; UserError when none does.

    where: a name for it.
    """
    have = have or Resources(available_cpus(), available_gpus())
    for name, number, there in (("CPUs", asked.cpus, have.cpus), ("GPUs", asked.gpus, have.gpus)):
        missing = name == "CPUs" and not number
        if missing or not 0 <= number < math.inf or (number > 1 and number % 1):
            rule = f"the {name} of a trial must be a whole number or a share below 1"
            raise UserError(f"{rule}, given {number:g}")
        if number > there:
            rule = f"a trial must fit into the {there:g} {name} of {where}"
            raise UserError(f"{rule}, given {number:g}")
    return _fit(asked, have)


def _fit(asked: Resources, have: Resources) -> int:
    fit = math.floor(have.cpus / asked.cpus + 1e-9)
    if not asked.gpus:
        return fit
    if asked.gpus > 1:
        return min(fit, math.floor(have.gpus / asked.gpus))
    # A share is of one GPU: the rests of several GPUs do not add up.
    return min(fit, math.floor(1 / asked.gpus + 1e-9) * math.floor(have.gpus))


def cluster_slots(asked: Resources) -> int:
    """Return how many trials fit into the connected Ray; UserError when none does.

    A trial runs on one node: two nodes of one CPU each cannot run a trial of two CPUs.
    """
    nodes = _nodes()
    if not nodes:
        raise UserError("the cluster must have a living node, it has none")
    # The error names the node that comes closest.
    largest = max(nodes, key=lambda node: (min(node.cpus, asked.cpus), node.gpus, node.cpus))
    where = f"the cluster's largest node ({len(nodes)} in all)" if len(nodes) > 1 else "the cluster"
    slots(asked, largest, where)
    return cluster_room(asked)


def cluster_room(asked: Resources) -> int:
    """Return how many trials fit into the nodes of the connected Ray, possibly 0."""
    return sum(
        _fit(asked, node)
        for node in _nodes()
        if asked.cpus <= node.cpus and asked.gpus <= node.gpus
    )


def _nodes() -> list[Resources]:
    """Return the CPUs and GPUs of each living node of the cluster."""
    import ray

    return [
        Resources(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
