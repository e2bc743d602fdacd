"""From a sweep's tables to what is said about it: arms by question, comparisons, overviews."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import episode_rows, stats, store
from harness.errors import UserError
from harness.group import Group as Group
from harness.group import Trial
from harness.stats import Crossed, Estimate


@dataclass(frozen=True)
class Arm:
    """One line of a question's table; a difference is to the question's first arm, paired.

    In a search there is none: its points are compared with no baseline.
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

    def as_row(self) -> dict[str, Any]:
        """Return plain values for JSON and CSV."""
        row: dict[str, Any] = {
            "question": self.question,
            "arm": self.arm,
            "config_hash": self.config_hash,
            "trials_finished": self.group.finished,
            "trials": len(self.group.trials),
            "health": health(self.group.trials),
        }
        for name, estimate in (
            ("select_score", self.select),
            ("select_difference", self.difference),
            ("select_success_rate", self.success),
            ("report_score", self.report),
            ("report_success_rate", self.report_success),
        ):
            row |= estimate_columns(name, estimate)
        return row


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Return value, low, high and n as four columns; what is unknown is None."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_n"))
    numbers = (estimate.value, estimate.low, estimate.high)
    plain = [None if np.isnan(number) else number for number in numbers]
    names = (name, f"{name}_low", f"{name}_high")
    return {**dict(zip(names, plain, strict=True)), f"{name}_n": estimate.n}


def health(trials: Sequence[Trial]) -> str:
    """Return the illnesses of some trials, the commonest first, "ok", or "" where none is known."""
    known = [trial["health"] for trial in trials if trial["health"] is not None]
    names = Counter(name for text in known for name in text.split(", ") if name != "ok")
    if names:
        return ", ".join(name for name, _ in names.most_common())
    return "ok" if known else ""


class Sweep:
    """A sweep's folder, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        trials, episodes = store.read_both(folder)
        self.trials: list[dict[str, Any]] = trials.to_pylist()
        finished = [trial for trial in self.trials if trial["status"] == "finished"]
        self._episodes = store.by_trial(episode_rows.that_count(episodes, finished))
        plan = folder / "plan.json"
        self.plan: dict[str, Any] = store.read_json(plan) if plan.is_file() else {}

    def counts(self) -> Counter[str]:
        """Return how many trials have each status."""
        return Counter(trial["status"] for trial in self.trials)

    def best(self) -> Trial | None:
        """Return the trial that `--ckpt best` stands for, or None while none is finished."""
        scored = [
            trial
            for trial in self.trials
            if trial["status"] == "finished" and trial["select_score"] is not None
        ]
        return min(scored, key=lambda t: (-t["select_score"], t["trial"]), default=None)

    def group(self, name: str, trials: Sequence[Trial]) -> Group:
        """Return trials as a group, with the episodes of the finished ones."""
        keys = ((trial["config_hash"], trial["train_seed"]) for trial in trials)
        tables = [self._episodes[key] for key in keys if key in self._episodes]
        tables = tables or [store.SCHEMAS["episodes"].empty_table()]
        return Group(name, tuple(trials), pa.concat_tables(tables))

    def arms(self) -> list[Arm]:
        """Return every arm of every question, in the plan's order."""
        by_hash: dict[str, list[Trial]] = {}
        for trial in self.trials:
            by_hash.setdefault(trial["config_hash"], []).append(trial)
        groups = {name: self.group(name, trials) for name, trials in by_hash.items()}
        found: list[Arm] = []
        for question in self._questions(by_hash):
            first: Group | None = None
            for entry in question["arms"]:
                config_hash = entry["config_hash"]
                group = groups.get(config_hash) or self.group(config_hash, [])
                found.append(_arm(question, entry["arm"], group, first))
                if not self.plan.get("search"):
                    first = first or group
        if self.plan.get("search"):  # its points answer no question; the best come first
            found.sort(key=lambda arm: -np.nan_to_num(arm.select.value, nan=-1.0))
        return found

    def _questions(self, by_hash: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
        if self.plan.get("questions"):
            return list(self.plan["questions"])
        names: dict[str, dict[str, Any]] = {}
        for config_hash, (trial, *_) in by_hash.items():
            question = trial["question"] or "trials"
            entry = names.setdefault(question, {"question": question, "text": "", "arms": []})
            entry["arms"].append({"arm": trial["arm"] or config_hash, "config_hash": config_hash})
        return list(names.values())

    def find_group(self, name: str) -> Group:
        """Return what a name stands for: an arm, a config's hash, a trial; UserError if nothing."""
        hashes = {
            entry["config_hash"]: f"{question['question']} / {entry['arm']}"
            for question in self._questions(
                {trial["config_hash"]: [trial] for trial in self.trials}
            )
            for entry in question["arms"]
            if name in (entry["arm"], f"{question['question']} / {entry['arm']}")
        }
        if len(hashes) > 1:
            raise UserError(
                f"{name!r} is an arm of several questions; take one of: "
                + "; ".join(sorted(hashes.values()))
            )
        wanted = next(iter(hashes), name)
        trials = [trial for trial in self.trials if trial["config_hash"].startswith(wanted)]
        if len({trial["config_hash"] for trial in trials}) > 1 or not trials:
            trials = [trial for trial in self.trials if trial["trial"] == name]
        if not trials:
            raise UserError(
                f"{name[:100]!r} must be an arm, a config's hash or a trial of sweep "
                f"{self.folder.name}; `python -m harness.results trials` lists them"
            )
        return self.group(name, trials)


def _arm(question: Mapping[str, Any], name: str, group: Group, first: Group | None) -> Arm:
    difference = None
    if first is not None:
        difference = paired(group, first, "score", store.SELECT_SEEDS)
    return Arm(
        question=question["question"],
        text=question.get("text") or "",
        arm=name,
        config_hash=group.trials[0]["config_hash"] if group.trials else group.name,
        group=group,
        select=_mean(group.grid("score", store.SELECT_SEEDS)),
        difference=difference,
        success=_rate(group.grid("success", store.SELECT_SEEDS)),
        report=_mean(group.grid("score", store.REPORT_SEEDS)),
        report_success=_rate(group.grid("success", store.REPORT_SEEDS)),
    )


def _mean(grid: Crossed) -> Estimate:
    """Return the mean of numbers in [0, 1], its interval cut to where they can be."""
    estimate = stats.group_mean(grid.values)
    if np.isnan(estimate.low):
        return estimate
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high), estimate.n)


