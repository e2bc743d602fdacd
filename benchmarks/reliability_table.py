"""Run every test that docs/RELIABILITY.md names and write what came of each promise into it.

    python benchmarks/reliability_table.py            (some minutes; one process)
    python benchmarks/reliability_table.py --junit F  (writes what an earlier run left in F)

The earlier run: pytest -m "faults or bad_input" -o junit_family=xunit2 --junitxml=F
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from harness.workers import available_cpus

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"
ROW = re.compile(r"^\| (\d+) \| (.*) \| (`tests/.*`) \| ([^|]*) \|$", re.MULTILINE)
RUN = re.compile(r"(?<=<!-- run:begin -->\n).*?(?=<!-- run:end -->)", re.DOTALL)


def run(junit: Path) -> None:
    """Run the tests; what they say goes to the screen."""
    command = [sys.executable, "-m", "pytest", "-m", "faults or bad_input", f"--junitxml={junit}"]
    subprocess.run(command, cwd=ROOT, check=False)


def outcomes(junit: Path) -> dict[str, list[tuple[str, float]]]:
    """Return (outcome, seconds) of each case, by `tests/file.py::test` without its parameters."""
    found = defaultdict(list)
    # Written by pytest on this machine: no stranger's file.
    for case in ElementTree.parse(junit).iter("testcase"):
        path = f"{case.attrib['classname'].replace('.', '/')}.py"
        name = case.attrib["name"].partition("[")[0]
        bad = case.find("failure") is not None or case.find("error") is not None
        skipped = "skipped" if case.find("skipped") is not None else "passed"
        outcome = "failed" if bad else skipped
        found[f"{path}::{name}"].append((outcome, float(case.attrib["time"])))
    return found


def result(tests: list[str], found: dict[str, list[tuple[str, float]]]) -> str:
    """Return in words what came of the tests of one promise."""
    cases = [case for test in tests for case in found.get(test, [("not run", 0.0)])]
    words = []
    for outcome in ("failed", "not run", "passed", "skipped"):
        count = sum(case[0] == outcome for case in cases)
        if count:
            words.append(f"{count} {outcome}")
    seconds = sum(case[1] for case in cases)
    return f"{', '.join(words)}; {seconds:.0f} s"


def write(junit: Path) -> bool:
    """Write the results into the page; return whether all promises were kept."""
    found = outcomes(junit)
    kept = True

    def filled(row: re.Match[str]) -> str:
        nonlocal kept
        words = result(re.findall(r"`(tests/[^`]+)`", row[3]), found)
        kept = kept and not re.search(r"failed|not run", words)
        return f"| {row[1]} | {row[2]} | {row[3]} | {words} |"

    text = ROW.sub(filled, PAGE.read_text())
    cases = [case for each in found.values() for case in each]
    passed = sum(case[0] == "passed" for case in cases)
    seconds = sum(case[1] for case in cases)
    line = (
        f"Last run: {passed} of {len(cases)} tests passed in {seconds / 60:.1f} minutes on "
        f"{available_cpus()} cores. A promise's tests may be another's too.\n"
    )
    PAGE.write_text(RUN.sub(lambda _: line, text))
    return kept


def main() -> int:
    """Run, unless told where an earlier run's file is, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--junit", type=Path, metavar="FILE", help="what an earlier run left")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        junit = given.junit or Path(folder) / "junit.xml"
        if given.junit is None:
            run(junit)
        return 0 if write(junit) else 1


if __name__ == "__main__":
    sys.exit(main())
