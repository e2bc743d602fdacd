"""Where results are kept: a sweep's folder read as three tables, at any moment of its life.

The truth is what each trial wrote in its own folder; `tables/` is derived from it and can be
thrown away. Nothing is locked: every file is whole or absent, and a torn one is set aside.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness import stats
from harness.files import TornFileError as TornFileError
from harness.files import check_name as check_name
from harness.files import quarantine as quarantine
from harness.files import read_json as read_json
from harness.files import write_json as write_json
from harness.schemas import SCHEMAS as SCHEMAS
from harness.schemas import Kind, leaves
from harness.schemas import read_file as read_file
from harness.schemas import table as table
from harness.schemas import write as write

# Beside the code, not in the working directory: results must not move with it.
RESULTS = Path(__file__).resolve().parent.parent / "results"
SELECT_SEEDS = range(200_000, 300_000)  # choose a checkpoint on these
REPORT_SEEDS = range(300_000, 2**32)  # and report on these

_SOURCES = b"ibc_harness.sources"
_EPISODE_KEY = (
    "config_hash",
    "train_seed",
    "checkpoint_step",
    "policy_hash",
    "protocol_hash",
    "env_seed",
)
_log = logging.getLogger("harness.store")


def read(sweep_dir: Path, kind: Kind) -> pa.Table:
    """Return all rows of a sweep, also while it runs; writes nothing but quarantines torn files.

    The derived table answers when no source is newer than it; otherwise the sources are read.
    ValueError when there is no such folder or the table comes from a newer version.
    """
    if not sweep_dir.is_dir():
        raise ValueError(f"a sweep's results are a folder, and {sweep_dir} is not one")
    derived = sweep_dir / "tables" / f"{kind}.parquet"
    if derived.is_file():
        try:
            if pq.read_schema(derived).metadata.get(_SOURCES) == _fingerprint(sweep_dir, kind):
                return read_file(derived, kind)
        except (TornFileError, pa.ArrowException, OSError, AttributeError):
            _set_aside(derived)
    return _gather(sweep_dir, kind)


def rebuild(sweep_dir: Path) -> None:
    """Derive tables/{trials,curves,episodes}.parquet again from what the trials wrote."""
    kinds: tuple[Kind, ...] = ("episodes", "curves", "trials")  # trials read the derived episodes
    for kind in kinds:
        # Reading sets torn files aside, which changes the sources; a running sweep does so too, and
        # a table that is older than its sources is not believed.
        for _ in range(2):
            before = _fingerprint(sweep_dir, kind)
            content = _gather(sweep_dir, kind)
            if before == _fingerprint(sweep_dir, kind):
                break
        metadata = {**content.schema.metadata, _SOURCES: before}
        write(content.replace_schema_metadata(metadata), sweep_dir / "tables" / f"{kind}.parquet")


def _sources(sweep_dir: Path, kind: Kind) -> list[Path]:
    patterns = {
        "episodes": ("trials/*/episodes/*.parquet", "episodes/*.parquet"),
        "curves": ("trials/*/curves.parquet",),
        "trials": (
            "plan.json",
            "trials/*/config.json",
            "trials/*/status.json",
            "trials/*/health.json",
            "trials/*/episodes/*.parquet",
        ),
    }[kind]
    return sorted(path for pattern in patterns for path in sweep_dir.glob(pattern))


def _fingerprint(sweep_dir: Path, kind: Kind) -> bytes:
    digest = hashlib.sha256()
    for path in _sources(sweep_dir, kind):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        name = os.fsencode(path.relative_to(sweep_dir))
        digest.update(b"%s %d %d\n" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest().encode()


def _set_aside(path: Path) -> None:
    try:
        moved = quarantine(path)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("%s is torn and left out (it cannot be renamed: %s)", path, error)
        return
    _log.warning("%s is torn: set aside as %s, its work counts as not done", path, moved.name)


def _gather(sweep_dir: Path, kind: Kind) -> pa.Table:
    if kind == "trials":
        return _gather_trials(sweep_dir)
    parts = []
    for path in _sources(sweep_dir, kind):
        try:
            parts.append(read_file(path, kind))
        except FileNotFoundError:
            continue  # merged into another file since it was listed
        except TornFileError:
            _set_aside(path)
    if not parts:
        return table(kind, [])
    content = pa.concat_tables(parts, promote_options="default").replace_schema_metadata(
        SCHEMAS[kind].metadata
    )
    if kind == "episodes":
        content = _newest_of_each_episode(content)
    order = _EPISODE_KEY if kind == "episodes" else ("config_hash", "train_seed", "step", "epoch")
    return content.sort_by([(name, "ascending") for name in order])


def _newest_of_each_episode(content: pa.Table) -> pa.Table:
    """Keep one row an episode: the last that went well, else the last error."""
    good = pc.is_null(content["error"]).to_numpy(zero_copy_only=False)
    rank = np.arange(content.num_rows) + content.num_rows * good
    ranked = content.select(_EPISODE_KEY).append_column("rank", pa.array(rank))
    best = ranked.group_by(list(_EPISODE_KEY)).aggregate([("rank", "max")])["rank_max"]
    if len(best) == content.num_rows:
        return content
    return content.take(pa.array(np.sort(best.to_numpy() % content.num_rows)))


def _gather_trials(sweep_dir: Path) -> pa.Table:
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    plan = _json_or_nothing(sweep_dir / "plan.json")
    for entry in plan.get("trials", []):
        row = _identity(entry, sweep_dir, "plan.json")
        rows[row["config_hash"], row["train_seed"]] = row
    of_trial = by_trial(read(sweep_dir, "episodes"))
    for folder in sorted(path for path in (sweep_dir / "trials").glob("*") if path.is_dir()):
        entry = _json_or_nothing(folder / "config.json")
        if not entry:
            continue  # not begun, or torn: the plan's row stands
        row = _identity(entry, sweep_dir, f"trials/{folder.name}/config.json")
        key = row["config_hash"], row["train_seed"]
        # The plan knows the arm's name today; the folder may be older than a renamed arm.
        row.update({k: v for k, v in rows.get(key, {}).items() if k in ("question", "arm") and v})
        row.update(_of_status(_json_or_nothing(folder / "status.json")))
        row["health"] = _health(folder / "health.json")
        weights = _json_or_nothing(folder / "checkpoints" / "best" / "config.json")
        row["policy_hash"] = weights.get("policy_hash")
        if key in of_trial:
            row.update(_scores(of_best(of_trial[key], row)))
        rows[key] = row
    return table("trials", list(rows.values()))


def _identity(entry: Mapping[str, Any], sweep_dir: Path, source: str) -> dict[str, Any]:
    config_hash, train_seed = entry.get("config_hash"), entry.get("train_seed")
    if not isinstance(config_hash, str) or not isinstance(train_seed, int):
        raise ValueError(f"{sweep_dir / source} must give each trial's config_hash and train_seed")
    return {
        "sweep": sweep_dir.name,
        "status": "pending",
        "trial": f"{config_hash}-s{train_seed}",
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
    findings = _json_or_nothing(path, nothing=None)
    if findings is None:
        return None
    return ", ".join(str(finding["name"]) for finding in findings) or "ok"


def by_trial(episodes: pa.Table) -> dict[tuple[str, int], pa.Table]:
    """Split the episodes of `read` into those of each (config_hash, train_seed), without copies."""
    # Sorted by config_hash and train_seed: each trial's rows lie together.
    keys = zip(episodes["config_hash"].to_pylist(), episodes["train_seed"].to_pylist(), strict=True)
    found, start = {}, 0
    for key, rows in itertools.groupby(keys):
        count = sum(1 for _ in rows)
        found[key] = episodes.slice(start, count)
        start += count
    return found


def of_best(episodes: pa.Table, trial: Mapping[str, Any]) -> pa.Table:
    """Keep a trial's episodes that went well and are of its best checkpoint (its step, weights)."""
    step, weights = trial.get("best_step"), trial.get("policy_hash")
    if step is None:
        return episodes.slice(0, 0)
    keep = pc.and_(pc.equal(episodes["checkpoint_step"], step), pc.is_null(episodes["error"]))
    if weights is not None:
        same = pc.equal(episodes["policy_hash"], weights)
        keep = pc.and_(keep, pc.fill_null(same, True))
    return episodes.filter(pc.fill_null(keep, False))


