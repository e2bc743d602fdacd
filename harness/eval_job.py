"""One evaluation, from what the user typed to rows on the disk and a table on the screen."""

import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from harness import checkpoint, eval_report, provenance, store
from harness.cells import plain, table
from harness.errors import OK, SOME_FAILED, UserError, one_line
from harness.eval_pool import Block, Pool, Source
from harness.eval_progress import EvalProgress
from harness.files import temporary_beside
from harness.protocol import Protocol, blocks, caution, parse_seeds, span
from harness.video import episode_frames, free_path, write_video
from harness.workers import available_cpus

MAX_VIDEOS = 1000


@dataclass(frozen=True)
class Options:
    """What door 2 was given; results: the folder that sweeps lie in."""

    seeds: str
    ckpt: str | None = None
    sweep: str | None = None
    policy: str | None = None
    workers: int | None = None
    video: int = 0
    results: Path = store.RESULTS
    redo: bool = False


@dataclass(frozen=True)
class Target:
    """What is evaluated: where it is loaded from, where its rows go, what they carry."""

    source: Source
    title: str
    folder: Path
    columns: dict[str, Any]
    note: str = ""

    @property
    def reusable(self) -> bool:
        """Whether stored rows are known to be of this very policy: code has no hash, weights do."""
        return self.columns["policy_hash"] is not None


def evaluate(options: Options, console: Console) -> int:
    """Evaluate a policy on seeds, keep an episode row for each, print the table.

    Returns the exit code: 1 when some episodes failed. UserError for anything that can be known to
    be wrong before the first episode.
    """
    began = time.perf_counter()
    seeds = parse_seeds(options.seeds)
    protocol = Protocol()
    workers = _check_workers(options.workers)
    if not 0 <= options.video <= min(MAX_VIDEOS, len(seeds)):
        most = min(MAX_VIDEOS, len(seeds))
        raise UserError(f"--video takes 0 to {most} episodes, given {options.video}")
    target = find_target(options)
    policy = target.source.load()
    _check_writable(target.folder)

    known = None if options.redo else _known(target, protocol)
    missing = seeds if known is None else sorted(set(seeds) - set(known["env_seed"].to_pylist()))
    everything = blocks(seeds, protocol.block_size)
    work = blocks(missing, protocol.block_size)
    workers = max(1, min(workers, len(work)))
    _announce(console, target, protocol, seeds, len(missing), workers)

    fresh: list[dict[str, Any]] = []
    parts = _Parts(target, protocol)
    with (
        EvalProgress(len(missing)) as progress,
        Pool(target.source, policy, protocol, workers, progress.tick) as pool,
    ):
        for outcome in pool.run(work):
            rows = [{**row, **target.columns} for row in outcome.rows]
            parts.write(rows)
            fresh += rows
            progress.advance(rows)
        took = time.perf_counter() - began
        path = parts.merge(fresh)
        episodes = _chosen(fresh, known, seeds)
        films = _film(pool, target, everything, _to_film(episodes, options.video))
    spent = eval_report.TimeSpent(took, workers, len(fresh))
    console.print(eval_report.evaluation(episodes, spent, console.width))
    if path is not None:
        _say_path(console, "rows", path)
    for film in films:
        _say_path(console, "video", film)
    failed = episodes.num_rows - episodes["error"].null_count
    return SOME_FAILED if failed else OK


def _check_workers(workers: int | None) -> int:
    cpus = available_cpus()
    if workers is None:
        return cpus
    if not 1 <= workers <= cpus:
        raise UserError(f"--workers must be 1 to the {cpus} CPUs of this machine, given {workers}")
    return workers


def find_target(options: Options) -> Target:
    """Return what --ckpt or --policy names; UserError when it is not exactly one thing."""
    if (options.ckpt is None) == (options.policy is None):
        raise UserError("one of --ckpt and --policy is needed, and only one of them")
    if options.policy is not None:
        return _object_target(options.policy, options.results)
    assert options.ckpt is not None
    found = checkpoint.resolve(options.ckpt, options.results, options.sweep)
    columns = {
        "sweep": found.sweep,
        "config_hash": found.config_hash or found.policy_hash,
        "train_seed": found.train_seed,
        "checkpoint_step": found.step,
        "policy_hash": found.policy_hash,
    }
    if found.trial_dir is not None:
        title = f"trial {found.trial_dir.name} of {found.sweep}, step {found.step}"
        folder = found.trial_dir / "episodes"
    else:
        name = f"{_folder_name(found.path.resolve().name)}-{found.policy_hash}"
        title = f"checkpoint {found.path}"
        folder = options.results / "evaluations" / name / "episodes"
        columns["sweep"] = f"evaluations/{name}"
    return Target(Source(checkpoint=found.path.resolve()), title, folder, columns, found.note)


def _object_target(factory: str, results: Path) -> Target:
    name = _folder_name(factory.replace(":", "."))
    columns = {
        "sweep": f"evaluations/{name}",
        "config_hash": one_line(factory)[:100],
        "train_seed": None,
        "checkpoint_step": None,
        "policy_hash": None,
    }
    source = Source(factory=factory, folder=Path.cwd())
    folder = results / "evaluations" / name / "episodes"
    return Target(source, f"policy {factory}", folder, columns)


