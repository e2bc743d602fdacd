"""Run a tiny trial again and again, each time killed one step later, and finish it each time.

    python tests/faults/instants.py DATA FOLDER FIRST EVERY

A step is any call that changes which files a folder holds or makes them durable: fsync, rename,
replace, unlink, rmdir. Before the n-th of them the process dies by SIGKILL, for each EVERYth n from
FIRST on; what it left is read as a reader would, and the trial is run again to its end.
Prints one line of JSON: how many steps there were, and each n whose end differed.
"""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.config import protocol, trial_config
from harness.core import files
from harness.storage import checkpoints, table_schemas, tables
from harness.trials import runner

CALLS = ("fsync", "rename", "replace", "unlink", "rmdir")
CLOCKS = {"seconds", "samples_per_second", "policy_ms", "env_ms", "render_ms"}
TINY = json.loads(os.environ["TINY"])


class Torn(logging.Handler):
    """Notes when a reader finds a file that is not whole: a kill must never leave one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def die_before(n: int) -> None:
    """Let the process die by SIGKILL before its n-th step (0: never); count the steps."""
    left = [n]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    steps.append(left)


steps: list[list[int]] = []


def in_a_fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """Do the work in a forked process; return its exit status and the JSON it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except BaseException as error:
            os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    return os.waitpid(child, 0)[1], json.loads(said) if said else None


def run(data: Path, sweep: Path, n: int) -> int:
    """Run the trial to its end, or to its n-th step; return how many steps there were."""
    die_before(n)
    settings = trial_config.resolve(TINY)
    folder = sweep / "trials" / trial_config.trial_id(trial_config.config_hash(settings), 0)
    runner.run_trial(settings, folder, demos=data, info={"sweep": "s", "arm": "a"})
    return n - steps[-1][0]


def look(sweep: Path) -> dict[str, Any]:
    """Read what is there as a reader does: nothing may be torn."""
    torn = Torn()
    logging.getLogger("harness.core.files").addHandler(torn)
    counts = {kind: tables.read(sweep, kind).num_rows for kind in ("trials", "curves", "episodes")}
    for path in sweep.rglob("*.json"):
        files.read_json(path)
    for name in ("best", "last"):
        for folder in (sweep / "trials").glob("*/checkpoints"):
            found = checkpoints.find(folder, name)
            if found is not None:
                assert checkpoints.describe(found)["policy_hash"] == checkpoints.weights_hash(found)
    return {**counts, "torn": torn.found + [p.name for p in sweep.rglob("*.torn*")]}


def numbers(sweep: Path) -> dict[str, Any]:
    """Return all that two runs must agree in."""
    (folder,) = (sweep / "trials").iterdir()
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): [
            {k: v for k, v in row.items() if k not in CLOCKS}
            for row in table_schemas.read_file(path, kind).to_pylist()
        ]
        for kind, pattern in (("curves", "curves.parquet"), ("episodes", "episodes/*"))
        for path in folder.glob(pattern)
    }
    status = files.read_json(folder / "status.json")
    found["status"] = {k: status[k] for k in ("status", "step", "best_step", "select_score")}
    for name in ("best", "last"):
        found[name] = checkpoints.describe(folder / "checkpoints" / name)["policy_hash"]
    state = checkpoints.load_training_state(folder / "checkpoints" / "last")
    found["state"] = plain(state["trainer"])
    found["left over"] = sorted(
        p.name for p in folder.rglob(".*") if p.name != ".lock" and not p.name.endswith(".lock")
    )
    return found


def plain(value: Any) -> Any:
    """Return a training state as JSON holds it."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def main(data: Path, folder: Path, first: int, every: int) -> dict[str, Any]:
    """Try every EVERYth instant."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    runner.PROTOCOL = protocol.Protocol(max_episode_steps=4)
    runner.SAVING_SHARE = 1e9  # a checkpoint after every epoch
    # What is imported on first use is imported here once, and not in every fork.
    settings = trial_config.resolve(TINY)
    runner.run_trial(settings, folder / "warm/trials/warm", demos=data)
    numbers(folder / "warm")
    status, count = in_a_fork(lambda: run(data, folder / "undisturbed", 10**9))
    assert status == 0, count
    expected = numbers(folder / "undisturbed")
    wrong = {}
    chosen = range(1 + first, count + 1, every)
    for n in chosen:
        sweep = folder / str(n)
        status, said = in_a_fork(lambda sweep=sweep, n=n: run(data, sweep, n))
        if status != signal.SIGKILL:
            wrong[n] = f"was to be killed: {said}"
            continue
        status, seen = in_a_fork(lambda sweep=sweep: look(sweep))
        if status != 0 or seen["torn"]:
            wrong[n] = f"after the kill: {seen}"
            continue
        status, said = in_a_fork(lambda sweep=sweep: run(data, sweep, 10**9))
        if status != 0:
            wrong[n] = f"again: {said}"
        elif json.dumps(numbers(sweep)) != json.dumps(expected):
            wrong[n] = "another end"
    return {"steps": count, "tried": len(chosen), "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:5]))))
