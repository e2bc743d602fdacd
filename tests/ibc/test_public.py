"""The public names of the package."""

import pkgutil
import subprocess
import sys

import pytest

import ibc
import ibc.config
from ibc.data.normalizer import Normalizer


def test_every_public_name_is_there():
    assert {name: getattr(ibc, name).__name__ for name in ibc.__all__} == {
        name: name for name in ibc.__all__
    }
    with pytest.raises(AttributeError, match="no attribute 'IBCPolice'"):
        ibc.IBCPolice  # noqa: B018


def test_a_policy_is_loaded_by_its_own_class_alone(tmp_path):
    config = ibc.PolicyConfig(kind="mse")
    normalizer = Normalizer.blank(config.action, config.action_horizon)
    ibc.build_policy(config, normalizer, generator_seed=0).save(tmp_path)
    assert isinstance(ibc.MSEPolicy.load(tmp_path), ibc.MSEPolicy)
    with pytest.raises(ValueError, match="must hold a policy of kind \"ibc\", got 'mse'"):
        ibc.IBCPolicy.load(tmp_path)


def test_configs_and_demonstrations_are_read_without_torch():
    """A refused YAML, a plan and the reading commands must not wait for it."""
    names = [f"ibc.config.{m.name}" for m in pkgutil.iter_modules(ibc.config.__path__)]
    assert "ibc.config.policy" in names
    code = f"import sys, ibc.data.demos, ibc.data.windows, {', '.join(names)}\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
