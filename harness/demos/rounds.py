"""Rounds of training and correcting from one file: a search space with the section `corrections`.

Training 0 is the file's sweep on its own data sets. Round r collects corrections where the best
trial of training r - 1 fails, on starts that no earlier round has seen, and training r is the same
sweep on the data sets and all corrections so far. A sweep resumes by itself and a store of
corrections is whole or absent, so the same command goes on after any interruption.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config import strict_yaml
from harness.config.space_file import SpaceFile
from harness.core import command_lines, errors, files, paths
from harness.core.errors import UserError
from harness.core.seeds import CORRECTION_SEEDS
from harness.demos import correction_marks, corrections
from harness.demos.goals import NEAR_PX, NEAR_RAD, check_goals
from harness.demos.source import open_demos, resolve_source

MAX_ROUNDS = 100
AT_GOAL = "corrections end at the goal, so demonstrations must too"
KEYS = ("rounds", "starts", "shares")


def command(given: argparse.Namespace) -> int:
    """Run `python -m harness.demos corrections`."""
    results = paths.RESULTS if given.results is None else given.results
    rounds = read(paths.search_space(given.space))
    return rounds.run(results.expanduser().absolute(), given, Console())


@dataclass(frozen=True)
class Rounds:
    """A file of rounds.

    space: the search space without its data sets and the section `corrections`. data: the data
    sets. starts: on how many each policy is tried. shares: of each of the data sets in the training
    windows, then that of all corrections; () draws every window equally often.
    """

    name: str
    space: Mapping[str, Any]
    data: tuple[Path, ...]
    rounds: int
    starts: int
    shares: tuple[float, ...]

    def run(self, results: Path, given: argparse.Namespace, console: Console) -> int:
        """Run what is left of all rounds; return the exit code, that of a sweep that failed."""
        folder = results / self.name
        with files.lock(folder / "lock") as held:
            if not held:
                raise UserError(f"one process at a time runs the rounds of {folder}, another does")
            for number in range(self.rounds + 1):
                store = folder / f"corrections-{number + 1}.zarr"
                sweep = f"{self.name}-{number}"
                space = self._write_space(folder, number)
                if not store.exists():
                    console.rule(f"training {number} of {self.rounds}: sweep {sweep}")
                    if code := _sweep(space, sweep, results, given.budget):
                        return code
                if number < self.rounds and not store.exists():
                    console.rule(f"corrections {number + 1} of {self.rounds}")
                    first = CORRECTION_SEEDS.start + number * self.starts
                    options = corrections.Options(
                        sweep, store, self.starts, given.workers, first, results
                    )
                    try:
                        corrections.collect_corrections(options, console)
                    except corrections.NoFailuresError as reason:
                        console.print(f"ends after training {number}: {reason}", markup=False)
                        break
            console.rule("rounds")
            for store in _stores(folder, self.rounds):
                console.print(f"{store.name}: {_marks(store)}", soft_wrap=True, markup=False)
            evaluate = command_lines.evaluate_best(results / sweep)
            console.print(f"evaluate it: {evaluate}", soft_wrap=True, markup=False)
        return errors.OK

    def _write_space(self, folder: Path, number: int) -> Path:
        """Write the search space of a training; UserError if an earlier run had another."""
        data = [*self.data, *_stores(folder, number)]
        space = {**self.space, "name": f"{self.name}-{number}", "data": [str(p) for p in data]}
        if self.shares and len(data) > 1:
            shares = self._shares(data)
            space["base"] = {**(self.space.get("base") or {}), "split.shares": shares}
        text = yaml.safe_dump(space, sort_keys=False, allow_unicode=True)
        path = folder / f"training-{number}.yaml"
        if not path.exists():
            with files.atomic(path) as file:
                file.write(text.encode())
        elif path.read_text() != text:
            raise UserError(
                f"rounds go on with the file that they began with, and {path} was made by another; "
                "another name begins anew"
            )
        return path

    def _shares(self, data: Sequence[Path]) -> list[float]:
        """Return the share of each data set; a correction counts the same in every round."""
        *own, corrected = self.shares
        stores = data[len(self.data) :]
        if not stores:
            return [share / sum(own) for share in own]
        steps = [int(open_demos(store, ()).episode_ends[-1]) for store in stores]
        return [*own, *(corrected * n / sum(steps) for n in steps)]


def read(path: Path) -> Rounds:
    """Read a file of rounds; UserError with the line and the rule, and for unusable data sets."""
    file = SpaceFile(strict_yaml.read(path))
    root = dict(file.mapping((), file.document.content))
    at = ("corrections",)
    if "corrections" not in root:
        raise file.error((), "a file of rounds must have the section `corrections`, given none")
    section = file.section(at, root.pop("corrections"), KEYS)
    name = paths.check_name(file.text(("name",), root.pop("name", path.stem)), "name")
    rounds = file.whole((*at, "rounds"), section.get("rounds", 3), 1, MAX_ROUNDS)
    most = len(CORRECTION_SEEDS) // rounds
    starts = file.whole((*at, "starts"), section.get("starts", 200), 1, most)
    given = root.pop("data", [])
    source = resolve_source(*file.texts(("data",), given))
    for each in source.paths:
        check_goals(open_demos(each, ()), AT_GOAL, NEAR_PX, NEAR_RAD)
    shares = section.get("shares", [])
    if shares and not _are_shares(shares, len(source.paths) + 1):
        raise file.error(
            (*at, "shares"),
            f"shares must be {len(source.paths) + 1} numbers above 0 that add up to 1, one for "
            f"each data set and the last for all corrections, given {shares!r:.60}",
        )
    return Rounds(name, root, source.paths, rounds, starts, tuple(shares))


def _are_shares(given: object, count: int) -> bool:
    return (
        isinstance(given, list)
        and len(given) == count
        and all(type(share) in (int, float) and share > 0 for share in given)
        and abs(sum(given) - 1) < 1e-6
    )


def _stores(folder: Path, number: int) -> list[Path]:
    """Return the corrections of the first rounds that there are."""
    every = [folder / f"corrections-{k + 1}.zarr" for k in range(number)]
    return [path for path in every if path.exists()]


def _marks(store: Path) -> correction_marks.Marks | None:
    return correction_marks.read(store, len(open_demos(store, ()).episode_ends))


def _sweep(space: Path, name: str, results: Path, budget: str) -> int:
    """Run run_sweep.py in a process of its own and return its exit code."""
    program = str(paths.ROOT / "run_sweep.py")
    words = [str(space), "--name", name, "--results", str(results), "--budget", budget]
    process = subprocess.Popen([sys.executable, program, *words])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)  # it ignores this if the terminal has interrupted it
        process.wait()
        raise
