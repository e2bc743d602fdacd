"""A sweep's folder as questions and arms, each with its scores and their intervals."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.analysis.groups import Group, Pairing, Trial, estimate_columns
from harness.config.domains import described
from harness.config.trial_config import DEFAULT_BUDGET, nearest
from harness.core import command_lines
from harness.core.errors import UserError
from harness.core.paths import JOINED
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.core.text import one_line
from harness.stats import intervals
from harness.stats.intervals import Estimate
from harness.storage import episode_table, json_schemas, table_schemas, tables

STATUSES = ("finished", "running", "stopped", "failed", "pending")
UNANSWERABLE = (
    "One training seed: this sweep can answer none of its questions, it only shows that everything "
    "runs."
)
_UNNAMED = "trials"  # the question of trials that no plan asks for


def counted(counts: Mapping[str, int]) -> str:
    """Return "12 finished, 3 running": how many trials have each status."""
    names = [*STATUSES, *sorted(set(counts) - set(STATUSES))]
    return ", ".join(f"{counts[name]:,} {one_line(name)}" for name in names if counts.get(name))


@dataclass(frozen=True)
class Arm:
    """One arm of a question: its validation (select) and test (report) scores.

    difference, report_difference: in validation and test score to the question's first arm, paired
    by start; None in a search, which has no baseline. parameters: of a search's trial, in words.
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
    parameters: str = ""

    @property
    def title(self) -> str:
        """Its name, with the parameters of a search's trial."""
        return f"{self.arm}: {self.parameters}" if self.parameters else self.arm

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
            "parameters": self.parameters,
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


def health(trials: Sequence[Trial]) -> str:
    """Return the issues of some trials, most frequent first, "ok", or "" where not examined."""
    names = Counter(name for trial in trials for name in issues(trial))
    if names:
        return tables.ISSUE_SEPARATOR.join(name for name, _ in names.most_common())
    return "ok" if any(trial["health"] is not None for trial in trials) else ""


def issues(trial: Trial) -> list[str]:
    """Return the names of a trial's issues; none for a healthy trial or one not examined."""
    text = trial["health"]
    return [] if text in (None, "ok") else text.split(tables.ISSUE_SEPARATOR)


def best(trials: Iterable[Trial]) -> Trial | None:
    """Return the finished trial of the highest validation score, or None while there is none."""
    scored = [t for t in trials if t["status"] == "finished" and t["select_score"] is not None]
    return min(scored, key=lambda t: (-t["select_score"], t["trial"]), default=None)


def left_out(
    plan: Mapping[str, Any], trials: Iterable[Trial], asked: Collection[str]
) -> frozenset[str]:
    """Return the questions of a plan that are not shown.

    asked: names of those to show; a question of several tracks has one without its track too.
    Without any, those are left out of which no arm has begun, if some other question has begun.
    UserError for a name that the plan does not have.
    """
    questions = plan.get("questions") or []
    names = [question["question"] for question in questions]
    if asked:
        short = {
            n: n.removesuffix(f" ({q.get('track')})") for n, q in zip(names, questions, strict=True)
        }
        known = {*names, *short.values()}
        for name in asked:
            if name not in known:
                rule = "--question must name a question of the sweep"
                near = nearest(name, sorted(known)) or f"; there are {', '.join(names) or 'none'}"
                raise UserError(f"{rule}, given {name!r}{near}")
        return frozenset(name for name in names if not {name, short[name]} & set(asked))
    if plan.get("search"):
        return frozenset()
    begun = {trial["config_hash"] for trial in trials if trial["status"] != "pending"}
    waiting = frozenset(
        question["question"]
        for question in questions
        if not begun.intersection(_own(question["arms"]))
    )
    return waiting if len(waiting) < len(questions) else frozenset()


