"""The answer to every question of a sweep, derived from its numbers by a stated rule."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from harness.analysis.groups import Group, Paired, Pairing, estimate_columns
from harness.analysis.looks import SMALL, Basis, Looks, Sides
from harness.analysis.sweep_results import Arm, Sweep
from harness.config.trial_config import BASELINE
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.stats import comparisons, seed_variance
from harness.stats.comparisons import Pair
from harness.stats.intervals import Estimate
from harness.storage import episode_table, table_schemas
from harness.storage.rounds import Rounds

MIN_STARTS = 20  # "no difference" needs at least so many
MOST_SETTINGS = 4  # that name a baseline
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
class Needed:
    """What would decide an open verdict, if the true difference is as found.

    seeds: further training seeds of each side, None for more than 100. starts: how many, None for
    as many as now.
    """

    seeds: int | None
    starts: int | None = None

    def __str__(self) -> str:
        if self.seeds is None:
            return f"more than {comparisons.MOST_SEEDS} seeds"
        about = f"about {self.seeds} more training seed{'' if self.seeds == 1 else 's'}"
        return f"{about} on {self.starts:,} starts" if self.starts else about


def _needs(needed: Sequence[Needed], arms: int) -> str:
    """Return ", needs about 2 more seeds" for an arm, ", need about 2 to 9 ..." for several."""
    if not needed:
        return ""
    known = sorted({each.seeds for each in needed if each.seeds is not None})
    ends = [str(end) for end in dict.fromkeys((known[0], known[-1]))] if known else []
    if len(known) < len({each.seeds for each in needed}):
        ends = [*ends[:1], f"more than {comparisons.MOST_SEEDS}"]
    more = " and more starts" if any(each.starts for each in needed) else ""
    seeds = "seed" if ends == ["1"] else "seeds"
    verb = "needs" if arms == 1 else "need"
    return f", {verb} about {' to '.join(ends)} more {seeds}{more}"


@dataclass(frozen=True)
class Verdict:
    """One arm against its question's baseline.

    word: "helps", "hurts", "no difference", "not enough evidence" or "nothing to compare", in
    score; success_word: the same in success rate; text: a sentence with the numbers; remark: what
    the summary adds to the arm's name. needed: None unless it is open. farthest: which difference
    is ruled out, NaN unless "no difference". score and success are differences; n: starts that
    both have. paired: the scores behind it.
    """

    arm: str
    word: str
    success_word: str
    text: str
    remark: str
    needed: Needed | None
    farthest: float
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
    def baseline(self) -> str:
        """What the baseline is: its own words, else its values of the settings that arms change."""
        first, *others = self.arms
        same = [arm.arm for arm in others if arm.config_hash == first.config_hash]
        if not is_baseline(first.arm):
            return first.arm
        return same[0] if same else _settings(first, others)

    @property
    def ranked(self) -> list[Verdict]:
        """The verdicts on arms that can be compared, the largest difference in score first."""
        known = [each for each in self.verdicts if not math.isnan(each.score.value)]
        return sorted(known, key=lambda verdict: -verdict.score.value)

    @property
    def summary(self) -> str:
        """The answer in a line: "helps: A, B; hurts: C; open: D, needs about 2 more seeds"."""
        quote = "“{}”" if any(set(each.arm) & set(",;:(") for each in self.verdicts) else "{}"
        parts = []
        unknown = [verdict for verdict in self.verdicts if math.isnan(verdict.score.value)]
        for word, title in TITLES.items():
            its = [verdict for verdict in (*self.ranked, *unknown) if verdict.word == word]
            if not its:
                continue
            if word == "no difference":
                title += f" > {max(verdict.farthest for verdict in its):.3f}"
            needs = _needs([each.needed for each in its if each.needed], len(its))
            names = (quote.format(each.arm) + each.remark for each in its)
            parts.append(f"{title}: {', '.join(names)}{needs}")
        return "; ".join(parts) or "nothing to compare"


# How a line of verdicts calls each word.
TITLES = {
    "helps": "helps",
    "hurts": "hurts",
    "no difference": "no difference",
    "not enough evidence": "open",
    "nothing to compare": "not evaluated yet",
}


def is_baseline(name: str) -> bool:
    """Whether an arm is called the baseline, which does not say what it is."""
    return name == BASELINE or name.startswith(f"{BASELINE} (")


def _settings(first: Arm, others: Sequence[Arm]) -> str:
    """Return the baseline's values of the settings that arms change, most often changed first."""
    if not first.group.trials:
        return first.arm
    own, fixed = first.group.trials[0], set(table_schemas.SCHEMAS["trials"].names)
    rows = [arm.group.trials[0] for arm in others if arm.group.trials]
    changed = Counter(
        name for row in rows for name in own if name not in fixed and row.get(name) != own[name]
    )
    names = [name for name, _ in changed.most_common(MOST_SETTINGS)]
    last = Counter(name.rpartition(".")[2] for name in names)
    parts = []
    for name in names:
        *_, section, short = name.split(".")
        shown = f"{own[name]:g}" if isinstance(own[name], float) else str(own[name]).lower()
        named = short if last[short] == 1 else f"{section}.{short}"
        parts.append(f"{named.replace('_', ' ')} {shown}")
    more = ["…"] if len(changed) > MOST_SETTINGS else []
    return ", ".join([*parts, *more]) or first.arm


