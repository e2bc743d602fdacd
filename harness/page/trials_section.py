"""The table of all trials, sortable and filterable, and what went wrong in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.analysis.sweep_results import arm_name, of_row
from harness.core import files, paths
from harness.core.text import duration, one_line
from harness.page.elements import Element, Node, el, short
from harness.page.labels import estimate, plural, state
from harness.page.page_data import Material
from harness.page.svg_plots import compact
from harness.storage import table_schemas

Trial = Mapping[str, Any]
MOST_ROWS = 1000
MOST_SETTINGS = 24
MOST_ERRORS = 20


def section(material: Material) -> Element:
    """Return a row for each trial, the highest selection score first; settings that differ."""
    rows = sorted(material.sweep.trials, key=_order)
    settings = differing(rows)
    shown = settings[:MOST_SETTINGS]
    evaluated = any(row["report_score"] is not None for row in rows)
    reported = ("report", "report success") if evaluated else ()
    heads = [
        *(_head(name) for name in ("trial", "arm", "seed", "status")),
        *(_head(name, kind="number") for name in ("selection", *reported, "step", "time")),
        _head("health"),
        *(_head(name.removeprefix("policy."), kind="setting") for name in shown),
    ]
    body = [el("tr", *_cells(row, shown, evaluated=evaluated)) for row in rows[:MOST_ROWS]]
    notes = [
        "Scores are means over starts with 95 % intervals of this checkpoint, n behind them; "
        "columns on the right, not printed, are the settings in which trials differ."
    ]
    if len(rows) > MOST_ROWS:
        notes.append(
            f"The {MOST_ROWS:,} best of {len(rows):,} trials; `python -m harness.results trials "
            f"{material.folder.name}` lists them all."
        )
    if len(settings) > len(shown):
        notes.append(f"{len(settings) - len(shown)} more settings differ and are left out.")
    table = el(
        "table",
        el("caption", "All trials", class_="unseen"),
        el("thead", el("tr", *heads)),
        el("tbody", *body),
        class_="trials",
        id="trial-table",
    )
    return el(
        "section",
        el("h2", "Trials"),
        el(
            "p",
            el("label", "Filter ", for_="filter"),
            el("input", id="filter", type="search", placeholder="words, all of which must occur"),
            el("span", plural(len(body), "trial"), id="count", role="status", aria_live="polite"),
            class_="tools scripted",
        ),
        el("div", table, class_="scroll", tabindex=0, role="region", aria_label="Table of trials"),
        el("p", " ".join(notes), class_="note"),
        id="trials",
    )


def _order(row: Trial) -> tuple[float, str]:
    score = row["select_score"]
    return (-score if score is not None and score == score else 1.0), str(row["trial"])


def differing(rows: Sequence[Trial]) -> list[str]:
    """Return the config's settings that are not the same in all trials, in the config's order."""
    if not rows:
        return []
    fixed = set(table_schemas.SCHEMAS["trials"].names)
    return [
        name for name in rows[0] if name not in fixed and len({row.get(name) for row in rows}) > 1
    ]


def _head(name: str, *, kind: str | None = None) -> Element:
    return el("th", name, scope="col", class_=kind)


def _cells(row: Trial, settings: Sequence[str], *, evaluated: bool) -> list[Element]:
    reported = []
    if evaluated:
        reported.append(_scored(of_row(row, "report_score")))
        reported.append(_scored(of_row(row, "report_success_rate"), percent=True))
    seconds, step = row["train_seconds"], row["step"]
    error = row["error"] if row["status"] == "failed" else None
    ill = row["health"] or ""
    return [
        el("th", short(str(row["trial"]), 30), scope="row", class_="mono"),
        _text(arm_name(row) or "–"),
        _plain(row["train_seed"], row["train_seed"]),
        el("td", state(str(row["status"]))),
        _scored(of_row(row, "select_score")),
        *reported,
        _plain(step, "" if step is None else f"{step:,}"),
        _plain(seconds, "" if seconds is None else duration(seconds)),
        _text(
            one_line(error) if error else ill, "failed" if error else "" if ill == "ok" else "ill"
        ),
        *(_setting(row.get(name)) for name in settings),
    ]


def _scored(found: Any, *, percent: bool = False) -> Element:
    known = np.isfinite(found.value)
    title = f"n = {found.n:,}" if known else None
    value = f"{found.value:.6g}" if known else ""
    return el(
        "td",
        *(estimate(found, percent=percent) if known else []),
        *([el("small", f"n = {found.n:,}")] if known else []),
        class_="number",
        data_v=value,
        title=title,
    )


def _plain(value: object, text: object) -> Element:
    return el("td", str(text), class_="number", data_v="" if value is None else value)


def _text(text: str, kind: str = "") -> Element:
    cut = short(text, 90)
    return el("td", cut, class_=kind or None, title=short(text, 400) if cut != text else None)


def _setting(value: object) -> Element:
    if isinstance(value, bool) or value is None:
        return el("td", "–" if value is None else str(value).lower(), class_="setting")
    if isinstance(value, int | float):
        return el("td", compact(float(value)), class_="number setting", data_v=value)
    return el("td", short(str(value), 40), class_="setting")


def health(material: Material) -> Element:
    """Return which illnesses were found where, what was seen and what mends it; and errors."""
    named: dict[str, list[Trial]] = defaultdict(list)
    known = 0
    for row in material.sweep.trials:
        if row["health"] is not None:
            known += 1
            for name in str(row["health"]).split(", "):
                if name != "ok":
                    named[name].append(row)
    failed = [row for row in material.sweep.trials if row["status"] == "failed"]
    body: list[Node] = [el("h2", "Health")]
    if not named:
        words = f"No illness was found in {plural(known, 'examined trial')}."
        body.append(el("p", words if known else "No trial has been examined yet."))
    else:
        body.append(el("p", f"Of {plural(known, 'examined trial')}:"))
        entries = sorted(named.items(), key=lambda item: -len(item[1]))
        body.append(
            el("dl", *(n for name, rows in entries for n in _illness(material, name, rows)))
        )
    if failed:
        body.append(el("h3", f"{plural(len(failed), 'failed trial')}"))
        lines = [
            el(
                "li",
                el("span", short(arm_name(row) or str(row["trial"]), 80)),
                ": ",
                el("span", short(one_line(row["error"] or "no reason was written"), 300)),
            )
            for row in failed[:MOST_ERRORS]
        ]
        if len(failed) > MOST_ERRORS:
            lines.append(el("li", f"and {len(failed) - MOST_ERRORS:,} more, see the table"))
        body.append(el("ul", *lines, class_="errors"))
    return el("section", *body, id="health")


def _illness(material: Material, name: str, rows: Sequence[Trial]) -> list[Element]:
    arms = list(dict.fromkeys(arm_name(row) or str(row["trial"]) for row in rows))
    where = "; ".join(short(arm, 60) for arm in arms[:4])
    more = f" and {len(arms) - 4} more" if len(arms) > 4 else ""
    found = _finding(material, name, rows[0])
    details: list[Node] = [el("p", f"{plural(len(rows), 'trial')}: {where}{more}")]
    for key, label in (("evidence", "Seen"), ("mend", "What mends it")):
        if isinstance(found.get(key), str):
            details.append(el("p", el("strong", f"{label}: "), short(found[key], 600)))
    return [el("dt", f"⚠ {short(name, 120)}"), el("dd", *details)]


def _finding(material: Material, name: str, row: Trial) -> Mapping[str, Any]:
    """Return what a trial's health.json says of an illness; {} where it no longer can be read."""
    try:
        # The name is a stranger's word as well: it must not lead out of the folder.
        trial = paths.check_name(str(row["trial"]), "a trial's name")
        content = files.read_json(material.folder / "trials" / trial / "health.json")
    except (OSError, ValueError):
        return {}  # the name stands in the table; only the explanation is missing
    for finding in content if isinstance(content, list) else []:
        if isinstance(finding, dict) and finding.get("name") == name:
            return finding
    return {}
