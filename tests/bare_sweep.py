"""run_sweep.py without what it does for people: no estimate, no pictures, no page.

Tests of kills, nodes and disks start a dozen sweeps and look at their tables. The whole command is
run by tests/test_documented_commands.py. With `--without-ray` the trials run in this process, one
after the other.
"""

import importlib
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def replace(name: str, **attributes: Any) -> None:
    """Put a module with these attributes where another would be imported."""
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


@dataclass(frozen=True)
class Estimate:
    """A second for each trial."""

    seconds: Mapping[str, float]
    how: str = "not measured"

    def wall(self, slots: int, jobs: float) -> float:
        """Return the seconds on so many slots."""
        return jobs / slots


def estimate(jobs: Sequence[Any], finished: Mapping[str, float], threads: int) -> Estimate:
    """Return an estimate without measuring anything."""
    return Estimate({job.id: 1.0 for job in jobs})


def write_page(folder: Path) -> Path:
    """Write an empty page."""
    path = folder / "report.html"
    path.touch()
    return path


def execute(dispatch: Any, settings: Any, *rest: Any) -> None:
    """Run all jobs here."""
    from harness.sweep.worker import run_job  # torch: not before the sweep needs it

    while (job := dispatch.next("here")) is not None:
        dispatch.started("here")
        run_job(job.id, job.dumps(), settings, lambda metrics: dispatch.epoch("here", metrics))
        dispatch.ended("here")


if __name__ == "__main__":
    if "--without-ray" in sys.argv:
        sys.argv.remove("--without-ray")
        replace("harness.cluster.ray_session", ray_session=lambda **given: nullcontext())
        replace("harness.sweep.ray_tune", execute=execute)
        resources = importlib.import_module("harness.cluster.resources")
        vars(resources)["cluster_slots"] = lambda asked: 1
    replace("harness.sweep.estimate", Estimate=Estimate, estimate=estimate)
    replace("harness.page.gallery", make=lambda *given, **more: [])
    replace("harness.page.document", write=write_page)
    sys.argv[0] = str(ROOT / "run_sweep.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
