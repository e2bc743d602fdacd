"""A sweep's tables as arms: scores by training seed and environment seed, with intervals."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.core.paths import JOINED
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.core.text import one_line
from harness.stats import intervals, seed_variance
from harness.stats.intervals import LEVEL, Crossed, Estimate
from harness.stats.seed_variance import SeedVariance, SharedVariances
from harness.storage import episode_table, json_schemas, table_schemas, tables

Trial = Mapping[str, Any]
STATUSES = ("finished", "running", "stopped", "failed", "pending")
_UNNAMED = "trials"  # the question of trials that no plan asks for


def counted(counts: Mapping[str, int]) -> str:
    """Return "12 finished, 3 running": how many trials have each status."""
    names = [*STATUSES, *sorted(set(counts) - set(STATUSES))]
    return ", ".join(f"{counts[name]:,} {one_line(name)}" for name in names if counts.get(name))


@dataclass(frozen=True)
class Group:
    """Trials of one config, one for each training seed, with their best checkpoints' episodes.

    episodes: on selection and report seeds, of finished trials, each trial's of one protocol.
    """

    name: str
    trials: tuple[Trial, ...]
    episodes: pa.Table
    _grids: dict[tuple[str, range], Crossed] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def finished(self) -> int:
        """How many of its trials are finished."""
        return sum(trial["status"] == "finished" for trial in self.trials)

    def grid(self, column: str, seeds: range) -> Crossed:
        """Return a column (S, E) over S training seeds and E environment seeds in the range."""
        at = column, seeds
        if at not in self._grids:
            columns = self.episodes.select(["train_seed", "env_seed", column])
            rows = episode_table.within(columns, seeds)
            train = pc.fill_null(rows["train_seed"], -1).to_numpy()
            env = rows["env_seed"].to_numpy()
            values = pc.cast(rows[column], pa.float64()).to_numpy()
            whole = _whole_grid(train, env, values)
            self._grids[at] = intervals.crossed(train, env, values) if whole is None else whole
        return self._grids[at]


def _whole_grid(
    train: NDArray[np.int64], env: NDArray[np.int64], values: NDArray[np.float64]
) -> Crossed | None:
    """Return what `intervals.crossed` returns, faster, for complete sorted rows; else None."""
    E = np.count_nonzero(train == train[:1])
    if E == 0 or len(train) % E:
        return None
    seeds, starts = train.reshape(-1, E), env.reshape(-1, E)
    whole = (seeds == seeds[:, :1]).all() and (starts == starts[0]).all()
    in_order = (np.diff(seeds[:, 0]) > 0).all() and (np.diff(starts[0]) > 0).all()
    if not (whole and in_order and np.isfinite(values).all()):
        return None
    # The memory layout of `intervals.crossed`: another order of sums changes the last bits.
    cells = np.asfortranarray(values.reshape(starts.shape))
    return Crossed(tuple(seeds[:, 0].tolist()), starts[0], cells)


@dataclass(frozen=True)
class Paired:
    """Two groups' values (S, E) on the environment seeds that all their trials have.

    shared: the variances of all arms' training seeds on these, None where too few show one; seeds:
    those of a and b, None where both keep their own.
    """

    a: Crossed
    b: Crossed
    shared: SharedVariances | None = None
    seeds: tuple[SeedVariance, SeedVariance] | None = None

    def difference(self, level: float = LEVEL) -> Estimate:
        """Return mean(a) - mean(b)."""
        return intervals.paired_difference(self.a.values, self.b.values, level, self.seeds)


class Pairing:
    """Pairs of a sweep's groups, which share the variance of their training seeds.

    A config that is an arm of several questions counts once.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups: dict[str, Group] = {}
        for group in groups:
            self._groups.setdefault(group.name, group)
        self._index = {name: index for index, name in enumerate(self._groups)}
        self._shared: dict[tuple[str, range, bytes], SharedVariances | None] = {}

    def pair(self, a: Group, b: Group, column: str, seeds: range) -> Paired:
        """Return a and b, paired by the environment seeds in the range."""
        cut = intervals.common(a.grid(column, seeds), b.grid(column, seeds))
        if min(len(side.train_seeds) for side in cut) < 2 or not len(cut[0].env_seeds):
            return Paired(*cut)
        at = column, seeds, cut[0].env_seeds.tobytes()
        if at not in self._shared:
            self._shared[at] = self._share(column, seeds, cut[0].env_seeds)
        shared = self._shared[at]
        if shared is None:
            return Paired(*cut)
        of_a, of_b = (shared.arms[self._index[side.name]] for side in (a, b))
        if of_a is None or of_b is None or not (of_a.borrows or of_b.borrows):
            return Paired(*cut, shared)
        return Paired(*cut, shared, (of_a, of_b))

    def _share(
        self, column: str, seeds: range, starts: NDArray[np.int64]
    ) -> SharedVariances | None:
        """Return the variances of the groups that have all of these environment seeds."""
        grids = []
        for group in self._groups.values():
            grid = group.grid(column, seeds)
            whole = np.isin(starts, grid.env_seeds).all()
            columns = np.searchsorted(grid.env_seeds, starts if whole else starts[:0])
            grids.append(grid.values[:, columns])
        return seed_variance.share(grids)

    def names(self, indices: Iterable[int]) -> list[str]:
        """Return the names (config hashes) of groups by their index in `Paired.shared`."""
        names = list(self._groups)
        return [names[index] for index in indices]


