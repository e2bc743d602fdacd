"""Random signals to the processes of a sweep and an evaluation change no row, see adversary.py."""

import random
import subprocess

import pytest

from tests.faults import adversary

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3000)]
ROUNDS = 5


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", adversary.VICTIMS)
def test_random_signals_change_no_row(commands, name):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the signals: {seed}")
    victim = adversary.VICTIMS[name](commands)
    for as_promised, line in adversary.attack(victim, ROUNDS, random.Random(seed)):
        print(line)
        assert as_promised, line


class Middle(random.Random):
    """Chance that puts every time in the middle."""

    def uniform(self, a, b):
        return (a + b) / 2


def test_the_adversary_notices_what_is_not_as_promised(monkeypatch):
    """A command without the codes of ours, and one whose rows change."""
    monkeypatch.setattr(adversary, "KINDS", ("driver",))
    rows = iter(range(100))

    def start():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(["sleep", "1"], start_new_session=True, **pipes)

    def attacked(of, rounds):
        victim = adversary.Victim("program", start, lambda: None, of)
        return [good for good, _ in adversary.attack(victim, rounds, Middle(0))]

    # TERM, INT and HUP give negative codes (INT is ignored behind `&`, HUP in nohup); KILL and STOP
    # are right.
    assert attacked(lambda: 1, 5).count(False) in (1, 2, 3)
    with pytest.raises(AssertionError, match="the rows differ"):
        attacked(lambda: next(rows), 0)