def _rate(grid: Crossed) -> Estimate:
    """Return a success rate: Wilson's where there is one training seed or only one outcome."""
    k, n = int(grid.values.sum()), grid.values.size
    if len(grid.train_seeds) < 2 or k in (0, n):
        return stats.wilson(k, n)
    return _mean(grid)


@dataclass(frozen=True)
class Comparison:
    """Two groups on the environment seeds that all their trials have, and the difference a - b.

    dropped: environment seeds that some have and some have not.
    """

    column: str
    a: Estimate
    b: Estimate
    difference: Estimate
    seeds_a: int
    seeds_b: int
    dropped: int


def paired(a: Group, b: Group, column: str, seeds: range, level: float = stats.LEVEL) -> Estimate:
    """Return the difference a - b of a column on the environment seeds that all trials have."""
    cut_a, cut_b = stats.common(a.grid(column, seeds), b.grid(column, seeds))
    return stats.paired_difference(cut_a.values, cut_b.values, level)


def compare(a: Group, b: Group, column: str, seeds: range) -> Comparison:
    """Compare a column ("score", "success", "final_coverage") of two groups, paired by env seed."""
    grid_a, grid_b = a.grid(column, seeds), b.grid(column, seeds)
    cut_a, cut_b = stats.common(grid_a, grid_b)
    estimate = _rate if column == "success" else _mean
    return Comparison(
        column,
        estimate(cut_a),
        estimate(cut_b),
        stats.paired_difference(cut_a.values, cut_b.values),
        len(cut_a.train_seeds),
        len(cut_b.train_seeds),
        len(np.union1d(a.env_seeds(seeds), b.env_seeds(seeds))) - len(cut_a.env_seeds),
    )


def evaluation_group(folder: Path) -> Group:
    """Return the episodes of results/evaluations/<name> as a group of one."""
    episodes = store.read(folder, "episodes")
    episodes = store.of_one_protocol(episodes.filter(pc.is_null(episodes["error"])))
    return Group(folder.name, (), episodes)


def comparison_row(found: Comparison, a: str, b: str, on: str) -> dict[str, Any]:
    """Return plain values of a comparison for JSON and CSV."""
    row: dict[str, Any] = {"column": found.column, "a": a, "b": b, "on": on}
    for name, estimate in (
        ("mean_a", found.a),
        ("mean_b", found.b),
        ("difference", found.difference),
    ):
        row |= estimate_columns(name, estimate)
    return {**row, "train_seeds_a": found.seeds_a, "train_seeds_b": found.seeds_b}
