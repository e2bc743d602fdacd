"""The structure of the source: packages with their modules and lines, levels of imports, cycles.

`python -m benchmarks.structure [FOLDER]` prints it for this repository or for another checkout;
tests/test_structure.py holds its rules.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the bottom to the top: a package imports only packages that stand before it. envs and ibc
# know nothing of each other. A top-level package's own modules stand in their place too.
ORDER = (
    "envs.argument_checks",
    "envs.seeds",
    "envs.physics",
    "envs.rendering",
    "envs.batched",
    "envs.pusht",
    "envs.legacy_gym",
    "envs.expert.demonstrator",
    "envs.dataset",
    "envs.teleop.__main__",
    "ibc.config",
    "ibc.data",
    "ibc.layers",
    "ibc.encoders.image",
    "ibc.energy.models",
    "ibc.sampling",
    "ibc.policies",
    "ibc.training",
    "ibc.diagnostics",
    "ibc.reference",
    "harness.core",
    "harness.stats.intervals",
    "harness.config.trial_config",
    "harness.storage",
    "harness.cluster",
    "harness.remote.trial_sync",
    "harness.scheduling",
    "harness.media",
    "harness.demos.__main__",
    "harness.analysis",
    "harness.terminal",
    "harness.evaluation",
    "harness.tracking",
    "harness.trials",
    "harness.page",
    "harness.sweep.driver",
    "harness.results.__main__",
)
TOP = ("envs", "ibc", "harness")
MOST_MODULES = 15


def modules(root: Path) -> dict[str, Path]:
    """Return every source module of a checkout by its dotted name, packages' __init__ included."""
    found = {}
    for path in sorted(path for top in TOP for path in (root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Iterable[str]) -> dict[str, bool]:
    """Return the own modules that a file imports; True for those imported inside a function."""
    known = set(known)
    tree = ast.parse(path.read_text())
    top_level = {id(node) for node in tree.body}
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [
                full if (full := f"{node.module}.{alias.name}") in known else node.module
                for alias in node.names
            ]
        for name in names:
            if name in known:
                found[name] = found.get(name, False) or id(node) not in top_level
    return found


def graph(root: Path) -> dict[str, dict[str, bool]]:
    """Return each module's imports of own modules, see `imports`."""
    found = modules(root)
    return {name: imports(path, found) for name, path in found.items()}


def package(module: str) -> str:
    """Return the entry of `ORDER` that a module belongs to, or its two leading names."""
    parts = module.split(".")
    return ".".join(parts[:2])


def cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return sorted(found)


def levels(edges: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return the length of the longest chain of imports below each node (cycles count once)."""
    groups = {node: "|".join(group) for group in cycles(edges) for node in group}
    known: dict[str, int] = {}

    def level(group: str) -> int:
        if group not in known:
            known[group] = 0
            members = group.split("|")
            others = {groups.get(b, b) for a in members for b in edges.get(a, ())} - {group}
            known[group] = 1 + max((level(other) for other in others), default=0)
        return known[group]

    return {node: level(groups.get(node, node)) for node in edges}


def package_edges(edges: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Return which packages import which others."""
    found: dict[str, set[str]] = {}
    for module, others in edges.items():
        mine = found.setdefault(package(module), set())
        mine |= {package(other) for other in others} - {package(module), *TOP}
    return {name: others for name, others in found.items() if name not in TOP}


def main() -> None:
    """Print packages with modules, lines and level, then the cycles."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found, edges = modules(root), graph(root)
    between = package_edges(edges)
    above = levels(between)
    folders: dict[str, list[Path]] = {}
    for path in found.values():
        folders.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    print(f"{'folder':24} {'modules':>8} {'lines':>7} {'level':>6}")
    total = 0
    for folder in sorted(
        folders, key=lambda f: (f.count("/") == 0, above.get(f.replace("/", "."), 0))
    ):
        counted = [path for path in folders[folder] if path.name != "__init__.py"]
        lines = sum(len(path.read_text().splitlines()) for path in folders[folder])
        total += lines
        level = above.get(folder.replace("/", "."), "")
        print(f"{folder:24} {len(counted):8} {lines:7} {level!s:>6}")
    inside = sorted(
        f"{a} -> {b}" for a, others in edges.items() for b, late in others.items() if late
    )
    print(f"{'all':24} {sum(len(v) for v in folders.values()):8} {total:7}")
    print(f"levels: files {max(levels(edges).values())}, packages {max(above.values())}")
    print(f"arrows between packages: {sum(len(others) for others in between.values())}")
    print(f"cycles of files: {cycles(edges) or 'none'}")
    print(f"cycles of packages: {cycles(between) or 'none'}")
    print(f"imports inside functions or conditions: {len(inside)}")
    for line in inside:
        print(f"  {line}")
    upward = [
        f"{module} -> {other}"
        for module, others in edges.items()
        for other in others
        if package(module) in ORDER
        and package(other) in ORDER
        and ORDER.index(package(other)) > ORDER.index(package(module))
    ]
    print(f"imports upwards: {upward or 'none'}")


if __name__ == "__main__":
    main()
