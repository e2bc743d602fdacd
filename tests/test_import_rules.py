"""The walls of the house: who may import whom, and what no file may ever call."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("envs", "harness", "ibc")
SOURCES = sorted(
    [path for wing in WINGS for path in (ROOT / wing).rglob("*.py")] + list(ROOT.glob("*.py"))
)

# These alone may name Ray; the others run on a machine that has none.
RAY = {
    "harness/demos/collect.py",
    "harness/evaluation/ray_actors.py",
    "harness/sweep/ray_tune.py",
    "harness/cluster/ray_session.py",
}
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"__import__", "compile", "eval", "exec"}


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


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def wrong(path: Path, text: str) -> list[str]:
    """Return what breaks a rule in a file of this name."""
    tree = ast.parse(text)
    found = imports(tree)
    wing = name(path).partition("/")[0]
    mistakes = []
    if wing in ("envs", "ibc"):
        others = {"envs", "harness", "ibc", "ray"} - {wing}
        mistakes += [f"{wing} imports {other}" for other in sorted(found & others)]
    elif "ray" in found and name(path) not in RAY:
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


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_file_breaks_a_rule(path):
    assert wrong(path, path.read_text()) == []


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
    assert wrong(ROOT / where, text)


def test_the_list_of_files_that_may_import_ray_is_not_longer_than_needed():
    for path in sorted(RAY):
        assert "ray" in imports(ast.parse((ROOT / path).read_text())), path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("envs", "torch"),
        ("harness.trials.runner", "ray"),
        ("harness.evaluation.rollout", "ray"),
        ("harness.sweep.driver", "ray"),
        ("harness.results.__main__", "ray"),
        ("ibc.training.trainer", "ray"),
    ],
)
def test_importing_a_room_does_not_bring_in_what_it_must_not_need(module, absent):
    program = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