@dataclass(frozen=True)
class Arm:
    """One arm of a question: its validation (select) and test (report) scores.

    difference, report_difference: in validation and test score to the question's first arm, paired
    by start; None in a search, which has no baseline.
    """

    question: str
    text: str
    arm: str
    config_hash: str
    group: Group
    select: Estimate
    difference: Estimate | None
    success: Estimate
    report: Estimate
    report_success: Estimate
    report_difference: Estimate | None = None

    @property
    def tested(self) -> bool:
        """Whether it has a test score."""
        return not math.isnan(self.report.value)

    def scores(self, *, reported: bool) -> tuple[Estimate, Estimate]:
        """Return score and success rate, of the test (reported) or the validation."""
        return (self.report, self.report_success) if reported else (self.select, self.success)

    def as_row(self) -> dict[str, Any]:
        """Return plain values for JSON and CSV."""
        return {
            "question": self.question,
            "arm": self.arm,
            "config_hash": self.config_hash,
            "trials_finished": self.group.finished,
            "trials": len(self.group.trials),
            "health": health(self.group.trials),
            **estimate_columns("select_score", self.select),
            **estimate_columns("select_difference", self.difference),
            **estimate_columns("select_success_rate", self.success),
            **estimate_columns("report_score", self.report),
            **estimate_columns("report_success_rate", self.report_success),
            **estimate_columns("report_difference", self.report_difference),
        }


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Return value, low, high and n as four columns; None where unknown."""
    found = estimate or Estimate(math.nan, math.nan, math.nan, 0)
    numbers = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    plain = {key: None if math.isnan(value) else value for key, value in numbers.items()}
    return {**plain, f"{name}_n": None if estimate is None else estimate.n}


def health(trials: Sequence[Trial]) -> str:
    """Return the issues of some trials, most frequent first, "ok", or "" where not examined."""
    known = [trial["health"] for trial in trials if trial["health"] is not None]
    names = Counter(name for text in known for name in text.split(", ") if name != "ok")
    if names:
        return ", ".join(name for name, _ in names.most_common())
    return "ok" if known else ""


class Sweep:
    """A sweep's folder, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        trials, episodes = tables.read_both(folder)
        self.trials: list[dict[str, Any]] = trials.to_pylist()
        self._by_hash: dict[str, list[Trial]] = {}
        for trial in self.trials:
            self._by_hash.setdefault(trial["config_hash"], []).append(trial)
        finished = [trial for trial in self.trials if trial["status"] == "finished"]
        self._episodes = episode_table.by_trial(episode_table.that_count(episodes, finished))
        self.plan: dict[str, Any] = json_schemas.read_or(folder / "plan.json")

    def counts(self) -> Counter[str]:
        """Return how many trials have each status."""
        return Counter(trial["status"] for trial in self.trials)

    def settings(self) -> list[str]:
        """Return the data set and the budget of its plan, as far as they are known."""
        found = []
        if data := self.plan.get("dataset"):
            names = JOINED.join(Path(path).name for path in data["path"].split(JOINED))
            found.append(f"data set {names} ({data.get('kind')})")
        if self.plan.get("budget"):
            found.append(f"budget {self.plan['budget']}")
        return found

    def best(self) -> Trial | None:
        """Return the trial that `--ckpt best` selects, or None while none is finished."""
        scored = [
            trial
            for trial in self.trials
            if trial["status"] == "finished" and trial["select_score"] is not None
        ]
        return min(scored, key=lambda t: (-t["select_score"], t["trial"]), default=None)

    def group(self, name: str, trials: Sequence[Trial]) -> Group:
        """Return trials as a group, with the episodes of the finished ones."""
        keys = ((trial["config_hash"], trial["train_seed"]) for trial in trials)
        parts = [self._episodes[key] for key in keys if key in self._episodes]
        parts = parts or [table_schemas.SCHEMAS["episodes"].empty_table()]
        return Group(name, tuple(trials), pa.concat_tables(parts))

    def arms(self) -> list[Arm]:
        """Return every arm of every question in the plan's order; a search's trials by score."""
        searched: list[Arm] = []
        asked: list[tuple[Mapping[str, Any], str, Group, Group | None]] = []
        groups: dict[tuple[str, ...], Group] = {}  # the baseline is an arm of many questions
        for question in self._questions():
            first: Group | None = None
            for entry in question["arms"]:
                trials = self._of_arm(question, entry["config_hash"])
                key = entry["config_hash"], *(trial["trial"] for trial in trials)
                if key not in groups:
                    groups[key] = self.group(entry["config_hash"], trials)
                # Of a search only the confirmation's arms are compared.
                if not self.plan.get("search") or "train_seeds" in question:
                    asked.append((question, entry["arm"], groups[key], first))
                    first = first or groups[key]
                else:
                    searched.append(_arm(question, entry["arm"], groups[key]))
        pairs = Pairing(group for _, _, group, _ in asked)
        found = [_arm(*of_question, pairs=pairs) for of_question in asked]
        return found + sorted(searched, key=_rank, reverse=True)

    def _of_arm(self, question: Mapping[str, Any], config_hash: str) -> list[Trial]:
        """Return an arm's trials; in a search, either the search's own or its confirmation's."""
        trials: Sequence[Trial] = self._by_hash.get(config_hash, ())
        if "train_seeds" in question:
            return [trial for trial in trials if trial["train_seed"] in question["train_seeds"]]
        if self.plan.get("search"):
            name = question["question"]
            return [trial for trial in trials if (trial["question"] or _UNNAMED) == name]
        return list(trials)

    def _questions(self) -> list[dict[str, Any]]:
        """Return the plan's questions and, without any or in a search, the trials' own."""
        asked = list(self.plan.get("questions") or [])
        if asked and not self.plan.get("search"):
            return asked
        arms: dict[str, dict[str, str]] = {}  # the arms' names by question and config hash
        for trial in self.trials:
            of_question = arms.setdefault(trial["question"] or _UNNAMED, {})
            of_question.setdefault(trial["config_hash"], trial["arm"] or trial["config_hash"])
        for question in asked:
            arms.pop(question["question"], None)
        return asked + [
            {"question": name, "arms": [{"arm": arm, "config_hash": h} for h, arm in its.items()]}
            for name, its in arms.items()
        ]

    def find_group(self, name: str) -> Group:
        """Return the group that a name means: an arm, a config hash or a trial; else UserError."""
        found = [
            (entry["config_hash"], f"{question['question']} / {entry['arm']}", question)
            for question in self._questions()
            for entry in question["arms"]
            if name in (entry["arm"], f"{question['question']} / {entry['arm']}")
        ]
        if len({config_hash for config_hash, _, _ in found}) > 1:
            raise UserError(
                f"{name!r} is an arm of several questions; take one of: "
                + "; ".join(sorted({title for _, title, _ in found}))
            )
        if found:
            # The confirmation comes first: the score that a search selected by is too high.
            return self.group(name, self._of_arm(found[0][2], found[0][0]))
        trials = [trial for trial in self.trials if trial["config_hash"].startswith(name)]
        if len({trial["config_hash"] for trial in trials}) > 1 or not trials:
            trials = [trial for trial in self.trials if trial["trial"] == name]
        if not trials:
            raise UserError(
                f"{name[:100]!r} must be an arm, a config's hash or a trial of sweep "
                f"{self.folder.name}; `python -m harness.results trials` lists them"
            )
        return self.group(name, trials)


