"""docs/RELIABILITY.md names every fault, and only tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "RELIABILITY.md").read_text()
ROW = re.compile(r"^\| (\d+) \| (.*) \| (.*) \| (.*) \|$", re.MULTILINE)
TABLES = {
    "faults": (PAGE.index("## Faults"), [*range(1, 21), *range(33, 41), 43, 44, 45]),
    "bad_input": (PAGE.index("## Bad input"), [*range(21, 33), 41, 42, *range(46, 51)]),
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


def slow_tests(path: Path) -> set[str]:
    """Return the tests of a file of which every case is marked slow."""
    tree = ast.parse(path.read_text())
    marks = [
        ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    slow = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        decorators = [ast.unparse(each) for each in node.decorator_list]
        # Of pytest.param(..., marks=pytest.mark.slow) the other cases may be fast.
        whole = [each for each in decorators if not each.startswith("pytest.mark.parametrize")]
        if any("slow" in each.lower() for each in [*marks, *whole]) or any(
            each.count("pytest.mark.slow") and each.count("pytest.mark.slow") == cases(call)
            for each, call in zip(decorators, node.decorator_list, strict=True)
        ):
            slow.add(node.name)
    return slow


def cases(decorator: ast.expr) -> int | None:
    """Return how many cases a parametrize decorator lists, None if it does not list them."""
    if not isinstance(decorator, ast.Call) or len(decorator.args) < 2:
        return None
    return len(decorator.args[1].elts) if isinstance(decorator.args[1], ast.List) else None


def test_every_promise_keeps_a_fast_test():
    slow: dict[str, set[str]] = {}
    for number, _, tests, _ in ROW.findall(PAGE):
        names = [name.partition("::") for name in re.findall(r"`(tests/[^`]+)`", tests)]
        for path, _, _ in names:
            slow.setdefault(path, slow_tests(ROOT / path))
        assert any(test not in slow[path] for path, _, test in names), f"promise {number}"


def test_what_is_slow_is_noticed(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text(
        "@pytest.mark.slow\ndef test_a(): ...\n"
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.slow)])\n"
        "def test_b(x): ...\n"
        "@pytest.mark.parametrize('x', [pytest.param(2, marks=pytest.mark.slow)])\n"
        "def test_c(x): ...\n"
    )
    assert slow_tests(path) == {"test_a", "test_c"}
    path.write_text("pytestmark = [pytest.mark.slow]\n" + path.read_text())
    assert slow_tests(path) == {"test_a", "test_b", "test_c"}


def test_every_test_of_this_folder_is_named():
    for path in Path(__file__).parent.glob("test_faults_*.py"):
        if path == Path(__file__):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert f"{path.name}::{node.name}" in PAGE, node.name
