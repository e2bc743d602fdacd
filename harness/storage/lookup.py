"""Finds the sweep, trial or checkpoint that a command line names."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from harness.core.errors import UserError
from harness.core.paths import check_name
from harness.storage import tables
from harness.storage.checkpoints import CONFIG, WEIGHTS, describe, find, weights_hash


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk; sweep and trial are None for one outside a results folder."""

    path: Path
    kind: str  # "trial" or "elsewhere"
    sweep: str | None
    trial_dir: Path | None
    config_hash: str | None
    train_seed: int | None
    step: int | None
    policy_hash: str
    note: str = ""  # how it was chosen, to be shown


def resolve(
    spec: str,
    results: Path,
    sweep: str | None = None,
    fetch: Callable[[Path], None] | None = None,
) -> Checkpoint:
    """Return the checkpoint of `best`, of a trial's id (or its unique start), or of a folder.

    `best` is the finished trial with the highest validation score, of the named or newest sweep.
    `fetch` is called with a trial's folder before its checkpoint is opened. UserError when there is
    no such checkpoint.
    """
    if spec == "best":
        return _best(sweep_dir(results, sweep), fetch)
    if not spec.strip():
        raise UserError("--ckpt takes `best`, a trial or a checkpoint's folder, given nothing")
    if os.sep not in spec and not Path(spec).is_dir():
        return _trial(spec, results, sweep, fetch)
    return _path(Path(spec))


def sweeps(results: Path) -> list[Path]:
    """Return the folders of all sweeps, the newest plan last."""
    # A folder of trials is a sweep even if its torn plan was set aside.
    paths = sorted([*results.glob("*/trials"), *results.glob("*/plan.json")])
    newest = {path.parent: path.stat().st_mtime_ns for path in paths}  # of the plan, if any
    return sorted(newest, key=lambda folder: (newest[folder], folder.name))


def sweep_dir(results: Path, sweep: str | None = None) -> Path:
    """Return the folder of the named sweep, or of the newest; UserError without one."""
    if sweep is not None:
        folder = results / check_name(sweep)
        if folder not in sweeps(results):
            known = ", ".join(path.name for path in sweeps(results)) or "none"
            raise UserError(f"there is no sweep {sweep} under {results}; there are: {known}")
        return folder
    found = sweeps(results)
    if not found:
        raise UserError(f"a sweep is needed, and {results} holds none; run_sweep.py makes one")
    return found[-1]


def _best(folder: Path, fetch: Callable[[Path], None] | None) -> Checkpoint:
    trials = tables.read(folder, "trials")
    scored = pc.and_(pc.equal(trials["status"], "finished"), pc.is_finite(trials["select_score"]))
    finished = trials.filter(scored).sort_by(
        [("select_score", "descending"), ("trial", "ascending")]
    )
    if finished.num_rows == 0:
        raise UserError(
            f"`best` needs a finished trial with a validation score, and none of the "
            f"{trials.num_rows} trials of sweep {folder.name} is one"
        )
    top = finished["select_score"][0].as_py()
    tied = pc.sum(pc.equal(finished["select_score"], top)).as_py()
    note = f"the highest validation score ({top:.3f}) of {finished.num_rows} finished trials"
    if tied > 1:
        note += f"; {tied} tie, the first by id is taken"
    return _of_trial(folder, finished.slice(0, 1), note, fetch)


def _trial(
    spec: str, results: Path, sweep: str | None, fetch: Callable[[Path], None] | None
) -> Checkpoint:
    folders = [sweep_dir(results, sweep)] if sweep is not None else sweeps(results)
    matches = []
    for folder in folders:
        trials = tables.read(folder, "trials")
        chosen = trials.filter(pc.starts_with(trials["trial"], spec))
        exact = chosen.filter(pc.equal(chosen["trial"], spec))
        chosen = exact if exact.num_rows else chosen
        matches += [(folder, chosen.slice(i, 1)) for i in range(chosen.num_rows)]
    if not matches:
        where = f"sweep {sweep}" if sweep is not None else f"any sweep under {results}"
        raise UserError(
            f"--ckpt takes `best`, a trial or a checkpoint's folder; {spec[:120]!r} is no folder "
            f"and no trial of {where}"
        )
    if len(matches) > 1:
        some = ", ".join(f"{f.name}/{row['trial'][0].as_py()}" for f, row in matches[:4])
        raise UserError(f"{spec!r} could be {len(matches)} trials ({some}, ...); give more of it")
    return _of_trial(*matches[0], note="", fetch=fetch)


def _of_trial(
    folder: Path, row: pa.Table, note: str, fetch: Callable[[Path], None] | None
) -> Checkpoint:
    trial_dir = folder / "trials" / row["trial"][0].as_py()
    # A folder of unknown origin may contain links; a trial's files lie inside its sweep.
    if not trial_dir.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{trial_dir} links to a place outside its sweep, and is not followed")
    if fetch is not None:
        fetch(trial_dir)
    path = find(trial_dir / "checkpoints", "best")
    if path is None:
        status = row["status"][0].as_py()
        raise UserError(f"trial {trial_dir.name} ({status}) has no checkpoint at {trial_dir} yet")
    if not path.resolve().is_relative_to(trial_dir.resolve()):
        raise UserError(f"{path} links to a place outside its trial, and is not followed")
    return _checkpoint(path, "trial", folder.name, trial_dir, note)


def _path(path: Path) -> Checkpoint:
    if not path.exists():
        raise UserError(f"--ckpt takes `best`, a trial or a checkpoint's folder; {path} is missing")
    if not path.is_dir():
        raise UserError(f"a checkpoint is a folder with {WEIGHTS} in it, and {path} is a file")
    if (path / "checkpoints").is_dir():
        best = find(path / "checkpoints", "best")
        if best is None:
            raise UserError(f"trial {path} has no checkpoint yet")
        path = best
    if not (path / WEIGHTS).is_file():
        raise UserError(f"a checkpoint is a folder with {WEIGHTS} in it, and {path} has none")
    # .../<sweep>/trials/<trial>/checkpoints/<name>: a trial of a sweep
    trial_dir = path.resolve().parent.parent
    if path.resolve().parent.name == "checkpoints" and trial_dir.parent.name == "trials":
        return _checkpoint(path, "trial", trial_dir.parent.parent.name, trial_dir, "")
    return _checkpoint(path, "elsewhere", None, None, "")


def _checkpoint(
    path: Path, kind: str, sweep: str | None, trial_dir: Path | None, note: str
) -> Checkpoint:
    described = describe(path) if (path / CONFIG).is_file() else {}
    policy_hash = weights_hash(path)
    if described.get("policy_hash", policy_hash) != policy_hash:
        raise UserError(
            f"{path / WEIGHTS} must hold the weights that were saved, {described['policy_hash']} "
            f"by {CONFIG}; it holds {policy_hash}"
        )
    return Checkpoint(
        path=path,
        kind=kind,
        sweep=sweep,
        trial_dir=trial_dir,
        config_hash=described.get("config_hash"),
        train_seed=described.get("train_seed"),
        step=described.get("step"),
        policy_hash=policy_hash,
        note=note,
    )
