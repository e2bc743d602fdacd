"""Finds the sweep, trial or checkpoint that a command line names."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.core import command_lines, files, paths
from harness.core.errors import UserError
from harness.core.paths import check_name
from harness.storage import tables
from harness.storage.checkpoints import CONFIG, POLICY, WEIGHTS, describe, find, weights_hash

PRETRAINED = "pretrained:"
_RULE = "--ckpt takes `best`, a trial, a checkpoint's folder or pretrained:NAME"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk; sweep and trial are None for one outside a results folder."""

    path: Path
    trial_dir: Path | None
    config_hash: str | None
    train_seed: int | None
    step: int | None
    policy_hash: str
    note: str = ""  # how it was chosen, to be shown

    @property
    def sweep(self) -> str | None:
        """The name of its sweep."""
        return None if self.trial_dir is None else self.trial_dir.parent.parent.name


def resolve(
    spec: str,
    results: Path,
    sweep: str | None = None,
    fetch: Callable[[Path], None] | None = None,
) -> Checkpoint:
    """Return the checkpoint of `best`, a trial's id (or its unique start), a folder or a name.

    `best` is the finished trial with the highest validation score, of the named or newest sweep;
    `pretrained:NAME` is a policy that comes with the project. `fetch` is called with a trial's
    folder before its checkpoint is opened. UserError when there is no such checkpoint.
    """
    note = ""
    if spec == "best":
        folder = sweep_dir(results, sweep)
        row, note = _best(folder)
    elif not spec.strip():
        raise UserError(f"{_RULE}, given nothing")
    elif spec.startswith(PRETRAINED):
        return _path(pretrained(spec.removeprefix(PRETRAINED)))
    elif os.sep in spec or Path(spec).is_dir():
        return _path(Path(spec))
    else:
        folder, row = _trial(spec, results, sweep)
    trial_dir = folder / "trials" / row["trial"]
    # A folder of unknown origin may contain links; a trial's files lie inside its sweep.
    if not trial_dir.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{trial_dir} links to a place outside its sweep, and is not followed")
    if fetch is not None:
        fetch(trial_dir)
    path = find(trial_dir / "checkpoints", "best")
    if path is None:
        raise UserError(
            f"trial {trial_dir.name} ({row['status']}) has no checkpoint at {trial_dir} yet"
        )
    if not path.resolve().is_relative_to(trial_dir.resolve()):
        raise UserError(f"{path} links to a place outside its trial, and is not followed")
    return _checkpoint(path, trial_dir, note)


def pretrained(name: str) -> Path:
    """Return the folder of a policy that comes with the project; UserError for another name."""
    known = sorted(path.parent.name for path in paths.POLICIES.glob(f"*/{WEIGHTS}"))
    if name not in known:
        there_are = ", ".join(known) or "none in this installation"
        raise UserError(f"pretrained policies are: {there_are}; given {name[:120]!r}")
    return paths.POLICIES / name


def sweeps(results: Path) -> list[Path]:
    """Return the folders of all sweeps that can be read, the newest plan last."""
    found = _scan(results)
    newest = {folder: written for folder, written in found.items() if written is not None}
    return sorted(newest, key=lambda folder: (newest[folder], folder.name))


