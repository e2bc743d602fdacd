"""The whole page: its head with the answers, its sections, and the rules a browser holds it to."""

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from harness.analysis import verdicts
from harness.analysis.sweep_results import Arm, arm_name, of_row
from harness.analysis.verdicts import Answer
from harness.core import files
from harness.core.errors import UserError
from harness.page import (
    gallery_section,
    provenance_section,
    question_section,
    search_section,
    trials_section,
)
from harness.page.elements import Element, Node, Own, el, render, short
from harness.page.labels import VERDICTS, counted, inline, plural
from harness.page.page_data import Material

NAME = "report.html"


def write(sweep_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep, finished or running, atomically; return its path.

    out: another place than report.html in the sweep's folder. UserError when there is no such
    folder or the file cannot be written.
    """
    if not sweep_dir.is_dir():
        raise UserError(f"a sweep's results are a folder, and {sweep_dir} is not one")
    path = sweep_dir / NAME if out is None else out
    content = page(Material(sweep_dir)).encode("utf-8", "backslashreplace")
    try:
        with files.atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"a page needs a file that can be written: {error}") from error
    return path


def page(material: Material) -> str:
    """Return the page's HTML."""
    questions = _questions(material)
    body: list[Node] = [
        el("a", "Skip to the answers", href="#answers", class_="skip"),
        _head(material),
        el("main", *_main(material, questions)),
        el(
            "footer",
            el(
                "p",
                f"Written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} from the "
                f"sweep's tables; needs no network.",
            ),
        ),
    ]
    css, script = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{short(material.folder.name, 80)}: report"),
        el("style", css),
    )
    document = el("html", head, el("body", *body, el("script", script)), lang="en")
    return f"<!DOCTYPE html>\n{render(document)}\n"


