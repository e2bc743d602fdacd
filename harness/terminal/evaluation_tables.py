"""Evaluations and episodes as terminal tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.text import Text

from harness.config.protocol import STEPS_PER_SECOND, THRESHOLDS
from harness.core.text import one_line
from harness.stats import intervals, repeats
from harness.stats.betting import Decision, PairResult
from harness.stats.intervals import Estimate
from harness.terminal.formatting import (
    BAR_HEAD,
    WIDE,
    bar,
    difference,
    fitted,
    number,
    or_blank,
    percent,
    percent_of,
    plain,
    table,
)

_TIMED = {"inference": "policy_ms", "simulation": "env_ms", "rendering": "render_ms"}


@dataclass(frozen=True)
class TimeSpent:
    """Wall time in seconds, the number of workers, and how many episodes were run."""

    wall: float
    workers: int
    episodes: int


def evaluation(episodes: pa.Table, spent: TimeSpent, width: int) -> RenderableType:
    """Return the result of evaluating one policy: score, success by threshold, time."""
    return Group(summary(episodes, width), plain(_time(episodes, spent)))


def summary(episodes: pa.Table, width: int) -> RenderableType:
    """Return the scores of one policy's episodes, and what is to be said about them."""
    good = episodes.filter(pc.is_null(episodes["error"]))
    made = table("", "mean", "95 % interval", "n", right=("mean", "n"))
    if width >= WIDE:
        made.add_column(BAR_HEAD, no_wrap=True)

    def line(name: str, estimate: Estimate, share: bool) -> None:
        value, low, high = (
            "" if math.isnan(x) else percent_of(x, 1) if share else f"{x:.3f}"
            for x in (estimate.value, estimate.low, estimate.high)
        )
        style = "bold" if name in ("score", "success, coverage > 0.95") else ""
        cells = [Text(name, style), Text(value, style), Text(f"{low} to {high}" if low else "")]
        made.add_row(*cells, Text(str(estimate.n)), *([bar(estimate)] if width >= WIDE else []))

    line("score", _mean(good, good["score"]), share=False)
    for threshold in THRESHOLDS:
        above = pc.greater(good["max_coverage"], threshold)
        line(f"success, coverage > {threshold:.2f}", _mean(good, above), share=True)
    line("final coverage", _mean(good, good["final_coverage"]), share=False)
    fitted(made, width, (BAR_HEAD, "n"))
    remarks = [plain(text) for text in _remarks(good)]
    remarks += [plain(text, "red") for text in _failures(episodes)]
    noise = _noise(episodes)
    return Group(Text(""), made, Text(""), *noise, *remarks)


def _mean(good: pa.Table, values: pa.ChunkedArray) -> Estimate:
    """Return a mean over starts; several rollouts of a start count as their mean."""
    starts = np.unique(good["env_seed"].to_numpy(), return_inverse=True)[1]
    if not len(starts) or starts.max() + 1 == len(starts):
        if pa.types.is_boolean(values.type):
            return intervals.wilson(int(pc.sum(values).as_py() or 0), good.num_rows)
        return intervals.share_interval(values.to_numpy())
    numbers = values.cast("float64").to_numpy()
    return intervals.share_interval(np.bincount(starts, numbers) / np.bincount(starts))


def _noise(episodes: pa.Table) -> list[RenderableType]:
    """Return what repeated rollouts of the same starts show; nothing where there are none."""
    seeds = np.unique(episodes["env_seed"].to_numpy())
    count = episodes.num_rows // max(1, len(seeds))
    if count < 2:
        return []
    in_order = episodes.sort_by([("env_seed", "ascending"), ("repeat", "ascending")])
    good = pc.is_null(in_order["error"]).to_numpy(zero_copy_only=False).reshape(-1, count).all(1)
    score, success = (
        in_order[name].cast("float64").to_numpy().reshape(-1, count)[good]
        for name in ("score", "success")
    )
    if not len(score):
        return []
    made = table("of an episode's variance", "start's difficulty", "policy's noise")
    for name, values in (("score", score), ("success", success)):
        share = repeats.variance_split(values).share
        noise = Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)
        made.add_row(name, percent(share) or "nothing varies", percent(noise))
    passed = table("all of k rollouts succeed", "pass^k")
    for k in sorted({2**i for i in range(count.bit_length()) if 2**i <= count} | {count}):
        passed.add_row(f"k = {k}", percent(repeats.pass_all(success, k)))
    head = Text(f"{len(score)} starts, {count} rollouts of each:")
    return [head, made, Text(""), passed, Text("")]