def leave_out_unreadable(results: Path) -> None:
    """Warn of each folder, possibly a sweep's, that this user may not read."""
    for folder in _unreadable(results):
        files.leave_out(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def none_readable(results: Path) -> str:
    """Return which folders without access could hold what was not found; "" without any."""
    names = ", ".join(folder.name for folder in _unreadable(results))
    return f" (no access to {names})" if names else ""


def _unreadable(results: Path) -> list[Path]:
    return [folder for folder, written in _scan(results).items() if written is None]


def _scan(results: Path) -> dict[Path, int | None]:
    """Return when the plan of each sweep was written, in ns; None for a folder without access."""
    found: dict[Path, int | None] = {}
    for folder in sorted(results.iterdir()) if results.is_dir() else ():
        try:
            written = _written(folder)
        except PermissionError:
            found[folder] = None
            continue
        if written is not None:
            found[folder] = written
    return found


def _written(folder: Path) -> int | None:
    """Return when a sweep's plan was written, in ns; None for a folder that is no sweep."""
    # A folder of trials is a sweep even if its torn plan was set aside.
    for name in ("plan.json", "trials"):
        with suppress(FileNotFoundError, NotADirectoryError):
            return (folder / name).stat().st_mtime_ns
    return None


def sweep_dir(results: Path, sweep: str | None = None) -> Path:
    """Return the folder of the named sweep, or of the newest; UserError without one.

    PermissionError for a named one without access.
    """
    if sweep is not None:
        if sweep.startswith("evaluations/"):
            raise UserError(
                f"a sweep is needed, and {sweep[:120]} is an evaluation, which show, episodes, "
                "compare, sql and export read"
            )
        folder = results / check_name(sweep)
        if _written(folder) is None:
            known = ", ".join(path.name for path in sweeps(results)) or "none"
            raise UserError(f"there is no sweep {sweep} under {results}; there are: {known}")
        return folder
    found = sweeps(results)
    if not found:
        raise UserError(
            f"a sweep is needed, and {results} holds none{none_readable(results)}; "
            f"{command_lines.name('sweep')} makes one"
        )
    return found[-1]


def evaluations(results: Path) -> list[Path]:
    """Return the folders of all evaluations outside sweeps, see docs/RESULTS.md."""
    return sorted(path.parent for path in (results / "evaluations").glob("*/episodes"))


def tables_dir(results: Path, name: str | None) -> Path:
    """Return the folder of a sweep, or of `evaluations/NAME`; UserError without one."""
    if name is None or not name.startswith("evaluations/"):
        return sweep_dir(results, name)
    folder = results / "evaluations" / check_name(name.partition("/")[2], "an evaluation")
    if not (folder / "episodes").is_dir():
        known = ", ".join(f"evaluations/{path.name}" for path in evaluations(results)) or "none"
        raise UserError(f"there is no {name} under {results}; there are: {known}")
    return folder


def _best(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the row of the best finished trial and how it was chosen."""
    trials = tables.read(folder, "trials")
    scored = pc.and_(pc.equal(trials["status"], "finished"), pc.is_finite(trials["select_score"]))
    finished = trials.filter(scored).select(["trial", "status", "select_score"]).to_pylist()
    if not finished:
        raise UserError(
            f"`best` needs a finished trial with a validation score, and none of the "
            f"{trials.num_rows} trials of sweep {folder.name} is one"
        )
    best = min(finished, key=lambda row: (-row["select_score"], row["trial"]))
    top = best["select_score"]
    tied = sum(row["select_score"] == top for row in finished)
    note = f"the highest validation score ({top:.3f}) of {len(finished)} finished trials"
    return best, note + (f"; {tied} tie, the first by id is taken" if tied > 1 else "")


def _trial(spec: str, results: Path, sweep: str | None) -> tuple[Path, dict[str, Any]]:
    """Return the sweep's folder and the row of the only trial of this id or start of an id."""
    matches = []
    for folder in sweeps(results) if sweep is None else [sweep_dir(results, sweep)]:
        rows = tables.read(folder, "trials").select(["trial", "status"]).to_pylist()
        begun = [row for row in rows if row["trial"].startswith(spec)]
        exact = [row for row in begun if row["trial"] == spec]
        matches += [(folder, row) for row in exact or begun]
    if not matches:
        where = f"sweep {sweep}" if sweep is not None else f"any sweep under {results}"
        raise UserError(
            f"{_RULE}; {spec[:120]!r} is no folder and no trial of {where}{none_readable(results)}"
        )
    if len(matches) > 1:
        some = ", ".join(f"{folder.name}/{row['trial']}" for folder, row in matches[:4])
        raise UserError(f"{spec!r} could be {len(matches)} trials ({some}, ...); give more of it")
    return matches[0]


def _path(path: Path) -> Checkpoint:
    if not path.exists():
        raise UserError(f"--ckpt takes `best`, a trial or a checkpoint's folder; {path} is missing")
    if not path.is_dir():
        raise UserError(
            f"a checkpoint is a folder with {WEIGHTS} in it, and {path} is a file{_other(path)}"
        )
    if (path / "checkpoints").is_dir():
        best = find(path / "checkpoints", "best")
        if best is None:
            raise UserError(f"trial {path} has no checkpoint yet")
        path = best
    for name in (WEIGHTS, POLICY):
        if not (path / name).is_file():
            raise UserError(
                f"a checkpoint is a folder with {name} in it, and {path} has none{_other(path)}"
            )
    # .../<sweep>/trials/<trial>/checkpoints/<name>: a trial of a sweep
    checkpoints = path.resolve().parent
    of_sweep = checkpoints.name == "checkpoints" and checkpoints.parent.parent.name == "trials"
    return _checkpoint(path, checkpoints.parent if of_sweep else None)


def _other(path: Path) -> str:
    """Return how to evaluate what another tool has saved; "" for anything else."""
    made = ""
    if path.is_dir() and (path / WEIGHTS).is_file():
        made = "--policy harness.evaluation.adapters:lerobot"  # the only other one that has it
    elif path.suffix == ".zip":
        made = "--policy harness.evaluation.adapters:stable_baselines3"
    elif path.suffix in (".ckpt", ".pt", ".pth", ".bin", ".safetensors"):
        made = "--policy FILE.py:factory"
    if not made:
        return ""
    return (
        f"; of another tool it is evaluated by {made} --policy-arg path={path} (docs/POLICIES.md)"
    )


def _checkpoint(path: Path, trial_dir: Path | None, note: str = "") -> Checkpoint:
    described = describe(path) if (path / CONFIG).is_file() else {}
    policy_hash = weights_hash(path)
    if described.get("policy_hash", policy_hash) != policy_hash:
        raise UserError(
            f"{path / WEIGHTS} must hold the weights that were saved, {described['policy_hash']} "
            f"by {CONFIG}; it holds {policy_hash}"
        )
    return Checkpoint(
        path,
        trial_dir,
        described.get("config_hash"),
        described.get("train_seed"),
        described.get("step"),
        policy_hash,
        note,
    )
