"""A trial killed at any instant: nothing torn is seen, and it ends as if nothing had been."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import terminal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

INSTANTS = Path(__file__).with_name("instants.py")


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.slow)])
def test_a_trial_killed_at_any_step_ends_as_an_undisturbed_one(
    tmp_path, tiny_data, tiny_settings, every
):
    """All instants take a minute; the fast tests take each 60th, from a start drawn anew."""
    settings = {**tiny_settings, "train.steps": 4, "select.every": 2}
    first = random.SystemRandom().randrange(every)
    print(f"every {every}th instant from {first}")
    done = subprocess.run(
        [sys.executable, INSTANTS, tiny_data, tmp_path / "runs", str(first), str(every)],
        env=terminal(TINY=json.dumps(settings), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # Two checkpoints of `last`, two selections, curves, health and the status, again and again.
    assert said["steps"] > 60
    assert said["tried"] >= said["steps"] // every
    assert said["wrong"] == {}
