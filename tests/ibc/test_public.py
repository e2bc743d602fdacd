"""The public names of the package."""

import subprocess
import sys

import pytest

import ibc


def test_every_public_name_is_there():
    assert {name: getattr(ibc, name).__name__ for name in ibc.__all__} == {
        name: name for name in ibc.__all__
    }
    with pytest.raises(AttributeError, match="no attribute 'IBCPolice'"):
        ibc.IBCPolice  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ibc, ibc.demos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