def _scores(episodes: pa.Table) -> dict[str, Any]:
    """Return the selection's and the report's means with their intervals."""
    found: dict[str, Any] = {}
    select = of_one_protocol(within(episodes, SELECT_SEEDS))
    if select.num_rows:
        score = stats.mean_interval(select["score"].to_numpy())
        found |= {
            "select_score": score.value,
            "select_score_low": score.low,
            "select_score_high": score.high,
            "select_n": score.n,
        }
    report = of_one_protocol(within(episodes, REPORT_SEEDS))
    if report.num_rows:
        score = stats.mean_interval(report["score"].to_numpy())
        rate = stats.wilson(int(pc.sum(report["success"]).as_py()), report.num_rows)
        found |= {
            "report_score": score.value,
            "report_score_low": score.low,
            "report_score_high": score.high,
            "report_success_rate": rate.value,
            "report_success_rate_low": rate.low,
            "report_success_rate_high": rate.high,
            "report_n": score.n,
            "report_protocol_hash": report["protocol_hash"][0].as_py(),
        }
    return {k: None if isinstance(v, float) and v != v else v for k, v in found.items()}


def within(episodes: pa.Table, seeds: range) -> pa.Table:
    """Keep the episodes whose environment seed lies in the range."""
    column = episodes["env_seed"]
    return episodes.filter(
        pc.and_(pc.greater_equal(column, seeds.start), pc.less(column, seeds.stop))
    )


def of_one_protocol(episodes: pa.Table) -> pa.Table:
    """Keep the protocol with the most episodes: means over two protocols mean nothing."""
    counts = episodes["protocol_hash"].value_counts().to_pylist()
    if len(counts) < 2:
        return episodes
    chosen = max(counts, key=lambda count: (count["counts"], count["values"]))["values"]
    return episodes.filter(pc.equal(episodes["protocol_hash"], chosen))


def _json_or_nothing(path: Path, nothing: Any = {}) -> Any:  # noqa: B006 - read only
    """Return a JSON file's content, or `nothing` where it is absent; a torn one is set aside."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return nothing
    except TornFileError:
        _set_aside(path)
        return nothing
