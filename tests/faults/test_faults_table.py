"""docs/RELIABILITY.md names every fault, and only tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "RELIABILITY.md").read_text()
ROW = re.compile(r"^\| (\d+) \| (.*) \| (.*) \| (.*) \|$", re.MULTILINE)
TABLES = {
    "faults": (PAGE.index("## Faults"), [*range(1, 21), 33, 34]),
    "bad_input": (PAGE.index("## Bad input"), [*range(21, 33)]),
}


@pytest.mark.parametrize("marker", TABLES)
def test_every_item_is_there_and_held_by_tests_that_are_collected(marker, promised):
    start, items = TABLES[marker]
    section = PAGE[start:].partition("\n## What is not")[0]
    if marker == "faults":
        section = section.partition("\n## Bad input")[0]
    rows = ROW.findall(section)
    assert [int(row[0]) for row in rows] == items
    for number, promise, tests, _ in rows:
        names = re.findall(r"`(tests/[^`]+)`", tests)
        assert promise.strip(), number
        assert names, number
        for name in names:
            path, _, test = name.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in found, name
            assert test.startswith("test_"), name
            assert Path(path).name.startswith("test_"), name
            assert promised[name] >= {marker}, name


def test_every_test_of_this_folder_is_named():
    for path in Path(__file__).parent.glob("test_faults_*.py"):
        if path == Path(__file__):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert f"{path.name}::{node.name}" in PAGE, node.name
