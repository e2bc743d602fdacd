"""The answer to every question of a sweep, derived from its numbers by a stated rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.analysis.sweep_results import Arm, Sweep, estimate_columns, paired
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.stats import comparisons, intervals
from harness.stats.comparisons import Pair
from harness.stats.intervals import Estimate
from harness.storage import episode_table

MIN_STARTS = 20  # "no difference" needs at least so many
SMALL = 0.05  # a difference in score too small to matter
RULE = (
    "Rule: an arm **helps** or **hurts** when the 95 % interval of its paired difference in score "
    f"excludes 0. When the interval lies within {SMALL:g} of 0, with {MIN_STARTS} starts or more, "
    "there is **no difference larger than** the interval's farther end. Otherwise, and wherever a "
    "side has only one training seed, there is **not enough evidence**. The intervals are over "
    "starts and training seeds, corrected for multiple comparisons (Bonferroni) within a "
    "question. Differences are in test score if all arms were evaluated on report seeds, else in "
    "validation score. *IQM*: interquartile mean of the scores. *P(better)*: probability that a "
    "training run of the arm scores higher than one of the baseline on a start; ties count half. "
    "*seeds*: training seeds. *starts*: environment seeds."
)


@dataclass(frozen=True)
class Verdict:
    """One arm against its question's baseline.

    word: "helps", "hurts", "no difference", "not enough evidence" or "nothing to compare"; text: a
    sentence with the numbers. score and success are differences; n: starts that both have.
    """

    arm: str
    word: str
    text: str
    score: Estimate
    success: Estimate
    train_seeds: int  # of the side that has fewer
    n: int
    grids: tuple[NDArray[np.float64], NDArray[np.float64]] = field(repr=False, compare=False)
    level: float

    @cached_property
    def pair(self) -> Pair:
        """Interquartile means, probability of improvement, minimum detectable difference."""
        return comparisons.pair(*self.grids, self.level)  # slow, so only where it is shown

    @property
    def shown(self) -> bool:
        """Whether there is a significant difference."""
        return self.word in ("helps", "hurts")


@dataclass(frozen=True)
class Row:
    """One arm with its verdict; score and success rate are of the starts that verdicts are on.

    seeds: training seeds; n: starts. The baseline has no verdict.
    """

    arm: Arm
    verdict: Verdict | None
    score: Estimate
    success: Estimate
    seeds: int
    n: int


@dataclass(frozen=True)
class Answer:
    """A question, its arms, and the verdict on each arm but the first, the baseline.

    Of a search's trials there are no verdicts.
    """

    question: str
    text: str
    arms: tuple[Arm, ...]
    verdicts: tuple[Verdict, ...]
    reported: bool = False  # whether the differences are in test score

    def rows(self) -> list[Row]:
        """Return every arm with its verdict."""
        by_arm = {verdict.arm: verdict for verdict in self.verdicts}
        found = []
        for arm in self.arms:
            verdict, (score, success) = by_arm.get(arm.arm), arm.scores(reported=self.reported)
            grid = arm.group.grid("score", REPORT_SEEDS if self.reported else SELECT_SEEDS)
            n = score.n if verdict is None else verdict.n
            found.append(Row(arm, verdict, score, success, len(grid.train_seeds), n))
        return found

    @property
    def summary(self) -> str:
        """The answer in a sentence."""
        base = f"“{self.arms[0].arm}”"
        parts = []
        for word, phrase in (
            ("helps", "{} score{s} higher than {base}"),
            ("hurts", "{} score{s} lower than {base}"),
            ("no difference", "{} make{s} no difference that matters"),
            ("not enough evidence", "for {} there is not enough evidence"),
            ("nothing to compare", "for {} nothing is finished yet"),
        ):
            names = [f"“{verdict.arm}”" for verdict in self.verdicts if verdict.word == word]
            if names:
                s = "s" if len(names) == 1 else ""
                listed = names[0] if s else f"{', '.join(names[:-1])} and {names[-1]}"
                parts.append(phrase.format(listed, s=s, base=base))
        if {verdict.word for verdict in self.verdicts} == {"not enough evidence"}:
            parts = ["not enough evidence for any arm"]
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}." if text else "There is nothing to compare."


def answers(sweep: Sweep, arms: Sequence[Arm] | None = None) -> list[Answer]:
    """Return the answer to every question; of a search only that of its confirmation."""
    found = sweep.arms() if arms is None else arms
    asked = list(dict.fromkeys(arm.question for arm in found))
    if sweep.plan.get("search"):
        planned = {question.get("question") for question in sweep.plan.get("questions") or []}
        asked = [name for name in asked if name in planned]
    result = []
    for name in asked:
        first, *rest = of_question = tuple(arm for arm in found if arm.question == name)
        others = [arm for arm in rest if arm.config_hash != first.config_hash]
        # Test scores if every arm has some: no checkpoint was selected on those starts.
        reported = all(
            episode_table.within(arm.group.episodes, REPORT_SEEDS).num_rows for arm in of_question
        )
        seeds = REPORT_SEEDS if reported else SELECT_SEEDS
        verdicts = tuple(_judge(arm, first, len(others), seeds) for arm in others)
        result.append(Answer(name, first.text, of_question, verdicts, reported))
    return result


def _judge(arm: Arm, first: Arm, count: int, seeds: range) -> Verdict:
    level = comparisons.shared_level(count)
    a, b = intervals.common(arm.group.grid("score", seeds), first.group.grid("score", seeds))
    score = intervals.paired_difference(a.values, b.values, level)
    word, text = _words(score, a.values, b.values, level)
    return Verdict(
        arm=arm.arm,
        word=word,
        text=text,
        score=score,
        success=paired(arm.group, first.group, "success", seeds),
        train_seeds=min(len(a.train_seeds), len(b.train_seeds)),
        n=score.n,
        grids=(a.values, b.values),
        level=level,
    )


def _words(
    score: Estimate, a: NDArray[np.float64], b: NDArray[np.float64], level: float
) -> tuple[str, str]:
    """Return the verdict's word and its sentence; scores a (S_a, E), b (S_b, E)."""
    if math.isnan(score.value):
        return "nothing to compare", "not evaluated yet"
    if math.isnan(score.low):
        return "not enough evidence", "only one start, which gives no interval"
    shown = f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
    if min(len(a), len(b)) < 2:
        text = f"not enough evidence: {shown} for these checkpoints only"
        return "not enough evidence", f"{text}; train at least 3 seeds"
    if score.low > 0:
        return "helps", f"helps: {shown}"
    if score.high < 0:
        return "hurts", f"hurts: {shown}"
    farthest = max(-score.low, score.high, 0.0)
    if farthest <= SMALL and score.n >= MIN_STARTS:
        return "no difference", f"no difference larger than {farthest:.3f}: {shown}"
    needed = comparisons.spread(a, b).needed(SMALL, a.shape[1], level)
    more = f"more than {comparisons.MOST_SEEDS} training seeds"
    if needed is not None:
        starts = f" on {needed[1]:,} starts" if needed[1] > a.shape[1] else ""
        more = f"about {needed[0]} training seeds{starts}"
    text = f"not enough evidence: {shown}; {more} needed to detect a difference of {SMALL:g}"
    return "not enough evidence", text


def rows(found: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return plain values of all verdicts for JSON and CSV."""
    return [
        {
            "question": answer.question,
            "arm": verdict.arm,
            "baseline": answer.arms[0].arm,
            "verdict": verdict.word,
            "text": verdict.text,
            **estimate_columns("score_difference", verdict.score),
            **estimate_columns("success_difference", verdict.success),
            "train_seeds": verdict.train_seeds,
            **verdict.pair.columns(),
        }
        for answer in found
        for verdict in answer.verdicts
    ]


def table(found: Sequence[Answer]) -> pa.Table:
    """Return all verdicts as a table; without any, only its first columns."""
    empty = pa.table({name: pa.array([], pa.string()) for name in ("question", "arm", "verdict")})
    plain = rows(found)
    return pa.Table.from_pylist(plain) if plain else empty
