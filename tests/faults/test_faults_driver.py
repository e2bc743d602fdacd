"""The driver of a sweep killed at random, one sweep beside another, and who a sweep talks to."""

import os
import random
import signal
import time

import pytest

from harness.core import files
from harness.storage import tables
from tests.commands import LONG, tables_of, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1200)]

LOOPBACK = {
    b"\x7f\0\0\1",
    bytes(15) + b"\1",
    bytes(10) + b"\xff\xff" + b"\x7f\0\0\1",
}
NOBODY = {bytes(4), bytes(16)}


def test_a_sweep_talks_to_nobody_beyond_the_loopback(undisturbed):
    seen = undisturbed.sockets
    assert any(state == "01" for state, _, _ in seen)  # Ray's processes do talk with each other
    far = {other for _, _, other in seen} - LOOPBACK - NOBODY
    assert not far, f"connected to {far}"
    listening = {own for state, own, _ in seen if state == "0A"}
    assert listening
    assert listening <= LOOPBACK, "a port is open to others"
    assert undisturbed.told == {b"RAY_USAGE_STATS_ENABLED=0"}


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_sweep_whose_driver_is_killed_again_and_again_ends_with_the_same_table(
    commands, undisturbed, kills
):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the instants: {seed}")
    chance = random.Random(seed)
    commands.space.write_text(LONG)
    folder = commands.results / "killed"
    for kill in range(kills):
        process = commands.start_sweep("--name", "killed")
        if kill % 2:  # at any instant of the start-up, of the trials, of the end
            time.sleep(chance.uniform(0, undisturbed.seconds))
        else:  # while the trials run
            before = progress(folder)
            wait_for(lambda p=process, b=before: progress(folder) > b or p.poll() is not None, 600)
            time.sleep(chance.uniform(0, 0.5))
        process.kill()
        process.communicate()
        for kind in ("trials", "curves", "episodes"):
            if folder.is_dir():
                tables.read(folder, kind)
        assert not list(folder.rglob("*.torn*"))
    code, out, err = commands.run_sweep("--name", "killed")
    assert (code, err) == (0, ""), out
    assert "2/2 trials finished" in out
    assert tables_of(folder) == tables_of(undisturbed.path)
    assert max(status["attempts"] for status in commands.statuses("killed")) >= 2
    assert not [path for path in folder.rglob(".*") if ".tmp-" in path.name]


@pytest.mark.slow
def test_a_sweep_whose_folder_is_moved_ends_and_resumes_where_it_is_put_back(commands, undisturbed):
    commands.space.write_text(LONG)
    folder, moved = commands.results / "moved", commands.results / "elsewhere"
    process = commands.start_sweep("--name", "moved")
    wait_for(lambda: progress(folder) >= 4, 600)
    folder.rename(moved)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "must stay where it is" in err
    assert not folder.exists()
    moved.rename(folder)
    code, out, err = commands.run_sweep("--name", "moved")
    assert (code, err) == (0, ""), out
    assert tables_of(folder) == tables_of(undisturbed.path)


def progress(folder):
    """Return how far a sweep's trials are, in steps."""
    paths = folder.glob("trials/*/status.json")
    return sum(files.read_json(path).get("step", 0) for path in paths)


@pytest.mark.slow
def test_the_second_sweep_is_refused_and_a_second_ctrl_c_leaves_at_once(commands):
    commands.space.write_text(LONG.replace("steps: 300", "steps: 100000"))
    process = commands.start_sweep("--name", "interrupted")
    folder = commands.results / "interrupted"
    wait_for(lambda: progress(folder) >= 4, 600)
    code, _, err = commands.run_sweep("--name", "interrupted", "--yes")
    assert code == 2
    assert f"is being run by process {process.pid} on " in err
    assert err.count("\n") == 1
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    # Without waiting for Ray; on a busy machine its turn comes later.
    assert time.monotonic() - began < 3 + os.getloadavg()[0]
    # Python gives the signal back to the system in its last moments; to a shell both are 130.
    assert process.returncode in (130, -signal.SIGINT)
