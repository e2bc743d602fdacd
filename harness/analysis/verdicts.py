"""Every question of a sweep answered in words that follow from the numbers by a stated rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.analysis.sweep_results import Arm, Sweep, estimate_columns, paired
from harness.core import seeds as store
from harness.stats import comparisons as evidence
from harness.stats import intervals
from harness.stats.comparisons import Pair
from harness.stats.intervals import Estimate
from harness.storage import episode_table

# Fewer starts than these say nothing of a difference that they do not show.
FEWEST_STARTS = 20


# Score points that nobody would change a recipe for.
SMALL = 0.05
RULE = (
    "Rule: an arm **helps** or **hurts** when the 95 % interval of its paired difference in score "
    "leaves 0 out; when the interval lies within "
    f"{SMALL:g} of 0, on {FEWEST_STARTS} starts or more, there is **no difference larger than** "
    "its farther end; otherwise, and wherever a side has one training seed only, there is **not "
    "enough evidence**. The intervals are for other starts and other training seeds, and those of "
    "a question's arms hold together (Bonferroni). Differences are on the selection's starts, "
    "unless all arms were evaluated on report starts. *middle half*: the mean of the middle half "
    "of the scores (interquartile mean); *better*: how often a training run of the arm beats one "
    "of the first on a start, ties half; *seeds*: training seeds."
)


@dataclass(frozen=True)
class Verdict:
    """One arm against its question's baseline.

    word: "helps", "hurts", "no difference", "not enough evidence" or "nothing to compare"; text: a
    sentence with the numbers. score and success are differences; n starts that both have.
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
        """Interquartile means, how often the arm is better, what would be detectable."""
        return evidence.pair(*self.grids, self.level)  # not everybody who asks for words needs it

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return self.word in ("helps", "hurts")


@dataclass(frozen=True)
class Answer:
    """A question, its arms, and the verdict on each arm but the first."""

    question: str
    text: str
    arms: tuple[Arm, ...]
    verdicts: tuple[Verdict, ...]
    reported: bool = False  # whether the differences are on report starts

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
                parts.append(phrase.format(_in_words(names), s=s, base=base))
        if {verdict.word for verdict in self.verdicts} == {"not enough evidence"}:
            parts = ["not enough evidence for any arm"]
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}." if text else "There is nothing to compare."


def answers(sweep: Sweep, arms: Sequence[Arm] | None = None) -> list[Answer]:
    """Return the answer to every question; of a search only that of its confirmation."""
    found = sweep.arms() if arms is None else arms
    result = []
    asked = {arm.question: None for arm in found}
    if sweep.plan.get("search"):  # its points answer nothing; its winners trained anew do
        planned = {question.get("question") for question in sweep.plan.get("questions") or []}
        asked = {name: None for name in asked if name in planned}
    for name in asked:
        of_question = tuple(arm for arm in found if arm.question == name)
        first, others = of_question[0], of_question[1:]
        others = tuple(arm for arm in others if arm.config_hash != first.config_hash)
        seeds = _starts(of_question)
        verdicts = tuple(_judge(arm, first, len(others), seeds) for arm in others)
        reported = seeds == store.REPORT_SEEDS
        result.append(Answer(name, first.text, of_question, verdicts, reported))
    return result


def _starts(arms: Sequence[Arm]) -> range:
    """Return the report starts if every arm has some, so that nothing was chosen on them."""
    reported = all(
        episode_table.within(a.group.episodes, store.REPORT_SEEDS).num_rows for a in arms
    )
    return store.REPORT_SEEDS if reported else store.SELECT_SEEDS


def _judge(arm: Arm, first: Arm, comparisons: int, seeds: range) -> Verdict:
    level = evidence.shared_level(comparisons)
    grids = intervals.common(arm.group.grid("score", seeds), first.group.grid("score", seeds))
    score = intervals.paired_difference(grids[0].values, grids[1].values, level)
    success = paired(arm.group, first.group, "success", seeds)
    train_seeds = min(len(grid.train_seeds) for grid in grids)
    word, text = _words(score, grids[0].values, grids[1].values, level)
    values = grids[0].values, grids[1].values
    return Verdict(arm.arm, word, text, score, success, train_seeds, score.n, values, level)


def _words(
    score: Estimate, a: NDArray[np.float64], b: NDArray[np.float64], level: float
) -> tuple[str, str]:
    if math.isnan(score.value):
        return "nothing to compare", "no start is finished in both"
    if math.isnan(score.low):
        return "not enough evidence", "one start says nothing of others"
    shown = f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
    if min(len(a), len(b)) < 2:
        text = f"not enough evidence: {shown} for these very checkpoints"
        return "not enough evidence", f"{text}; three training seeds would be a start"
    if score.low > 0:
        return "helps", f"helps: {shown}"
    if score.high < 0:
        return "hurts", f"hurts: {shown}"
    farthest = max(-score.low, score.high, 0.0)
    if farthest <= SMALL and score.n >= FEWEST_STARTS:
        return "no difference", f"no difference larger than {farthest:.3f}: {shown}"
    text = f"not enough evidence: {shown}"
    needed = evidence.spread(a, b).needed(SMALL, a.shape[1], level)
    if needed is None:
        more = "more seeds than anybody trains"
    else:
        more = f"about {needed[0]} training seeds"
        if needed[1] > a.shape[1]:
            more += f" on {needed[1]:,} starts"
    return "not enough evidence", f"{text}; {more} would tell a difference of {SMALL:g}"


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
    """Return all verdicts as a table; of questions with one arm only, its first columns."""
    empty = pa.table({name: pa.array([], pa.string()) for name in ("question", "arm", "verdict")})
    plain = rows(found)
    return pa.Table.from_pylist(plain) if plain else empty


def _in_words(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
