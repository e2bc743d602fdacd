"""An adversary: random signals to random processes of a sweep and of an evaluation.

    python -m tests.faults.adversary [--rounds 25] [--seed N] [--against sweep evaluation]

Each round starts the same command, waits until the process that is its turn runs, sends the signal
of its turn at a random time, and checks how the command ends. The next round goes on from there;
after the last one the command is run to its end, and its rows are compared with those of an
undisturbed run. Of 25 rounds in a row, each sends one signal of SIGNALS to one process of KINDS.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.disturbed_sweep import write_demonstrations
from harness.storage import tables
from tests.commands import (
    LONG,
    ROOT,
    Commands,
    kill_all_of,
    members_of,
    opened,
    tables_of,
    wait_for,
    without_clocks,
)

KINDS = ("driver", "raylet", "gcs", "agent", "worker")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP)
PROGRESS = re.compile(r"\[\d+/\d+\] ")
AGAIN = "run the same command again"
PAUSE_SECONDS = 3.0  # how long a stopped driver rests, as after Ctrl-Z
LIMIT_SECONDS = 180.0  # for a command to end; a process that is stopped counts as dead after 30
STARTS = "300000-300099"


@dataclass
class Victim:
    """A command, how it is begun anew, its rows but for the clocks, and those it must end with."""

    name: str
    start: Callable[[], "subprocess.Popen[str]"]
    renew: Callable[[], None]
    rows: Callable[[], Any]
    expected: Any = None
    seconds: float = 0.0

    def run_undisturbed(self) -> None:
        """Run it once; what it ends with is what every other run must end with."""
        self.renew()
        began = time.monotonic()
        self.finish()
        self.expected, self.seconds = self.rows(), time.monotonic() - began

    def finish(self) -> None:
        """Run the command to its end and check it."""
        process = self.start()
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, f"{out}\n{err}"
        assert lines_of(err) == [], err
        assert self.expected is None or self.rows() == self.expected, "the rows differ"


def sweep(commands: Commands) -> Victim:
    """The sweep of two trials that takes seconds."""
    commands.space.write_text(LONG)
    folder = commands.results / "attacked"

    def renew() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return Victim(
        "sweep",
        lambda: commands.start_sweep("--name", "attacked"),
        renew,
        lambda: tables_of(folder),
    )


def evaluation(commands: Commands) -> Victim:
    """The evaluation of the golden sweep's best policy by two workers."""
    results = commands.folder / "golden"

    def renew() -> None:
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(ROOT / "tests" / "golden" / "sweep_1" / "results", results)

    def rows() -> list[dict[str, Any]]:
        found = without_clocks(tables.read(results / "golden", "episodes"))
        keys = ("config_hash", "train_seed", "policy_hash", "protocol_hash", "env_seed")
        names = [tuple(row[key] for key in keys) for row in found]
        assert len(names) == len(set(names)), "a start was rolled out twice"
        return found

    words = ("--ckpt", "best", "--seeds", STARTS, "--workers", "2", "--results", results)
    return Victim("evaluation", lambda: commands.start(ROOT / "run_eval.py", *words), renew, rows)


VICTIMS = {"sweep": sweep, "evaluation": evaluation}


def attack(victim: Victim, rounds: int, chance: random.Random) -> Iterator[tuple[bool, str]]:
    """Disturb a command so many times and run it to its end.

    Yields for each round whether all was as it must be, and a line.
    """
    victim.run_undisturbed()
    yield True, f"{victim.name}: undisturbed in {victim.seconds:.0f} s"
    victim.renew()
    turns: list[tuple[str, signal.Signals]] = []
    for number in range(rounds):
        if not turns:
            turns = [(kind, signum) for kind in KINDS for signum in SIGNALS]
            chance.shuffle(turns)
        kind, signum = turns.pop()
        what = f"{victim.name}, round {number + 1}: {signum.name} to {kind}"
        try:
            code, seconds, sent = disturb(victim, kind, signum, chance)
            if code == 0:
                assert victim.rows() == victim.expected, "the rows differ"
                victim.renew()
        except AssertionError as error:
            yield False, f"{what}: NOT AS PROMISED: {error}"
            continue
        yield True, f"{what}{'' if sent else ', too late'}: {code} after {seconds:.1f} s"
    victim.finish()
    yield True, f"{victim.name}: the rows of the undisturbed run after {rounds} rounds"


