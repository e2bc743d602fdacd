"""Plan minus finished -> Ray Tune -> tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.cluster import ray_session
from harness.cluster import resources as cluster_resources
from harness.config import plan as config_plan
from harness.config.plan import DEFAULT_BUDGET, Plan
from harness.config.search_spec import Confirm
from harness.config.trial_config import trial_id
from harness.core import files, paths
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.text import duration
from harness.demos import source as demos_source
from harness.scheduling.confirmation import ConfirmJobs
from harness.scheduling.jobs import PlannedJobs, StopOnSameError, sort_longest_first
from harness.storage import tables
from harness.storage.trial_folder import TrialFolder
from harness.sweep import outputs, pending
from harness.sweep.folder import SweepFolder
from harness.sweep.pending import Work
from harness.sweep.plan_table import print_counts, print_plan
from harness.sweep.progress import Progress
from harness.sweep.worker import Setting
from harness.tracking import listener
from harness.trials.estimate import Estimate, estimate

MANY_TRIALS = 1_000
MAX_HOURS = 1e4


@dataclass(frozen=True)
class Options:
    """What `run_sweep.py` was asked for, by the names of its options."""

    space: Path
    budget: str = DEFAULT_BUDGET
    name: str | None = None
    data: Path | None = None
    results: Path | str = paths.RESULTS
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
    plan = config_plan.plan(options.space, options.budget, trials=options.trials)
    name = paths.check_name(options.name or f"{plan.name}-{plan.budget}", "--name")
    resources = cluster_resources.Resources(options.cpus_per_trial, _gpus(options))
    listener.check(options.tracker)
    slots = (
        1 if options.address else cluster_resources.check_resources(resources.cpus, resources.gpus)
    )
    source = demos_source.resolve_source(options.data)
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
        folder.write_plan(
            plan, options.space, work.planned, source, demos_source.fingerprint(source)
        )
        if isinstance(work.source, ConfirmJobs):
            work.source.note()
        folder.push()
        if work.total:
            _open_all(work, source, console)
            _execute(options, work, folder, source, resources, found, console)
        evaluated = _confirm(options, plan, folder, console)
        # Of a store's results, the weights are not here.
        readable = outputs.write(folder.path, console, draw=folder.uri is None)
        code = max(evaluated, _conclude(work, folder, console))
        folder.publish()
        outputs.print_paths(console, readable)
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
    return 1.0 if options.address is None and cluster_resources.available_gpus() else 0.0


def _prepare(
    options: Options,
    plan: Plan,
    folder: SweepFolder,
    source: demos_source.Source,
    slots: int,
    console: Console,
) -> tuple[Work, Estimate]:
    """Find what is left to do, and print it with an estimate of the time."""
    console.print(str(source), soft_wrap=True, highlight=False, markup=False)
    folder.check_same(plan.budget, source, demos_source.fingerprint(source))
    work = pending.find(plan, folder, options.question, options.retry_failed)
    pending.check_data(work, source)
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


def _open_all(work: Work, source: demos_source.Source, console: Console) -> None:
    """Open the demonstrations as the trials will, so that what they share is made once."""
    modes = {job.config.policy.obs_mode for job in work.typical}
    if "image" in modes:
        console.print("opening the demonstrations (the first time on a machine takes a while)")
    demos_source.open_demos(source, modes)


def _execute(
    options: Options,
    work: Work,
    folder: SweepFolder,
    source: demos_source.Source,
    resources: cluster_resources.Resources,
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
        fingerprint=demos_source.fingerprint(source),
        threads=max(1, int(resources.cpus)),
        seconds=3600 * options.hours_per_trial,
    )
    # Where most CPUs run trials, what those need is imported while this process prepares.
    local = options.address is None
    most = local and 2 * cluster_resources.check_resources(resources.cpus, resources.gpus) >= (
        cluster_resources.available_cpus()
    )
    running = "harness.sweep.ray_tune" if most else None
    with ray_session.ray_session(address=options.address, running=running) as scratch:
        from harness.sweep import (
            ray_tune,  # imports Ray, which looks at its environment when imported
        )

        slots = cluster_resources.cluster_slots(resources)
        share = work.full_trials / work.total  # a search's jobs may be parts of trials
        seconds = {id_: each * share for id_, each in found.seconds.items()}
        with (
            Progress(console, work.total, slots, seconds) as progress,
            listener.opened(options.tracker, folder.path, progress.note) as tracker,
        ):
            listeners = [] if tracker is None else [tracker]
            ray_tune.execute(guarded, folder, setting, resources, progress, listeners, scratch)
    if guarded.reason is not None:
        console.print(guarded.reason, soft_wrap=True, markup=False, style="red")


def _confirm(options: Options, plan: Plan, folder: SweepFolder, console: Console) -> int:
    """Evaluate a search's confirmation, as far as it is trained, and return the exit code."""
    if plan.search is None or plan.search.confirm is None:
        return OK
    return evaluate(
        folder.path, plan.search.confirm, console, address=options.address, uri=folder.uri
    )


def _conclude(work: Work, folder: SweepFolder, console: Console) -> int:
    ids = [job.id for job in work.asked] or folder.trial_ids()
    states = [pending.state_of(status) for status in folder.statuses(ids).values()]
    finished, stopped = states.count("finished"), states.count("stopped")
    failed = len(ids) - finished - stopped  # what a search has stopped is no failure
    early = f"{stopped} stopped early, " if stopped else ""
    counts = f"{finished} of {len(ids)} trials finished, {early}{failed} did not"
    console.print(counts, highlight=False)
    return SOME_FAILED if failed else OK


def evaluate(
    directory: Path,
    confirm: Confirm,
    console: Console,
    *,
    workers: int | None = None,
    address: str | None = None,
    uri: str | None = None,
) -> int:
    """Evaluate the confirmation's finished trials on the report seeds and return the exit code.

    All of them share one pool of workers: one for each CPU where none are given, those of the
    cluster at `address`. What is stored is not rolled out again. uri: where the results lie that
    this sweep's folder is a copy of.
    """
    asked = [
        trial_id(arm["config_hash"], seed)
        for question in files.read_json(directory / "plan.json")["questions"]
        for arm in question["arms"]
        for seed in question["train_seeds"]
    ]
    finished = [
        id_
        for id_ in asked
        if TrialFolder(directory / "trials" / id_).read_status().get("status") == "finished"
    ]
    if not finished:
        return OK
    tables.rebuild(directory)  # trials are found by their names in the table
    from harness.evaluation import (
        job as eval_job,  # most sweeps confirm nothing, and need not wait for films
    )

    options = eval_job.Options(
        seeds=str(confirm.report_seeds),
        ckpt=finished,
        sweep=directory.name,
        workers=workers,
        results=uri or directory.parent,
        address=address,
    )
    return eval_job.evaluate(options, console)