def _folder_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "policy"


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_beside(folder / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"results must be writable before anything starts: {error}") from error


def _known(target: Target, protocol: Protocol) -> pa.Table | None:
    """Return the episodes stored for these very weights and protocol, None if unknowable."""
    if not target.reusable:
        return None
    tables = []
    for path in sorted(target.folder.glob("*.parquet")):
        try:
            tables.append(store.read_file(path, "episodes"))
        except store.TornFileError:
            continue  # whoever reads the sweep sets it aside; here its seeds just run again
    if not tables:
        return None
    rows = pa.concat_tables(tables)
    same = pc.and_(
        pc.equal(rows["policy_hash"], target.columns["policy_hash"]),
        pc.equal(rows["protocol_hash"], protocol.hash),
    )
    return rows.filter(pc.and_(pc.fill_null(same, False), pc.is_null(rows["error"])))


def _announce(
    console: Console,
    target: Target,
    protocol: Protocol,
    seeds: tuple[int, ...],
    missing: int,
    workers: int,
) -> None:
    stored = len(seeds) - missing
    lines = [
        ("evaluating", target.title),
        ("chosen as", target.note),
        ("episodes", f"{len(seeds)}, from seeds {span(seeds)}, on {workers} worker(s)"),
        ("protocol", f"{protocol.hash}: {protocol.describe()}"),
    ]
    if stored:
        lines.append(("stored", f"{stored} of them already, and kept; --redo runs them again"))
    lines.append(("warning", caution(seeds) or ""))
    made = table("", "", fold=("",))
    made.show_header = False
    for name, text in lines:
        if text:
            made.add_row(plain(name, "bold"), plain(text))
    console.print(made)


def _say_path(console: Console, what: str, path: Path) -> None:
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    # Whole on one line, so that it can be copied.
    console.print(f"{what}: {shown}", soft_wrap=True, highlight=False, markup=False)


class _Parts:
    """The files of one run: a part for each block as it is done, one file in the end.

    A run that is killed leaves its parts, whose rows count like any others.
    """

    def __init__(self, target: Target, protocol: Protocol) -> None:
        self.folder = target.folder
        step = target.columns["checkpoint_step"]
        # Numbers that grow make a later run's rows win over an earlier one's, see store.read; the
        # random part keeps two runs at once apart.
        numbers = [int(path.name[5:9]) for path in self.folder.glob("eval-[0-9][0-9][0-9][0-9]-*")]
        run = f"eval-{max(numbers, default=0) + 1:04d}-{secrets.token_hex(2)}"
        self.stem = f"{run}-{protocol.hash}" + ("" if step is None else f"-step{step}")
        self.paths: list[Path] = []

    def write(self, rows: list[dict[str, Any]]) -> None:
        path = self.folder / f"{self.stem}-part{rows[0]['env_seed']}.parquet"
        store.write(store.table("episodes", rows), path)
        self.paths.append(path)

    def merge(self, rows: list[dict[str, Any]]) -> Path | None:
        if not rows:
            return None
        path = self.folder / f"{self.stem}.parquet"
        by_seed = sorted(rows, key=lambda row: int(row["env_seed"]))
        store.write(store.table("episodes", by_seed), path)
        for part in self.paths:
            part.unlink()
        if self.folder.parent.parent.name == "evaluations":
            described = {"policy": rows[0]["config_hash"], **provenance.collect()}
            store.write_json(described, self.folder.parent / "evaluation.json")
        return path


def _chosen(
    fresh: list[dict[str, Any]], known: pa.Table | None, seeds: tuple[int, ...]
) -> pa.Table:
    """Return one row for each of the seeds, in their order."""
    rows = store.table("episodes", fresh)
    if known is not None:
        rows = pa.concat_tables([known, rows])
    place = {seed: i for i, seed in enumerate(rows["env_seed"].to_pylist())}
    return rows.take([place[seed] for seed in seeds])


def _to_film(episodes: pa.Table, count: int) -> dict[int, str]:
    """Return the first `count` seeds, and the best, median and worst one, with their labels."""
    if count == 0:
        return {}
    seeds, scores = episodes["env_seed"].to_pylist(), episodes["score"].to_pylist()
    chosen = dict.fromkeys(seeds[:count], "first")
    ranked = sorted((s, -seed) for seed, s in zip(seeds, scores, strict=True) if s is not None)
    for label, at in (("worst", 0), ("median", len(ranked) // 2), ("best", len(ranked) - 1)):
        if ranked:
            chosen[-ranked[at][1]] = label
    return chosen


def _film(pool: Pool, target: Target, work: list[Block], labels: dict[int, str]) -> list[Path]:
    """Roll the blocks of the chosen seeds out once more, recorded, and write the episodes."""
    wanted = [block for block in work if not labels.keys().isdisjoint(block)]
    steps = {}
    for outcome in pool.run(wanted, labels):
        steps.update(outcome.steps)
    folder = target.folder.parent / "videos"
    films = []
    for seed, label in labels.items():
        if not steps.get(seed):
            continue  # the episode failed; its row says how
        path = free_path(folder / f"seed{seed}-{label}.mp4")
        write_video(path, episode_frames(steps[seed]))
        films.append(path)
    return films
