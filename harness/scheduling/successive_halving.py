"""What a search by successive halving has decided, on the disk before it is carried out."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.config.domains import Axis
from harness.config.search_spec import Search
from harness.config.trial_config import config_hash
from harness.core import files
from harness.core.errors import UserError
from harness.scheduling.jobs import NONE, WAIT, Job, Parameters, Statuses, Wait
from harness.scheduling.samplers import points
from harness.scheduling.search_history import (
    earlier,
    finite_score,
    inside,
    make_job,
    selection_scores,
    typical_job,
)

SCHEMA = 1


class Step(NamedTuple):
    """A decision: this point goes on to this level, 0 for its first rung."""

    number: int
    level: int


@dataclass(frozen=True)
class Decisions:
    """halving.json in a sweep's folder: the points and, in order, what was decided of them.

    base: the hash of what all trials share; with another one the file is of another search. rungs
    in optimiser steps.
    """

    path: Path
    base: str
    factor: int
    rungs: tuple[int, ...]

    def write(self, points: Mapping[int, Parameters], steps: Sequence[Step]) -> None:
        """Write all decisions, atomically."""
        content = {
            "schema": SCHEMA,
            "base": self.base,
            "factor": self.factor,
            "rungs": list(self.rungs),
            "points": {str(number): point for number, point in points.items()},
            "decisions": [list(step) for step in steps],
        }
        files.write_json(content, self.path)

    def read(self, axes: Mapping[str, Axis]) -> tuple[dict[int, Parameters], list[Step]]:
        """Return the points of today's axes and what was decided of them, in order.

        Nothing when there is no file, or a torn one: the trials themselves show how far they were
        sent. UserError when the search was begun with other rungs.
        """
        content = files.read_or(None, files.read_json, self.path, set_aside=True)
        if content is None:
            return {}, []
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise UserError(f"{self.path} must be of schema {SCHEMA}, as this program writes it")
        if content["base"] != self.base:
            return {}, []
        if (content["rungs"], content["factor"]) != (list(self.rungs), self.factor):
            raise UserError(
                f"a search keeps its rungs: {self.path.parent.name} was begun with rungs at "
                f"{content['rungs']} and factor {content['factor']}, given {list(self.rungs)} and "
                f"{self.factor}; give it another --name"
            )
        points = {
            int(number): point for number, point in content["points"].items() if inside(axes, point)
        }
        steps = [Step(*each) for each in content["decisions"]]
        return points, [step for step in steps if step.number in points]


FILE = "halving.json"


class HalvingJobs:
    """Hands out promotions before new points; waits while a running job may bring one.

    The objective at a rung is the mean over training seeds of the best selection score up to it.
    Of the n points that have come to a rung, the floor(n / factor) best go on as soon as they are
    among these; a failed one counts and never goes on. When nothing else is left and no point has
    come to its end, the best of the highest rung goes on, so that the winner is a whole trial.

    Every decision is kept in halving.json before it is carried out, and scores are read from the
    trials' folders: whatever was killed goes on with the rungs and promotions that it had.
    """

    def __init__(
        self,
        search: Search,
        sweep: str,
        directory: Path,
        train_seeds: Sequence[int],
        *,
        retry_failed: bool = False,
        statuses: Statuses = NONE,
    ) -> None:
        assert search.halving is not None, "a search without rungs is run otherwise"
        self.search, self.sweep, self.train_seeds = search, sweep, tuple(train_seeds)
        self.directory, self.factor = directory, search.halving.factor
        config = search.config({})  # the axes leave its length alone
        self.rungs, self.steps = search.halving.rungs(config), config.train.steps
        base = config_hash(config)
        self._decisions = Decisions(directory / FILE, base, self.factor, self.rungs)
        self.points = points(search, sweep)
        self._parameters: dict[int, Parameters] = {}
        self._level: dict[int, int] = {}  # the highest that a point was sent to
        self._decided: list[Step] = []
        # By level, point and training seed; None for what failed.
        self._scores: list[dict[int, dict[int, float | None]]] = [{} for _ in range(self.top + 1)]
        self._queue: list[Job] = []
        self._running: set[str] = set()
        self._read(retry_failed, statuses)

    @property
    def top(self) -> int:
        """The level of a whole trial."""
        return len(self.rungs)

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs that were decided before and are to be run (again)."""
        return tuple(self._queue)

    @property
    def further(self) -> int:
        """About how many jobs will be decided, as if each rung let exactly its share go on."""
        if self._queue or self._promotion() or self._points_left or self._last_promotion():
            left = sum(total - sent for total, sent in self._sizes())
            return max(int(not self._queue), left) * len(self.train_seeds)
        return 0

    @property
    def full_trials(self) -> float:
        """About how many whole trials the steps that are left amount to."""
        ends = (0, *self.rungs, self.steps)
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        begun = sum(lengths[self._level[job.info["number"]]] for job in self._queue)
        left = zip(self._sizes(), lengths, strict=True)
        steps = sum((total - sent) * length for (total, sent), length in left)
        return (begun + steps * len(self.train_seeds)) / self.steps

    @property
    def typical(self) -> Job:
        """A whole trial in the middle of the space, for an estimate of the time."""
        return typical_job(self.search, self.sweep, self.train_seeds[0])

    def next(self) -> Job | Wait | None:
        """Return the next job, WAIT while another one's end may bring one."""
        if not self._queue:
            step = self._promotion() or self._new_point()
            if step is None and self._running:
                return WAIT
            step = step or self._last_promotion()
            if step is None:
                return None
            self._decide(step)
        job = self._queue.pop(0)
        self._running.add(job.id)
        return job

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Take a job's scores to its rung and to those that it passed."""
        self._running.discard(job.id)
        level = self.top if job.until is None else self.rungs.index(job.until)
        key = job.info["number"], job.train_seed
        by_step = selection_scores(self.directory / "trials" / job.id)
        self._note(key, level, status, by_step, over=True)

    def ranking(self) -> list[tuple[int, Parameters]]:
        """Return the points with their numbers, the farthest first, of those the best."""
        found: dict[int, None] = {}
        for level in reversed(range(self.top + 1)):
            found |= dict.fromkeys(self._best(level))
        return [(number, self._parameters[number]) for number in found]

    def _promotion(self) -> Step | None:
        """Return the promotion that is due by the rule, from the highest rung down."""
        for level in reversed(range(self.top)):
            share = len(self._complete(level)) // self.factor
            for number in self._best(level)[:share]:
                if self._level[number] == level:
                    return Step(number, level + 1)
        return None

    def _new_point(self) -> Step | None:
        if not self._points_left:
            return None
        number = self._next
        point = self.points.ask(number, self._parameters.values())
        if point is None:
            return None
        self._parameters[number] = point
        self._next += 1
        return Step(number, 0)

    def _last_promotion(self) -> Step | None:
        """Return what brings a point to its end when the rule alone has brought none."""
        if self._best(self.top):
            return None
        for level in reversed(range(self.top)):
            for number in self._best(level):
                if self._level[number] == level:
                    return Step(number, level + 1)
        return None

    @property
    def _points_left(self) -> int:
        return max(0, self.search.trials - len(self._parameters))

    def _decide(self, step: Step) -> None:
        """Keep a decision on the disk, then carry it out."""
        self._decided.append(step)
        self._level[step.number] = step.level
        self._decisions.write(self._parameters, self._decided)
        self._queue += [self._job(step, seed) for seed in self.train_seeds]

    def _job(self, step: Step, seed: int) -> Job:
        number, level = step
        until = self.rungs[level] if level < self.top else None
        parameters = self._parameters[number]
        return make_job(self.search, self.sweep, number, parameters, seed, until=until)

    def _complete(self, level: int) -> list[int]:
        """Return the points all of whose training seeds have come to a level or failed there."""
        seeds = set(self.train_seeds)
        return [number for number, got in self._scores[level].items() if got.keys() >= seeds]

    def _best(self, level: int) -> list[int]:
        """Return the points that have come to a level, the best first, failed ones left out."""
        means = {}
        for number in self._complete(level):
            scores = [self._scores[level][number][seed] for seed in self.train_seeds]
            known = [score for score in scores if score is not None]
            if len(known) == len(scores):
                means[number] = math.fsum(known) / len(known)
        return sorted(means, key=lambda number: (-means[number], number))

    def _sizes(self) -> list[tuple[int, int]]:
        """Return for every level how many points will be sent there in all, and how many were."""
        total, found = self.search.trials, []
        for level in range(self.top + 1):
            sent = sum(reached >= level for reached in self._level.values())
            found.append((max(total, sent), sent))
            total = max(1, total // self.factor)
        return found

    def _note(
        self,
        key: tuple[int, int],
        level: int,
        status: Mapping[str, Any],
        by_step: Mapping[int, float],
        *,
        over: bool,
    ) -> None:
        """Take a trial's scores to the levels up to this one; the last only when the job is over.

        What ended without a score there has failed.
        """
        number, seed = key
        for each in range(level + 1 if over else level):
            scores = self._scores[each].setdefault(number, {})
            found = self._score(each, status, by_step)
            if found is not None or (each == level and scores.get(seed) is None):
                scores[seed] = found
            elif status.get("status") == "failed":
                scores.setdefault(seed, None)

    def _score(
        self, level: int, status: Mapping[str, Any], by_step: Mapping[int, float]
    ) -> float | None:
        """Return the best selection score up to a level's step, None before it was selected."""
        if level == self.top:
            return finite_score(status) if status.get("status") == "finished" else None
        rung = self.rungs[level]
        if rung in by_step:
            best = max(score for step, score in by_step.items() if step <= rung)
            return best if math.isfinite(best) else None
        return finite_score(status) if status.get("step") == rung else None

    def _read(self, retry_failed: bool, statuses: Statuses) -> None:
        """Take up the decisions of earlier runs and what came of them."""
        found = earlier(self.directory, self.search, statuses=statuses)
        noted, self._decided = self._decisions.read(self.search.axes)
        self._level = {step.number: step.level for step in self._decided}
        self._parameters = {**found.parameters, **noted}
        self._next = max(found.next, *(number + 1 for number in noted), 0)
        for number, point in self._parameters.items():
            self.points.add(number, point)
            if number not in self._level:  # without the note, a trial shows how far it was sent
                those = (found.statuses.get((number, seed), {}) for seed in self.train_seeds)
                level = max(self._evidence(status) for status in those)
                self._decided += [Step(number, each) for each in range(level + 1)]
                self._level[number] = level
        last = {step.number: index for index, step in enumerate(self._decided)}
        for number in sorted(last, key=lambda each: last[each]):
            for seed in self.train_seeds:
                self._resume(number, seed, found.statuses.get((number, seed), {}), retry_failed)

    def _resume(
        self, number: int, seed: int, status: Mapping[str, Any], retry_failed: bool
    ) -> None:
        level = self._level[number]
        job = self._job(Step(number, level), seed)
        by_step = selection_scores(self.directory / "trials" / job.id) if status else {}
        state = status.get("status")
        over = state == "finished" or (state == "failed" and not retry_failed)
        if state == "stopped":
            over = level < self.top and self.rungs[level] in by_step
        self._note((number, seed), level, status, by_step, over=over)
        if not over:
            self._queue.append(job)

    def _evidence(self, status: Mapping[str, Any]) -> int:
        if status.get("status") in ("finished", "lost"):
            return self.top
        return sum(status.get("step", 0) > rung for rung in self.rungs)
