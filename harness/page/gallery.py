"""Animations of a sweep's episodes for its page, in results/<sweep>/pictures/.

An animation shows an episode of the tables: its block of starts is rolled out again, which gives
the same bits on the same machine. A file is kept as long as the weights and the start are the
same.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.protocol import Protocol, blocks
from harness.core import files
from harness.core.errors import UserError
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import Pool, open_pool
from harness.evaluation.videos import choose_episodes
from harness.media import overlay
from harness.media.recorder import Step
from harness.media.video import write_animation
from harness.storage import checkpoints, table_schemas, tables
from ibc.policies.implicit import IBCPolicy

FOLDER, INDEX = "pictures", "index.json"
VERSION = 1  # raise it when the drawing changes
MAX_BYTES = 150_000
MAX_GROUPS = 3  # trials that are drawn unless some are named
SIZE, ENERGY_SIZE = 192, 352  # px
MAX_FRAMES, MAX_ENERGY_FRAMES = 60, 75  # of an episode
LABELS = ("best", "median", "worst")
# An animation is kept as long as these are the same.
_IDENTITY = ("file", "trial", "label", "kind", "env_seed", "policy_hash", "version")
Entry = dict[str, Any]


def make(
    sweep_dir: Path,
    trials: Sequence[str] = (),
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Entry]:
    """Draw missing animations and return the entries of pictures/index.json.

    trials: their ids; by default the best of each kind of policy and observation, at most three.
    seconds: after so many no further trial is begun. UserError for a trial that does not exist or
    is not finished.
    """
    began = time.monotonic()
    folder = sweep_dir / FOLDER
    chosen = _chosen(tables.read(sweep_dir, "trials").to_pylist(), trials)
    if chosen:
        files.check_writable(folder if folder.is_dir() else sweep_dir)
    before = read_index(folder)
    entries: list[Entry] = []
    with open_pool(Protocol(), 1) as pool:
        for at, trial in enumerate(chosen):
            if at and seconds is not None and time.monotonic() - began > seconds:
                say(f"pictures of {len(chosen) - at} more trials are left out to save time")
                break
            for entry in _of_trial(sweep_dir, trial, before, pool):
                entries.append(entry)
                # Written at once, so that a kill loses one animation; entries that are still to
                # be checked are kept.
                known = {made["file"] for made in entries}
                rest = [entry for entry in before if entry["file"] not in known]
                files.write_json([*entries, *rest], folder / INDEX)
    if entries:
        files.write_json(entries, folder / INDEX)
        for path in folder.iterdir():
            if path.suffix in (".gif", ".webp") and path.name not in {e["file"] for e in entries}:
                path.unlink()
    return entries


def read_index(folder: Path) -> list[Entry]:
    """Return the entries whose files exist, [] where there is no whole index."""
    content = files.read_json_or(folder / INDEX)
    entries = content if isinstance(content, list) else []
    found = []
    for entry in entries:
        name = entry.get("file") if isinstance(entry, dict) else None
        # A path could lead to a file outside the folder.
        if isinstance(name, str) and Path(name).name == name and (folder / name).is_file():
            found.append(entry)
    return found


def _chosen(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    scored = [r for r in rows if r["status"] == "finished" and r["select_score"] is not None]
    scored.sort(key=lambda row: (-row["select_score"], row["trial"]))
    if names:
        by_name = {row["trial"]: row for row in scored}
        for name in names:
            if name not in by_name:
                raise UserError(
                    f"--trial takes a finished trial of the sweep, given {name[:120]!r}"
                )
        return [by_name[name] for name in dict.fromkeys(names)]
    groups: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for row in scored:
        groups.setdefault((row.get("policy.obs_mode"), row.get("policy.kind")), row)
    return list(groups.values())[:MAX_GROUPS]


def _of_trial(
    sweep_dir: Path, trial: Mapping[str, Any], before: Sequence[Entry], pool: Pool
) -> Iterator[Entry]:
    """Yield a trial's entries as they are drawn; none where its episodes are missing."""
    trial_dir = sweep_dir / "trials" / trial["trial"]
    best = checkpoints.find(trial_dir / "checkpoints", "best")
    if best is None or not best.resolve().is_relative_to(sweep_dir.resolve()):
        return
    policy_hash = checkpoints.weights_hash(best)
    rows = _block(trial_dir / "episodes", policy_hash)
    if rows.num_rows == 0:
        return
    source = Source(checkpoint=best.resolve())
    policy = source.load()
    labels = choose_episodes(rows, 0)
    of_label = {
        labels[row["env_seed"]]: row for row in rows.to_pylist() if row["env_seed"] in labels
    }
    wanted = [(label, "episode") for label in LABELS if label in of_label]
    if isinstance(policy, IBCPolicy) and wanted:
        wanted.append((wanted[0][0], "energy"))
    steps: dict[int, list[Step]] = {}
    for label, kind in wanted:
        row = of_label[label]
        arm = trial.get("arm") or trial["trial"]
        what = "energy over the board in the" if kind == "energy" else "the"
        seed, coverage = row["env_seed"], row["max_coverage"]
        entry = {
            "file": f"{trial['trial']}-{label if kind == 'episode' else kind}.webp",
            "kind": kind,
            "trial": trial["trial"],
            "arm": arm,
            "label": label,
            "env_seed": seed,
            "score": row["score"],
            "max_coverage": coverage,
            "caption": f"{arm}: {what} {label} of {rows.num_rows} episodes, start {seed}, "
            f"maximum coverage {coverage:.0%}",
            "policy_hash": policy_hash,
            "version": VERSION,
        }
        same = (old for old in before if all(old.get(key) == entry[key] for key in _IDENTITY))
        kept = next(same, None)
        if kept is None:
            if not steps:
                task = Task(source, tuple(sorted(rows["env_seed"].to_pylist())))
                ((_, outcome),) = pool.run([task], list(labels))
                steps = outcome.steps
            title = f"seed {seed}, {label} of {rows.num_rows}"
            _draw(entry, policy, steps[seed], title, sweep_dir / FOLDER)
        yield kept or entry


