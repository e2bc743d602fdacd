"""Provenance: code, data, machine, protocol of a sweep's numbers, and how to reproduce them."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.config.protocol import Protocol
from harness.core import command_lines
from harness.core.paths import JOINED
from harness.page.elements import Element, Node, el, short
from harness.page.page_data import PageData

MAX_VALUES = 6


def section(data: PageData) -> Element:
    """Return the provenance of a sweep as a list of terms and values."""
    plan, trials = data.sweep.plan, data.sweep.trials
    dataset, planned = plan.get("dataset") or {}, plan.get("provenance") or {}
    revisions = {
        f"{row['git_revision']}{' with uncommitted changes' if row['git_dirty'] else ''}"
        for row in trials
        if row["git_revision"]
    }
    versions = [row["versions"] for row in trials if row["versions"]]
    dirty = {row["git_dirty"] for row in trials} - {None} or {planned.get("git_dirty")} - {None}
    state = "in some trials" if len(dirty) > 1 else "yes" if True in dirty else "none"
    found: list[tuple[str, list[str]]] = [
        ("code", _several(revisions or {planned.get("git_revision")})),
        ("uncommitted changes", [state] if dirty else []),
        ("data set", [f"{dataset.get('kind')}: {dataset.get('path')}"] if dataset else []),
        ("data set hash", _several({dataset.get("fingerprint")})),
        ("machine", _several({row["device"] for row in trials})),
        ("versions", _versions(versions or [json.dumps(planned.get("versions") or {})])),
        ("protocol", _protocols(data)),
        ("search space", _several({plan.get("space")})),
        ("budget", _several({plan.get("budget")})),
        ("planned", _several({_date(plan.get("written"))})),
    ]
    entries: list[Node] = []
    for name, values in found:
        if values:
            entries += [el("dt", name), el("dd", *(el("p", short(v, 300)) for v in values))]
    body: list[Node] = [el("h2", "Provenance"), el("dl", *entries, class_="provenance")]
    command = reproduce(plan, data.folder)
    if command:
        body += [el("h3", "Reproduce this sweep"), el("pre", el("code", command))]
    if data.sweep.best() is not None:
        evaluate = command_lines.evaluate_best(data.folder)
        body += [el("h3", "Evaluate its best trial"), el("pre", el("code", evaluate))]
    return el("section", *body, id="provenance")


def reproduce(plan: Mapping[str, Any], sweep: Path) -> str | None:
    """Return the command that plans and runs a sweep again; None where its plan is missing."""
    if not plan.get("space"):
        return None
    words = [plan["space"]]
    if plan.get("budget"):
        words += ["--budget", plan["budget"]]
    words += ["--name", sweep.name]
    if rounds := plan.get("until_verdict"):
        seeds = ",".join(map(str, plan["train_seeds"]))
        words += ["--until-verdict", "--delta", f"{rounds['delta']:g}", "--train-seeds", seeds]
    data = plan.get("dataset") or {}
    if data.get("kind") == "given":
        for path in data["path"].split(JOINED):
            words += ["--data", path]
    return command_lines.line("sweep", *words, results=sweep.parent)


def _several(values: Iterable[object]) -> list[str]:
    found = sorted({str(value) for value in values if value})
    more = [f"and {len(found) - MAX_VALUES} more"] if len(found) > MAX_VALUES else []
    return [*found[:MAX_VALUES], *more]


def _versions(texts: list[str]) -> list[str]:
    """Return "python 3.11, torch 2.13" for each different set of versions."""
    found = []
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError:
            content = {}
        if isinstance(content, dict) and content:
            found.append(", ".join(f"{name} {value}" for name, value in content.items()))
    return _several(found)


def _protocols(data: PageData) -> list[str]:
    hashes = {
        name
        for arm in data.arms
        for name in pc.unique(arm.group.episodes["protocol_hash"]).to_pylist()
    }
    default = Protocol()
    return _several(
        f"{name}: {default.describe()}" if name == default.hash else name for name in hashes
    )


def _date(seconds: float | None) -> str:
    if seconds is None or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