def _own(name: str) -> Own:
    return Own(resources.files("harness.page").joinpath(name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _questions(material: Material) -> list[tuple[str, Sequence[Arm], Answer | None]]:
    """Return every question's key, arms and answer, those of the plan in its order."""
    answers = {answer.question: answer for answer in material.answers}
    names = list(dict.fromkeys(arm.question for arm in material.arms))
    return [
        (f"q{k}", [arm for arm in material.arms if arm.question == name], answers.get(name))
        for k, name in enumerate(names)
    ]


def _head(material: Material) -> Element:
    counts = material.sweep.counts()
    total = sum(counts.values())
    parts = (
        [
            el(
                "rect",
                class_=f"fill {name}",
                x=f"{100 * before / total:.3f}%",
                y=0,
                height="100%",
                width=f"{100 * counts[name] / total:.3f}%",
            )
            for name, before in _stacked(counts)
        ]
        if total
        else []
    )
    bar = el(
        "svg",
        el("title", counted(counts)),
        *parts,
        class_="bar",
        width="100%",
        height=8,
        role="img",
        aria_label=counted(counts) or "no trials",
    )
    return el(
        "header",
        el(
            "div",
            el("p", "Sweep", class_="kicker"),
            el("button", "Theme: auto", type="button", id="theme", class_="scripted"),
            class_="top",
        ),
        el("h1", short(material.folder.name, 100)),
        el("p", *_progress(material), class_="lead"),
        bar if total else None,
        _asked(material),
    )


def _stacked(counts: dict[str, int]) -> list[tuple[str, int]]:
    found, before = [], 0
    for name in ("finished", "stopped", "running", "failed", "pending"):
        if counts.get(name):
            found.append((name, before))
            before += counts[name]
    return found


def _progress(material: Material) -> list[Node]:
    """Return how far the sweep is, in a sentence that a running sweep's reader cannot miss."""
    counts = material.sweep.counts()
    total = sum(counts.values())
    if not total:
        return ["Nothing has been run in this folder yet."]
    left = total - counts["finished"] - counts["failed"] - counts["stopped"]
    done = counted(counts)
    if left:
        word = "Running" if counts["running"] else "Not finished"
        return [
            el("strong", f"{word}: {plural(left, 'trial')} of {total:,} left. ", class_="pill"),
            f"{done}. What follows is what is known so far.",
        ]
    if not counts["finished"]:
        return [el("strong", "No trial finished. ", class_="pill bad"), f"{done}."]
    if counts["finished"] == total:
        done = f"All {plural(total, 'trial')} have their scores"
    return [el("strong", "Finished. ", class_="pill good"), f"{done}."]


def _asked(material: Material) -> Element | None:
    plan = material.sweep.plan
    data = plan.get("dataset")
    words = []
    if isinstance(data, dict):
        words.append(f"demonstrations: {data.get('kind')}")
    if plan.get("budget"):
        words.append(f"budget: {plan['budget']}")
    seeds = plan.get("train_seeds")
    if isinstance(seeds, list):
        words.append(plural(len(seeds), "training seed"))
    return el("p", short(" · ".join(words), 200), class_="dim") if words else None


def _main(
    material: Material, questions: Sequence[tuple[str, Sequence[Arm], Answer | None]]
) -> list[Node]:
    if not material.sweep.trials:
        words = "There are no trials here: no plan, or none of it was written."
        return [el("section", el("h2", "Nothing to show yet"), el("p", words), id="answers")]
    body: list[Node] = [_answers(material, questions)]
    for key, arms, answer in questions:
        if answer is None and material.search:
            body.append(search_section.section(material, arms, key))
        else:
            body.append(question_section.section(material, arms, answer, key))
    pictures = gallery_section.section(material.folder)
    body += [pictures] if pictures is not None else []
    return [
        *body,
        trials_section.health(material),
        trials_section.section(material),
        provenance_section.section(material),
    ]


def _answers(
    material: Material, questions: Sequence[tuple[str, Sequence[Arm], Answer | None]]
) -> Element:
    cards = [_card(key, arms, answer) for key, arms, answer in questions if answer is not None]
    body: list[Node] = [el("h2", "Answers" if cards else "The best trial")]
    best = material.sweep.best()
    if cards:
        body.append(el("div", *cards, class_="cards"))
    if best is not None:
        score = inline(of_row(best, "select_score"))
        report = of_row(best, "report_score")
        told = f"selection score {score} starts"
        if report.value == report.value:
            told += f"; report score {inline(report)} starts"
        body.append(
            el(
                "p",
                el("strong", "Best trial: "),
                short(arm_name(best) or str(best["trial"]), 120),
                f" ({best['trial']}), {told}; one training seed.",
                class_="best",
            )
        )
    if cards:
        rule = verdicts.RULE.replace("**", "")
        body.append(el("details", el("summary", "How a verdict is reached"), el("p", rule)))
    return el("section", *body, id="answers")


def _highest(arms: Sequence[Arm]) -> Element | None:
    """Return which arm has the highest mean; on report starts where all that have a score do."""
    known = [arm for arm in arms if arm.select.value == arm.select.value]
    if not known:
        return None
    reported = all(arm.report.value == arm.report.value for arm in known)
    scores = {id(arm): arm.report if reported else arm.select for arm in known}
    best = max(known, key=lambda arm: scores[id(arm)].value)
    kind = "report" if reported else "selection"
    told = f"{inline(scores[id(best)])} {kind} starts"
    return el("p", f"Highest mean: “{short(best.arm, 60)}”, {told}.", class_="highest")


def _card(key: str, arms: Sequence[Arm], answer: Answer) -> Element:
    counts: dict[str, int] = {}
    for verdict in answer.verdicts:
        counts[verdict.word] = counts.get(verdict.word, 0) + 1
    chips = [
        el("span", f"{sign} {counts[word]} {word}", class_=f"chip {kind}")
        for word, (kind, sign) in VERDICTS.items()
        if word in counts
    ]
    finished = sum(arm.group.finished for arm in {a.config_hash: a for a in arms}.values())
    planned = sum(len(arm.group.trials) for arm in {a.config_hash: a for a in arms}.values())
    return el(
        "article",
        el("h3", el("a", short(answer.question, 80), href=f"#{key}")),
        el("p", answer.text, class_="asked") if answer.text else None,
        el("p", short(answer.summary, 600), class_="answer"),
        _highest(arms),
        el("p", *chips, el("small", f"{finished} of {plural(planned, 'trial')} finished")),
        class_="card",
    )
