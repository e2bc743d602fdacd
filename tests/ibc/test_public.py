"""The public names of the package."""

import pkgutil
import subprocess
import sys

import pytest

import ibc
import ibc.config


def test_every_public_name_is_there():
    assert {name: getattr(ibc, name).__name__ for name in ibc.__all__} == {
        name: name for name in ibc.__all__
    }
    with pytest.raises(AttributeError, match="no attribute 'IBCPolice'"):
        ibc.IBCPolice  # noqa: B018


def test_configs_and_demonstrations_are_read_without_torch():
    """A refused YAML, a plan and the reading commands must not wait for it."""
    names = [f"ibc.config.{m.name}" for m in pkgutil.iter_modules(ibc.config.__path__)]
    assert "ibc.config.policy" in names
    code = f"import sys, ibc.data.demos, ibc.data.windows, {', '.join(names)}\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
