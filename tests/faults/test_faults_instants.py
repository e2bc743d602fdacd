"""A trial killed at any instant: nothing torn is seen, and it ends as if nothing had been."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

INSTANTS = Path(__file__).with_name("instants.py")
# Every instant takes a minute; a run takes each fifth of them, from a start drawn anew.
EVERY = int(os.environ.get("FAULTS_EVERY", "5"))


@pytest.mark.slow
def test_a_trial_killed_at_any_step_ends_as_an_undisturbed_one(tmp_path, tiny_data, tiny_settings):
    settings = {**tiny_settings, "train.steps": 4, "select.every": 2}
    first = random.SystemRandom().randrange(EVERY)
    print(f"every {EVERY}th instant from {first}")
    done = subprocess.run(
        [sys.executable, INSTANTS, tiny_data, tmp_path / "runs", str(first), str(EVERY)],
        env={**os.environ, "TINY": json.dumps(settings), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # Two checkpoints of `last`, two selections, curves, health and the status, again and again.
    assert said["steps"] > 60
    assert said["tried"] >= said["steps"] // EVERY
    assert said["wrong"] == {}