def _block(folder: Path, policy_hash: str) -> pa.Table:
    """Return the episodes of one block of starts: the first of the test, else of validation."""
    parts = [table_schemas.SCHEMAS["episodes"].empty_table()]
    for path in sorted(folder.glob("*.parquet")):
        # A truncated file is set aside when the tables are read.
        parts.append(files.read_or(parts[0], table_schemas.read_file, path, "episodes"))
    rows = pa.concat_tables(parts)
    protocol = Protocol()
    same = pc.and_(
        pc.equal(rows["policy_hash"], policy_hash), pc.equal(rows["protocol_hash"], protocol.hash)
    )
    rows = rows.filter(pc.and_(pc.fill_null(same, False), pc.is_null(rows["error"])))
    for seeds in (REPORT_SEEDS, SELECT_SEEDS):
        # Of several rows of a seed the latest counts.
        latest = {row["env_seed"]: row for row in rows.to_pylist() if row["env_seed"] in seeds}
        if latest:
            block = blocks(latest, protocol.block_size)[0]
            return table_schemas.table("episodes", [latest[seed] for seed in block])
    return parts[0]


def _draw(entry: Entry, policy: object, steps: Sequence[Step], title: str, folder: Path) -> None:
    """Draw one animation and note its size in the entry."""
    energy = entry["kind"] == "energy"
    size, most = (ENERGY_SIZE, MAX_ENERGY_FRAMES) if energy else (SIZE, MAX_FRAMES)
    every = max(1, -(-len(steps) // most))
    shown = policy if energy else None
    frames = list(overlay.frames(shown, entry["env_seed"], steps, title, size, every))
    write_animation(folder / entry["file"], frames, every=every, most_bytes=MAX_BYTES)
    entry["height"], entry["width"], _ = frames[0].shape