def _rank(arm: Arm) -> tuple[bool, float, float]:
    """Return the sort key of a search's trials: finished ones by score, the best highest.

    Those that halving stopped follow, by how many steps they were trained, then by score so far.
    """
    if arm.group.finished:
        return True, float(np.nan_to_num(arm.select.value, nan=-1.0)), 0.0
    steps = [trial["step"] or 0 for trial in arm.group.trials]
    scores = [trial["select_score"] for trial in arm.group.trials]
    so_far = [score for score in scores if score is not None]
    return False, float(max(steps, default=0)), max(so_far, default=-1.0)


def _arm(
    question: Mapping[str, Any],
    name: str,
    group: Group,
    first: Group | None = None,
    pairs: Pairing | None = None,
) -> Arm:
    select = report = None
    if first is not None and pairs is not None:
        select = pairs.pair(group, first, "score", SELECT_SEEDS).difference()
        report = pairs.pair(group, first, "score", REPORT_SEEDS).difference()
    estimates = {
        key: intervals.share_interval(group.grid(column, seeds).values)
        for key, column, seeds in (
            ("select", "score", SELECT_SEEDS),
            ("success", "success", SELECT_SEEDS),
            ("report", "score", REPORT_SEEDS),
            ("report_success", "success", REPORT_SEEDS),
        )
    }
    return Arm(
        question=question["question"],
        text=question.get("text") or "",
        arm=name,
        config_hash=group.name,
        group=group,
        difference=select,
        report_difference=report,
        **estimates,
    )


