"""Plan minus finished -> Ray Tune -> tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from harness import data, files, report, space, store, verdicts, workers
from harness.errors import OK, SOME_FAILED, UserError
from harness.estimate import Estimate, estimate
from harness.jobs import Job, Jobs, PlannedJobs, StopOnSameError, planned_job, sort_longest_first
from harness.progress import Progress, duration
from harness.space import DEFAULT_BUDGET, Plan
from harness.sweep_folder import SweepFolder
from harness.sweep_report import print_plan
from ibc import demos as ibc_demos

RESULTS = Path(__file__).resolve().parent.parent / "results"
MANY_TRIALS = 1_000


@dataclass(frozen=True)
class Options:
    """What `run_sweep.py` was asked for, by the names of its options."""

    space: Path
    budget: str = DEFAULT_BUDGET
    name: str | None = None
    data: Path | None = None
    results: Path = RESULTS
    trials: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    address: str | None = None
    retry_failed: bool = False
    dry_run: bool = False
    yes: bool = False


@dataclass(frozen=True)
class _Work:
    """What a sweep is made of and what of it is left.

    planned: every job that is known beforehand; left: those that are to be run. further: jobs that
    a search has yet to find. typical: what to time. ended: the status of each trial there is.
    """

    planned: tuple[Job, ...]
    left: tuple[Job, ...]
    further: int
    typical: tuple[Job, ...]
    ended: Mapping[str, Mapping[str, Any]]
    source: Jobs

    @property
    def total(self) -> int:
        """How many jobs are to be run."""
        return len(self.left) + self.further


def sweep(options: Options, console: Console) -> int:
    """Run what is missing of a sweep and return the exit code: 0, or 1 when trials failed.

    Everything that can be wrong with what was given is a UserError before Ray starts. The sweep
    can be killed at any instant and run again.
    """
    plan = space.plan(options.space, options.budget, trials=options.trials)
    name = files.check_name(options.name or f"{plan.name}-{plan.budget}", "--name")
    resources = workers.Resources(options.cpus_per_trial, _gpus(options))
    slots = 1 if options.address else workers.check_resources(resources.cpus, resources.gpus)
    source = data.resolve_source(options.data)
    folder = SweepFolder(options.results.expanduser().absolute() / name)
    if options.dry_run:
        _prepare(options, plan, folder, source, slots, console)
        return OK
    with folder.lock():
        work, found = _prepare(options, plan, folder, source, slots, console)
        if work.total > MANY_TRIALS and not options.yes:
            raise UserError(f"more than {MANY_TRIALS:,} trials need --yes, given {work.total:,}")
        if work.total:
            _check_code(work, folder, options, console)
        folder.write_plan(plan, options.space, work.planned, source, data.fingerprint(source))
        if work.total:
            _open_all(work, source, console)
            _execute(options, work, folder, source, resources, found, console)
        store.rebuild(folder.path)
        verdicts.write(folder.path)
        return _conclude(work, folder, console)


def _check_code(work: _Work, folder: SweepFolder, options: Options, console: Console) -> None:
    """Refuse to mix trials of two codes in one table, unless the user agrees."""
    changed = folder.changed_code()
    begun = sum("status" in status for status in work.ended.values())
    if not changed or not begun:
        return
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    what = f"{', '.join(changed[:3])}{more} changed since this sweep's last run"
    if not options.yes:
        raise UserError(
            f"a sweep's trials come from one code, and {what}: --yes runs the rest with the code "
            "of now, another --name begins anew"
        )
    console.print(f"note: {what}", soft_wrap=True, markup=False, highlight=False)


def _gpus(options: Options) -> float:
    if options.gpus_per_trial is not None:
        return options.gpus_per_trial
    return 1.0 if options.address is None and workers.available_gpus() else 0.0


def _prepare(
    options: Options,
    plan: Plan,
    folder: SweepFolder,
    source: data.Source,
    slots: int,
    console: Console,
) -> tuple[_Work, Estimate]:
    """Find what is left to do, and print it with an estimate of the time."""
    console.print(str(source), soft_wrap=True, highlight=False, markup=False)
    folder.check_same(plan.budget, source, data.fingerprint(source))
    work = _work(options, plan, folder)
    _check_data(work, source)
    found = estimate(work.typical, folder.seconds(), threads=max(1, int(options.cpus_per_trial)))
    print_plan(console, plan, work.planned, work.ended, found)
    states = Counter(status.get("status") for status in work.ended.values())
    counts = f"{states['finished']} finished, {states['failed']} failed, {work.total} to run"
    console.print(f"{folder.path}: {counts}", soft_wrap=True, markup=False, highlight=False)
    if states["failed"] and not options.retry_failed:
        console.print("failed trials are left as they are; --retry-failed runs them again")
    if work.total:
        wall = duration(found.wall(slots, work.total))
        console.print(
            f"about {wall} on {slots} at a time ({found.how})", soft_wrap=True, highlight=False
        )
    return work, found


def _work(options: Options, plan: Plan, folder: SweepFolder) -> _Work:
    sweep_name = folder.path.name
    if plan.search is not None:
        from harness.optuna_jobs import OptunaJobs  # a second of import that few sweeps need

        search = OptunaJobs(
            plan.search,
            sweep_name,
            folder.path,
            plan.train_seeds,
            retry_failed=options.retry_failed,
        )
        ended = folder.statuses(folder.trial_ids())
        further = search.new_points * len(plan.train_seeds)
        typical = (*search.begun, *([search.typical] if further else []))
        return _Work((), search.begun, further, typical, ended, search)
    planned = tuple(planned_job(trial, sweep_name) for trial in plan.trials)
    ended = folder.statuses(job.id for job in planned)
    over = {"finished"} if options.retry_failed else {"finished", "failed"}
    left = tuple(job for job in planned if ended[job.id].get("status") not in over)
    return _Work(planned, left, 0, left, ended, PlannedJobs(left))


def _check_data(work: _Work, source: data.Source) -> None:
    """Refuse a split or a batch that these demonstrations cannot fill, before anything starts."""
    demos = data.open_demos(source, ())
    lengths = np.diff(demos.episode_ends, prepend=0)
    windows: dict[ibc_demos.SplitConfig, int] = {}
    for job in work.typical:
        config = job.config
        try:
            if config.split not in windows:
                train = ibc_demos.split(demos, config.split).train_episodes
                windows[config.split] = int(lengths[list(train)].sum())
            if config.train.batch_size > windows[config.split]:
                raise UserError(
                    f"train.batch_size must be at most the {windows[config.split]} training "
                    f"windows of {source.path}, given {config.train.batch_size}"
                )
        except ValueError as error:
            raise UserError(f"{job.label}: {error}") from None


def _open_all(work: _Work, source: data.Source, console: Console) -> None:
    """Open the demonstrations as the trials will, so that what they share is made once."""
    modes = {job.config.policy.obs_mode for job in work.typical}
    if "image" in modes:
        console.print("opening the demonstrations (the first time on a machine takes a while)")
    data.open_demos(source, modes)


def _execute(
    options: Options,
    work: _Work,
    folder: SweepFolder,
    source: data.Source,
    resources: workers.Resources,
    found: Estimate,
    console: Console,
) -> None:
    jobs = work.source
    if isinstance(jobs, PlannedJobs):
        jobs = PlannedJobs(sort_longest_first(work.left, lambda job: found.seconds[job.id]))
    guarded = StopOnSameError(jobs)
    with workers.ray_session(address=options.address) as scratch:
        from harness import tuning  # imports Ray, which looks at its environment when imported

        slots = workers.cluster_slots(resources)
        with Progress(console, work.total, slots, found.seconds) as progress:
            tuning.execute(guarded, folder, source.path, resources, progress, scratch)
    if guarded.reason is not None:
        console.print(guarded.reason, soft_wrap=True, markup=False, style="red")


def _conclude(work: _Work, folder: SweepFolder, console: Console) -> int:
    report.print_sweep(console, folder.path)
    ids = [job.id for job in work.planned] or folder.trial_ids()
    states = Counter(status.get("status") for status in folder.statuses(ids).values())
    failed = len(ids) - states["finished"]
    counts = f"{states['finished']} of {len(ids)} trials finished, {failed} did not"
    console.print(counts, highlight=False)
    return SOME_FAILED if failed else OK
