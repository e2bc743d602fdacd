"""A disk that is full, and one that cannot be written to: real file systems, mounted for a test."""

import json
import sys

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# Runs a trial whose disk fills up after its third epoch, and says what is left.
FULL = """
import errno, json, os, sys
from pathlib import Path
from harness.config import trial_config
from harness.config.protocol import Protocol
from harness.core import files
from harness.storage import checkpoints, tables
from harness.trials import runner
from harness.trials.runner import run_trial

disk, data = map(Path, sys.argv[1:3])
settings, room = json.loads(sys.argv[3]), int(sys.argv[4])
runner.PROTOCOL = Protocol(max_episode_steps=6)
runner.SAVING_SHARE = 1e9
folder = disk / "sweep/trials/t"

def fill(metrics):
    if metrics["step"] != 6 or (disk / "ballast").exists():
        return
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - room))

said = {}
try:
    run_trial(trial_config.resolve(settings), folder, fill, demos=data)
except Exception as error:  # an OSError, or safetensors' own
    said["error"] = str(error)
said["status"] = files.read_json(folder / "status.json")
said["torn"] = [path.name for path in disk.rglob("*.torn*")]
for name in ("best", "last"):
    path = checkpoints.find(folder / "checkpoints", name)
    described = checkpoints.describe(path)
    assert described["policy_hash"] == checkpoints.weights_hash(path)
    said[name] = described["step"]
checkpoints.load_training_state(checkpoints.find(folder / "checkpoints", "last"))
tables.read(disk / "sweep", "episodes")
(disk / "ballast").unlink()
run_trial(trial_config.resolve(settings), folder, demos=data)
said["after"] = files.read_json(folder / "status.json")
said["left over"] = [p.name for p in disk.rglob(".*") if ".tmp-" in p.name]
print(json.dumps(said))
"""


@pytest.mark.parametrize("room", [0, 16_384])
def test_a_full_disk_fails_the_trial_and_leaves_what_was_there(
    tmp_path, tiny_data, tiny_settings, python, mounted, room
):
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = mounted(disk, f"mount -t tmpfs -o size=600k tmpfs {disk}")
    done = python(FULL, disk, tiny_data, json.dumps(tiny_settings), room, prefix=prefix)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "No space left on device" in said["error"]
    # The checkpoints of before are whole, and once there is room the trial goes on from them.
    assert (said["best"], said["last"], said["torn"]) == (4, 6, [])
    if room:
        assert said["status"]["status"] == "failed"
        assert "No space left on device" in said["status"]["error"]
    assert (said["after"]["status"], said["after"]["step"]) == ("finished", 8)
    assert said["left over"] == []


TWICE = """
import subprocess, sys
disk, room, *command = sys.argv[1:]
first = subprocess.run(command).returncode
subprocess.run(["mount", "-o", f"remount,{room}", disk], check=True)
print("first", first, flush=True)
sys.exit(subprocess.run(command).returncode)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("little", "enough"), [("size=150k", "size=50m"), ("nr_inodes=40", "nr_inodes=10000")]
)
def test_with_free_space_the_same_command_completes_the_sweep(commands, mounted, little, enough):
    disk = commands.results
    disk.mkdir()
    prefix = mounted(disk, f"mount -t tmpfs -o {little} tmpfs {disk}")
    sweep = sys.executable, *commands.sweep()
    code, out, err = commands.run("-c", TWICE, disk, enough, *sweep, prefix=prefix)
    assert "first 1\n" in out, err
    assert "No space left on device" in out + err
    assert "run the same command again" in out + err
    assert code == 0, f"{out}\n{err}"
    assert "2/2 trials finished" in out.partition("first 1\n")[2]


def test_a_sweep_on_a_full_disk_says_so_in_one_line(commands, mounted):
    commands.results.mkdir()
    fill = (
        f"mount -t tmpfs -o size=16k tmpfs {commands.results} && "
        f"dd if=/dev/zero of={commands.results}/ballast bs=4k 2>/dev/null; true"
    )
    code, _, err = commands.run_sweep(prefix=mounted(commands.results, fill))
    assert code == 1
    assert err.startswith("error: ")
    assert "No space left on device" in err
    assert err.count("\n") == 1


def test_a_read_only_results_folder_is_refused_before_the_start(commands, mounted):
    commands.results.mkdir()
    prefix = mounted(commands.results, f"mount -t tmpfs -o ro tmpfs {commands.results}")
    code, out, err = commands.run_sweep(prefix=prefix)
    assert code == 2
    assert "the results' folder must be writable" in err
    assert "Read-only file system" in err
    assert err.count("\n") == 1
    assert "epoch" not in out


EVALUATE = """
import sys
from pathlib import Path
from rich.console import Console
from harness.core import errors
from harness.evaluation.job import Options, evaluate
results = Path(sys.argv[1])
options = Options(ckpt="best", seeds="5", results=results, workers=1)
sys.exit(errors.run(lambda: evaluate(options, Console())))
"""


@pytest.mark.slow  # it imports torch for what tests/harness/evaluation/test_job.py shows
def test_an_evaluation_into_a_read_only_folder_is_refused_before_the_start(golden, python, mounted):
    prefix = mounted(golden, f"mount --bind {golden} {golden} && mount -o remount,ro,bind {golden}")
    done = python(EVALUATE, golden, prefix=prefix)
    assert done.returncode == 2, done.stderr
    assert "results must be writable before anything starts" in done.stderr
    assert done.stderr.count("\n") == 1
