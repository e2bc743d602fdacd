"""What Ray leaves open: its folders, its handlers of signals, its processes that die or hang."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cluster import session_watch
from harness.core import processes
from tests.commands import LONG, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# A session in which Ray's start is replaced by what the test is about.
SESSION = """
import os, signal, sys
from pathlib import Path
from harness.cluster import ray_patches
from harness.cluster.ray_session import ray_session
from harness.core import errors
{start}
ray_patches.init = start
def main():
    with ray_session(cpus=1, gpus=0) as scratch:
        {body}
    return 0
sys.exit(errors.run(main))
"""
# As Ray makes them.
OPEN = """
def start(folder, **_):
    for inner in ("", "session/sockets", "session/logs"):
        os.makedirs(f"{folder}/{inner}", exist_ok=True)
    for path in (Path(folder), *Path(folder).rglob("*")):
        path.chmod(0o777)
"""
PLANT = """
        print(*(f"{path.stat().st_mode & 0o777:o}" for path in (scratch, *scratch.rglob("*"))))
        print(scratch.parent, flush=True)
        if os.fork() == 0:
            os.setgid(65534), os.setuid(65534)
            for path in (scratch, *map(scratch.joinpath, ("r", "r/session/sockets"))):
                try:
                    (path / "planted").symlink_to("/etc/passwd")
                    print("planted", path, flush=True)
                except PermissionError:
                    print("refused", flush=True)
            os._exit(0)
        os.wait()
"""


def run(python, start, body):
    return python(SESSION.format(start=start, body=body.strip()))


def test_nobody_else_can_enter_the_folder_of_a_session(python):
    if os.getuid():
        pytest.skip("another user's attempt needs root, to become that user")
    done = run(python, OPEN, PLANT)
    modes, parent, *attempts = done.stdout.splitlines()
    assert modes.split() == ["700", "777", "777", "777", "777"], done
    assert parent == "/tmp"
    assert attempts == ["refused"] * 3


@pytest.fixture
def hears_hang_ups():
    """Children end when the terminal goes, as they do unless the tests themselves run in nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hang_ups")
def test_a_signal_during_rays_start_ends_it_in_order_with_its_own_code(python):
    """Ray replaces handlers, and is not interrupted half way through its own start."""
    start = """
import ray
def start(folder, **_):
    ray._private.utils.set_sigterm_handler(lambda signum, frame: sys.exit(signum))
    os.kill(os.getpid(), signal.{name})
    print("started", flush=True)
"""
    for name, code, said in (
        ("SIGTERM", 143, "terminated"),
        ("SIGHUP", 129, "the terminal has gone"),
    ):
        # Ray is imported before the session, which then needs the token to be there.
        done = python(
            SESSION.format(start=start.format(name=name), body='print("ran", flush=True)'),
            env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        )
        assert (done.returncode, done.stdout) == (code, "started\n"), done
        assert done.stderr == f"{said}; run the same command again to continue\n"


def test_what_is_stopped_at_the_end_is_continued():
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with session_watch.watched({sleeper.pid: "raylet"}, lambda: None):
            sleeper.send_signal(signal.SIGSTOP)
            wait_for(lambda: processes.is_stopped(sleeper.pid), 30)
        wait_for(lambda: not processes.is_stopped(sleeper.pid), 30)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


WATCHED = """
import sys, time
from harness.cluster import session_watch
session_watch.LOOK_SECONDS, session_watch.STOPPED_SECONDS = 0.1, 0.5
session_watch.WORKER_SECONDS = 0.5
with session_watch.watched({int(sys.argv[1]): "raylet"}, lambda: print("cleaned", flush=True)):
    print("watching", flush=True)
    time.sleep(float(sys.argv[2]))
print("ended", flush=True)
"""


def test_a_driver_that_ends_without_a_word_is_reported_and_takes_its_processes_along():
    """As Ray's part in C++ ends it when the raylet closes its socket, or SIGKILL does."""
    sleeper = subprocess.Popen(["sleep", "60"])
    program = WATCHED.replace("time.sleep(float(sys.argv[2]))", "import os; os._exit(1)")
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(sleeper.pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (1, "watching\n")
        line = "error: Ray's processes have ended; run the same command again to continue\n"
        assert done.stderr == line
        assert sleeper.wait(timeout=60) == -signal.SIGKILL
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize(
    ("signum", "said"),
    [
        (signal.SIGKILL, "has died"),
        (signal.SIGSTOP, "has been stopped for 0 s"),
        (None, None),
    ],
)
def test_a_process_of_ray_that_dies_or_hangs_ends_the_driver_with_one_line(signum, said):
    sleeper = subprocess.Popen(["sleep", "60"])
    seconds = "60" if signum else "1"
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(sleeper.pid), seconds],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watcher.stdout.readline() == "watching\n"
        if signum:
            sleeper.send_signal(signum)
        out, err = watcher.communicate(timeout=60)
    finally:
        sleeper.kill()
        sleeper.wait()
    if signum is None:
        assert (watcher.returncode, out, err) == (0, "ended\n", "")
        return
    assert (watcher.returncode, out) == (1, "cleaned\n")
    assert err == f"error: Ray's process raylet {said}; run the same command again to continue\n"


def test_a_worker_that_hangs_is_killed_and_the_driver_goes_on():
    parent = subprocess.Popen(
        ["sh", "-c", "sleep 60; echo killed; sleep 60"], stdout=subprocess.PIPE, text=True
    )
    watcher = subprocess.Popen([sys.executable, "-c", WATCHED, str(parent.pid), "3"])
    try:
        wait_for(lambda: processes.children([parent.pid]), 30)
        (worker,) = processes.children([parent.pid])
        os.kill(worker, signal.SIGSTOP)
        assert parent.stdout.readline() == "killed\n"
        assert watcher.wait(timeout=60) == 0
    finally:
        for pid in processes.children([parent.pid]):
            processes.kill(pid)
        for process in (parent, watcher):
            process.kill()
            process.wait()
        parent.stdout.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sweep_whose_raylet_or_gcs_dies_or_hangs_says_so_and_resumes(commands, name, signum):
    commands.space.write_text(LONG)
    process = commands.start_sweep("--name", "lost")
    wait_for(lambda: list(commands.results.glob("lost/trials/*/curves.parquet")), 300)
    started = [each for each in processes_of(process.pid) if each[1] == name]
    os.kill(started[0][0], signum)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert process.returncode == 1
    assert err.count("\n") == 1, err
    assert f"Ray's process {name} has " in err
    assert "run the same command again" in err
    assert not processes_of(process.pid)
    code, out, _ = commands.run_sweep("--name", "lost")
    assert code == 0, out


def processes_of(pid):
    """Return the pids and names of processes of the session that this process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(f"ibc-harness-ray-{pid}-" in word for word in words[1:]):
            found.append((int(path.name), Path(words[0]).name))
    return found