def _own(arms: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the configs of a question's arms without its baseline's, unless it has no other."""
    hashes = {arm["config_hash"] for arm in arms}
    return hashes - {arms[0]["config_hash"]} or hashes


def of_shown(
    plan: Mapping[str, Any], trials: Iterable[dict[str, Any]], hidden: Collection[str]
) -> list[dict[str, Any]]:
    """Return the trials but those of which only questions that are left out have an arm."""
    of_hidden, of_others = set[str](), set[str]()
    for question in plan.get("questions") or []:
        of_either = of_hidden if question["question"] in hidden else of_others
        of_either.update(arm["config_hash"] for arm in question["arms"])
    only = of_hidden - of_others
    return [trial for trial in trials if trial["config_hash"] not in only]


def rows_asked(folder: Path, rows: pa.Table, asked: Collection[str]) -> pa.Table:
    """Return the rows of trials of the questions that were asked for, all without any."""
    if not asked:
        return rows
    plan = json_schemas.read_or(folder / "plan.json")
    shown = of_shown(plan, rows.select(["config_hash"]).to_pylist(), left_out(plan, (), asked))
    hashes = pa.array(sorted({row["config_hash"] for row in shown}), pa.string())
    return rows.filter(pc.is_in(rows["config_hash"], hashes))


class Sweep:
    """A sweep's folder, read once.

    asked: the questions to show, see `left_out`. Verdicts are the same whatever is shown, as all
    arms share the variance between their training seeds. starts: the ranges of environment seeds
    whose episodes are read.
    stored: the folder holds the tables alone, without the trials that they were derived from.
    """

    hidden: frozenset[str] = frozenset()
    asked: tuple[str, ...] = ()

    def __init__(
        self,
        folder: Path,
        asked: Iterable[str] = (),
        *,
        starts: Sequence[range] = (SELECT_SEEDS, REPORT_SEEDS),
        stored: bool = False,
    ) -> None:
        self.folder, self.asked = folder, tuple(asked)
        read = tables.read_stored if stored else tables.read_both
        trials, episodes = read(folder)
        self._every: list[dict[str, Any]] = trials.to_pylist()
        self._by_hash: dict[str, list[Trial]] = {}
        for trial in self._every:
            self._by_hash.setdefault(trial["config_hash"], []).append(trial)
        finished = [trial for trial in self._every if trial["status"] == "finished"]
        counted = episode_table.that_count(episodes, finished, starts)
        self._episodes = episode_table.by_trial(counted)
        self.plan: dict[str, Any] = json_schemas.read_or(folder / "plan.json")
        self.hidden = left_out(self.plan, self._every, self.asked)
        self.trials = of_shown(self.plan, self._every, self.hidden)

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

    @property
    def omission(self) -> str:
        """Which of its questions are not shown and why, in a sentence; "" for none."""
        if not self.hidden:
            return ""
        names = ", ".join(one_line(name) for name in sorted(self.hidden))
        one = len(self.hidden) == 1
        count = "1 further question" if one else f"{len(self.hidden)} further questions"
        why = ("was" if one else "were") + " not asked for" if self.asked else "no trial yet"
        verb = "" if self.asked else "has " if one else "have "
        return f"{count} {verb}{why}: {names}"

    @property
    def answerable(self) -> bool:
        """Whether its plan can answer its questions, or has none: a verdict needs two seeds."""
        seeds = self.plan.get("train_seeds") or ()
        asks = self.plan.get("questions") and not self.plan.get("search")
        return not asks or len(seeds) != 1

    @property
    def next_command(self) -> str:
        """The command that can answer the questions of a sweep that is not `answerable`."""
        words = [one_line(self.plan.get("space") or "SPACE.yaml")]
        if self.plan.get("budget") == DEFAULT_BUDGET:
            words += ["--name", one_line(self.folder.name), "--train-seeds", "0-2"]
        return command_lines.line("sweep", *words, results=self.folder.parent)

    @property
    def caveat(self) -> str:
        """Why it can answer none of its questions, and what can; "" where it can."""
        return "" if self.answerable else f"{UNANSWERABLE} Next: {self.next_command}"

    @property
    def best_point(self) -> str:
        """The best point of a search in a sentence, "" without any."""
        row = self.best()
        if row is None or not self.plan.get("search"):
            return ""
        score, n = of_row(row, "select_score"), self.counts()["finished"]
        return (
            f"The best of {n} finished trials is {arm_name(row, self.plan)} ({row['trial']}), with "
            f"a validation score of {score.value:.3f} [{score.low:.2f}, {score.high:.2f}]. The "
            "best of several scores is biased upwards: train it again with other training seeds "
            "(`best --yaml FILE.yaml`) and evaluate it on other starts."
        )

    def best(self) -> Trial | None:
        """Return the trial that `--ckpt best` selects, or None while none is finished."""
        return best(self.trials)

    def group(self, name: str, trials: Sequence[Trial]) -> Group:
        """Return trials as a group, with the episodes of the finished ones."""
        keys = ((trial["config_hash"], trial["train_seed"]) for trial in trials)
        parts = [self._episodes[key] for key in keys if key in self._episodes]
        parts = parts or [table_schemas.SCHEMAS["episodes"].empty_table()]
        return Group(name, tuple(trials), pa.concat_tables(parts))

    def arms(self) -> list[Arm]:
        """Return the arms of the questions that are shown; see `every_arm`."""
        return [arm for arm in self.every_arm if arm.question not in self.hidden]

    @cached_property
    def every_arm(self) -> list[Arm]:
        """Every arm of every question in the plan's order; a search's trials by score."""
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
        return [
            replace(arm, parameters=parameters(self.plan, arm.group.trials))
            for arm in (*found, *sorted(searched, key=_rank, reverse=True))
        ]

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
        for trial in self._every:
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
            words = ("trials", self.folder.name, "--limit", 0)
            line = command_lines.line("results", *words, results=self.folder.parent)
            raise UserError(
                f"{name[:100]!r} must be an arm, a config's hash or a trial of sweep "
                f"{self.folder.name}; `{line}` lists them"
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

    def mean(column: str, seeds: range) -> Estimate:
        return intervals.share_interval(group.grid(column, seeds).values)

    return Arm(
        question=question["question"],
        text=question.get("text") or "",
        arm=name,
        config_hash=group.name,
        group=group,
        difference=select,
        report_difference=report,
        select=mean("score", SELECT_SEEDS),
        success=mean("success", SELECT_SEEDS),
        report=mean("score", REPORT_SEEDS),
        report_success=mean("success", REPORT_SEEDS),
    )


def parameters(plan: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """Return the parameters of a search's trials of one config in words, "" without a search."""
    axes = (plan.get("search") or {}).get("axes") or {}
    row: Trial = trials[0] if trials else {}
    return one_line(described({key: row[key] for key in axes if key in row}))


def arm_name(row: Mapping[str, Any], plan: Mapping[str, Any] | None = None) -> str:
    """Return "question / arm" of a trial's row; with its plan also a search's parameters."""
    name = " / ".join(text for text in (row["question"], row["arm"]) if text)
    point = parameters(plan or {}, [row])
    return f"{name}: {point}" if point else name


def of_row(row: Mapping[str, Any], name: str) -> Estimate:
    """Return a trial's column with its interval; NaN for what is null."""
    value, low, high = (
        math.nan if row[key] is None else float(row[key])
        for key in (name, f"{name}_low", f"{name}_high")
    )
    return Estimate(value, low, high, row[f"{name.split('_')[0]}_n"] or 0)
