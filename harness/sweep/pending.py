"""What is left to do of a sweep: its jobs, those that are asked for, how each of them stands."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config.plan import Plan
from harness.config.trial_config import config_hash, nearest
from harness.core.errors import UserError
from harness.demos import source as data
from harness.scheduling.full_search import search_jobs
from harness.scheduling.jobs import Job, Jobs, PlannedJobs, planned_job
from harness.scheduling.search_history import largest_jobs
from harness.sweep.folder import SweepFolder
from ibc.config import training
from ibc.data import demos as ibc_demos


@dataclass(frozen=True)
class Work:
    """What a sweep is made of and what of it is left.

    planned: every job that is known beforehand; asked: those that this run is about; left: those
    that are to be run. further: jobs that a search has yet to find. typical: what to time.
    statuses: the status.json of each trial there is. source: where the jobs to be run come from.
    in_trials: how many whole trials they amount to, None for one each. largest: what else is to be
    checked against the data.
    """

    planned: tuple[Job, ...]
    asked: tuple[Job, ...]
    left: tuple[Job, ...]
    further: int
    typical: tuple[Job, ...]
    statuses: Mapping[str, Mapping[str, Any]]
    source: Jobs
    in_trials: float | None = None
    largest: tuple[Job, ...] = ()

    @property
    def full_trials(self) -> float:
        """About how many whole trials the jobs amount to; those of a search may be parts."""
        return float(self.total) if self.in_trials is None else self.in_trials

    @property
    def total(self) -> int:
        """How many jobs are to be run."""
        return len(self.left) + self.further

    @property
    def states(self) -> Counter[str]:
        """How many of the trials that this run is about stand where; "missing" ones have not begun.

        A search's trials are those that it has found so far.
        """
        ids = [job.id for job in self.asked] or list(self.statuses)
        return Counter(state_of(self.statuses[id_]) for id_ in ids)


def state_of(status: Mapping[str, Any]) -> str:
    """Return the status of a status.json, "missing" where the trial has not begun."""
    return str(status.get("status", "missing"))


def find(plan: Plan, folder: SweepFolder, questions: Iterable[str], retry_failed: bool) -> Work:
    """Return what is left of the plan in this folder.

    questions: run those of these names alone, with their baselines; all when there is none.
    UserError for a question that the plan does not have.
    """
    hashes = _asked(plan, tuple(questions))
    if plan.search is not None:
        return _search(plan, folder, retry_failed)
    planned = tuple(planned_job(trial, folder.path.name) for trial in plan.trials)
    statuses = folder.statuses(job.id for job in planned)
    asked = tuple(j for j in planned if hashes is None or config_hash(j.config) in hashes)
    over = {"finished"} if retry_failed else {"finished", "failed"}
    left = tuple(job for job in asked if state_of(statuses[job.id]) not in over)
    return Work(planned, asked, left, 0, left, statuses, PlannedJobs(left))


def _search(plan: Plan, folder: SweepFolder, retry_failed: bool) -> Work:
    assert plan.search is not None, "a plan without a search knows its jobs"
    statuses = folder.statuses(folder.trial_ids())
    search = search_jobs(
        plan, folder.path.name, folder.path, retry_failed=retry_failed, statuses=statuses
    )
    typical = (*search.begun, *([search.typical] if search.further else []))
    further, in_trials = search.further, search.full_trials
    largest = tuple(largest_jobs(plan.search, folder.path.name, plan.train_seeds[0]))
    return Work((), (), search.begun, further, typical, statuses, search, in_trials, largest)


def _asked(plan: Plan, questions: tuple[str, ...]) -> set[str] | None:
    """Return the configs of these questions, None for all of the plan."""
    if not questions:
        return None
    if plan.search is not None:
        raise UserError(f"--question chooses among questions, and {plan.name} holds a search")
    # A question that is asked on several tracks goes by its own name as well as by each track's.
    by_name: dict[str, set[str]] = {}
    for question in plan.questions:
        hashes = {arm.config_hash for arm in question.arms}
        for name in {question.name, question.name.removesuffix(f" ({question.track})")}:
            by_name.setdefault(name, set()).update(hashes)
    for name in questions:
        if name not in by_name:
            near = nearest(name, by_name) or f"; there are {', '.join(by_name) or 'none'}"
            raise UserError(f"--question must name a question of {plan.name}, given {name!r}{near}")
    return set().union(*(by_name[name] for name in questions))


def check_data(work: Work, source: data.Source) -> None:
    """Refuse a split or a batch that these demonstrations cannot fill, before anything starts."""
    demos = data.open_demos(source, ())
    lengths = np.diff(demos.episode_ends, prepend=0)
    windows: dict[training.SplitConfig, int] = {}
    for job in (*work.typical, *work.largest):
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
