"""The options of run_sweep.py; separate, because a mistake in them is answered without the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.config import plan as config_plan
from harness.config.plan import DEFAULT_BUDGET, Plan
from harness.core import paths
from harness.core.errors import UserError

MAX_HOURS = 1e4


@dataclass(frozen=True)
class Options:
    """The options of `run_sweep.py` by name; results: a folder or the URI of an object store."""

    space: Path
    budget: str = DEFAULT_BUDGET
    name: str | None = None
    data: Sequence[Path] = ()
    results: Path | str = paths.RESULTS
    trials: int | None = None
    question: Sequence[str] = ()
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    hours_per_trial: float = 24.0
    address: str | None = None
    tracker: str | None = None
    retry_failed: bool = False
    dry_run: bool = False
    yes: bool = False

    @cached_property
    def plan(self) -> Plan:
        """The plan of the space file; UserError for a mistake in it."""
        return config_plan.plan(self.space, self.budget, trials=self.trials)

    @property
    def threads(self) -> int:
        """The threads of a trial."""
        return max(1, int(self.cpus_per_trial))

    def check(self) -> str:
        """Return the sweep's name; UserError for a mistake in it, the space file or the limit."""
        if not 0 < self.hours_per_trial <= MAX_HOURS:
            rule = f"--hours-per-trial must be above 0 and at most {MAX_HOURS:,.0f}"
            raise UserError(f"{rule}, given {self.hours_per_trial:g}")
        return paths.check_name(self.name or f"{self.plan.name}-{self.plan.budget}", "--name")
