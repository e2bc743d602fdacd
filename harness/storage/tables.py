"""Reads a sweep's folder as three tables, also while the sweep runs.

The sources are the files in each trial's folder; `tables/` is derived from them and can be
deleted. Readers take no lock: files are written atomically. What cannot be read is left out, with a
warning; only the sweep itself sets torn files aside (`files.read_or`).
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.trial_config import trial_id
from harness.core import files
from harness.core.errors import UserError
from harness.stats import intervals
from harness.storage import episode_table, json_schemas
from harness.storage.table_schemas import (
    MAX_DECODED_BYTES,
    SCHEMAS,
    Kind,
    leaves,
    read_file,
    read_metadata,
    table,
    write,
)

_SOURCES = b"ibc_harness.sources"
_RULES = b"2"  # changes with how rows follow from the sources: older derived tables are not used
ISSUE_SEPARATOR = "; "  # the names of issues have commas


def read(sweep_dir: Path | str, kind: Kind) -> pa.Table:
    """Return all rows of a sweep that can be read.

    They come from the derived table if its sources are unchanged, otherwise from the sources.
    ValueError without such a folder, and for a kind other than "trials", "curves" and "episodes".
    """
    if kind not in SCHEMAS:
        raise ValueError(f"a table is one of {', '.join(SCHEMAS)}, given {kind!r}")
    sweep_dir = Path(sweep_dir)
    found = _derived(sweep_dir, kind)
    return _gather(sweep_dir, kind) if found is None else found


def read_both(sweep_dir: Path) -> tuple[pa.Table, pa.Table]:
    """Return the trials and the episodes, each source read once."""
    trials, episodes = _derived(sweep_dir, "trials"), read(sweep_dir, "episodes")
    if trials is None:
        trials = _gather_trials(sweep_dir, lambda: episodes)
    return trials, episodes


def read_stored(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return trials.parquet and episodes.parquet of a folder that holds them alone."""
    trials, episodes = (read_file(folder / f"{k}.parquet", k) for k in ("trials", "episodes"))
    return trials, episodes


def _derived(sweep_dir: Path, kind: Kind) -> pa.Table | None:
    """Return the derived table if its sources are unchanged, else None."""
    if not sweep_dir.is_dir():
        raise ValueError(f"a sweep's results are a folder, and {sweep_dir} is not one")
    derived = sweep_dir / "tables" / f"{kind}.parquet"
    return files.read_or(None, _read_derived, derived, kind)


def _read_derived(derived: Path, kind: Kind) -> pa.Table | None:
    """Return a derived table, None if it is not of the sources of now."""
    sources = _fingerprint(derived.parent.parent, kind)
    fresh = read_metadata(derived).get(_SOURCES) == sources
    return read_file(derived, kind) if fresh else None


def rebuild(sweep_dir: Path) -> None:
    """Derive tables/{trials,curves,episodes}.parquet again from the files of the trials.

    Torn files are set aside if this process holds the sweep's lock.
    """
    kinds: tuple[Kind, ...] = ("episodes", "curves", "trials")  # trials read the derived episodes
    for kind in kinds:
        # Reading may set torn files aside, and a running sweep writes more: either changes the
        # sources, and a table of other sources is not used.
        for _ in range(2):
            before = _fingerprint(sweep_dir, kind)
            content = _gather(sweep_dir, kind)
            if before == _fingerprint(sweep_dir, kind):
                break
        metadata = {**content.schema.metadata, _SOURCES: before}
        write(content.replace_schema_metadata(metadata), sweep_dir / "tables" / f"{kind}.parquet")


def _sources(sweep_dir: Path, kind: Kind) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the source files of a table, sorted, as paths relative to the sweep's folder."""
    names = {
        "episodes": (),
        "curves": ("curves.parquet",),
        "trials": ("config.json", "health.json", "status.json"),
    }[kind]
    found = ["plan.json"] if kind == "trials" else []
    if kind == "episodes":
        found = _episode_files(sweep_dir, "episodes")
    for trial in _trials(sweep_dir):
        folder = f"trials/{trial}"
        own = [f"{folder}/{name}" for name in names]
        if kind != "curves":
            own += _episode_files(sweep_dir, f"{folder}/episodes")
        found += sorted(own)
    for name in found:
        with suppress(FileNotFoundError, NotADirectoryError):
            yield name, os.lstat(f"{sweep_dir}/{name}")


def _trials(sweep_dir: Path) -> list[str]:
    """Return the names in the folder of trials but for those without access."""
    found = []
    for trial in files.entries(sweep_dir / "trials"):
        folder = sweep_dir / "trials" / trial
        try:
            os.lstat(folder / "config.json")
        except PermissionError as error:
            files.without_access(folder, error)
            continue
        except OSError:
            pass  # not begun, or no folder
        found.append(trial)
    return found


def _episode_files(sweep_dir: Path, folder: str) -> list[str]:
    # Hidden files are still being written.
    names = files.entries(sweep_dir / folder)
    return [f"{folder}/{n}" for n in names if n.endswith(".parquet") and n[0] != "."]


