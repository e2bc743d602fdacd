"""The structure of the source: who may import whom, and what no file may ever call."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import structure

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*structure.modules(ROOT).values(), *ROOT.glob("*.py")])

# These alone may name Ray; the others run on a machine that has none.
RAY = {
    "harness/demos/collect.py",
    "harness/evaluation/pool.py",
    "harness/sweep/ray_tune.py",
}
RAY_FOLDER = "harness/cluster/"

# These alone may import a subsystem late, by harness.core.imports.load.
LOADERS = {
    "harness/demos/__main__.py",
    "harness/results/__main__.py",
    "harness/sweep/driver.py",
    "harness/sweep/outputs.py",
    "harness/sweep/ray_tune.py",  # torch in the workers; the driver needs none
    "run_eval.py",
    "run_sweep.py",
}

# What is imported before the input is known to be right, and what a table is read with: these and
# what they contain.
WITHOUT_TORCH = (
    "ibc.config",
    "harness.core",
    "harness.stats",
    "harness.config",
    "harness.storage",
    "harness.scheduling",
    "harness.analysis",
    "harness.terminal",
    "harness.cluster.resources",
    "harness.demos.source",
    "harness.sweep.driver",
    "harness.sweep.folder",
    "harness.sweep.pending",
    "harness.sweep.plan_table",
    "harness.sweep.progress",
    "harness.sweep.dispatcher",
    "harness.results.__main__",
)
WITHOUT_RAY = (
    "harness.trials.runner",
    "harness.evaluation.rollout",
    "harness.evaluation.job",
    "harness.page.document",
    "harness.demos.__main__",
    "ibc.training.trainer",
)
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"__import__", "compile", "eval", "exec"}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def late(tree: ast.AST) -> list[int]:
    """Return the lines that call harness.core.imports.load."""
    names = {"imports.load", "harness.core.imports.load"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "harness.core.imports":
            names |= {alias.asname or alias.name for alias in node.names if alias.name == "load"}
        elif isinstance(node, ast.ImportFrom) and node.module == "harness.core":
            names |= {f"{a.asname}.load" for a in node.names if a.name == "imports" and a.asname}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) in names
    ]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def mistakes_in(path: Path, tree: ast.Module) -> list[str]:
    """Return what breaks a rule in a file of this name."""
    found = imports(tree)
    top = name(path).partition("/")[0]
    mistakes = []
    if top in ("envs", "ibc"):
        others = {"envs", "harness", "ibc", "ray"} - {top}
        mistakes += [f"{top} imports {other}" for other in sorted(found & others)]
    elif "ray" in found and name(path) not in RAY and not name(path).startswith(RAY_FOLDER):
        mistakes.append("imports ray")
    mistakes += [f"imports {module}" for module in sorted(found & FORBIDDEN_MODULES)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in FORBIDDEN_CALLS:
            mistakes.append(f"line {node.lineno} calls {called}")
        if called == "torch.load" and not any(
            word.arg == "weights_only" and getattr(word.value, "value", None) is True
            for word in node.keywords
        ):
            mistakes.append(f"line {node.lineno} calls torch.load without weights_only=True")
        if called.endswith((".load", "load")) and any(
            word.arg == "allow_pickle" and getattr(word.value, "value", None) is not False
            for word in node.keywords
        ):
            mistakes.append(f"line {node.lineno} allows pickles")
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            mistakes.append(f"line {node.lineno} calls {called}")
        if called.startswith("subprocess.") and any(
            word.arg == "shell" and getattr(word.value, "value", None) is not False
            for word in node.keywords
        ):
            mistakes.append(f"line {node.lineno} starts a shell")
    return mistakes


def test_no_file_breaks_a_rule():
    found = {name(path): mistakes_in(path, tree_of(path)) for path in SOURCES}
    assert {path: mistakes for path, mistakes in found.items() if mistakes} == {}


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("ibc/x.py", "import ray"),
        ("ibc/x.py", "def f():\n    from harness import store"),
        ("ibc/x.py", "from envs.geometry import coverage"),
        ("envs/x.py", "import ibc.demos"),
        ("harness/trials/runner.py", "from ray import tune"),
        ("run_sweep.py", "import ray.tune"),
        ("harness/x.py", "import pickle"),
        ("harness/x.py", "from cloudpickle import loads"),
        ("harness/x.py", "torch.load(path)"),
        ("harness/x.py", "torch.load(path, weights_only=False)"),
        ("harness/x.py", "eval('1')"),
        ("harness/x.py", "np.load(path, allow_pickle=True)"),
        ("harness/x.py", "yaml.load(text, Loader=yaml.Loader)"),
        ("harness/x.py", "subprocess.run(text, shell=True)"),
    ],
)
def test_the_rules_notice_what_breaks_them(where, text):
    assert mistakes_in(ROOT / where, ast.parse(text))


@pytest.mark.parametrize("path", sorted(RAY))
def test_the_list_of_files_that_may_import_ray_is_not_longer_than_needed(path):
    assert "ray" in imports(tree_of(ROOT / path))


@pytest.fixture(scope="module")
def edges():
    return structure.graph(ROOT)


def test_no_files_and_no_packages_import_each_other_in_a_cycle(edges):
    assert structure.cycles(edges) == []
    assert structure.cycles(structure.package_edges(edges)) == []


def test_packages_import_only_packages_below_them(edges):
    assert structure.upward(edges) == []
    assert len(set(structure.ORDER)) == len(structure.ORDER)
    assert set(structure.ORDER) == {structure.package(each) for each in edges} - {*structure.TOP}


def test_no_own_module_is_imported_inside_a_function_or_under_a_condition(edges):
    """The lazy names of ibc are the exception: they keep `import ibc` fast."""
    inside = {
        f"{module} -> {other}"
        for module, others in edges.items()
        for other, where in others.items()
        if where == "inside" and module != "ibc"
    }
    for path in ROOT.glob("*.py"):
        found = structure.imports(path, structure.modules(ROOT))
        inside |= {f"{path.name} -> {other}" for other, how in found.items() if how == "inside"}
    assert sorted(inside) == []


def test_no_folder_has_too_many_modules():
    counts = {
        folder: sum(path.name != "__init__.py" for path in paths)
        for folder, paths in structure.folders(ROOT).items()
    }
    assert {folder: n for folder, n in counts.items() if n > structure.MOST_MODULES} == {}


def test_the_tests_mirror_the_source():
    folders = structure.folders(ROOT)
    for top in structure.TOP:
        for path in (ROOT / "tests" / top).rglob("test_*.py"):
            folder = path.parent.relative_to(ROOT / "tests").as_posix()
            assert folder in folders, f"{name(path)} tests no folder of the source"


def test_late_imports_stand_in_the_entry_points_alone():
    found = {name(path): late(tree_of(path)) for path in SOURCES}
    del found["harness/core/imports.py"]
    assert {path for path, lines in found.items() if lines} <= LOADERS


def test_every_name_that_is_imported_late_is_there():
    modules = structure.modules(ROOT)
    given = {
        node.value
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and structure.LATE.match(node.value)
    }
    assert given
    for text in sorted(given):
        module, _, attribute = text.partition(":")
        assert module in modules, text
        defined = set()
        for node in tree_of(modules[module]).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Assign):
                defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
        assert attribute in defined, text


PROGRAM = """
import importlib, sys
for absent, modules in zip(("torch", "ray"), sys.argv[1:]):
    for module in modules.split():
        importlib.import_module(module)
        for name in {absent, "ray"} & sys.modules.keys():
            sys.exit(f"importing {module} brings in {name}")
"""


def test_importing_a_package_does_not_bring_in_what_it_must_not_need():
    """In one process: first what needs no torch, then what needs no Ray."""
    modules = structure.modules(ROOT)
    light = ["envs"] + [
        module
        for start in WITHOUT_TORCH
        for module in modules
        if module == start or module.startswith(f"{start}.")
    ]
    assert set(WITHOUT_TORCH) | set(WITHOUT_RAY) <= modules.keys()
    command = [sys.executable, "-c", PROGRAM, " ".join(light), " ".join(WITHOUT_RAY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
