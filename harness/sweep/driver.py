"""One run of a sweep: find the trials that are left, run them on Ray, write tables and pages."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from harness.cluster import ray_session
from harness.cluster import resources as cluster_resources
from harness.cluster.resources import Resources
from harness.config.search_spec import Confirm
from harness.config.trial_config import trial_id
from harness.core import files
from harness.core.errors import OK, SOME_FAILED, UserError
from harness.core.imports import load
from harness.core.text import duration
from harness.demos import consistency
from harness.demos import source as demos_source
from harness.demos.source import Source
from harness.scheduling.confirmation import ConfirmJobs
from harness.scheduling.jobs import Listener, PlannedJobs, sort_longest_first, state_of
from harness.storage import tables
from harness.sweep import outputs, pending
from harness.sweep.dispatcher import Dispatch
from harness.sweep.estimate import Estimate, estimate
from harness.sweep.folder import SweepFolder, TrialSettings
from harness.sweep.options import Options
from harness.sweep.pending import Work
from harness.sweep.plan_table import print_counts, print_plan
from harness.sweep.progress import Leader, Progress
from harness.sweep.until_verdict import VerdictJobs
from harness.terminal import formatting
from harness.tracking import listener
from ibc.data.demos import Demos

MANY_TRIALS = 1_000
# Ray reads its environment when it is imported, so neither is imported at the top.
EXECUTOR, WORKER = "harness.sweep.ray_tune", "harness.sweep.worker"


@dataclass(frozen=True)
class Run:
    """What every step of this run of a sweep uses.

    demos: the demonstrations of `source` without images. slots: how many trials run in parallel.
    """

    options: Options
    folder: SweepFolder
    source: Source
    demos: Demos
    resources: Resources
    slots: int
    console: Console

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line, see `formatting.say`."""
        formatting.say(self.console, text, style or "")


def sweep(options: Options, console: Console) -> int:
    """Run what is left of a sweep and return the exit code: 0, or 1 when trials failed.

    Everything that can be wrong with the input is a UserError before Ray starts. The sweep can be
    killed at any time and run again.
    """
    run = _open(options, console)
    folder = run.folder
    if options.dry_run:
        folder.refresh()
        _print_plan(run)
        return OK
    with folder.lock():
        work, found = _print_plan(run)
        if work.total > MANY_TRIALS and not options.yes:
            raise UserError(f"more than {MANY_TRIALS:,} trials need --yes, given {work.total:,}")
        if work.total:
            _check_code(run, work)
        rounds = work.source if isinstance(work.source, VerdictJobs) else None
        folder.write_plan(
            options.plan,
            options.space,
            () if rounds else work.planned,
            run.source,
            run.demos.fingerprint,
            None if rounds is None else {"delta": rounds.until.delta, "trials": rounds.most},
        )
        if isinstance(work.source, ConfirmJobs):
            work.source.write_question()
        folder.push_plan()
        if work.total:
            _execute(run, work, found)
        evaluated, search = OK, options.plan.search
        if search is not None and search.confirm is not None:
            evaluated = evaluate(folder, search.confirm, console, address=options.address)
        # The weights of results on an object store are not here.
        readable = outputs.write(folder.path, console, options.question, draw=folder.uri is None)
        code = max(evaluated, _print_end(run, work))
        if rounds is not None:
            run.say(rounds.end)
        folder.publish()
        for path in readable:
            run.say(str(path))
        return code


def _open(options: Options, console: Console) -> Run:
    name = options.check()
    gpus = options.gpus_per_trial
    if gpus is None:
        local = options.address is None
        gpus = 1.0 if local and cluster_resources.available_gpus() else 0.0
    resources = Resources(options.cpus_per_trial, gpus)
    listener.check(options.tracker)
    slots = 1
    if options.address is None:
        slots = cluster_resources.slots(resources)
    source = demos_source.resolve_source(*(options.data or options.plan.data))
    folder = SweepFolder.at(options.results, name)
    demos = demos_source.open_demos(source, ())
    return Run(options, folder, source, demos, resources, slots, console)


def _print_plan(run: Run) -> tuple[Work, Estimate]:
    """Find what is left to do, and print it with an estimate of the time."""
    options, folder = run.options, run.folder
    run.say(str(run.source))
    delta = None if options.until is None else options.until.delta
    folder.check_same(options.plan, run.source, run.demos.fingerprint, delta)
    work = pending.find(options.plan, folder, options.question, options.retry_failed, options.until)
    pending.check_data(work, run.demos)
    if work.total:
        modes = {job.config.policy.obs_mode for job in (*work.typical, *work.largest)}
        found_odd = consistency.compare(run.source, run.demos, modes)
        if found_odd.wrong:
            raise UserError(f"{run.demos.path}: {'; '.join(found_odd.wrong)}")
        for line in found_odd.odd:
            run.say(f"warning: {line}", style="yellow")
    if options.address is None:
        pending.check_memory(work)
    found = estimate(work.typical, pending.finished_seconds(work.statuses), options.threads)
    print_plan(run.console, options.plan.only(options.question), work, found)
    print_counts(run.console, folder.path, work)
    if work.states["failed"] and not options.retry_failed:
        run.console.print("failed trials are left as they are; --retry-failed runs them again")
    if work.total and found.seconds:
        wall = duration(found.wall(run.slots, work.full_trials))
        most = "at most " if options.until else ""
        run.say(f"{most}about {wall}, {run.slots} in parallel ({found.how})")
    elif work.total:
        run.say(found.how)
    return work, found