def _fingerprint(sweep_dir: Path, kind: Kind) -> bytes:
    digest = hashlib.sha256(_RULES)
    for name, status in _sources(sweep_dir, kind):
        digest.update(b"%s %d %d\n" % (os.fsencode(name), status.st_size, status.st_mtime_ns))
    return digest.hexdigest().encode()


def _gather(sweep_dir: Path, kind: Kind) -> pa.Table:
    if kind == "trials":
        return _gather_trials(sweep_dir, lambda: read(sweep_dir, "episodes"))
    empty = table(kind, [])  # for a file that was merged into another one after it was listed
    parts, room = [empty], MAX_DECODED_BYTES
    for name, _ in _sources(sweep_dir, kind):
        parts.append(files.read_or(empty, read_file, sweep_dir / name, kind, room))
        room -= parts[-1].nbytes
    content = pa.concat_tables(parts, promote_options="default")
    content = content.replace_schema_metadata(SCHEMAS[kind].metadata)
    if kind == "episodes":
        return episode_table.in_order(content)
    order = ("config_hash", "train_seed", "step", "epoch")
    return content.sort_by([(name, "ascending") for name in order])


def _gather_trials(sweep_dir: Path, episodes: Callable[[], pa.Table]) -> pa.Table:
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    plan = json_schemas.read_or(sweep_dir / "plan.json")
    for entry in plan.get("trials", []):
        row = _identity(entry, sweep_dir)
        rows[row["config_hash"], row["train_seed"]] = row
    for trial in _trials(sweep_dir):
        folder = sweep_dir / "trials" / trial
        entry = files.read_or({}, _read_trial, folder / "config.json")
        if not entry:
            continue  # not started, or torn: the plan's row remains
        row = _identity(entry, sweep_dir)
        key = row["config_hash"], row["train_seed"]
        # The plan has the current name of an arm; the folder may have an earlier one.
        row.update({k: v for k, v in rows.get(key, {}).items() if k in ("question", "arm") and v})
        row.update(_of_status(json_schemas.read_or(folder / "status.json")))
        row["health"] = _health(folder / "health.json")
        weights = json_schemas.read_or(folder / "checkpoints" / "best" / "config.json")
        row["policy_hash"] = weights.get("policy_hash")
        rows[key] = row
    scored = episode_table.that_count(episodes(), list(rows.values()))
    for key, of_trial in episode_table.by_trial(scored).items():
        rows[key].update(_scores(of_trial))
    return table("trials", list(rows.values()))


def _read_trial(path: Path) -> dict[str, Any]:
    """Return a trial's config.json; UserError for one of another folder's trial."""
    entry: dict[str, Any] = json_schemas.read(path)
    config_hash, train_seed = entry.get("config_hash"), entry.get("train_seed")
    if config_hash is None or train_seed is None:
        raise UserError(f"{path} must give the trial's config_hash and train_seed")
    if trial_id(config_hash, train_seed) != path.parent.name:
        raise UserError(f"{path} must be of the trial of its folder, it is of {config_hash[:20]}")
    return entry


def _identity(entry: Mapping[str, Any], sweep_dir: Path) -> dict[str, Any]:
    config_hash, train_seed = entry["config_hash"], entry["train_seed"]
    return {
        "sweep": sweep_dir.name,
        "status": "pending",
        "trial": trial_id(config_hash, train_seed),
        "config_hash": config_hash,
        "train_seed": train_seed,
        "question": entry.get("question"),
        "arm": entry.get("arm"),
        **leaves(entry.get("config") or {}),
    }


def _of_status(status: Mapping[str, Any]) -> dict[str, Any]:
    derived = {"sweep", "trial", "config_hash", "train_seed", "question", "arm", "health"}
    names = [name for name in SCHEMAS["trials"].names if name not in derived]
    return {name: status[name] for name in names if status.get(name) is not None}


def _health(path: Path) -> str | None:
    findings = json_schemas.read_or(path, None)
    if findings is None:
        return None
    return ISSUE_SEPARATOR.join(finding["name"] for finding in findings) or "ok"


def _scores(episodes: pa.Table) -> dict[str, Any]:
    """Return the mean scores on selection and report seeds of the rows of `that_count`."""
    found: dict[str, Any] = {}
    # A row without a finite number counts as missing, as in `intervals.crossed`.
    whole = pc.and_(pc.is_finite(episodes["score"]), pc.is_valid(episodes["success"]))
    episodes = episodes.filter(whole)
    scores, reported = episodes["score"].to_numpy(), episode_table.reported(episodes)
    for name, rows in (("select", ~reported), ("report", reported)):
        if rows.any():
            found |= _columns(f"{name}_score", intervals.share_interval(scores[rows]))
            found[f"{name}_n"] = int(rows.sum())
    if reported.any():
        successes = episodes["success"].to_numpy()[reported]
        rate = intervals.wilson(int(successes.sum()), len(successes))
        found |= _columns("report_success_rate", rate)
        found["report_protocol_hash"] = episodes["protocol_hash"][int(reported.argmax())].as_py()
    return found


def _columns(name: str, estimate: intervals.Estimate) -> dict[str, float | None]:
    """Return an estimate and its interval as columns; None where unknown."""
    columns = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: None if math.isnan(value) else value for key, value in columns.items()}
