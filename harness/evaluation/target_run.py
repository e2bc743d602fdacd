"""The rows of one policy's evaluation: those that are stored, and those that this run adds."""

import math
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from harness.config.protocol import Protocol, blocks
from harness.core import files, provenance
from harness.core.errors import AGAIN, UserError
from harness.evaluation.policy_source import Outcome, Task
from harness.evaluation.targets import Target
from harness.storage import table_schemas


class TargetRun:
    """The evaluation of one target: stored rows, new rows, and the files of this run.

    Each block is written to a file of its own, and all of them are merged at the end. A run that is
    killed leaves these parts, whose rows count like any others.
    """

    def __init__(
        self, target: Target, protocol: Protocol, seeds: tuple[int, ...], *, redo: bool
    ) -> None:
        self.target, self.protocol, self.seeds = target, protocol, seeds
        stored_rows = _stored(target)
        self.known = stored_rows.slice(0, 0) if redo else _known(stored_rows, target, protocol)
        stored = set(self.known["env_seed"].to_pylist())
        self.missing = [seed for seed in seeds if seed not in stored]
        every = blocks(self.missing, protocol.block_size)
        self.tasks = [Task(target.source, block, protocol.repeat) for block in every]
        self.fresh: list[dict[str, Any]] = []
        self.path: Path | None = None
        self.parts: list[Path] = []
        # Increasing numbers make a later run's rows replace those of earlier ones, see tables.read;
        # the random part separates two runs at the same time.
        folder, step = target.folder, target.columns["checkpoint_step"]
        numbers = [int(path.name[5:9]) for path in folder.glob("eval-[0-9][0-9][0-9][0-9]-*")]
        run = f"eval-{max(numbers, default=0) + 1:04d}-{secrets.token_hex(2)}"
        self.stem = f"{run}-{protocol.hash}" + ("" if step is None else f"-step{step}")

    def add(self, outcome: Outcome) -> list[dict[str, Any]]:
        """Write a block's rows; after the last block, merge the parts into one file."""
        rows = [{**row, **self.target.columns} for row in outcome.rows]
        folder = self.target.folder
        if not folder.is_dir():  # it would be made again, with these rows alone
            raise UserError(
                "a results folder must stay where it is while a command works in it, and "
                f"{folder} was moved or deleted; put it back and {AGAIN}"
            )
        path = folder / f"{self.stem}-part{rows[0]['env_seed']}.parquet"
        table_schemas.write(table_schemas.table("episodes", rows), path)
        self.parts.append(path)
        self.fresh += rows
        if len(self.fresh) == len(self.missing):
            self.merge()
        return rows

    def merge(self) -> None:
        """Merge the parts into one file, if there are any."""
        if not self.parts or self.path is not None:
            return
        self.path = self.target.folder / f"{self.stem}.parquet"
        by_seed = sorted(self.fresh, key=lambda row: int(row["env_seed"]))
        table_schemas.write(table_schemas.table("episodes", by_seed), self.path)
        for part in self.parts:
            part.unlink()
        folder = self.target.folder.parent
        if folder.parent.name == "evaluations":
            names = {"policy": "config_hash", "policy_hash": "policy_hash"}
            described = {name: self.target.columns[column] for name, column in names.items()}
            described |= provenance.collect()
            files.write_json(described, folder / "evaluation.json")

    @property
    def episodes(self) -> pa.Table:
        """One row for each of the seeds that has one, in their order."""
        rows = pa.concat_tables([self.known, table_schemas.table("episodes", self.fresh)])
        place = {seed: i for i, seed in enumerate(rows["env_seed"].to_pylist())}
        return rows.take([place[seed] for seed in self.seeds if seed in place])

    def outcomes(self) -> dict[int, tuple[float, float]]:
        """Return score and success of each seed that has a row; NaN where the episode failed."""
        seeds, *numbers = (self.known[n].to_pylist() for n in ("env_seed", "score", "success"))
        found = dict(zip(seeds, zip(*numbers, strict=True), strict=True))
        found |= {row["env_seed"]: (row.get("score"), row.get("success")) for row in self.fresh}
        return {
            seed: (math.nan, math.nan) if score is None else (score, float(success))
            for seed, (score, success) in found.items()
        }


def print_path(console: Console, what: str, path: Path) -> None:
    """Print a path on one line, so that it can be copied."""
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    console.print(f"{what}: {shown}", soft_wrap=True, highlight=False, markup=False)


def _stored(target: Target) -> pa.Table:
    """Return the stored rows of a target's folder without an error.

    UserError where they are those of another policy: its trials have checkpoints that are told
    apart by their hash, all rows of an evaluation count together.
    """
    rows = table_schemas.table("episodes", [])
    stored = sorted(target.folder.glob("*.parquet"))
    if not stored:
        return rows
    try:
        with files.lock(target.folder / ".lock"):  # its holder sets torn files aside
            read = table_schemas.read_file
            parts = [files.read_or(rows, read, path, "episodes") for path in stored]
    except OSError as error:
        raise UserError(f"results must be writable before anything starts: {error}") from error
    rows = pa.concat_tables([rows, *parts]).filter(pc.field("error").is_null())
    own = target.columns["policy_hash"]
    others = set(rows["policy_hash"].to_pylist()) - {own}
    if target.source.factory is not None and others:
        hashes = ", ".join(sorted(each or "of no hash" for each in others))
        raise UserError(
            f"rows of one evaluation are of the same code, arguments and weights ({own}), and "
            f"{target.folder.parent} holds others ({hashes}): store these apart with --name NAME, "
            "or remove that folder"
        )
    return rows


def _known(rows: pa.Table, target: Target, protocol: Protocol) -> pa.Table:
    """Return the rows of the same weights and protocol."""
    return rows.filter(
        (pc.field("policy_hash") == target.columns["policy_hash"])
        & (pc.field("config_hash") == target.columns["config_hash"])
        & (pc.field("protocol_hash") == protocol.hash)
    )
