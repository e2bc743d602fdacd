"""What a verdict is judged by: in a sweep of rounds, the data and the level of its last look."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.groups import Group, Pairing
from harness.analysis.sweep_results import Arm, Sweep
from harness.stats.sequential import FIRST_SEEDS, look_levels
from harness.storage.rounds import Rounds

SMALL = 0.05  # a difference in score too small to matter, unless a sweep of rounds has another


@dataclass(frozen=True)
class Basis:
    """level: of the interval. small: what "no difference" is at most. trials: ids, None for all.

    limit: in a sweep of rounds, the level of the question's intervals if there were one look: what
    other arms count for the variance between seeds must not grow with the number of looks.
    """

    level: float
    small: float = SMALL
    trials: frozenset[str] | None = None
    limit: float | None = None


class Looks:
    """The looks at a sweep's arms; without rounds every arm is judged once, on all of its trials.

    rounds: those to judge by; the default is those of the sweep's folder.
    """

    def __init__(self, sweep: Sweep, rounds: Rounds | None = None) -> None:
        self.settings = sweep.plan.get("until_verdict")
        self.seeds = len(sweep.plan.get("train_seeds") or ())
        self.rounds = Rounds()
        if self.settings is not None:
            self.rounds = Rounds.read(sweep.folder) if rounds is None else rounds

    def basis(self, arm: Arm, level: float) -> Basis:
        """Return what an arm is judged by; level: that of its question's intervals."""
        if self.settings is None:
            return Basis(level)
        small, latest = self.settings["delta"], self.rounds.latest(arm.question, arm.arm)
        if latest is not None:
            look, trials = latest
            return Basis(look.level, small, trials, level)
        return Basis(self.level(arm.group.finished, level), small, None, level)

    def level(self, seeds: int, level: float) -> float:
        """Return the level of a look at an arm with so many seeds."""
        levels = look_levels(max(self.seeds, FIRST_SEEDS), level)
        return levels[min(max(seeds - FIRST_SEEDS, 0), len(levels) - 1)]

    def check(self, words: Sequence[str]) -> str:
        """Return how verdicts with these words were reached; "" without rounds."""
        if self.settings is None:
            return ""
        rounds, most = self.rounds, self.settings["trials"]
        begun = len(rounds.begun if rounds.ended else rounds.finished)
        undecided = words.count("not enough evidence")
        reached = f"decided after {begun:,} of {most:,} trials"
        if undecided:
            reached = f"{begun:,} of {most:,} trials so far, {undecided} verdicts open"
        return (
            f"Trained in rounds: {reached}. Each look at an arm, with {FIRST_SEEDS} to "
            f"{self.seeds} training seeds, has a wider interval, so that all looks together are "
            "wrong as seldom as one (alpha spending: Lan and DeMets 1983); “no difference” means "
            f"at most {self.settings['delta']:g}."
        )


class Sides:
    """The groups that verdicts compare, and their pairing, on the trials of each basis."""

    def __init__(self, sweep: Sweep, arms: Sequence[Arm]) -> None:
        self.sweep, self.arms = sweep, arms
        self._known: dict[frozenset[str] | None, tuple[dict[str, Group], Pairing]] = {}

    def of(self, arm: Arm, first: Arm, basis: Basis) -> tuple[Group, Group, Pairing]:
        """Return an arm's and its baseline's groups and their pairing."""
        groups, pairing = self._at(basis.trials)
        if basis.trials is None:
            return arm.group, first.group, pairing
        return groups[arm.config_hash], groups[first.config_hash], pairing

    def pairing(self, basis: Basis) -> Pairing:
        """Return the pairing of all groups."""
        return self._at(basis.trials)[1]

    def _at(self, trials: frozenset[str] | None) -> tuple[dict[str, Group], Pairing]:
        if trials not in self._known:
            groups: dict[str, Group] = {}
            for arm in self.arms:
                group = arm.group
                if trials is not None:
                    its = [trial for trial in group.trials if trial["trial"] in trials]
                    group = self.sweep.group(group.name, its)
                groups.setdefault(group.name, group)
            self._known[trials] = groups, Pairing(groups.values())
        return self._known[trials]
