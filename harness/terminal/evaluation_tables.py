"""Evaluations and episodes as terminal tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.text import Text

from harness.config.protocol import THRESHOLDS
from harness.stats import intervals
from harness.stats.intervals import Estimate
from harness.terminal.formatting import (
    BAR_HEAD,
    WIDE,
    bar,
    number,
    percent,
    percent_of,
    plain,
    table,
)

_SPLIT = {"inference": "policy_ms", "world": "env_ms", "rendering": "render_ms"}


@dataclass(frozen=True)
class TimeSpent:
    """Wall time of a run in seconds, on how many workers, for how many fresh episodes."""

    wall: float
    workers: int
    episodes: int


def evaluation(episodes: pa.Table, spent: TimeSpent, width: int) -> RenderableType:
    """Return the result of evaluating one policy: score, success by threshold, time."""
    good = episodes.filter(pc.is_null(episodes["error"]))
    n = good.num_rows
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

    line("score", intervals.share_interval(good["score"].to_numpy()), share=False)
    for threshold in THRESHOLDS:
        k = int(pc.sum(pc.greater(good["max_coverage"], threshold)).as_py() or 0)
        line(f"success, coverage > {threshold:.2f}", intervals.wilson(k, n), share=True)
    line("final coverage", intervals.share_interval(good["final_coverage"].to_numpy()), share=False)
    parts: list[RenderableType] = [Text(""), made, Text("")]
    parts += [plain(text) for text in _remarks(good)]
    parts += [plain(text, "red") for text in _failures(episodes)]
    parts.append(plain(_time(episodes, spent)))
    return Group(*parts)


def evaluations(results: Sequence[tuple[str, pa.Table]], spent: TimeSpent) -> RenderableType:
    """Return the results of several policies on the same seeds: a row each, the best first."""
    made = table("policy", "score", "success", "n", fold=("policy",), right=("n",))
    rows = []
    remarks: list[RenderableType] = []
    for title, episodes in results:
        good = episodes.filter(pc.is_null(episodes["error"]))
        score = intervals.share_interval(good["score"].to_numpy())
        k = int(pc.sum(good["success"]).as_py() or 0)
        rows.append((score, title, intervals.wilson(k, good.num_rows)))
        remarks += [plain(f"{title}: {text}", "red") for text in _failures(episodes)]
    for score, title, rate in sorted(rows, key=lambda row: _last_if_nan(row[0].value)):
        made.add_row(plain(title), number(score), percent(rate), str(score.n))
    note = "chosen here, the best row's score is too high: evaluate it alone on other seeds"
    parts: list[RenderableType] = [Text(""), made, Text(""), plain(note), *remarks]
    total = sum(episodes.num_rows for _, episodes in results)
    if spent.episodes == 0:
        parts.append(plain(f"nothing was run: all {total} episodes were stored already"))
    else:
        parts.append(plain(_rate(spent)))
    return Group(*parts)


def _last_if_nan(score: float) -> float:
    return math.inf if math.isnan(score) else -score


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
    solved = pc.sum(good["success_at_reset"]).as_py()
    return [text, f"starts solved before the first step: {solved}"] if solved else [text]


def _failures(episodes: pa.Table) -> list[str]:
    failed = episodes.filter(pc.is_valid(episodes["error"]))
    if failed.num_rows == 0:
        return []
    seed, error = failed["env_seed"][0].as_py(), failed["error"][0].as_py()
    return [
        f"{failed.num_rows} of {episodes.num_rows} episodes failed and are in no number above; "
        f"the first, seed {seed}: {error}"
    ]


def _time(episodes: pa.Table, spent: TimeSpent) -> str:
    if spent.episodes == 0:
        return f"nothing was run: all {episodes.num_rows} episodes were stored already"
    text = _rate(spent)
    if spent.episodes < episodes.num_rows:
        return text + f"; {episodes.num_rows - spent.episodes} were stored already"
    total = spent.wall * spent.workers * 1e3
    spent_ms = {name: pc.sum(episodes[column]).as_py() or 0.0 for name, column in _SPLIT.items()}
    shares = {name: milliseconds / total for name, milliseconds in spent_ms.items()}
    rest = max(0.0, 1 - sum(shares.values()))
    split = ", ".join(f"{name} {percent_of(share)}" for name, share in shares.items())
    return f"{text}: {split}, start and waiting {percent_of(rest)}"


def _rate(spent: TimeSpent) -> str:
    return (
        f"{spent.episodes} episodes in {spent.wall:.1f} s on {spent.workers} "
        f"worker{'s' if spent.workers > 1 else ''}, {spent.episodes / spent.wall:.1f} a second"
    )


def episodes(content: pa.Table, width: int) -> RenderableType:
    """Return a line for each episode."""
    columns = ["trial", "seed", "score", "coverage", "final", "success", "steps", "idle", "jerk"]
    if width >= WIDE:
        columns += ["step", "inference ms", "world ms", "protocol"]
    columns += ["error"]
    right = [name for name in columns if name not in ("trial", "error")]
    made = table(*columns, right=right, fold=("error",))
    made.columns[0].max_width = 24 if width >= WIDE else 10
    for row in content.to_pylist():
        seed = "" if row["train_seed"] is None else f"-s{row['train_seed']}"
        cells = {
            "trial": plain(f"{(row['config_hash'] or '')[: 24 if width >= WIDE else 6]}{seed}"),
            "step": plain(_or_blank(row["checkpoint_step"], "d")),
            "seed": plain(row["env_seed"]),
            "score": plain(_or_blank(row["score"], ".3f")),
            "coverage": plain(_or_blank(row["max_coverage"], ".3f")),
            "final": plain(_or_blank(row["final_coverage"], ".3f")),
            "success": plain({True: "yes", False: "no", None: ""}[row["success"]]),
            "steps": plain(_or_blank(row["length"], "d")),
            "idle": plain(_or_blank(row["idle_share"], ".0%").replace("%", " %")),
            "jerk": plain(_or_blank(row["action_jerk"], ".1f")),
            "inference ms": plain(_or_blank(row["policy_ms"], ".0f")),
            "world ms": plain(_or_blank(row["env_ms"], ".0f")),
            "protocol": plain(row["protocol_hash"] or ""),
            "error": plain(row["error"] or "", "red"),
        }
        made.add_row(*(cells[name] for name in columns))
    return made


def _or_blank(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
