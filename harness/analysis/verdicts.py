"""The answer to every question of a sweep, derived from its numbers by a stated rule."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from harness.analysis.groups import Paired, Pairing, estimate_columns
from harness.analysis.sweep_results import Arm, Sweep
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.stats import comparisons, seed_variance
from harness.stats.comparisons import Pair
from harness.stats.intervals import Estimate
from harness.storage import episode_table

MIN_STARTS = 20  # "no difference" needs at least so many
SMALL = 0.05  # a difference in score too small to matter
RULE = (
    "Rule: an arm **helps** or **hurts** when the 95 % interval of its paired difference in score "
    "excludes 0; there is **no difference larger than x** when it does not and the 90 % interval "
    f"lies within x of 0, at most {SMALL:g}, on {MIN_STARTS} starts or more; otherwise, and "
    "wherever a side has only one training seed, there is **not enough evidence**. A verdict in "
    "success rate is by the same rule, and is told where it says something else. The intervals are "
    "over starts and training seeds, corrected for multiple comparisons (Bonferroni) within a "
    "question. The variance between an arm's training seeds borrows from the sweep's other arms "
    "(moderated t, Smyth 2004), unless it is larger than theirs. Differences are in test score if "
    "all arms were evaluated on report seeds, else in validation score. *IQM*: interquartile mean "
    "of the scores. *P(better)*: probability that a training run of the arm scores higher than one "
    "of the baseline on a start; ties count half. *seeds*: training seeds. *starts*: environment "
    "seeds."
)


@dataclass(frozen=True)
class Verdict:
    """One arm against its question's baseline.

    word: "helps", "hurts", "no difference", "not enough evidence" or "nothing to compare", in
    score; success_word: the same in success rate; text: a sentence with the numbers. score and
    success are differences; n: starts that both have. paired: the scores behind it.
    """

    arm: str
    word: str
    success_word: str
    text: str
    score: Estimate
    success: Estimate
    train_seeds: int  # of the side that has fewer
    n: int
    paired: Paired = field(repr=False, compare=False)
    level: float

    @cached_property
    def pair(self) -> Pair:
        """Interquartile means, probability of improvement, minimum detectable difference."""
        grids = self.paired.a.values, self.paired.b.values
        return comparisons.pair(*grids, self.level, self.paired.seeds)  # slow: only where shown

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

    Of a search's trials there are no verdicts. check: sentences on the variance between training
    seeds that the verdicts rest on; empty without verdicts.
    """

    question: str
    text: str
    arms: tuple[Arm, ...]
    verdicts: tuple[Verdict, ...]
    reported: bool = False  # whether the differences are in test score
    check: tuple[str, ...] = ()

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
    of_questions = [tuple(arm for arm in found if arm.question == name) for name in asked]
    pairing = Pairing(arm.group for arms_of_one in of_questions for arm in arms_of_one)
    names = {arm.config_hash: arm.arm for arm in reversed(found)}
    result = []
    for name, of_question in zip(asked, of_questions, strict=True):
        first, *rest = of_question
        others = [arm for arm in rest if arm.config_hash != first.config_hash]
        # Test scores if every arm has some: no checkpoint was selected on those starts.
        reported = all(
            episode_table.within(arm.group.episodes, REPORT_SEEDS).num_rows for arm in of_question
        )
        seeds = REPORT_SEEDS if reported else SELECT_SEEDS
        level = comparisons.shared_level(max(1, len(others)))
        verdicts = tuple(_judge(arm, first, pairing, seeds, level) for arm in others)
        checks = (_check(verdict.paired, pairing, names) for verdict in verdicts)
        check = tuple(dict.fromkeys(text for text in checks if text))
        result.append(Answer(name, first.text, of_question, verdicts, reported, check))
    return result


