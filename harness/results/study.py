"""`results study`: the answers and figures in the documents, from the tables beside them.

A document names a question of stored tables between two comments, and what stands there is made:

    <!-- results verdicts / bounds -->
    <!-- end -->

`<!-- policies -->` begins the table of the policies that come with the project.
"""

import argparse
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.analysis.sweep_results import Sweep
from harness.analysis.verdicts import Answer as Answered
from harness.analysis.verdicts import Row, answers
from harness.core import files, paths
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.page.forest_file import forest_file
from harness.results.model_card import CARD, NEAR, card, overview
from harness.storage import episode_table, lookup, table_schemas, tables
from harness.terminal.answers_markdown import safe
from harness.terminal.formatting import difference, number, percent

FULL = 0.95  # the coverage of a success, and of a score of 1
PLACES = ("README.md", "docs/*.md")
TABLES = ("trials", "episodes")
_BLOCK = re.compile(r"<!-- results ([\w.-]+) / ([^\n]+?) -->\n(.*?)<!-- end -->", re.DOTALL)
_POLICIES = re.compile(r"<!-- policies -->\n(.*?)<!-- end -->", re.DOTALL)
_HEAD = (
    *("arm", "score", "success", "score vs baseline", "failed (near misses)"),
    *("minutes", "seeds", "starts", "verdict"),
)


def command(given: argparse.Namespace) -> int:
    """Renew the documents; with --check, say what differs; with --store, take in a sweep first."""
    root = given.root
    if given.store:
        print(store(lookup.sweep_dir(given.results, given.store), root / "docs/tables"))
    wrong = [line for name in ("docs/tables", "policies") for line in changed_tables(root / name)]
    for path, text in made(root).items():
        if given.check:
            wrong += differences(path, text)
        elif not path.is_file() or path.read_bytes() != text.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic(path) as file:
                file.write(text.encode())
            print(path)
    for line in wrong:
        print(line)
    return SOME_FAILED if wrong else OK


def made(root: Path) -> dict[Path, str]:
    """Return every document with a block, figure and model card, as the tables have them."""
    found: dict[Path, str] = {}
    for page in sorted(path for pattern in PLACES for path in root.glob(pattern)):
        text = page.read_text(encoding="utf-8")
        if given := _POLICIES.search(text):
            table = f"<!-- policies -->\n{overview(root / 'policies', page.parent)}<!-- end -->"
            text = found[page] = text.replace(given[0], table)
        for number_of, block in enumerate(_BLOCK.finditer(text)):
            name, question = block[1], block[2]
            answer = _answer(
                root / "docs/tables" / name, question, f"{page}, block {number_of + 1}"
            )
            slug = re.sub(r"\W+", "-", question).strip("-")
            picture = root / "docs/pictures/study" / f"{name}-{slug}.svg"
            if answer.verdicts:
                found[picture] = forest_file(answer)
            shown = picture.relative_to(page.parent).as_posix()
            head = f"<!-- results {name} / {question} -->"
            body = f"{head}\n{_markdown(answer, shown)}<!-- end -->"
            found[page] = found.get(page, text).replace(block[0], body)
    for folder in sorted(path.parent for path in root.glob("policies/*/trials.parquet")):
        found[folder / CARD] = card(folder)
    return found


def differences(path: Path, text: str) -> Iterator[str]:
    """Yield the first line of a file that is not as the tables make it."""
    if not path.is_file():
        yield f"{path} must be there: python -m harness.results study makes it"
        return
    given, wanted = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
    for at in range(max(len(given), len(wanted))):
        own, other = (lines[at] if at < len(lines) else "" for lines in (given, wanted))
        if own != other:
            yield f"{path}:{at + 1} must be what the tables give, {other!r}, given {own!r}"
            return


def store(folder: Path, to: Path) -> Path:
    """Copy what a sweep's answers are made of into a folder of its name; return it."""
    into = to / folder.name
    into.mkdir(parents=True, exist_ok=True)
    for kind, table in zip(TABLES, tables.read_both(folder), strict=True):
        table_schemas.write(table, into / f"{kind}.parquet")
    plan = files.read_json(folder / "plan.json")
    # Neither where it was run nor each trial's config: the trials' rows have that.
    for name in ("provenance", "code", "trials", "written"):
        plan.pop(name, None)
    for where, key in (plan, "space"), (plan.get("dataset", {}), "path"):
        if isinstance(where.get(key), str):
            where[key] = paths.names_alone(where[key])
    files.write_json(plan, into / "plan.json")
    if (folder / "rounds.json").is_file():
        files.write_json(files.read_json(folder / "rounds.json"), into / "rounds.json")
    return into


