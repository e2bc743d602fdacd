"""Where a sweep's numbers come from: code, data, machine, protocol, and how to get them again."""

import json
import shlex
import time
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from harness.config.protocol import Protocol
from harness.page.elements import Element, Node, el, short
from harness.page.page_data import Material

MOST_VALUES = 6


def section(material: Material) -> Element:
    """Return the provenance of a sweep as terms with what is known of them."""
    plan, trials = material.sweep.plan, material.sweep.trials
    data, told = (_mapping(plan.get(name)) for name in ("dataset", "provenance"))
    revisions = {
        f"{row['git_revision']}{' with uncommitted changes' if row['git_dirty'] else ''}"
        for row in trials
        if row["git_revision"]
    }
    versions = [row["versions"] for row in trials if row["versions"]]
    found: list[tuple[str, list[str]]] = [
        ("code", _several(revisions or {str(told.get("git_revision") or "")})),
        ("uncommitted changes", _dirty(trials, told)),
        ("demonstrations", _several({_words(data, "kind", "path")})),
        ("their fingerprint", _several({str(data.get("fingerprint") or "")})),
        ("machine", _several({row["device"] for row in trials if row["device"]})),
        ("versions", _versions(versions or [json.dumps(told.get("versions") or {})])),
        ("protocol", _protocols(material)),
        ("search space", _several({str(plan.get("space") or "")})),
        ("budget", _several({str(plan.get("budget") or "")})),
        ("planned", [_date(plan.get("written"))] if plan.get("written") else []),
    ]
    entries: list[Node] = []
    for name, values in found:
        if values:
            entries += [el("dt", name), el("dd", *(el("p", short(v, 300)) for v in values))]
    body: list[Node] = [el("h2", "Where this comes from"), el("dl", *entries, class_="origin")]
    command = reproduce(plan, material.folder.name)
    if command:
        body += [el("h3", "Run it again"), el("pre", el("code", command))]
    if material.sweep.best() is not None:
        words = ["python", "run_eval.py", "--ckpt", "best", "--sweep", material.folder.name]
        evaluate = shlex.join([*words, "--seeds", "500"])
        body += [el("h3", "Evaluate its best trial"), el("pre", el("code", evaluate))]
    return el("section", *body, id="origin")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def reproduce(plan: Mapping[str, Any], name: str) -> str | None:
    """Return the command that plans and runs the same sweep; None where the plan is missing."""
    space = plan.get("space")
    if not isinstance(space, str):
        return None
    words = ["python", "run_sweep.py", space]
    if plan.get("budget"):
        words += ["--budget", str(plan["budget"])]
    words += ["--name", name]
    data = plan.get("dataset")
    if isinstance(data, Mapping) and data.get("kind") == "given":
        words += ["--data", str(data.get("path"))]
    return shlex.join(words)


def _several(values: Iterable[str]) -> list[str]:
    found = sorted({str(value) for value in values if value})
    more = [f"and {len(found) - MOST_VALUES} more"] if len(found) > MOST_VALUES else []
    return [*found[:MOST_VALUES], *more]


def _words(content: Mapping[str, Any], *keys: str) -> str:
    return ": ".join(str(content[key]) for key in keys if content.get(key))


def _dirty(trials: list[dict[str, Any]], told: Mapping[str, Any]) -> list[str]:
    known = {row["git_dirty"] for row in trials if row["git_dirty"] is not None}
    known = known or {told["git_dirty"]} if isinstance(told.get("git_dirty"), bool) else known
    if not known:
        return []
    return ["in some trials" if len(known) > 1 else "yes" if known.pop() else "none"]


def _versions(texts: list[str]) -> list[str]:
    """Return "python 3.11, torch 2.13"; of several machines each that differs."""
    found = []
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError:
            content = {}
        if isinstance(content, dict) and content:
            found.append(", ".join(f"{name} {value}" for name, value in content.items()))
    return _several(found)


def _protocols(material: Material) -> list[str]:
    hashes: set[str] = set()
    for group in {arm.config_hash: arm.group for arm in material.arms}.values():
        hashes |= set(pc.unique(group.episodes["protocol_hash"]).to_pylist())
    usual = Protocol()
    return _several(
        f"{name}: {usual.describe()}" if name == usual.hash else name for name in hashes if name
    )


def _date(seconds: object) -> str:
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
