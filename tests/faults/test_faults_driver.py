"""The driver of a sweep killed at random, one sweep beside another, and who a sweep talks to."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from harness.core import files
from harness.storage import tables

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1200)]

KILLS = 5


@pytest.fixture(scope="module")
def undisturbed(shared_door, processes_of):
    """A sweep that nothing happens to, and the sockets that its processes had in the meantime."""
    process = shared_door.start("--name", "undisturbed")
    began, seen, told = time.monotonic(), set(), set()
    while process.poll() is None:
        for pid in processes_of(process.pid):
            seen |= sockets_of(pid)
            told |= usage_statistics_of(pid)
        time.sleep(0.1)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    return time.monotonic() - began, seen, told


def usage_statistics_of(pid):
    """Return what a process of Ray's is told in its environment about sending statistics."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return set()
    if b"gcs_server" not in name and b"raylet" not in name:
        return set()
    return {word for word in words if word.startswith(b"RAY_USAGE_STATS_ENABLED")} or {b"nothing"}


def sockets_of(pid):
    """Return (state, own, other address) of a process's TCP and UDP sockets, as /proc has them."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
        owned = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        found = set()
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            with open(f"/proc/{pid}/net/{kind}") as file:  # noqa: PTH123
                for line in list(file)[1:]:
                    words = line.split()
                    if words[9] in owned:
                        found.add((words[3], address(words[1]), address(words[2])))
    except OSError:
        return set()  # the process has ended
    return found


def address(text):
    """Return the IP address of /proc/net's hexadecimal `address:port`, as four or eight words."""
    raw = bytes.fromhex(text.partition(":")[0])
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    return b"".join(words)


LOOPBACK = {
    b"\x7f\0\0\1",
    bytes(15) + b"\1",
    bytes(10) + b"\xff\xff" + b"\x7f\0\0\1",
}
NOBODY = {bytes(4), bytes(16)}


def test_a_sweep_talks_to_nobody_beyond_the_loopback(undisturbed):
    _, seen, told = undisturbed
    assert any(state == "01" for state, _, _ in seen)  # Ray's processes do talk with each other
    far = {other for _, _, other in seen} - LOOPBACK - NOBODY
    assert not far, f"connected to {far}"
    listening = {own for state, own, _ in seen if state == "0A"}
    assert listening
    assert listening <= LOOPBACK, "a port is open to others"
    assert told == {b"RAY_USAGE_STATS_ENABLED=0"}


def test_a_sweep_whose_driver_is_killed_again_and_again_ends_with_the_same_table(
    shared_door, undisturbed, tables_of, wait_for, processes_of
):
    seconds, *_ = undisturbed
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the instants: {seed}")
    chance = random.Random(seed)
    folder = shared_door.results / "killed"
    for kill in range(KILLS):
        process = shared_door.start("--name", "killed")
        if kill % 2:  # at any instant of the start-up, of the trials, of the end
            time.sleep(chance.uniform(0, seconds))
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
    code, out, err = shared_door.run("--name", "killed")
    assert (code, err) == (0, ""), out
    assert tables_of(folder) == tables_of(shared_door.results / "undisturbed")
    assert not [path for path in folder.rglob(".*") if ".tmp-" in path.name]


def progress(folder):
    """Return how far a sweep's trials are, in steps."""
    paths = folder.glob("trials/*/status.json")
    return sum(files.read_json(path).get("step", 0) for path in paths)


def test_the_second_sweep_is_refused_and_a_second_ctrl_c_leaves_at_once(
    shared_door, wait_for, killed_at_the_end
):
    text = shared_door.space.read_text()
    shared_door.space.write_text(text.replace("steps: 40", "steps: 100000"))
    process = shared_door.start("--name", "interrupted")
    killed_at_the_end.append(process)
    shared_door.space.write_text(text)
    folder = shared_door.results / "interrupted"
    wait_for(lambda: progress(folder) >= 4, 600)
    code, _, err = shared_door.run("--name", "interrupted", "--yes")
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