def _judge(arm: Arm, first: Arm, pairing: Pairing, seeds: range, level: float) -> Verdict:
    score, success = (
        pairing.pair(arm.group, first.group, column, seeds) for column in ("score", "success")
    )
    found, found_success = score.difference(level), success.difference(level)
    word, text = _words(score, found, level)
    success_word, success_text = _words(success, found_success, level)
    if success_word != word and success_word not in ("not enough evidence", "nothing to compare"):
        text += f"; in success rate {success_text}"
    return Verdict(
        arm=arm.arm,
        word=word,
        success_word=success_word,
        text=text,
        score=found,
        success=found_success,
        train_seeds=min(len(score.a.train_seeds), len(score.b.train_seeds)),
        n=len(score.a.env_seeds),
        paired=score,
        level=level,
    )


def _words(paired: Paired, found: Estimate, level: float) -> tuple[str, str]:
    """Return the word and the sentence of a verdict on the difference found."""
    if math.isnan(found.value):
        return "nothing to compare", "not evaluated yet"
    if math.isnan(found.low):
        return "not enough evidence", "only one start, which gives no interval"
    shown = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if min(len(paired.a.train_seeds), len(paired.b.train_seeds)) < 2:
        text = f"not enough evidence: {shown} for these checkpoints only"
        return "not enough evidence", f"{text}; train at least 3 seeds"
    if found.low > 0:
        return "helps", f"helps: {shown}"
    if found.high < 0:
        return "hurts", f"hurts: {shown}"
    # Two one-sided tests (Schuirmann 1987), each with the error rate of one end of the interval
    # at 2 level - 1: 90 % for 95 %.
    near = paired.difference(2 * level - 1)
    farthest = max(-near.low, near.high, 0.0)
    if farthest <= SMALL and found.n >= MIN_STARTS:
        return "no difference", f"no difference larger than {farthest:.3f}: {shown}"
    spread = comparisons.spread(paired.a.values, paired.b.values, paired.seeds, level)
    needed = spread.needed(SMALL, found.n, level)
    more = f"more than {comparisons.MOST_SEEDS} training seeds"
    if needed is not None:
        starts = f" on {needed[1]:,} starts" if needed[1] > found.n else ""
        more = f"about {needed[0]} training seeds{starts}"
    text = f"not enough evidence: {shown}; {more} needed to detect a difference of {SMALL:g}"
    return "not enough evidence", text


def _check(paired: Paired, pairing: Pairing, names: Mapping[str, str]) -> str:
    """Return how the arms share the variance of their training seeds; "" without any seeds."""
    if min(len(paired.a.train_seeds), len(paired.b.train_seeds)) < 2:
        return ""
    shared = paired.shared
    if shared is None:
        return (
            "Variance between training seeds: each arm's own, as fewer than "
            f"{seed_variance.MIN_ARMS} arms with two training seeds were evaluated on these starts."
        )
    known = [each for each in shared.arms if each is not None]
    wide = [f"“{names[config]}”" for config in pairing.names(shared.wide)]
    text = (
        f"Variance between training seeds, from {len(known)} arms: standard deviation "
        f"{shared.sd:.3f} in mean score, estimated with {shared.estimated_df:.1f} degrees of "
        "freedom, of which arms of few seeds count less; equal variances: "
        f"p = {shared.equal:.2g} (Bartlett)."
    )
    if wide:
        verb = "varies more and keeps its" if len(wide) == 1 else "vary more and keep their"
        text += f" {', '.join(wide)} {verb} own variance."
    return text


def rows(found: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return plain values of all verdicts for JSON and CSV."""
    return [
        {
            "question": answer.question,
            "arm": verdict.arm,
            "baseline": answer.arms[0].arm,
            "verdict": verdict.word,
            "success_verdict": verdict.success_word,
            "text": verdict.text,
            **estimate_columns("score_difference", verdict.score),
            **estimate_columns("success_difference", verdict.success),
            "train_seeds": verdict.train_seeds,
            "equal_variances_p": verdict.paired.shared and verdict.paired.shared.equal,
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
