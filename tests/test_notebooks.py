"""The notebooks run from top to bottom, hold what their text claims, and are committed whole.

Their claims are asserted in the notebooks themselves, next to the numbers they print.
"""

import copy
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPECTED = ["coordinate_regression", "one_dimension", "pusht_energies", "two_dimensions"]
LARGEST = 1_500_000  # bytes
PATHS = r"(?<![\w.:/])/\w+/[\w./-]+"  # absolute ones, not those of addresses


def runner():
    """Load notebooks/run.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("notebooks_run", ROOT / "notebooks/run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def mistakes(notebook):
    """What a committed notebook must not hold, or must and does not."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = [cell.execution_count for cell in code]
    if ran != list(range(1, len(code) + 1)):
        found.append(f"cells were not run once each, in order: {ran}")
    kinds = [output.output_type for output in outputs(notebook)]
    if "error" in kinds:
        found.append("holds an error")
    if any(output.get("name") == "stderr" for output in outputs(notebook)):
        found.append("holds warnings")
    if not any("image/png" in output.get("data", {}) for output in outputs(notebook)):
        found.append("holds no picture")
    if not any("assert " in cell.source for cell in code):
        found.append("asserts none of its claims")
    if set(notebook.metadata) != {"kernelspec", "language_info"}:
        found.append(f"holds metadata {sorted(notebook.metadata)}")
    if dict(notebook.metadata.language_info) != {"name": "python"}:
        found.append("names the version of its Python")
    for cell in notebook.cells:
        if set(cell.metadata) - {"picture"}:
            found.append(f"cell {cell.id} holds metadata {sorted(cell.metadata)}")
    texts = [cell.source for cell in notebook.cells]
    texts += [output.get("text", "") for output in outputs(notebook)]
    texts += [str(output.get("data", {}).get("text/plain", "")) for output in outputs(notebook)]
    for text in texts:
        found += [
            f"holds the path {path}" for path in re.findall(r"(?<![\w.:/])/\w+/[\w./-]+", text)
        ]
    return found


def test_the_notebooks_are_those_that_the_documents_name():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole(path):
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert mistakes(notebook) == []


def test_mistakes_in_a_notebook_are_noticed():
    whole = nbformat.read(ROOT / "notebooks/two_dimensions.ipynb", as_version=4)

    def broken(change):
        notebook = copy.deepcopy(whole)
        change(notebook)
        return mistakes(notebook)

    code = next(i for i, cell in enumerate(whole.cells) if cell.cell_type == "code")
    stream = {"output_type": "stream", "name": "stderr", "text": "UserWarning"}
    path = {"output_type": "stream", "name": "stdout", "text": "saved in /home/me/x.png"}
    assert broken(lambda n: None) == []
    assert broken(lambda n: n.cells[code].update(execution_count=None))
    assert broken(lambda n: n.cells[code].outputs.append(nbformat.from_dict(stream)))
    assert broken(lambda n: n.cells[code].outputs.append(nbformat.from_dict(path)))
    assert broken(lambda n: n.cells[code].metadata.update(execution={"iopub.status": "now"}))
    assert broken(lambda n: n.metadata.language_info.update(version="3.11.7"))
    assert broken(lambda n: [cell.update(outputs=[]) for cell in n.cells])


def test_the_pictures_of_the_documents_are_those_of_the_notebooks():
    drawn = {}
    for path in NOTEBOOKS:
        drawn |= runner().pictures(nbformat.read(path, as_version=4))
    kept = {path.stem: path.read_bytes() for path in (ROOT / "docs/pictures").glob("*.png")}
    assert set(kept) >= set(drawn)
    assert [name for name in drawn if kept[name] != drawn[name]] == []
    shown = (ROOT / "docs/METHOD.md").read_text()
    assert [name for name in drawn if f"(pictures/{name}.png)" not in shown] == []


def test_every_picture_and_file_that_the_method_names_exists():
    text = (ROOT / "docs/METHOD.md").read_text()
    named = re.findall(r"\]\(([^)#]+)\)", text)
    local = [name for name in named if not name.startswith("http")]
    assert len([name for name in local if name.endswith(".png")]) >= 6
    assert [name for name in local if not (ROOT / "docs" / name).exists()] == []
    files = re.findall(r"`(ibc/[\w/]+\.py|notebooks/\w+\.py)", text)
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_claims_hold(path):
    notebook = runner().execute(path)  # raises what a cell raises, its asserts included
    assert mistakes(notebook) == []
    committed = nbformat.read(path, as_version=4)
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in committed.cells]
    shown = [len(cell.get("outputs", [])) for cell in committed.cells]
    assert [len(cell.get("outputs", [])) for cell in notebook.cells] == shown
