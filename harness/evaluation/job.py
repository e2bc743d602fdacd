"""One evaluation: from the options of run_eval.py to rows on the disk and a table."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from harness.cluster.resources import available_cpus
from harness.config.protocol import (
    MAX_EPISODES,
    MAX_REPEATS,
    Protocol,
    caution,
    parse_seeds,
    span,
)
from harness.core import files, paths
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.text import plural
from harness.evaluation import trial_episode, until_decided
from harness.evaluation.policy_source import Task
from harness.evaluation.pool import open_pool
from harness.evaluation.progress import EvalProgress
from harness.evaluation.target_run import TargetRun, print_path
from harness.evaluation.targets import find_targets
from harness.evaluation.trial_episode import TrialEpisode
from harness.evaluation.videos import Videos, record
from harness.remote.mirror import Mirror
from harness.terminal import evaluation_tables
from harness.terminal.formatting import facts, plain


@dataclass(frozen=True)
class Options:
    """The options of run_eval.py; results: the folder of all sweeps, or the URI of a store."""

    seeds: str
    ckpt: str | Sequence[str] = ()
    sweep: str | None = None
    policy: str | Sequence[str] = ()
    policy_arg: Sequence[str] = ()
    name: Sequence[str] = ()
    workers: int | None = None
    video: int = 0
    overlay: str | None = None
    gif: bool = False
    video_size: int | None = None
    results: Path | str = paths.RESULTS
    redo: bool = False
    ensemble: bool = False
    address: str | None = None
    repeats: int = 1
    execute_delay: int = 0
    until_decided: bool = False
    delta: float | None = None


def evaluate(options: Options, console: Console) -> int:
    """Evaluate policies on seeds, write a row for each episode, print the table.

    Returns the exit code: 1 when some episodes failed. UserError for wrong input, before the first
    episode.
    """
    began = time.perf_counter()
    seeds = parse_seeds(options.seeds)
    protocol = _protocol(options, len(seeds))
    workers = options.workers if options.address else _check_workers(options.workers)
    videos = Videos(options.video, options.overlay, options.gif, options.video_size)
    videos.check(len(seeds))
    delta = until_decided.check_delta(options.delta, until_decided=options.until_decided)
    if options.until_decided and videos.count:
        raise UserError("--until-decided makes no videos: evaluate the policy alone with --video")
    ckpts, policies = (
        (given,) if isinstance(given, str) else tuple(given)
        for given in (options.ckpt, options.policy)
    )
    mirror = _mirror(options)
    results = Path(options.results) if mirror is None else mirror.path
    fetch = None if mirror is None else mirror.fetch
    targets = find_targets(
        ckpts,
        policies,
        results,
        options.sweep,
        fetch,
        arguments=options.policy_arg,
        names=options.name,
        join=options.ensemble,
        pair=options.until_decided,
    )
    runs = {
        (target.source, repeat): TargetRun(
            target, replace(protocol, repeat=repeat), seeds, redo=options.redo
        )
        for target in targets
        for repeat in range(options.repeats)
    }
    trials: list[TrialEpisode] = []
    for target in targets:
        files.check_writable(target.folder)
        if target.made is None:
            target.source.load()
        elif any(runs[target.source, repeat].tasks for repeat in range(options.repeats)):
            trials.append(trial_episode.run(target.made, target.source, seeds, protocol))
    tasks = [task for run in runs.values() for task in run.tasks]
    workers = None if workers is None else max(1, min(workers, len(tasks)))
    place = "all CPUs" if workers is None else f"{workers} worker(s)"
    place += f" of the cluster at {options.address}" if options.address else ""
    blocks_to_run = len(tasks) // max(1, len(targets)), workers or available_cpus()
    _announce(
        console,
        list(runs.values()),
        place,
        delta if options.until_decided else None,
        [(trial.describe(*blocks_to_run), trial.caution) for trial in trials],
    )
    address = options.address if tasks or videos.count else None

    with (
        EvalProgress(sum(len(task.block) for task in tasks)) as progress,
        open_pool(protocol, workers, progress.tick, address=address) as pool,
    ):

        def roll(tasks: Iterable[Task]) -> None:
            for task, outcome in pool.run(tasks):
                run = runs[task.source, task.repeat]
                progress.advance(run.add(outcome))
                if mirror is not None:
                    with mirror.once():
                        mirror.push_episodes(run.target.folder)

        if options.until_decided:
            pair = until_decided.run(list(runs.values()), delta, pool.workers, roll, progress)
            for run in runs.values():
                run.merge()
        else:
            roll(tasks)
        spent = evaluation_tables.TimeSpent(
            time.perf_counter() - began, pool.workers, progress.done
        )
        progress.stop()
        found = [
            pa.concat_tables(
                [runs[target.source, repeat].episodes for repeat in range(options.repeats)]
            )
            for target in targets
        ]
        of_arms = all(target.arm for target in targets)
        titles = [target.arm if of_arms else target.title for target in targets]
        if options.until_decided:
            of_pair = titles[0], titles[1]
            shown = evaluation_tables.until_decided(of_pair, pair, len(seeds), spent)
        elif len(targets) > 1:
            results_of = list(zip(titles, found, strict=True))
            shown = evaluation_tables.evaluations(results_of, spent, console.width, arms=of_arms)
        else:
            shown = evaluation_tables.evaluation(found[0], spent, console.width)
        console.print(shown)
        _print_rows(console, list(runs.values()))
        for run in runs.values():
            if mirror is not None:
                mirror.push_episodes(run.target.folder, run.parts if run.path else ())
        for target in targets:  # the numbers stand already: videos take a while
            run = runs[target.source, 0]
            folder = target.folder.parent / "videos"
            for path in record(videos, target.source, run.episodes, folder, pool):
                print_path(console, "gif" if path.suffix == ".gif" else "video", path)
    failed = sum(rows.num_rows - rows["error"].null_count for rows in found)
    return SOME_FAILED if failed else OK


def _protocol(options: Options, seeds: int) -> Protocol:
    if not 1 <= options.repeats <= MAX_REPEATS:
        raise UserError(f"--repeats must be 1 to {MAX_REPEATS}, given {options.repeats}")
    if options.repeats * seeds > MAX_EPISODES:
        raise UserError(
            f"--repeats times the starts may be at most {MAX_EPISODES} episodes, given "
            f"{options.repeats} x {seeds}"
        )
    if options.until_decided and options.repeats > 1:
        raise UserError("--until-decided rolls each start out once: leave out --repeats")
    steps = Protocol().max_episode_steps
    if not 0 <= options.execute_delay < steps:
        raise UserError(
            f"--execute-delay takes 0 to {steps - 1} steps, given {options.execute_delay}"
        )
    return Protocol(execute_delay=options.execute_delay)


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


def _print_rows(console: Console, runs: Sequence[TargetRun]) -> None:
    """Print where the new rows lie; for all trials of a sweep once, with what to read next."""
    target = runs[0].target
    new = [run.path for run in runs if run.path is not None]
    if not target.arm:
        for path in new:
            print_path(console, "rows", path)
        return
    if new:
        print_path(console, "rows", target.folder.parents[1])
    command = f"python -m harness.results answers {target.columns['sweep']}"
    console.print(f"next: {command}", soft_wrap=True, highlight=False, markup=False)


def _announce(
    console: Console,
    runs: Sequence[TargetRun],
    place: str,
    delta: float | None,
    trials: Sequence[tuple[str, str]],
) -> None:
    protocol, seeds = runs[0].protocol, runs[0].seeds
    missing = sum(len(run.missing) for run in runs)
    total = len(runs) * len(seeds)
    targets = list(dict.fromkeys(run.target.title for run in runs))
    repeats = len(runs) // len(targets)
    arms = Counter(run.target.arm for run in runs if run.protocol.repeat == protocol.repeat)
    count = str(total) if len(runs) == 1 else f"{total}: {len(seeds)} of each"
    count += f", {repeats} times" if repeats > 1 else ""
    count = f"at most {count}" if delta else count
    if all(arms):
        of = runs[0].target.columns["sweep"]
        targets = [f"all {len(targets)} finished trials of {of}, of {len(arms)} arms:"]
        targets += [f"{arm} ({plural(count, 'training seed')})" for arm, count in arms.items()]
    lines = [("evaluating" if i == 0 else " ", title) for i, title in enumerate(targets)]
    lines += [("chosen as", note) for note in dict.fromkeys(run.target.note for run in runs)]
    lines += [
        ("episodes", f"{count}, from seeds {span(seeds)}, on {place}"),
        ("protocol", f"{protocol.hash}: {protocol.describe()}"),
    ]
    if delta:
        rule = f"which is better, or that they differ by less than {delta:g} in score"
        lines.append(("decides", f"{rule}; looks after each block"))
    if missing < total:
        kept = f"{total - missing} of them, which are kept; --redo runs them again"
        lines.append(("stored", kept))
    lines += [("trial", shown) for shown, _ in trials]
    lines += [("warning", warning) for warning in (caution(seeds) or "", *(w for _, w in trials))]
    shown = ((plain(name, "bold"), plain(text)) for name, text in lines if text)
    console.print(facts(shown))
