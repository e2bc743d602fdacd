"""The structure of the source: packages with their modules and lines, levels of imports, cycles.

`python -m benchmarks.structure [FOLDER]` prints it for this repository or for another checkout;
tests/test_structure.py holds its rules.
"""

import ast
import re
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
    "envs.expert",
    "envs.dataset",
    "envs.teleop",
    "ibc.config",
    "ibc.data",
    "ibc.layers",
    "ibc.encoders",
    "ibc.energy",
    "ibc.sampling",
    "ibc.policies",
    "ibc.training",
    "ibc.diagnostics",
    "ibc.reference",
    "harness.core",
    "harness.stats",
    "harness.config",
    "harness.storage",
    "harness.store",  # an earlier name
    "harness.pretrained",
    "harness.cluster",
    "harness.remote",
    "harness.scheduling",
    "harness.media",
    "harness.analysis",
    "harness.terminal",
    "harness.evaluation",
    "harness.demos",
    "harness.tracking",
    "harness.trials",
    "harness.page",
    "harness.sweep",
    "harness.results",
)
TOP = ("envs", "ibc", "harness")
MOST_MODULES = 15
LATE = re.compile(r"\A((?:envs|ibc|harness)(?:\.\w+)+):\w+\Z")


def modules(root: Path) -> dict[str, Path]:
    """Return every source module of a checkout by its dotted name, packages' __init__ included."""
    found = {}
    for path in sorted(path for top in TOP for path in (root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Iterable[str]) -> dict[str, str]:
    """Return the own modules that a file imports, and where: "top", "inside" or "late".

    inside: in a function or under a condition. late: by harness.core.imports.load, which is given
    "package.module:attribute".
    """
    known = set(known)
    tree = ast.parse(path.read_text())
    top_level = {id(node) for node in tree.body}
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        names, where = [], "top" if id(node) in top_level else "inside"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [
                full if (full := f"{node.module}.{alias.name}") in known else node.module
                for alias in node.names
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names, where = LATE.findall(node.value), "late"
        for name in names:
            if name in known and (name not in found or where == "inside"):
                found[name] = where
    return found


def graph(root: Path) -> dict[str, dict[str, str]]:
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


def upward(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the imports that break `ORDER`, and the modules that it does not know."""
    place = {name: at for at, name in enumerate(ORDER)}
    known = [module for module in edges if module not in TOP]
    return [module for module in known if package(module) not in place] + [
        f"{module} -> {other}"
        for module in known
        for other in edges[module]
        if other not in TOP and place.get(package(other), 0) > place.get(package(module), 0)
    ]


def folders(root: Path) -> dict[str, list[Path]]:
    """Return the source files of each folder."""
    found: dict[str, list[Path]] = {}
    for path in modules(root).values():
        found.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    return found


def main() -> None:
    """Print packages with modules, lines and level, then the cycles."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found, edges = modules(root), graph(root)
    between = package_edges(edges)
    above = levels(between)
    by_folder = folders(root)
    print(f"{'folder':24} {'modules':>8} {'lines':>7} {'level':>6}")
    total = 0
    for folder in sorted(
        by_folder, key=lambda f: (f.count("/") == 0, above.get(f.replace("/", "."), 0))
    ):
        counted = [path for path in by_folder[folder] if path.name != "__init__.py"]
        lines = sum(len(path.read_text().splitlines()) for path in by_folder[folder])
        total += lines
        level = above.get(folder.replace("/", "."), "")
        print(f"{folder:24} {len(counted):8} {lines:7} {level!s:>6}")
    inside = sorted(
        f"{a} -> {b}"
        for a, others in edges.items()
        for b, where in others.items()
        if where == "inside"
    )
    print(f"{'all':24} {len(found):8} {total:7}")
    print(f"levels: files {max(levels(edges).values())}, packages {max(above.values())}")
    print(f"arrows between packages: {sum(len(others) for others in between.values())}")
    print(f"cycles of files: {cycles(edges) or 'none'}")
    print(f"cycles of packages: {cycles(between) or 'none'}")
    print(f"imports inside functions or conditions: {len(inside)}")
    for line in inside:
        print(f"  {line}")
    print(f"imports upwards: {upward(edges) or 'none'}")


if __name__ == "__main__":
    main()
