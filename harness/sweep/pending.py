"""The trials that are left of a sweep, those that this run is about, and their states."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from envs.physics.geometry import GOAL_POSE
from harness.config.plan import Plan
from harness.config.protocol import Protocol
from harness.config.trial_config import parse_trial_id
from harness.core.errors import UserError
from harness.demos.goals import check_goals
from harness.scheduling.confirmation import search_jobs
from harness.scheduling.jobs import (
    Job,
    Jobs,
    PlannedJobs,
    Statuses,
    planned_job,
    share_trainings,
    state_of,
)
from harness.scheduling.search_history import SearchRun
from harness.sweep.folder import SweepFolder
from harness.sweep.options import Until
from harness.sweep.until_verdict import VerdictJobs
from ibc.config.memory import least_bytes
from ibc.config.training import SplitConfig
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos


@dataclass(frozen=True)
class Work:
    """A sweep's jobs.

    planned: all that are known beforehand; asked: those that this run is about; left: those to run.
    further: the jobs that a search will add. typical: to estimate the time by. statuses: of every
    trial that has one, as read once at the start. source: the queue of the jobs to run.
    full_trials: the whole trials that they amount to. largest: further jobs to check the data with.
    """

    planned: tuple[Job, ...]
    asked: tuple[Job, ...]
    left: tuple[Job, ...]
    further: int
    typical: tuple[Job, ...]
    statuses: Statuses
    source: Jobs
    full_trials: float
    largest: tuple[Job, ...] = ()

    @property
    def total(self) -> int:
        """The number of jobs to run."""
        return len(self.left) + self.further

    @property
    def states(self) -> Counter[str]:
        """The number of trials that this run is about, by state.

        A search's trials are those that it has so far.
        """
        if self.asked:
            return Counter(self.state(job) for job in self.asked)
        return Counter(state_of(status) for status in self.statuses.values())

    def state(self, job: Job) -> str:
        """Return the state of a job's trial."""
        return state_of(self.statuses.get(job.id, {}))


def finished_seconds(statuses: Statuses) -> dict[str, float]:
    """Return how long finished trials took by config hash, the mean over training seeds.

    Trials that took their weights from another did not train.
    """
    found: dict[str, list[float]] = {}
    for id_, status in statuses.items():
        if status.get("status") == "finished":
            seconds = status.get("select_seconds", 0.0)
            if status.get("weights_of") is None:
                seconds += status["train_seconds"]
            found.setdefault(parse_trial_id(id_)[0], []).append(seconds)
    return {hash_: sum(each) / len(each) for hash_, each in found.items()}


def find(
    plan: Plan,
    folder: SweepFolder,
    questions: Iterable[str],
    retry_failed: bool,
    until: Until | None = None,
) -> Work:
    """Return what is left of the plan in this folder.

    questions: see `Plan.only`. until: in rounds, until every verdict is reached.
    """
    of_plan = plan.only(questions)
    statuses = folder.statuses()
    sweep = folder.path.name
    if plan.search is not None:
        seeds = plan.train_seeds
        run = SearchRun(plan.search, sweep, folder.path, seeds, retry_failed, statuses)
        jobs = search_jobs(run)
        begun, further, whole = jobs.begun, jobs.further, jobs.full_trials
        typical = (*begun, *([run.typical] if further else []))
        return Work((), (), begun, further, typical, statuses, jobs, whole, tuple(run.largest))
    planned = share_trainings([planned_job(trial, sweep) for trial in plan.trials])
    ids = {trial.id for trial in of_plan.trials}
    asked = tuple(job for job in planned if job.id in ids)
    over = {"finished"} if retry_failed else {"finished", "failed"}
    if until is not None:
        rounds = VerdictJobs(of_plan, asked, folder.path, until, folder.statuses, over)
        further = rounds.further
        total = float(len(rounds.begun) + further)
        return Work(planned, (), rounds.begun, further, asked, statuses, rounds, total)
    left = tuple(job for job in asked if state_of(statuses.get(job.id, {})) not in over)
    return Work(planned, asked, left, 0, left, statuses, PlannedJobs(left), float(len(left)))


def check_memory(work: Work) -> None:
    """UserError for a trial that cannot fit into this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for job in (*work.typical, *work.largest):
        rows = min(job.config.select.seeds, Protocol().block_size)
        needed = least_bytes(job.config.policy, rows)
        if needed > memory:
            policy = job.config.policy
            raise UserError(
                f"{job.label}: a trial must fit into the {memory / 1e9:.0f} GB of this machine's "
                f"memory; {rows} episodes with inference.samples {policy.inference.samples:,} and "
                f"the hidden layers (energy.width {policy.energy.width}, depth "
                f"{policy.energy.depth}) need at least {needed / 1e9:.0f} GB"
            )


def check_data(work: Work, demos: Demos) -> None:
    """UserError for a split, a batch or a mirror that does not fit the demonstrations."""
    mirrored = any(j.config.train.augment.mirror > 0.0 for j in (*work.typical, *work.largest))
    x, y, angle = GOAL_POSE
    rule = f"train.augment.mirror needs the goal at ({x:g}, {y:g}) px, {angle:.2f} rad"
    check_goals(demos, rule if mirrored else None)
    lengths = np.diff(demos.episode_ends, prepend=0)
    windows: dict[SplitConfig, int] = {}
    for job in (*work.typical, *work.largest):
        config = job.config
        try:
            if config.split not in windows:
                train = ibc_demos.split(demos, config.split).train_episodes
                windows[config.split] = int(lengths[list(train)].sum())
            if config.train.batch_size > windows[config.split]:
                raise UserError(
                    f"train.batch_size must be at most the {windows[config.split]} training "
                    f"windows of {demos.path}, given {config.train.batch_size}"
                )
        except ValueError as error:
            raise UserError(f"{job.label}: {error}") from None
