"""The driver of a sweep killed at random, one sweep beside another, and who a sweep talks to."""

import os
import random
import signal
import time

import pytest

from harness.core import files
from harness.storage import tables
from tests.commands import LONG, Watch, tables_of, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1200)]

LOOPBACK = {
    b"\x7f\0\0\1",
    bytes(15) + b"\1",
    bytes(10) + b"\xff\xff" + b"\x7f\0\0\1",
}
NOBODY = {bytes(4), bytes(16)}


def kill_and_resume(commands, kills):
    """Kill a sweep's driver so often, then run it to its end; return its folder and a watch."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the instants: {seed}")
    chance = random.Random(seed)
    commands.space.write_text(LONG)
    name = f"killed-{kills}"
    folder = commands.results / name
    began, seconds = time.monotonic(), 0.0
    for kill in range(kills):
        process = commands.start_sweep("--name", name)
        if kill % 2:  # at any instant of the start-up, of the trials, of the end
            time.sleep(chance.uniform(0, seconds))
        else:  # while the trials run
            before = progress(folder)
            wait_for(lambda p=process, b=before: progress(folder) > b or p.poll() is not None, 600)
            time.sleep(chance.uniform(0, 0.5))
        process.kill()
        process.communicate()
        seconds = seconds or 1.5 * (time.monotonic() - began)
        for kind in ("trials", "curves", "episodes"):
            if folder.is_dir():
                tables.read(folder, kind)
        assert not list(folder.rglob("*.torn*"))
    process = commands.start_sweep("--name", name)
    watch = Watch.until_the_end(process)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), out
    assert "2/2 trials finished" in out
    assert max(status["attempts"] for status in commands.statuses(name)) >= 2
    assert not [path for path in folder.rglob(".*") if ".tmp-" in path.name]
    return folder, watch


@pytest.fixture(scope="module")
def killed_once(shared_commands):
    """The folder of a sweep whose driver was killed once, and whom it talked to when resumed."""
    return kill_and_resume(shared_commands, 1)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_sweep_whose_driver_is_killed_again_and_again_ends_with_the_same_table(
    commands, killed_once, undisturbed, kills
):
    folder, _ = killed_once if kills == 1 else kill_and_resume(commands, kills)
    assert tables_of(folder) == tables_of(undisturbed)


def test_a_sweep_talks_to_nobody_beyond_the_loopback(killed_once):
    _, watch = killed_once
    assert any(state == "01" for state, _, _ in watch.sockets)  # Ray's processes do talk
    far = {other for _, _, other in watch.sockets} - LOOPBACK - NOBODY
    assert not far, f"connected to {far}"
    listening = {own for state, own, _ in watch.sockets if state == "0A"}
    assert listening
    assert listening <= LOOPBACK, "a port is open to others"
    assert watch.told == {b"RAY_USAGE_STATS_ENABLED=0"}


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
    assert tables_of(folder) == tables_of(undisturbed)


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
