"""Run every test that docs/RELIABILITY.md names and write the result of each promise into it.

    python benchmarks/reliability_table.py            (some minutes)
    python benchmarks/reliability_table.py --junit F [F ...]  (writes what earlier runs left there)
    python benchmarks/reliability_table.py --again    (only the promises that were not kept then)

The earlier run: pytest -n 2 --dist worksteal -m "faults or bad_input" --junitxml=F. The slow tests
among them run too.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from harness.cluster.resources import available_cpus

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"
ROW = re.compile(r"^\| (\d+) \| (.*) \| (`tests/.*`) \| ([^|]*) \|$", re.MULTILINE)
NOT_KEPT = re.compile(r"failed|not run")
RUN = re.compile(r"(?<=<!-- run:begin -->\n).*?(?=<!-- run:end -->)", re.DOTALL)


def run(junit: Path, chosen: list[str]) -> None:
    """Run the tests, or the chosen ones; what they say goes to the screen."""
    which = chosen or ["-m", "faults or bad_input"]
    workers = ("-n", "2", "--dist", "worksteal")
    command = [sys.executable, "-m", "pytest", *workers, *which, f"--junitxml={junit}"]
    subprocess.run(command, cwd=ROOT, check=False)


def tests_of(row: re.Match[str]) -> list[str]:
    """Return the tests that a row of the page names."""
    return re.findall(r"`(tests/[^`]+)`", row[3])


def not_kept() -> list[str]:
    """Return the tests of the promises that were not kept in the run that the page tells of."""
    rows = [row for row in ROW.finditer(PAGE.read_text()) if NOT_KEPT.search(row[4])]
    return sorted({test for row in rows for test in tests_of(row)})


def outcomes(files: Sequence[Path]) -> dict[str, list[tuple[str, float]]]:
    """Return (outcome, seconds) of each case, by `tests/file.py::test` without its parameters."""
    found = defaultdict(list)
    # Written by pytest on this machine, so the files are trusted.
    cases = itertools.chain(*(ElementTree.parse(junit).iter("testcase") for junit in files))
    for case in cases:
        path = f"{case.attrib['classname'].replace('.', '/')}.py"
        name = case.attrib["name"].partition("[")[0]
        bad = case.find("failure") is not None or case.find("error") is not None
        skipped = "skipped" if case.find("skipped") is not None else "passed"
        outcome = "failed" if bad else skipped
        found[f"{path}::{name}"].append((outcome, float(case.attrib["time"])))
    return found


def result(tests: list[str], found: dict[str, list[tuple[str, float]]]) -> str:
    """Return the results of the tests of one promise, in words."""
    cases = [case for test in tests for case in found.get(test, [("not run", 0.0)])]
    words = []
    for outcome in ("failed", "not run", "passed", "skipped"):
        count = sum(case[0] == outcome for case in cases)
        if count:
            words.append(f"{count} {outcome}")
    seconds = sum(case[1] for case in cases)
    return f"{', '.join(words)}; {seconds:.0f} s"


def write(files: Sequence[Path], *, again: bool) -> bool:
    """Write the results into the page; return whether all promises were kept.

    again: only the rows that were not kept before; the others stay as they are.
    """
    found = outcomes(files)
    kept = True

    def filled(row: re.Match[str]) -> str:
        nonlocal kept
        if again and not NOT_KEPT.search(row[4]):
            return row[0]
        words = result(tests_of(row), found)
        kept = kept and not NOT_KEPT.search(words)
        return f"| {row[1]} | {row[2]} | {row[3]} | {words} |"

    page = PAGE.read_text()
    text = ROW.sub(filled, page)
    named = {test for row in ROW.finditer(page) for test in tests_of(row)}
    cases = [case for test in sorted(named) for case in found.get(test, [])]
    passed = sum(case[0] == "passed" for case in cases)
    absent = len(named - found.keys())
    slow = f"; {absent} slow tests were not part of it" if absent else ""
    seconds = sum(case[1] for case in cases)
    line = (
        f"{passed} of {len(cases)} tests of the promises that were not kept passed when they ran "
        "again.\n"
        if again
        else f"Last run: {passed} of {len(cases)} tests passed, {seconds / 60:.1f} minutes on "
        f"{available_cpus()} cores{slow}. A test may belong to several promises.\n"
    )
    PAGE.write_text(RUN.sub(lambda before: before[0] + line if again else line, text))
    return kept


def main() -> int:
    """Run, unless told where an earlier run's file is, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--junit", type=Path, nargs="+", metavar="FILE", help="what runs left")
    parser.add_argument("--again", action="store_true", help="only what was not kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = given.junit or [Path(folder) / "junit.xml"]
        if given.junit is None:
            chosen = not_kept() if given.again else []
            if given.again and not chosen:
                return 0
            run(files[0], chosen)
        return 0 if write(files, again=given.again) else 1


if __name__ == "__main__":
    sys.exit(main())
