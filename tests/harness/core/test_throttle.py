import time

import pytest

from harness.core import throttle
from harness.core.throttle import Throttle


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throttle.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_the_first_time_is_due_at_once(clock):
    assert Throttle().due(0.01)
    assert Throttle().due(0.0)


def test_again_when_it_stays_within_the_share(clock):
    saving = Throttle()
    with saving.timed():
        clock(2.0)
    assert not saving.due(0.01)
    clock(199.0)
    assert not saving.due(0.01)
    assert saving.due(0.02)  # a share may change on the way
    clock(1.0)
    assert saving.due(0.01)
    with saving.timed():
        clock(0.5)  # the last time counts
    clock(50.0)
    assert saving.due(0.01)


def test_a_share_of_nothing_is_once(clock):
    saving = Throttle()
    with saving.timed():
        clock(0.001)
    clock(1e9)
    assert not saving.due(0.0)


def test_what_failed_is_due_again(clock):
    saving = Throttle()

    def save():
        clock(2.0)
        raise OSError("full")

    with pytest.raises(OSError, match="full"), saving.timed():
        save()
    assert saving.due(0.01)


def test_real_time_passes():
    saving = Throttle()
    with saving.timed():
        time.sleep(0.02)
    assert not saving.due(0.01)