def changed_tables(folder: Path) -> Iterator[str]:
    """Yield each row of stored tables that the rows below it contradict, by file and number.

    An episode's score and success follow from its coverage, a trial's scores are the means over
    its episodes.
    """
    for path in sorted(folder.glob("*/episodes.parquet")):
        episodes = table_schemas.read_file(path, "episodes")
        yield from _episodes(path, episodes)
        trials_path = path.with_name("trials.parquet")
        trials = table_schemas.read_file(trials_path, "trials").to_pylist()
        counted = episode_table.by_trial(episode_table.that_count(episodes, trials))
        for row, trial in enumerate(trials):
            own = counted.get((trial["config_hash"], trial["train_seed"]))
            for column, seeds in (("select_score", SELECT_SEEDS), ("report_score", REPORT_SEEDS)):
                given = trial[column]
                scores = None if own is None else episode_table.within(own, seeds)["score"]
                if given is None or not scores:
                    continue
                mean = float(np.mean(scores.to_numpy()))
                if abs(mean - given) > 1e-9:
                    yield (
                        f"{trials_path}, row {row}: {column} must be the mean of its episodes, "
                        f"{mean!r}, given {given!r}"
                    )


def _episodes(path: Path, episodes: pa.Table) -> Iterator[str]:
    coverage = episodes["max_coverage"].to_numpy()
    known = np.isfinite(coverage)
    score, success = episodes["score"].to_numpy(), episodes["success"].to_numpy()
    wrong = known & (np.abs(np.minimum(coverage / FULL, 1.0) - score) > 1e-9)
    wrong |= known & ((coverage > FULL) != success.astype(bool))
    for row in np.flatnonzero(wrong):
        yield (
            f"{path}, row {row}: score and success must follow from max_coverage "
            f"{float(coverage[row])!r}, given {float(score[row])!r} and {bool(success[row])}"
        )


@cache
def _answers(folder: Path) -> dict[str, Answered]:
    return {answer.question: answer for answer in answers(Sweep(folder, stored=True))}


def _answer(folder: Path, question: str, where: str) -> Answered:
    if not (folder / "trials.parquet").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/trials.parquet"))
        rule = f"{where}: results must name one of the stored tables {', '.join(known)}"
        raise UserError(f"{rule}, given {folder.name}")
    found = _answers(folder)
    if question not in found:
        rule = f"{where}: {folder.name} has the questions {', '.join(found)}"
        raise UserError(f"{rule}, given {question}")
    return found[question]


def _markdown(answer: Answered, picture: str) -> str:
    """Return the answer's line, its forest plot and the table of arms that were trained.

    Where one recipe alone was trained, it is the table.
    """
    lines = []
    if answer.verdicts:
        lines += [f"**{safe(answer.text)}** {_sentence(answer)}", ""]
        lines += [f"![{safe(answer.question)}: differences to the baseline]({picture})", ""]
    lines += [f"| {' | '.join(_HEAD)} |", "|---|---|---|---|---|--:|--:|--:|---|"]
    first, *others = (row for row in answer.rows() if row.seeds)
    on = REPORT_SEEDS if answer.reported else SELECT_SEEDS
    role = " (baseline)" if answer.verdicts else ""
    lines.append(_line(first, f"{answer.baseline}{role}", on))
    own = first.arm.config_hash
    lines += [_line(row, row.arm.arm, on) for row in others if row.arm.config_hash != own]
    return "\n".join([*lines, ""])


def _sentence(answer: Answered) -> str:
    text = answer.summary
    return f"{safe(text[:1].upper() + text[1:])}. (Baseline: {safe(answer.baseline)}.)"


def _line(row: Row, name: str, on: range) -> str:
    verdict = row.verdict
    cells = [safe(name), number(row.score), percent(row.success)]
    cells += ["" if verdict is None else difference(verdict.score, ends=3)]
    coverage = row.arm.group.grid("max_coverage", on).values
    failed = coverage[coverage <= FULL]
    cells.append(f"{len(failed):,} ({100 * (failed > NEAR).mean():.0f} %)" if len(failed) else "0")
    seconds = [t["train_seconds"] for t in row.arm.group.trials if t["train_seconds"] is not None]
    cells.append(f"{np.mean(seconds) / 60:.1f}" if seconds else "")
    cells += [str(row.seeds), str(row.n), "" if verdict is None else _word(verdict.text)]
    return f"| {' | '.join(cells)} |"


def _word(text: str) -> str:
    """Return a verdict's text without its numbers, which stand beside it."""
    return safe(re.sub(r": [+-][\d.]+ \[[^\]]*\]", "", text))