def evaluations(
    results: Sequence[tuple[str, pa.Table]], spent: TimeSpent, width: int, *, arms: bool = False
) -> RenderableType:
    """Return the results of several policies on the same seeds, the highest score first.

    arms: the titles are arms; the trials of one are a row, over training seeds and starts.
    """
    of_title: dict[str, list[pa.Table]] = {}
    for title, episodes in results:
        of_title.setdefault(title, []).append(episodes)
    seeds = ["seeds"] if arms else []
    columns = ["arm" if arms else "policy", "score", "success", *seeds, "starts"]
    made = table(*columns, fold=columns[:1], right=("seeds", "starts"))
    rows = []
    remarks: list[Text] = []
    repeated: list[RenderableType] = []
    for title, parts in of_title.items():
        episodes = pa.concat_tables(parts)
        good = episodes.filter(pc.is_null(episodes["error"]))
        score, rate = (
            _crossed(good, name) if arms else _mean(good, good[name])
            for name in ("score", "success")
        )
        rows.append((score, title, rate, len(parts)))
        remarks += [plain(f"{title}: {text}", "red") for text in _failures(episodes)]
        if noise := [] if len(parts) > 1 else _noise(episodes):
            repeated += [plain(title, "bold"), *noise]
    rows.sort(key=lambda row: math.inf if math.isnan(row[0].value) else -row[0].value)
    for score, title, rate, count in rows:
        counts = [str(count)] if arms else []
        made.add_row(plain(title), number(score), percent(rate), *counts, str(score.n))
    fitted(made, width, ("starts", "seeds", "success"))
    note = "the best of several scores is biased upwards: evaluate that policy on other seeds"
    speed = _rate(spent, sum(episodes.num_rows for _, episodes in results))
    return Group(Text(""), made, Text(""), *repeated, plain(note), *remarks, plain(speed))


def _crossed(good: pa.Table, column: str) -> Estimate:
    """Return the mean over the training seeds of an arm and their common starts."""
    values = good.select(["train_seed", "env_seed"]).append_column(
        "value", good[column].cast("float64")
    )
    means = values.group_by(["train_seed", "env_seed"]).aggregate([("value", "mean")])
    columns = (means[name].to_numpy() for name in ("train_seed", "env_seed", "value_mean"))
    return intervals.share_interval(intervals.crossed(*columns).values)


def until_decided(
    titles: tuple[str, str], found: PairResult, most: int, spent: TimeSpent
) -> RenderableType:
    """Return the result of comparing two policies until decided, and the decision in a sentence.

    most: the number of starts that were allowed.
    """
    decision = found.decision
    made = table("", "policy", "score", fold=("policy",))
    for letter, title, score in zip("ab", titles, (found.score_a, found.score_b), strict=True):
        made.add_row(letter, plain(title), number(score))
    n = decision.starts
    lines = [
        Text(f"a - b in score: {difference(decision.difference, 3, 3) or 'unknown'}"),
        Text(f"a - b in success rate: {difference(found.success, 3, 3) or 'unknown'}"),
        Text("95 % intervals that hold at any time, so looking after each block costs nothing"),
        Text(""),
        Text(_sentence(titles, decision, found.delta, most), "bold"),
        Text(""),
    ]
    if found.rolled_out > n:
        lines.append(
            Text(f"both were rolled out on {found.rolled_out} starts; the first {n} decided")
        )
    if found.failed:
        text = f"{found.failed} starts are left out, as an episode failed there"
        lines.append(Text(text, "red"))
    if spent.episodes:
        lines.append(plain(_rate(spent, spent.episodes)))
    else:
        lines.append(Text("nothing to run: all episodes that decide are stored already"))
    return Group(Text(""), made, Text(""), *lines)


def _sentence(titles: tuple[str, str], decision: Decision, delta: float, most: int) -> str:
    names = [f"{letter} ({one_line(title)})" for letter, title in zip("ab", titles, strict=True)]
    if decision.verdict in ("higher", "lower"):
        better, worse = names if decision.verdict == "higher" else names[::-1]
        found = decision.difference
        low, high = sorted((abs(found.low), abs(found.high)))
        said = (
            f"{better} is better than {worse}, by {abs(found.value):.3f} [{low:.3f}, {high:.3f}] "
            "in score"
        )
    elif decision.verdict == "alike":
        said = f"{names[0]} and {names[1]} differ by less than {delta:g} in score"
    else:
        said = f"Not decided: which of {names[0]} and {names[1]} is better"
    return f"{said}, after {decision.starts} of at most {most} starts."


