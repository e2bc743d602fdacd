"""The options of run_sweep.py; separate, because a mistake in them is answered without the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.config import plan as config_plan
from harness.config.plan import DEFAULT_BUDGET, Plan
from harness.config.protocol import parse_ranges
from harness.core import paths
from harness.core.errors import UserError
from harness.stats.sequential import FIRST_SEEDS

MAX_HOURS = 1e4
MAX_TRAIN_SEEDS = 100
UNTIL_SEEDS = 8  # for --until-verdict, where no others are given: most trials need fewer
DELTA = 0.03
_OF_UNTIL = ("delta", "max_trials", "max_hours")


@dataclass(frozen=True)
class Until:
    """Train in rounds until every verdict is reached.

    delta: a difference in score too small to matter. max_trials, max_hours: end before.
    """

    delta: float = DELTA
    max_trials: int | None = None
    max_hours: float | None = None


@dataclass(frozen=True)
class Options:
    """The options of `run_sweep.py` by name.

    space: a file, or the name of one of ours. results: a folder or the URI of an object store.
    """

    space: Path
    budget: str = DEFAULT_BUDGET
    name: str | None = None
    data: Sequence[Path] = ()
    results: Path | str = paths.RESULTS
    trials: int | None = None
    train_seeds: str | None = None
    until_verdict: bool = False
    delta: float | None = None
    max_trials: int | None = None
    max_hours: float | None = None
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
        seeds: tuple[int, ...] = ()
        if self.train_seeds is not None:
            rule = "--train-seeds takes training seeds and ranges of them (0-5 or 0,3,7)"
            seeds = parse_ranges(self.train_seeds, rule, MAX_TRAIN_SEEDS, "seeds")
        return config_plan.plan(
            paths.search_space(self.space),
            self.budget,
            trials=self.trials,
            train_seeds=seeds,
            least_seeds=UNTIL_SEEDS if self.until_verdict else 1,
        )

    @property
    def until(self) -> Until | None:
        """How to train until every verdict is reached, None where it was not asked for."""
        delta = DELTA if self.delta is None else self.delta
        return Until(delta, self.max_trials, self.max_hours) if self.until_verdict else None

    @property
    def threads(self) -> int:
        """The threads of a trial."""
        return max(1, int(self.cpus_per_trial))

    def check(self) -> str:
        """Return the sweep's name; UserError for a mistake in it, the space file or the limit."""
        if not 0 < self.hours_per_trial <= MAX_HOURS:
            rule = f"--hours-per-trial must be above 0 and at most {MAX_HOURS:,.0f}"
            raise UserError(f"{rule}, given {self.hours_per_trial:g}")
        self._check_until()
        return paths.check_name(self.name or f"{self.plan.name}-{self.plan.budget}", "--name")

    def _check_until(self) -> None:
        for name in () if self.until_verdict else _OF_UNTIL:
            if getattr(self, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} belongs to --until-verdict, given alone"
                )
        if self.until is None:
            return
        if not 0 < self.until.delta <= 1:
            raise UserError(f"--delta must be above 0 and at most 1, given {self.until.delta:g}")
        if self.max_hours is not None and not 0 < self.max_hours <= MAX_HOURS:
            rule = f"--max-hours must be above 0 and at most {MAX_HOURS:,.0f}"
            raise UserError(f"{rule}, given {self.max_hours:g}")
        name = self.plan.name
        if self.plan.search is not None:
            raise UserError(f"--until-verdict compares the arms of questions, {name} is a search")
        asked = self.plan.only(self.question)
        if len(asked.seed_counts(1)) == len({trial.track for trial in asked.trials}):
            raise UserError(
                f"--until-verdict compares arms with their baseline, {name} has none that differ"
            )
        if len(self.plan.train_seeds) < FIRST_SEEDS:
            raise UserError(
                f"--until-verdict needs at least {FIRST_SEEDS} training seeds, "
                f"given {len(self.plan.train_seeds)}"
            )
        fewest = sum(asked.seed_counts(FIRST_SEEDS).values())
        if self.max_trials is not None and self.max_trials < fewest:
            raise UserError(
                f"--max-trials must be at least {fewest}, for {FIRST_SEEDS} training seeds of "
                f"every arm, given {self.max_trials}"
            )