def answers(
    sweep: Sweep,
    arms: Sequence[Arm] | None = None,
    *,
    rounds: Rounds | None = None,
    selection: bool = False,
) -> list[Answer]:
    """Return the answer to every question that is shown; of a search that of its confirmation.

    arms: all of the sweep, else its own. rounds: those to judge by, instead of the folder's.
    selection: judge the validation score, even where all arms have a test score.
    """
    found = sweep.every_arm if arms is None else arms
    asked = list(dict.fromkeys(arm.question for arm in found))
    if sweep.plan.get("search"):
        planned = {question.get("question") for question in sweep.plan.get("questions") or []}
        asked = [name for name in asked if name in planned]
    of_questions = [tuple(arm for arm in found if arm.question == name) for name in asked]
    looks, sides = (
        Looks(sweep, rounds),
        Sides(sweep, [a for of_one in of_questions for a in of_one]),
    )
    names = {arm.config_hash: arm.arm for arm in reversed(found)}
    result = []
    for name, of_question in zip(asked, of_questions, strict=True):
        if name in sweep.hidden:
            continue
        first, *rest = of_question
        others = [arm for arm in rest if arm.config_hash != first.config_hash]
        # Test scores if every arm has some: no checkpoint was selected on those starts.
        reported = not selection and all(
            episode_table.within(arm.group.episodes, REPORT_SEEDS).num_rows for arm in of_question
        )
        seeds = REPORT_SEEDS if reported else SELECT_SEEDS
        level = comparisons.shared_level(max(1, len(others)))
        bases = [looks.basis(arm, level) for arm in others]
        verdicts = tuple(
            _judge(arm.arm, *sides.of(arm, first, basis), seeds, basis)
            for arm, basis in zip(others, bases, strict=True)
        )
        newest = max((len(basis.trials or ()) for basis in bases), default=0)
        checks = [
            _check(verdict.paired, sides.pairing(basis), names)
            for verdict, basis in zip(verdicts, bases, strict=True)
            if len(basis.trials or ()) == newest
        ]
        check = tuple(dict.fromkeys(text for text in checks if text))
        result.append(Answer(name, first.text, of_question, verdicts, reported, check))
    how = looks.check([verdict.word for answer in result for verdict in answer.verdicts])
    return [replace(answer, check=(how, *answer.check)) if how else answer for answer in result]


def _judge(
    arm: str, group: Group, first: Group, pairing: Pairing, seeds: range, basis: Basis
) -> Verdict:
    pairs = (pairing.pair(group, first, column, seeds) for column in ("score", "success"))
    score, success = (pair if basis.limit is None else pair.limited(basis.limit) for pair in pairs)
    found, of_success = _judged(score, basis), _judged(success, basis)
    text, remark = found.text, ""
    if of_success.word not in (found.word, "not enough evidence", "nothing to compare"):
        text += f"; in success rate {of_success.text}"
        remark = f" (success rate: {of_success.word})"
    return Verdict(
        arm=arm,
        word=found.word,
        success_word=of_success.word,
        text=text,
        remark=remark,
        needed=found.needed,
        farthest=found.farthest,
        score=found.difference,
        success=of_success.difference,
        train_seeds=min(len(score.a.train_seeds), len(score.b.train_seeds)),
        n=len(score.a.env_seeds),
        paired=score,
        level=basis.level,
    )


@dataclass(frozen=True)
class _Judged:
    """A verdict in score or in success rate, as in `Verdict`."""

    difference: Estimate
    word: str
    text: str
    farthest: float = math.nan
    needed: Needed | None = None


def _judged(paired: Paired, basis: Basis) -> _Judged:
    level = basis.level
    found = paired.difference(level)
    if math.isnan(found.value):
        return _Judged(found, "nothing to compare", "not evaluated yet")
    if math.isnan(found.low):
        text = "only one start, which gives no interval"
        return _Judged(found, "not enough evidence", text)
    shown = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    have = min(len(paired.a.train_seeds), len(paired.b.train_seeds))
    if have < 2:
        text = f"not enough evidence: {shown} for these checkpoints only; train at least 3 seeds"
        return _Judged(found, "not enough evidence", text, needed=Needed(3 - have))
    if found.low > 0:
        return _Judged(found, "helps", f"helps: {shown}")
    if found.high < 0:
        return _Judged(found, "hurts", f"hurts: {shown}")
    # Two one-sided tests (Schuirmann 1987), each with the error rate of one end of the interval
    # at 2 level - 1: 90 % for 95 %.
    near = paired.difference(2 * level - 1)
    farthest = max(-near.low, near.high, 0.0)
    if farthest <= basis.small and found.n >= MIN_STARTS:
        text = f"no difference larger than {farthest:.3f}: {shown}"
        return _Judged(found, "no difference", text, farthest)
    needed = _needed(paired, found, have, basis)
    text = f"not enough evidence: {shown}; needs {needed}"
    return _Judged(found, "not enough evidence", text, needed=needed)


def _needed(paired: Paired, found: Estimate, have: int, basis: Basis) -> Needed:
    """Return what would decide a difference of which `have` training seeds leave open.

    Either its interval excludes 0, or the 90 % interval is within `basis.small`.
    """
    level = basis.level
    spread = comparisons.spread(paired.a.values, paired.b.values, paired.seeds, level)
    size, least = abs(found.value), max(found.n, MIN_STARTS)
    ways = [
        spread.needed(half_width, least, at)
        for half_width, at in ((size, level), (basis.small - size, 2 * level - 1))
        if half_width > 0
    ]
    known = [(starts, seeds) for seeds, starts in filter(None, ways)]
    if not known:
        return Needed(None)
    starts, seeds = min(known)
    if starts > found.n:
        return Needed(max(0, seeds - have), starts)
    return Needed(max(1, seeds - have))


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
