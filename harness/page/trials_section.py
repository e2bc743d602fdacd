"""The table of all trials, sortable and filterable, and what went wrong in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.analysis.sweep_results import arm_name, issues, of_row
from harness.core import command_lines, paths
from harness.core.errors import UserError
from harness.core.text import duration, one_line, plural
from harness.page.elements import Element, Node, el, head, note, scrolling, short, table
from harness.page.labels import estimate, state
from harness.page.page_data import PageData
from harness.page.svg_plots import compact
from harness.stats.intervals import Estimate
from harness.storage import json_schemas, table_schemas

Trial = Mapping[str, Any]
MAX_ROWS = 1000
MAX_SETTINGS = 24
MAX_ERRORS = 20


def section(data: PageData) -> Element:
    """Return a row for each trial, the highest validation score first, with its settings."""
    rows = sorted(data.sweep.trials, key=_rank)
    settings = differing(rows)
    shown = settings[:MAX_SETTINGS]
    tested = any(row["report_score"] is not None for row in rows)
    numbers = ["validation", *(["test", "test success"] if tested else []), "step", "time"]
    heads = [
        *(head(name) for name in ("trial", "arm", "seed", "status")),
        *(head(name, "number") for name in numbers),
        head("health"),
        *(head(name.removeprefix("policy."), "setting") for name in shown),
    ]
    body = [el("tr", *_cells(row, shown, tested=tested)) for row in rows[:MAX_ROWS]]
    notes = [
        "Scores are means over starts with 95 % intervals for this checkpoint. The columns on the "
        "right, not printed, are the settings that differ between trials."
    ]
    if len(rows) > MAX_ROWS:
        words = ("trials", data.folder.name, "--limit", 0)
        line = command_lines.line("results", *words, results=data.folder.parent)
        notes.append(
            f"These are the {MAX_ROWS:,} best of {len(rows):,} trials; `{line}` lists them all."
        )
    if len(settings) > len(shown):
        notes.append(f"{len(settings) - len(shown)} more settings differ and are not shown.")
    caption = el("caption", "All trials", class_="unseen")
    grid = table(heads, body, caption, class_="trials", id="trial-table")
    return el(
        "section",
        el("h2", "Trials"),
        el(
            "p",
            el("label", "Filter ", for_="filter"),
            el("input", id="filter", type="search", placeholder="filter (all words must match)"),
            el("span", plural(len(body), "trial"), id="count", role="status", aria_live="polite"),
            class_="tools scripted",
        ),
        scrolling(grid, "Table of trials"),
        note(" ".join(notes)),
        id="trials",
    )


def _rank(row: Trial) -> tuple[float, str]:
    score = row["select_score"]
    return (-score if score is not None and score == score else 1.0), str(row["trial"])


def differing(rows: Sequence[Trial]) -> list[str]:
    """Return the settings that are not the same in all trials, in the config's order."""
    fixed = set(table_schemas.SCHEMAS["trials"].names)
    names = [name for name in (rows[0] if rows else ()) if name not in fixed]
    return [name for name in names if len({row.get(name) for row in rows}) > 1]


def _cells(row: Trial, settings: Sequence[str], *, tested: bool) -> list[Element]:
    cells = [
        el("th", short(row["trial"], 30), scope="row", class_="mono"),
        _text(arm_name(row) or "–"),
        _number(row["train_seed"], row["train_seed"]),
        el("td", state(row["status"])),
        _score(of_row(row, "select_score")),
    ]
    if tested:
        cells.append(_score(of_row(row, "report_score")))
        cells.append(_score(of_row(row, "report_success_rate"), percent=True))
    seconds, step = row["train_seconds"], row["step"]
    cells.append(_number(step, "" if step is None else f"{step:,}"))
    cells.append(_number(seconds, "" if seconds is None else duration(seconds)))
    if row["status"] == "failed" and row["error"]:
        cells.append(_text(one_line(row["error"]), "failed"))
    else:
        cells.append(_text(row["health"] or "", "" if row["health"] == "ok" else "issue"))
    return [*cells, *(_setting(row.get(name)) for name in settings)]


def _score(found: Estimate, *, percent: bool = False) -> Element:
    if not np.isfinite(found.value):
        return _number(None, "")
    n = f"n = {found.n:,}"
    content = [*estimate(found, percent=percent), el("small", n)]
    return el("td", *content, class_="number", data_v=f"{found.value:.6g}", title=n)


def _number(value: object, text: object, kind: str = "") -> Element:
    shown = "" if value is None else value
    return el("td", str(text), class_=f"number{kind}", data_v=shown)


def _text(text: str, kind: str = "") -> Element:
    cut = short(text, 90)
    return el("td", cut, class_=kind or None, title=short(text, 400) if cut != text else None)


def _setting(value: object) -> Element:
    if isinstance(value, bool) or value is None:
        return el("td", "–" if value is None else str(value).lower(), class_="setting")
    if isinstance(value, int | float):
        return _number(value, compact(float(value)), " setting")
    return el("td", short(str(value), 40), class_="setting")


def health(data: PageData) -> Element:
    """Return the issues that were found, with evidence and fix, and the errors of failed trials."""
    examined = [row for row in data.sweep.trials if row["health"] is not None]
    by_name: dict[str, list[Trial]] = defaultdict(list)
    for row in examined:
        for issue in issues(row):
            by_name[issue].append(row)
    body: list[Node] = [el("h2", "Health")]
    known = plural(len(examined), "examined trial")
    if by_name:
        entries = sorted(by_name.items(), key=lambda item: -len(item[1]))
        body.append(el("p", f"Of {known}:"))
        body.append(el("dl", *(n for name, rows in entries for n in _issue(data, name, rows))))
    else:
        text = f"No issue was found in {known}." if examined else "No trial was examined yet."
        body.append(el("p", text))
    failed = [row for row in data.sweep.trials if row["status"] == "failed"]
    if failed:
        lines = []
        for row in failed[:MAX_ERRORS]:
            name = el("span", short(arm_name(row) or row["trial"], 80))
            error = el("span", short(one_line(row["error"] or "unknown error"), 300))
            lines.append(el("li", name, ": ", error))
        if len(failed) > MAX_ERRORS:
            lines.append(el("li", f"and {len(failed) - MAX_ERRORS:,} more, see the table"))
        body.append(el("h3", plural(len(failed), "failed trial")))
        body.append(el("ul", *lines, class_="errors"))
    return el("section", *body, id="health")


def _issue(data: PageData, name: str, rows: Sequence[Trial]) -> list[Element]:
    arms = list(dict.fromkeys(arm_name(row) or row["trial"] for row in rows))
    where = "; ".join(short(arm, 60) for arm in arms[:4])
    more = f" and {len(arms) - 4} more" if len(arms) > 4 else ""
    found = _finding(data, name, rows[0])
    details: list[Node] = [el("p", f"{plural(len(rows), 'trial')}: {where}{more}")]
    for key, label in (("evidence", "Evidence"), ("mend", "Fix")):
        if key in found:
            details.append(el("p", el("strong", f"{label}: "), short(found[key], 600)))
    return [el("dt", f"⚠ {short(name, 120)}"), el("dd", *details)]


def _finding(data: PageData, name: str, row: Trial) -> Mapping[str, Any]:
    """Return an issue's entry in a trial's health.json; {} where there is none."""
    try:
        # The name is untrusted too: it must not lead out of the folder.
        trial = paths.check_name(row["trial"], "a trial's name")
    except UserError:
        return {}
    findings = json_schemas.read_or(data.folder / "trials" / trial / "health.json", [])
    return next((finding for finding in findings if finding["name"] == name), {})
