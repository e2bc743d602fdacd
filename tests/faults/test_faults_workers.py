"""A sweep in which every trial has another misfortune: each ends as it should, none hurts others.

The misfortunes are brought into the workers by a sitecustomize.py on their PYTHONPATH; which trial
has which is told by its train.val_windows. Nothing of the sweep itself is replaced.
"""

import os
import secrets
from pathlib import Path

import pytest

from harness.storage import tables
from tests.commands import ROOT, SPACE, without_clocks

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1200)]

MISFORTUNES = """
import importlib.abc, importlib.util, os, resource, signal, sys, time
from pathlib import Path

HERE = Path(__file__).parent

def once(name):
    "Whether this happens for the first time."
    try:
        (HERE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def raises_once():
    if once("raised"):
        raise RuntimeError("a hiccup of the machine")

def raises():
    raise RuntimeError("<b>always</b> \\x1b[31m the same")

def hangs():
    time.sleep(10_000)

def lacks_memory():
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, limits[1]))
    try:
        bytearray(2**32)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

def dies_once():
    if once("died"):
        os.kill(os.getpid(), signal.SIGKILL)

def eats_memory():
    with (HERE / "ate").open("a") as file:
        file.write("x")
    held = []
    while True:
        held.append(bytearray(os.urandom(1)) * 2**26)

BY_WINDOWS = {
    11: raises_once, 12: raises, 13: hangs, 14: lacks_memory, 15: dies_once, 16: eats_memory,
}

def bring(module):
    real = module.Trainer.run_epoch
    def run_epoch(self):
        # A checkpoint after every epoch, so that going on from one can be told from starting anew.
        sys.modules["harness.trials.runner"].SAVING_SHARE = 1e9
        if self.step >= 4 and self.config.val_windows in BY_WINDOWS:
            BY_WINDOWS[self.config.val_windows]()
        return real(self)
    module.Trainer.run_epoch = run_epoch

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "ibc.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        real = spec.loader.exec_module
        def exec_module(module):
            real(module)
            bring(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""

ARMS = {"raises once": 11, "raises": 12, "lacks memory": 14, "dies once": 15}
# What waits for limits and takes a new worker each time: a sweep of its own.
SLOW_ARMS = {"hangs": 13, "eats memory": 16}
GROUP_BYTES = 5 * 2**29


@pytest.fixture(scope="module")
def memory_group():
    """A control group with little memory: (what to put before a command, None) or (None, why not).

    What the sweep's processes take beyond it, the kernel kills for: really out of memory.
    """
    name = f"ibc-faults-{secrets.token_hex(4)}"
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent = first if first.is_dir() else second
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    folder = parent / name
    try:
        folder.mkdir()
        (folder / limit).write_text(str(GROUP_BYTES))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        yield (), f"no control group with a limit of memory can be made here: {error}"
        return
    yield ("sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"), None
    for pid in (folder / "cgroup.procs").read_text().split():
        (parent / "cgroup.procs").write_text(pid)
    folder.rmdir()


@pytest.fixture
def commands(shared_commands):
    """One results folder for all tests of this file."""
    return shared_commands


def run(commands, name, arms, *options, prefix=()):
    """Run a sweep of these arms; return its exit code, what it said, and its rows by arm."""
    (commands.folder / "sitecustomize.py").write_text(MISFORTUNES)
    path = os.pathsep.join([str(commands.folder), str(ROOT)])
    commands.environment["PYTHONPATH"] = path
    text = SPACE.replace("steps: 40", "steps: 12")
    lines = [f"      {arm}: {{train.val_windows: {windows}}}" for arm, windows in arms.items()]
    commands.space.write_text("\n".join([text, *lines, ""]))
    code, out, err = commands.run_sweep("--name", name, *options, prefix=prefix)
    assert err == "", err
    rows = tables.read(commands.results / name, "trials").to_pylist()
    assert len(rows) == len(arms) + 2
    return code, out, {row["arm"]: row for row in rows}


@pytest.fixture(scope="module")
def misfortunes(shared_commands):
    """The sweep of `ARMS`; see `run`."""
    return run(shared_commands, "misfortunes", ARMS)


@pytest.fixture(scope="module")
def slow_misfortunes(shared_commands, memory_group):
    """The sweep of `SLOW_ARMS`; see `run`."""
    prefix, _ = memory_group
    arms = {arm: n for arm, n in SLOW_ARMS.items() if prefix or arm != "eats memory"}
    # Enough seconds for a trial on a machine as busy as this; the one that hangs costs them all.
    limit = 25 + 6 * os.getloadavg()[0]
    options = ("--hours-per-trial", str(limit / 3600))
    code, out, rows = run(shared_commands, "slow", arms, *options, prefix=prefix)
    assert (code, f"2/{len(rows)} trials finished, {len(arms)} failed" in out) == (1, True)
    return rows


def folder_of(commands, row, name="misfortunes"):
    return commands.results / name / "trials" / row["trial"]


def epochs_of(commands, row):
    curves = tables.read(commands.results / "misfortunes", "curves").to_pylist()
    return [c["step"] for c in curves if c["config_hash"] == row["config_hash"]]


def test_trials_beside_the_unlucky_ones_finish_and_the_code_is_1(misfortunes, commands):
    code, out, rows = misfortunes
    assert code == 1
    failed = {arm for arm, row in rows.items() if row["status"] == "failed"}
    assert failed == {"raises", "lacks memory"}
    for arm in ("baseline (all)", "narrow"):
        assert (rows[arm]["status"], rows[arm]["attempts"]) == ("finished", 1)
    assert "4/6 trials finished, 2 failed" in out


@pytest.mark.parametrize("arm", ["raises once", "dies once"])
def test_a_fault_that_passes_costs_an_attempt_and_nothing_else(misfortunes, commands, arm):
    row = misfortunes[2][arm]
    assert (row["status"], row["attempts"], row["error"]) == ("finished", 2, None)
    # It went on from its checkpoint: every epoch is there, once.
    assert epochs_of(commands, row) == [2, 4, 6, 8, 10, 12]
    assert not (folder_of(commands, row) / "error.txt").exists()


def test_what_always_raises_is_a_failed_row_with_its_traceback(misfortunes, commands):
    _, out, rows = misfortunes
    row = rows["raises"]
    assert row["attempts"] == 2
    assert row["error"] == "RuntimeError: <b>always</b> \\x1b[31m the same"
    text = (folder_of(commands, row) / "error.txt").read_text()
    assert "Traceback" in text
    assert "in raises" in text
    assert "\x1b[31m" not in out  # as the error has it
    assert "<b>always</b> \\x1b[31m the same" in out
    assert row["select_score"] is None


def test_a_lack_of_memory_is_called_so_with_what_helps(misfortunes):
    row = misfortunes[2]["lacks memory"]
    assert row["error"].startswith("out of memory: MemoryError")
    assert "fewer trials at once" in row["error"]
    assert row["attempts"] == 2


def test_a_sweep_with_nothing_to_do_still_says_that_trials_failed(misfortunes, commands):
    before = without_clocks(tables.read(commands.results / "misfortunes", "trials"))
    code, out, err = commands.run_sweep("--name", "misfortunes")
    assert (code, err) == (1, "")
    assert "0 to run" in out
    assert "--retry-failed" in out
    assert without_clocks(tables.read(commands.results / "misfortunes", "trials")) == before


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_at_its_limit(slow_misfortunes, commands):
    row = slow_misfortunes["hangs"]
    assert row["error"].startswith("TimeoutError: took longer than")
    assert "--hours-per-trial" in row["error"]
    # Where it hung is kept.
    assert "hangs" in (folder_of(commands, row, "slow") / "error.txt").read_text()


@pytest.mark.slow
def test_a_worker_killed_for_memory_is_tried_once_more_and_called_so(
    slow_misfortunes, commands, memory_group
):
    if memory_group[1]:
        pytest.skip(memory_group[1])
    row = slow_misfortunes["eats memory"]
    assert (commands.folder / "ate").read_text() == "xx"
    assert row["error"].startswith("out of memory: MemoryError: the system killed its worker")
    assert "fewer trials at once" in row["error"]


@pytest.mark.slow
def test_the_same_error_in_a_row_stops_the_sweep_with_one_message(misfortunes, commands):
    begun = commands.space.read_text()
    lines = [f"      same {k}: {{train: {{val_windows: 12, steps: {12 + k}}}}}" for k in range(12)]
    head = begun.partition("      narrow:")[0].replace("val_windows: 8", "val_windows: 12")
    commands.space.write_text("\n".join([head.rstrip(), *lines, ""]))
    code, out, err = commands.run_sweep("--name", "same")
    assert (code, err) == (1, "")
    assert out.count("trials in a row failed with the same error") == 1
    rows = tables.read(commands.results / "same", "trials").to_pylist()
    states = [row["status"] for row in rows]
    # Those that ran beside the fifth may have ended after it.
    assert 5 <= states.count("failed") <= 8
    assert states.count("pending") == len(states) - states.count("failed")
