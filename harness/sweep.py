"""Plan minus finished -> Ray Tune -> tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness import (
    confirm,
    data,
    files,
    space,
    sweep_end,
    sweep_work,
    trackers,
    workers,
)
from harness.confirm import ConfirmJobs
from harness.errors import OK, SOME_FAILED, UserError
from harness.estimate import Estimate, estimate
from harness.jobs import PlannedJobs, StopOnSameError, sort_longest_first
from harness.progress import Progress, duration
from harness.space import DEFAULT_BUDGET, Plan
from harness.sweep_folder import SweepFolder
from harness.sweep_report import print_counts, print_plan
from harness.sweep_work import Work
from harness.trial_work import Setting

RESULTS = Path(__file__).resolve().parent.parent / "results"
MANY_TRIALS = 1_000
MAX_HOURS = 1e4


@dataclass(frozen=True)
class Options:
    """What `run_sweep.py` was asked for, by the names of its options."""

    space: Path
    budget: str = DEFAULT_BUDGET
    name: str | None = None
    data: Path | None = None
    results: Path | str = RESULTS
    trials: int | None = None
    question: Sequence[str] = ()
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    hours_per_trial: float = 24.0
    address: str | None = None
    tracker: str | None = None
    retry_failed: bool = False
    dry_run: bool = False
    yes: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.hours_per_trial <= MAX_HOURS:
            rule = f"--hours-per-trial must be above 0 and at most {MAX_HOURS:,.0f}"
            raise UserError(f"{rule}, given {self.hours_per_trial:g}")


def sweep(options: Options, console: Console) -> int:
    """Run what is missing of a sweep and return the exit code: 0, or 1 when trials failed.

    Everything that can be wrong with what was given is a UserError before Ray starts. The sweep
    can be killed at any instant and run again.
    """
    plan = space.plan(options.space, options.budget, trials=options.trials)
    name = files.check_name(options.name or f"{plan.name}-{plan.budget}", "--name")
    resources = workers.Resources(options.cpus_per_trial, _gpus(options))
    trackers.check(options.tracker)
    slots = 1 if options.address else workers.check_resources(resources.cpus, resources.gpus)
    source = data.resolve_source(options.data)
    folder = SweepFolder.at(options.results, name)
    if options.dry_run:
        folder.refresh()
        _prepare(options, plan, folder, source, slots, console)
        return OK
    with folder.lock():
        work, found = _prepare(options, plan, folder, source, slots, console)
        if work.total > MANY_TRIALS and not options.yes:
            raise UserError(f"more than {MANY_TRIALS:,} trials need --yes, given {work.total:,}")
        if work.total:
            _check_code(work, folder, options, console)
        folder.write_plan(plan, options.space, work.planned, source, data.fingerprint(source))
        if isinstance(work.source, ConfirmJobs):
            work.source.note()
        folder.push()
        if work.total:
            _open_all(work, source, console)
            _execute(options, work, folder, source, resources, found, console)
        evaluated = _confirm(options, plan, folder, console)
        # Of a store's results, the weights are not here.
        readable = sweep_end.write(folder.path, console, draw=folder.uri is None)
        code = max(evaluated, _conclude(work, folder, console))
        folder.publish()
        sweep_end.print_paths(console, readable)
        return code


def _check_code(work: Work, folder: SweepFolder, options: Options, console: Console) -> None:
    """Refuse to mix trials of two codes in one table, unless the user agrees."""
    changed = folder.changed_code()
    begun = sum("status" in status for status in work.statuses.values())
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
) -> tuple[Work, Estimate]:
    """Find what is left to do, and print it with an estimate of the time."""
    console.print(str(source), soft_wrap=True, highlight=False, markup=False)
    folder.check_same(plan.budget, source, data.fingerprint(source))
    work = sweep_work.find(plan, folder, options.question, options.retry_failed)
    sweep_work.check_data(work, source)
    found = estimate(work.typical, folder.seconds(), threads=max(1, int(options.cpus_per_trial)))
    print_plan(console, plan, work.planned, work.statuses, found)
    print_counts(console, folder.path, work.states, work.total)
    if work.states["failed"] and not options.retry_failed:
        console.print("failed trials are left as they are; --retry-failed runs them again")
    if work.total:
        wall = duration(found.wall(slots, work.full_trials))
        console.print(
            f"about {wall} on {slots} at a time ({found.how})", soft_wrap=True, highlight=False
        )
    return work, found


def _open_all(work: Work, source: data.Source, console: Console) -> None:
    """Open the demonstrations as the trials will, so that what they share is made once."""
    modes = {job.config.policy.obs_mode for job in work.typical}
    if "image" in modes:
        console.print("opening the demonstrations (the first time on a machine takes a while)")
    data.open_demos(source, modes)


def _execute(
    options: Options,
    work: Work,
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
    setting = Setting(
        folder=str(folder.path),
        uri=folder.uri,
        data=str(source.path),
        fingerprint=data.fingerprint(source),
        threads=max(1, int(resources.cpus)),
        seconds=3600 * options.hours_per_trial,
    )
    # Where most CPUs run trials, what those need is imported while this process prepares.
    local = options.address is None
    most = local and 2 * workers.check_resources(resources.cpus, resources.gpus) >= (
        workers.available_cpus()
    )
    running = "harness.tuning" if most else None
    with workers.ray_session(address=options.address, running=running) as scratch:
        from harness import tuning  # imports Ray, which looks at its environment when imported

        slots = workers.cluster_slots(resources)
        share = work.full_trials / work.total  # a search's jobs may be parts of trials
        seconds = {id_: each * share for id_, each in found.seconds.items()}
        with (
            Progress(console, work.total, slots, seconds) as progress,
            trackers.opened(options.tracker, folder.path, progress.note) as tracker,
        ):
            listeners = [] if tracker is None else [tracker]
            tuning.execute(guarded, folder, setting, resources, progress, listeners, scratch)
    if guarded.reason is not None:
        console.print(guarded.reason, soft_wrap=True, markup=False, style="red")


def _confirm(options: Options, plan: Plan, folder: SweepFolder, console: Console) -> int:
    """Evaluate a search's confirmation, as far as it is trained, and return the exit code."""
    if plan.search is None or plan.search.confirm is None:
        return OK
    return confirm.evaluate(
        folder.path, plan.search.confirm, console, address=options.address, uri=folder.uri
    )


def _conclude(work: Work, folder: SweepFolder, console: Console) -> int:
    ids = [job.id for job in work.asked] or folder.trial_ids()
    states = [sweep_work.state_of(status) for status in folder.statuses(ids).values()]
    finished, stopped = states.count("finished"), states.count("stopped")
    failed = len(ids) - finished - stopped  # what a search has stopped is no failure
    early = f"{stopped} stopped early, " if stopped else ""
    counts = f"{finished} of {len(ids)} trials finished, {early}{failed} did not"
    console.print(counts, highlight=False)
    return SOME_FAILED if failed else OK