def disturb(
    victim: Victim, kind: str, signum: signal.Signals, chance: random.Random
) -> tuple[int, float, bool]:
    """Send a signal to a process of one run; return its exit code, when it ended, whether sent."""
    process = victim.start()

    def ended() -> bool:
        return process.poll() is not None

    wait_for(lambda: ended() or processes_of(process.pid, kind), LIMIT_SECONDS)
    most = victim.seconds if kind == "driver" else victim.seconds / 2  # Ray starts in the other
    until = time.monotonic() + chance.uniform(0, most)
    while not ended() and time.monotonic() < until:
        time.sleep(0.01)
    targets = [] if ended() else processes_of(process.pid, kind)
    if targets:
        os.kill(chance.choice(targets), signum)
    if targets and (kind, signum) == ("driver", signal.SIGSTOP):
        time.sleep(PAUSE_SECONDS)
        process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS + victim.seconds)
    except subprocess.TimeoutExpired:
        left = [(pid, command_of(pid)) for pid in members_of(process.pid)]
        kill_all_of(process)
        raise AssertionError(f"it hangs; its processes: {left}") from None
    code, seconds = process.returncode, time.monotonic() - began
    said = f"it ended with {code}\n{out[-2000:]}\n{err}"
    assert "Traceback" not in err, said
    allowed = {0}
    if targets and kind == "driver" and signum == signal.SIGKILL:
        allowed.add(-signum)
    elif targets and kind == "driver" and signum != signal.SIGSTOP:
        allowed.add(128 + signum)
    elif targets and kind != "driver":
        allowed.add(1)
    assert code in allowed, said
    if code >= 0:
        assert len(lines_of(err)) == (code != 0), said
        assert code == 0 or AGAIN in err, said
    wait_for(lambda: not members_of(process.pid), 30)
    return code, seconds, bool(targets)


def lines_of(err: str) -> list[str]:
    """Return the lines on stderr without those that report progress."""
    return [line for line in err.splitlines() if not PROGRESS.match(line)]


def processes_of(session: int, kind: str) -> list[int]:
    """Return the processes of a kind that a command has started, or itself, in order."""
    if kind == "driver":
        return [session]
    return [pid for pid in sorted(members_of(session)) if kind_of(command_of(pid)) == kind]


def kind_of(command: list[str]) -> str | None:
    """Return which of KINDS but the driver a process of Ray's is, by its command line."""
    name = Path(command[0]).name if command else ""
    if name in ("raylet", "gcs_server"):
        return name.partition("_")[0]
    line = " ".join(command)
    if "agent" in line.lower():
        return "agent"
    return "worker" if line.startswith("ray::") or "default_worker.py" in line else None


def command_of(pid: int) -> list[str]:
    """Return the command line of a process, [] if it has ended."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return [word for word in line.split("\0") if word]


def main() -> int:
    """Attack and print what happened; 1 where a command did not end as it must."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25, help="signals to each command (25)")
    parser.add_argument("--seed", type=int, help="of the turns and times (random)")
    parser.add_argument("--against", nargs="+", choices=VICTIMS, default=[*VICTIMS])
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="adversary-") as folder:
        data = Path(folder) / "demos.zarr"
        write_demonstrations(data)
        for name in given.against:
            (Path(folder) / name).mkdir()
            with opened(Path(folder) / name, data) as commands:
                chance = random.Random(seed)
                for as_promised, line in attack(VICTIMS[name](commands), given.rounds, chance):
                    print(line, flush=True)
                    failed = failed or not as_promised
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