def _remarks(good: pa.Table) -> list[str]:
    if good.num_rows == 0:
        return []
    length = pc.mean(good["length"]).as_py()
    idle = pc.mean(good["idle_share"]).as_py()
    jerk = pc.mean(good["action_jerk"]).as_py()
    text = f"episodes of {length:.0f} steps on average"
    if idle is not None:
        text += f", {percent_of(idle)} of them idle"
    if jerk is not None:
        text += f"; action jerk {jerk:.1f} px"
    steps = pc.sum(good["length"]).as_py()
    if steps:
        text += f"; inference {pc.sum(good['policy_ms']).as_py() / steps:.2f} ms an action"
    delay = good["execute_delay"][0].as_py()
    if delay:
        text += f", executed {delay} steps ({delay / STEPS_PER_SECOND:g} s) after the observation"
    solved = pc.sum(good["success_at_reset"]).as_py()
    return [text, f"starts already solved at reset: {solved}"] if solved else [text]


def _failures(episodes: pa.Table) -> list[str]:
    failed = episodes.filter(pc.is_valid(episodes["error"]))
    if failed.num_rows == 0:
        return []
    seed, error = failed["env_seed"][0].as_py(), failed["error"][0].as_py()
    return [
        f"{failed.num_rows} of {episodes.num_rows} episodes failed and are not counted above; "
        f"the first, seed {seed}: {error}"
    ]


def _time(episodes: pa.Table, spent: TimeSpent) -> str:
    text = _rate(spent, episodes.num_rows)
    if spent.episodes == 0:
        return text
    if spent.episodes < episodes.num_rows:
        return f"{text}; {episodes.num_rows - spent.episodes} were stored already"
    total = spent.wall * spent.workers * 1e3
    shares = {
        name: (pc.sum(episodes[column]).as_py() or 0.0) / total for name, column in _TIMED.items()
    }
    shares["start-up and idle"] = max(0.0, 1 - sum(shares.values()))
    return f"{text}: {', '.join(f'{name} {percent_of(x)}' for name, x in shares.items())}"


def _rate(spent: TimeSpent, total: int) -> str:
    if spent.episodes == 0:
        return f"nothing to run: all {total} episodes are stored already"
    return (
        f"{spent.episodes} episodes in {spent.wall:.1f} s on {spent.workers} "
        f"worker{'s' if spent.workers > 1 else ''}, {spent.episodes / spent.wall:.1f} per second"
    )


def episodes(content: pa.Table, width: int) -> RenderableType:
    """Return a line for each episode."""
    columns = ["trial", "seed", "score", "coverage", "final", "success", "steps", "idle", "jerk"]
    if width >= WIDE:
        columns += ["step", "inference ms", "simulation ms", "protocol"]
    columns += ["error"]
    right = [name for name in columns if name not in ("trial", "error")]
    made = table(*columns, right=right, fold=("error",))
    made.columns[0].max_width = 24 if width >= WIDE else 10
    for row in content.to_pylist():
        seed = "" if row["train_seed"] is None else f"-s{row['train_seed']}"
        cells: dict[str, RenderableType] = {
            "trial": plain(f"{(row['config_hash'] or '')[: 24 if width >= WIDE else 6]}{seed}"),
            "step": or_blank(row["checkpoint_step"], "d"),
            "seed": str(row["env_seed"]),
            "score": or_blank(row["score"], ".3f"),
            "coverage": or_blank(row["max_coverage"], ".3f"),
            "final": or_blank(row["final_coverage"], ".3f"),
            "success": {True: "yes", False: "no", None: ""}[row["success"]],
            "steps": or_blank(row["length"], "d"),
            "idle": or_blank(row["idle_share"], ".0%").replace("%", " %"),
            "jerk": or_blank(row["action_jerk"], ".1f"),
            "inference ms": or_blank(row["policy_ms"], ".0f"),
            "simulation ms": or_blank(row["env_ms"], ".0f"),
            "protocol": plain(row["protocol_hash"] or ""),
            "error": plain(row["error"] or "", "red"),
        }
        made.add_row(*(cells[name] for name in columns))
    drop = ("protocol", "simulation ms", "inference ms", "step", "jerk", "idle", "final")
    return fitted(made, width, (*drop, "coverage", "steps", "error", "success"))