@dataclass(frozen=True)
class Comparison:
    """Two groups on the environment seeds that all their trials have, and the difference a - b.

    dropped: how many environment seeds only some of them have.
    """

    column: str
    a: Estimate
    b: Estimate
    difference: Estimate
    seeds_a: int
    seeds_b: int
    dropped: int

    def as_row(self, a: str, b: str, on: str) -> dict[str, Any]:
        """Return plain values for JSON and CSV; a and b: the groups' names."""
        return {
            "column": self.column,
            "a": a,
            "b": b,
            "on": on,
            **estimate_columns("mean_a", self.a),
            **estimate_columns("mean_b", self.b),
            **estimate_columns("difference", self.difference),
            "train_seeds_a": self.seeds_a,
            "train_seeds_b": self.seeds_b,
        }


def compare(a: Group, b: Group, column: str, seeds: range) -> Comparison:
    """Compare a column ("score", "success", "final_coverage") of two groups, paired by env seed."""
    cut_a, cut_b = intervals.common(a.grid(column, seeds), b.grid(column, seeds))
    every = pa.concat_tables([group.episodes.select(["env_seed"]) for group in (a, b)])
    known = pc.count_distinct(episode_table.within(every, seeds)["env_seed"]).as_py()
    return Comparison(
        column,
        intervals.share_interval(cut_a.values),
        intervals.share_interval(cut_b.values),
        intervals.paired_difference(cut_a.values, cut_b.values),
        len(cut_a.train_seeds),
        len(cut_b.train_seeds),
        known - len(cut_a.env_seeds),
    )


def evaluation_group(folder: Path) -> Group:
    """Return the episodes of results/evaluations/<name> as a group without trials."""
    episodes = tables.read(folder, "episodes")
    episodes = episode_table.of_one_protocol(episodes.filter(pc.is_null(episodes["error"])))
    return Group(folder.name, (), episodes)


def arm_name(row: Mapping[str, Any]) -> str:
    """Return "question / arm" of a trial's row."""
    return " / ".join(text for text in (row["question"], row["arm"]) if text)


def of_row(row: Mapping[str, Any], name: str) -> Estimate:
    """Return a trial's column with its interval; NaN for what is null."""
    value, low, high = (
        math.nan if row[key] is None else float(row[key])
        for key in (name, f"{name}_low", f"{name}_high")
    )
    return Estimate(value, low, high, row[f"{name.split('_')[0]}_n"] or 0)