def _check_code(run: Run, work: Work) -> None:
    """Refuse to mix trials of two versions of the code in one table, unless the user agrees."""
    changed = run.folder.changed_code()
    begun = any("status" in status for status in work.statuses.values())
    if not changed or not begun:
        return
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    what = f"{', '.join(changed[:3])}{more} changed since this sweep's last run"
    if not run.options.yes:
        raise UserError(
            f"a sweep's trials come from one code, and {what}: --yes runs the rest with the code "
            "of now, another --name begins anew"
        )
    run.say(f"note: {what}")


def _execute(run: Run, work: Work, found: Estimate) -> None:
    options, folder, resources = run.options, run.folder, run.resources
    if any(job.config.policy.obs_mode == "image" for job in work.typical):
        run.say("opening the demonstrations (the first time on a machine takes a while)")
        demos_source.open_demos(run.source, "image")  # creates the copy that all trials share
    jobs = work.source
    if isinstance(jobs, PlannedJobs):
        jobs = PlannedJobs(sort_longest_first(work.left, lambda j: found.seconds.get(j.id, 0.0)))
    settings = TrialSettings(
        folder=str(folder.path),
        uri=folder.uri,
        data=tuple(map(str, run.source.paths)),
        fingerprint=run.demos.fingerprint,
        threads=options.threads,
        seconds=3600 * options.hours_per_trial,
    )
    # Where most CPUs run trials, Ray's workers import their modules while this process prepares.
    most = options.address is None and 2 * run.slots >= cluster_resources.available_cpus()
    with ray_session.ray_session(
        address=options.address, preload=f"{EXECUTOR},{WORKER}" if most else None
    ) as scratch:
        slots = cluster_resources.cluster_slots(resources)
        share = work.full_trials / work.total  # the jobs of a search may be parts of trials
        seconds = {id_: each * share for id_, each in found.seconds.items()}
        with (
            Progress(run.console, work.total, slots, seconds, _leader(work)) as progress,
            listener.opened(options.tracker, folder.path, progress.note) as tracker,
        ):
            listeners: list[Listener] = [progress] if tracker is None else [progress, tracker]
            if isinstance(jobs, VerdictJobs):
                jobs.note = progress.note
            dispatch = Dispatch(jobs, folder, listeners, progress.note, settings.seconds)

            def tick() -> None:
                files.check_in_place(folder.path / "plan.json")
                progress.tick()

            load(f"{EXECUTOR}:execute")(dispatch, settings, resources, tick, scratch)
    if dispatch.stop_reason is not None:
        run.say(dispatch.stop_reason, style="red")


def _leader(work: Work) -> Leader | None:
    """Return the best of the trials that earlier runs have finished."""
    labels = {job.id: job.label for job in (*work.asked, *work.planned)}
    scores = (
        (float(status["select_score"]), labels.get(id_, id_))
        for id_, status in work.statuses.items()
        if status.get("status") == "finished" and (id_ in labels or not labels)
    )
    return max(scores, default=None)


def _print_end(run: Run, work: Work) -> int:
    """Print how many trials are in which state and return the exit code."""
    statuses: Mapping[str, Mapping[str, Any]] = run.folder.statuses()
    if work.asked:
        statuses = {job.id: statuses.get(job.id, {}) for job in work.asked}
    states = Counter(state_of(status) for status in statuses.values())
    # A search stops trials early on purpose.
    rest = states.total() - sum(states[state] for state in ("finished", "stopped", "failed"))
    others = {"stopped early": states["stopped"], "failed": states["failed"], "not finished": rest}
    parts = [f"{states['finished']}/{states.total()} trials finished"]
    parts += [f"{count} {what}" for what, count in others.items() if count]
    run.say(", ".join(parts))
    return SOME_FAILED if states["failed"] or rest else OK


def evaluate(
    folder: SweepFolder,
    confirm: Confirm,
    console: Console,
    *,
    workers: int | None = None,
    address: str | None = None,
) -> int:
    """Evaluate the confirmation's finished trials on the test seeds and return the exit code.

    All of them share one pool of workers: one for each CPU where no number is given, those of the
    cluster at `address`. Stored episodes are not rolled out again.
    """
    asked = [
        trial_id(arm["config_hash"], seed)
        for question in files.read_json(folder.path / "plan.json")["questions"]
        for arm in question["arms"]
        for seed in question["train_seeds"]
    ]
    statuses = folder.statuses()
    # A checkpoint may be left of a "lost" trial.
    finished = [id_ for id_ in asked if statuses.get(id_, {}).get("status") in ("finished", "lost")]
    if not finished:
        return OK
    tables.rebuild(folder.path)  # trials are found by their names in the table
    options = load("harness.evaluation.job:Options")(
        seeds=str(confirm.report_seeds),
        ckpt=finished,
        sweep=folder.path.name,
        workers=workers,
        results=folder.uri or folder.path.parent,
        address=address,
    )
    return int(load("harness.evaluation.job:evaluate")(options, console))
