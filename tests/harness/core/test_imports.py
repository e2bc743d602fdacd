"""Reading commands and refused files start fast: their packages import without torch and Ray."""

import subprocess
import sys

import pytest

from harness.core import imports

LIGHT = """
import importlib, pkgutil, sys
for name in {packages!r}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{{name}}."):
        importlib.import_module(module.name)
    heavy = {{"torch", "ray"}} & set(sys.modules)
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
PACKAGES = (
    "ibc.config",
    "harness.core",
    "harness.stats",
    "harness.config",
    "harness.storage",
    "harness.cluster",
    "harness.remote",
    "harness.store",
)


def test_these_packages_import_neither_torch_nor_ray() -> None:
    program = LIGHT.format(packages=PACKAGES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_attribute_is_loaded_by_name() -> None:
    assert imports.load("harness.core.imports:load") is imports.load
    with pytest.raises(ModuleNotFoundError):
        imports.load("harness.core.nothing:load")
