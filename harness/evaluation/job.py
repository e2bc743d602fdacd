"""One evaluation: from the options of run_eval.py to rows on the disk and a table."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from harness.cluster.resources import available_cpus
from harness.config.protocol import Protocol, blocks, caution, parse_seeds, span
from harness.core import files, paths, provenance
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.evaluation.policy_source import Outcome, Task
from harness.evaluation.pool import open_pool
from harness.evaluation.progress import EvalProgress
from harness.evaluation.targets import Target, find_targets
from harness.evaluation.videos import Videos, record
from harness.remote.mirror import Mirror
from harness.storage import table_schemas
from harness.terminal import evaluation_tables
from harness.terminal.formatting import plain, table


@dataclass(frozen=True)
class Options:
    """The options of run_eval.py; results: the folder of all sweeps, or the URI of a store."""

    seeds: str
    ckpt: str | Sequence[str] = ()
    sweep: str | None = None
    policy: str | None = None
    workers: int | None = None
    video: int = 0
    overlay: str | None = None
    gif: bool = False
    results: Path | str = paths.RESULTS
    redo: bool = False
    ensemble: bool = False
    address: str | None = None


def evaluate(options: Options, console: Console) -> int:
    """Evaluate policies on seeds, write a row for each episode, print the table.

    Returns the exit code: 1 when some episodes failed. UserError for wrong input, before the first
    episode.
    """
    began = time.perf_counter()
    seeds = parse_seeds(options.seeds)
    protocol = Protocol()
    workers = options.workers if options.address else _check_workers(options.workers)
    videos = Videos(options.video, options.overlay, options.gif)
    videos.check(len(seeds))
    ckpts = (options.ckpt,) if isinstance(options.ckpt, str) else tuple(options.ckpt)
    mirror = _mirror(options)
    results = Path(options.results) if mirror is None else mirror.path
    fetch = None if mirror is None else mirror.fetch
    targets = find_targets(
        ckpts, options.policy, results, options.sweep, fetch, join=options.ensemble
    )
    runs = {target.source: _Run(target, protocol, seeds, redo=options.redo) for target in targets}
    for target in targets:
        target.source.load()
        _check_writable(target.folder)
    tasks = [task for run in runs.values() for task in run.tasks]
    workers = None if workers is None else max(1, min(workers, len(tasks)))
    place = "all CPUs" if workers is None else f"{workers} worker(s)"
    place += f" of the cluster at {options.address}" if options.address else ""
    _announce(console, list(runs.values()), place)
    address = options.address if tasks or videos.count else None

    with (
        EvalProgress(sum(len(task.block) for task in tasks)) as progress,
        open_pool(protocol, workers, progress.tick, address=address) as pool,
    ):
        for task, outcome in pool.run(tasks):
            run = runs[task.source]
            progress.advance(run.add(outcome))
            if mirror is not None:
                with mirror.once():
                    mirror.push_episodes(run.target.folder)
        took = time.perf_counter() - began
        for run in runs.values():
            folder = run.target.folder.parent / "videos"
            run.videos += record(videos, run.target.source, run.episodes, folder, pool)
    spent = evaluation_tables.TimeSpent(took, pool.workers, sum(len(task.block) for task in tasks))
    found = [(run.target.title, run.episodes) for run in runs.values()]
    shown = evaluation_tables.evaluation(found[0][1], spent, console.width)
    if len(found) > 1:
        shown = evaluation_tables.evaluations(found, spent)
    console.print(shown)
    for run in runs.values():
        run.print_paths(console)
        if mirror is not None:
            mirror.push_episodes(run.target.folder, run.parts if run.path else ())
    failed = sum(rows.num_rows - rows["error"].null_count for _, rows in found)
    return SOME_FAILED if failed else OK


class _Run:
    """The evaluation of one target: stored rows, new rows, and the files of this run.

    Each block is written to a file of its own, and all of them are merged at the end. A run that is
    killed leaves these parts, whose rows count like any others.
    """

    def __init__(
        self, target: Target, protocol: Protocol, seeds: tuple[int, ...], *, redo: bool
    ) -> None:
        self.target, self.protocol, self.seeds = target, protocol, seeds
        self.known = table_schemas.table("episodes", []) if redo else _known(target, protocol)
        stored = set(self.known["env_seed"].to_pylist())
        self.missing = [seed for seed in seeds if seed not in stored]
        every = blocks(self.missing, protocol.block_size)
        self.tasks = [Task(target.source, block) for block in every]
        self.fresh: list[dict[str, Any]] = []
        self.videos: list[Path] = []
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
        path = self.target.folder / f"{self.stem}-part{rows[0]['env_seed']}.parquet"
        table_schemas.write(table_schemas.table("episodes", rows), path)
        self.parts.append(path)
        self.fresh += rows
        if len(self.fresh) == len(self.missing):
            self._merge()
        return rows

    def _merge(self) -> None:
        self.path = self.target.folder / f"{self.stem}.parquet"
        by_seed = sorted(self.fresh, key=lambda row: int(row["env_seed"]))
        table_schemas.write(table_schemas.table("episodes", by_seed), self.path)
        for part in self.parts:
            part.unlink()
        folder = self.target.folder.parent
        if folder.parent.name == "evaluations":
            described = {"policy": self.target.columns["config_hash"], **provenance.collect()}
            files.write_json(described, folder / "evaluation.json")

    @property
    def episodes(self) -> pa.Table:
        """One row for each of the seeds, in their order."""
        rows = pa.concat_tables([self.known, table_schemas.table("episodes", self.fresh)])
        place = {seed: i for i, seed in enumerate(rows["env_seed"].to_pylist())}
        return rows.take([place[seed] for seed in self.seeds])

    def print_paths(self, console: Console) -> None:
        """Print the paths of rows and videos, each on one line, so that it can be copied."""
        made = [("rows", self.path)] if self.path is not None else []
        made += [("gif" if path.suffix == ".gif" else "video", path) for path in self.videos]
        for what, path in made:
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            console.print(f"{what}: {shown}", soft_wrap=True, highlight=False, markup=False)


def _mirror(options: Options) -> Mirror | None:
    """Return the up-to-date local copy of a store, None for a folder."""
    if not paths.is_uri(options.results):
        return None
    mirror = Mirror(str(options.results))
    mirror.check()
    mirror.pull(options.sweep)
    return mirror


def _check_workers(workers: int | None) -> int:
    cpus = available_cpus()
    if workers is None:
        return cpus
    if not 1 <= workers <= cpus:
        raise UserError(f"--workers must be 1 to the {cpus} CPUs of this machine, given {workers}")
    return workers


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = files.temporary_beside(folder / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"results must be writable before anything starts: {error}") from error


def _known(target: Target, protocol: Protocol) -> pa.Table:
    """Return the episodes stored for the same weights and protocol; code has no hash of weights."""
    rows = table_schemas.table("episodes", [])
    if target.columns["policy_hash"] is None:
        return rows
    # A torn file is set aside by whoever reads the sweep; here its seeds are run again.
    stored = sorted(target.folder.glob("*.parquet"))
    rows = pa.concat_tables(
        [rows, *(files.read_or(rows, table_schemas.read_file, path, "episodes") for path in stored)]
    )
    return rows.filter(
        (pc.field("policy_hash") == target.columns["policy_hash"])
        & (pc.field("protocol_hash") == protocol.hash)
        & pc.field("error").is_null()
    )


def _announce(console: Console, runs: Sequence[_Run], place: str) -> None:
    protocol, seeds = runs[0].protocol, runs[0].seeds
    missing = sum(len(run.missing) for run in runs)
    total = len(runs) * len(seeds)
    count = str(total) if len(runs) == 1 else f"{total}: {len(seeds)} of each"
    lines = [("evaluating" if i == 0 else " ", run.target.title) for i, run in enumerate(runs)]
    lines += [("chosen as", run.target.note) for run in runs]
    lines += [
        ("episodes", f"{count}, from seeds {span(seeds)}, on {place}"),
        ("protocol", f"{protocol.hash}: {protocol.describe()}"),
    ]
    if missing < total:
        kept = f"{total - missing} of them, which are kept; --redo runs them again"
        lines.append(("stored", kept))
    lines.append(("warning", caution(seeds) or ""))
    made = table("", "", fold=("",))
    made.show_header = False
    for name, text in lines:
        if text:
            made.add_row(plain(name, "bold"), plain(text))
    console.print(made)
