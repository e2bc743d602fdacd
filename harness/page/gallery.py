"""Small looping pictures of a sweep's episodes, for its page: results/<sweep>/pictures/.

An episode's picture is of a row in the tables: its block of starts is rolled out again, which
gives the same bits on the same machine. What is there already is kept, as long as the weights and
the chosen starts are the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.protocol import Protocol, blocks
from harness.core import files
from harness.core import seeds as store
from harness.core.errors import UserError
from harness.evaluation.films import to_film
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import Pool
from harness.media import overlay
from harness.media.recorder import Step
from harness.media.video import best_kind, write_animation
from harness.storage import checkpoints, table_schemas
from harness.storage import tables as storage_tables
from ibc.policies.implicit import IBCPolicy

FOLDER, INDEX = "pictures", "index.json"
VERSION = 1  # raise it when pictures are drawn otherwise
MOST_BYTES = 150_000
GROUPS = 3  # trials of which there are pictures unless some are named
SIZE, ENERGY_SIZE = 192, 352
FRAMES, ENERGY_FRAMES = 60, 75  # of an episode at most
LABELS = ("best", "median", "worst")
Entry = dict[str, Any]


@dataclass(frozen=True)
class _Wanted:
    """A picture to be: of which trial and start, what of it, and what is known of the episode."""

    trial: Mapping[str, Any]
    policy_hash: str
    label: str
    kind: str
    row: Mapping[str, Any]
    starts: int

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return f"{self.trial['trial']}-{self.label if self.kind == 'episode' else self.kind}"

    def fits(self, entry: Mapping[str, Any]) -> bool:
        """Whether a picture that is there already is this one."""
        mine = (self.trial["trial"], self.label, self.kind, self.row["env_seed"], self.policy_hash)
        keys = ("trial", "label", "kind", "env_seed", "policy_hash")
        return entry.get("version") == VERSION and mine == tuple(entry.get(key) for key in keys)


def make(
    sweep_dir: Path,
    trials: Sequence[str] = (),
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Entry]:
    """Draw what is missing and return the entries of pictures/index.json.

    trials: their names; none stands for the best of each kind of policy and observation, three at
    most. seconds: no further trial is begun after so many. UserError for a trial that is not there
    or has no finished checkpoint.
    """
    began = time.monotonic()
    folder = sweep_dir / FOLDER
    chosen = _chosen(storage_tables.read(sweep_dir, "trials").to_pylist(), trials)
    before = read_index(folder)
    entries: list[Entry] = []
    with Pool(Protocol(), 1) as pool:
        for at, trial in enumerate(chosen):
            if at and seconds is not None and time.monotonic() - began > seconds:
                say(f"pictures of {len(chosen) - at} more trials would take too long here")
                break
            for entry in _of_trial(sweep_dir, trial, before, pool):
                entries.append(entry)
                # Written at once, so that a kill costs one picture; those still to be looked at
                # stay known beside it.
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
    """Return the entries whose files are there, [] where there is no whole index."""
    content = files.read_json_or(folder / INDEX)
    entries = content if isinstance(content, list) else []
    found = []
    for entry in entries:
        name = entry.get("file") if isinstance(entry, dict) else None
        # A name that is a path could stand for a file of somebody else's.
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
    return list(groups.values())[:GROUPS]


def _of_trial(
    sweep_dir: Path, trial: Mapping[str, Any], before: Sequence[Entry], pool: Pool
) -> Iterator[Entry]:
    """Yield a trial's entries as its pictures are there; none where its rows are not."""
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
    seeds = {label: seed for seed, label in to_film(rows, 0).items()}
    of_seed = {row["env_seed"]: row for row in rows.to_pylist()}
    wanted = [
        _Wanted(trial, policy_hash, label, "episode", of_seed[seeds[label]], rows.num_rows)
        for label in LABELS
        if label in seeds
    ]
    if isinstance(policy, IBCPolicy) and wanted:
        wanted.append(_Wanted(trial, policy_hash, *_first(wanted), rows.num_rows))
    steps: dict[int, list[Step]] = {}
    for each in wanted:
        kept = next((entry for entry in before if each.fits(entry)), None)
        if kept is None and not steps:
            task = Task(source, tuple(sorted(of_seed)))
            ((_, outcome),) = pool.run([task], [each.row["env_seed"] for each in wanted])
            steps = outcome.steps
        yield kept or _draw(each, policy, steps[each.row["env_seed"]], sweep_dir / FOLDER)


def _first(wanted: Sequence[_Wanted]) -> tuple[str, str, Mapping[str, Any]]:
    return wanted[0].label, "energy", wanted[0].row


def _block(folder: Path, policy_hash: str) -> pa.Table:
    """Return the rows of one block of starts: the report's first, else the selection's first."""
    tables = [table_schemas.SCHEMAS["episodes"].empty_table()]
    for path in sorted(folder.glob("*.parquet")):
        # A torn file is set aside by whoever reads the sweep.
        found = files.read_or(None, table_schemas.read_file, path, "episodes")
        tables += [] if found is None else [found]
    rows = pa.concat_tables(tables)
    protocol = Protocol()
    same = pc.and_(
        pc.equal(rows["policy_hash"], policy_hash), pc.equal(rows["protocol_hash"], protocol.hash)
    )
    rows = rows.filter(pc.and_(pc.fill_null(same, False), pc.is_null(rows["error"])))
    for seeds in (store.REPORT_SEEDS, store.SELECT_SEEDS):
        # A later run's row of a seed stands for an earlier one's.
        latest = {row["env_seed"]: row for row in rows.to_pylist() if row["env_seed"] in seeds}
        if latest:
            block = blocks(latest, protocol.block_size)[0]
            return table_schemas.table("episodes", [latest[seed] for seed in block])
    return tables[0]


def _draw(wanted: _Wanted, policy: object, steps: Sequence[Step], folder: Path) -> Entry:
    """Draw one picture and return its entry."""
    energy = wanted.kind == "energy"
    size, most = (ENERGY_SIZE, ENERGY_FRAMES) if energy else (SIZE, FRAMES)
    every = max(1, -(-len(steps) // most))
    seed = wanted.row["env_seed"]
    title = f"seed {seed}, {wanted.label} of {wanted.starts}"
    frames = list(overlay.frames(policy if energy else None, seed, steps, title, size, every))
    path = folder / f"{wanted.name}.{best_kind()}"
    write_animation(path, frames, every=every, most_bytes=MOST_BYTES)
    reached = max(step.coverage for step in steps)
    arm = wanted.trial.get("arm") or wanted.trial["trial"]
    what = "the energy over the board along the" if energy else "the"
    return {
        "file": path.name,
        "kind": wanted.kind,
        "trial": wanted.trial["trial"],
        "arm": arm,
        "label": wanted.label,
        "env_seed": seed,
        "score": wanted.row["score"],
        "max_coverage": wanted.row["max_coverage"],
        "width": frames[0].shape[1],
        "height": frames[0].shape[0],
        "caption": f"{arm}: {what} {wanted.label} of {wanted.starts} episodes, start {seed}, "
        f"{reached:.0%} covered at best",
        "policy_hash": wanted.policy_hash,
        "version": VERSION,
    }
