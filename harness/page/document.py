"""The whole page: header, answers, sections, and its content security policy."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.analysis import verdicts
from harness.analysis.sweep_results import STATUSES, Arm, arm_name, counted, of_row
from harness.analysis.verdicts import Answer
from harness.core import files
from harness.core.errors import UserError
from harness.core.text import plural
from harness.page import (
    forest_section,
    gallery_section,
    provenance_section,
    question_section,
    search_section,
    trials_section,
)
from harness.page.elements import Element, Node, el, own_files, short, whole_page
from harness.page.labels import inline
from harness.page.page_data import PageData

NAME = "report.html"
OPEN_QUESTIONS = 2  # of more questions the figures are folded
Question = tuple[str, Sequence[Arm], Answer | None]  # its anchor, arms and answer


def write(sweep_dir: Path, out: Path | None = None, asked: Sequence[str] = ()) -> Path:
    """Write the page of a sweep, finished or running, atomically; return its path.

    out: instead of report.html in the sweep's folder. asked: the questions, see `Sweep`. UserError
    when there is no such folder or the file cannot be written.
    """
    if not sweep_dir.is_dir():
        raise UserError(f"a sweep's results are a folder, and {sweep_dir} is not one")
    path = sweep_dir / NAME if out is None else out
    content = page(PageData(sweep_dir, asked)).encode("utf-8", "backslashreplace")
    try:
        with files.atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"a page needs a file that can be written: {error}") from error
    return path


def page(data: PageData) -> str:
    """Return the page's HTML."""
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return whole_page(
        f"{short(data.folder.name, 80)}: report",
        own_files("theme.css", "page.css"),
        own_files("theme.js", "page.js"),
        el("a", "Skip to the answers", href="#answers", class_="skip"),
        _header(data),
        el("main", *_sections(data)),
        el("footer", el("p", f"Written {written} from the sweep's tables; needs no network.")),
    )


def _header(data: PageData) -> Element:
    counts = data.sweep.counts()
    settings = data.sweep.settings()
    if "train_seeds" in data.sweep.plan:
        settings.append(plural(len(data.sweep.plan["train_seeds"]), "training seed"))
    theme = el("button", "Theme: auto", type="button", id="theme", class_="scripted")
    return el(
        "header",
        el("div", el("p", "Sweep", class_="kicker"), theme, class_="top"),
        el("h1", short(data.folder.name, 100)),
        el("p", *_progress(counts), class_="lead"),
        _progress_bar(counts) if counts else None,
        el("p", short(" · ".join(settings), 200), class_="dim") if settings else None,
        el("p", el("strong", data.sweep.caveat)) if data.sweep.caveat else None,
        el("p", data.sweep.omission, class_="dim") if data.sweep.omission else None,
    )


def _progress_bar(counts: Counter[str]) -> Element:
    parts, before, total = [], 0, sum(counts.values())
    for name in STATUSES:
        if counts[name]:
            x, width = (f"{100 * count / total:.3f}%" for count in (before, counts[name]))
            parts.append(el("rect", class_=f"fill {name}", x=x, y=0, width=width, height="100%"))
            before += counts[name]
    text = counted(counts)
    form = {"class_": "bar", "width": "100%", "height": 8, "role": "img", "aria_label": text}
    return el("svg", el("title", text), *parts, **form)


def _progress(counts: Counter[str]) -> list[Node]:
    """Return in a sentence how far the sweep is."""
    total, done = sum(counts.values()), counted(counts)
    if not total:
        return ["Nothing has been run in this folder yet."]
    left = total - counts["finished"] - counts["failed"] - counts["stopped"]
    if left:
        word = "Running" if counts["running"] else "Not finished"
        return [
            el("strong", f"{word}: {plural(left, 'trial')} of {total:,} left. ", class_="pill"),
            f"{done}. The results below are preliminary.",
        ]
    if not counts["finished"]:
        return [el("strong", "No trial finished. ", class_="pill bad"), f"{done}."]
    if counts["finished"] == total:
        done = f"All {plural(total, 'trial')} have a score"
    return [el("strong", "Finished. ", class_="pill good"), f"{done}."]


def _sections(data: PageData) -> list[Node]:
    if not data.sweep.trials:
        text = "This folder has no trials: there is no plan, or nothing of it was written."
        return [el("section", el("h2", "Nothing to show yet"), el("p", text), id="answers")]
    answers = {answer.question: answer for answer in data.answers}
    questions: list[Question] = [
        (f"q{k}", [arm for arm in data.arms if arm.question == name], answers.get(name))
        for k, name in enumerate(dict.fromkeys(arm.question for arm in data.arms))
    ]
    body: list[Node] = [_answers(data, questions)]
    for key, arms, answer in questions:
        if answer is None and data.sweep.plan.get("search"):
            body.append(search_section.section(data, arms, key))
        else:
            folded = len(questions) > OPEN_QUESTIONS
            body.append(question_section.section(data, arms, answer, key, folded=folded))
    gallery = gallery_section.section(data.folder)
    if gallery is not None:
        body.append(gallery)
    body += [trials_section.health(data), trials_section.section(data)]
    return [*body, provenance_section.section(data)]


def _answers(data: PageData, questions: Sequence[Question]) -> Element:
    answered = [(key, arms, answer) for key, arms, answer in questions if answer is not None]
    body: list[Node] = [el("h2", "Answers" if answered else "The best trial")]
    if answered:
        body.append(forest_section.forest(answered))
    best = data.sweep.best()
    if best is not None:
        scores = f"validation score {inline(of_row(best, 'select_score'))} starts"
        test = of_row(best, "report_score")
        if test.n:
            scores += f"; test score {inline(test)} starts"
        name = short(arm_name(best, data.sweep.plan) or best["trial"], 240)
        text = f"{name} ({best['trial']}), {scores}; one training seed."
        body.append(el("p", el("strong", "Best trial: "), text, class_="best"))
    if answered:
        rule = verdicts.RULE.replace("*", "")
        checks = dict.fromkeys(text for _, _, each in answered for text in each.check)
        notes = [el("p", text) for text in (rule, *checks)]
        body.append(el("details", el("summary", "How a verdict is reached"), *notes))
    return el("section", *body, id="answers")
