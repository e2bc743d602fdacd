"""The jobs of a search: whole trials, or asynchronous successive halving (Li et al. 2020)."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.config.trial_config import config_hash
from harness.core import files
from harness.core.errors import UserError
from harness.scheduling.jobs import Job, Parameters
from harness.scheduling.samplers import GridSampler, OptunaSampler
from harness.scheduling.search_history import SearchRun, finite_score, inside, selection_scores

SCHEMA = 1
FILE = "halving.json"


class Decision(NamedTuple):
    """The parameters of this number are trained to this level, 0 for the first rung."""

    number: int
    level: int


class SearchJobs:
    """Prefers promotions to new parameters; waits while a running job may lead to a promotion.

    The objective at a rung is the mean over training seeds of the best selection score up to it.
    Of n parameters that have reached a rung, the floor(n / factor) best are promoted as soon as
    they are among these; a failed trial counts and is never promoted. When nothing else is left
    and none has reached the end, the best of the highest rung is promoted, so that the winner is a
    whole trial. Without halving there is no rung, and every trial runs to its end.

    Decisions of a halving are written to halving.json before they are acted on, and scores are read
    from the trials' folders: an interrupted search resumes with the same rungs and promotions, and
    a finished one can be extended.
    """

    def __init__(self, run: SearchRun) -> None:
        self.run, search, halving = run, run.search, run.search.halving
        self.sampler: GridSampler | OptunaSampler = (
            GridSampler(search) if search.sampler == "grid" else OptunaSampler(search)
        )
        base = search.config({})  # axes do not change the rungs
        self._base, self.steps = config_hash(base), base.train.steps
        self.factor = 1 if halving is None else halving.factor
        self.rungs = () if halving is None else halving.rungs(base)  # in optimiser steps
        self.top = len(self.rungs)  # the level of a whole trial
        self._file = run.directory / FILE
        self._queue: list[Job] = []
        # By level, number and training seed; None for a failed trial.
        self._scores: list[dict[int, dict[int, float | None]]] = [{} for _ in range(self.top + 1)]
        earlier = run.earlier()
        noted, self._decisions = self._read()
        self._level = {each.number: each.level for each in self._decisions}  # the highest
        self._parameters: dict[int, Parameters] = {**earlier.parameters, **noted}
        self._next = max(earlier.next, *(number + 1 for number in noted), 0)
        self._resume(earlier.statuses)

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs that an earlier run has begun and this one is to run."""
        return tuple(self._queue)

    @property
    def further(self) -> int:
        """The approximate number of jobs to be decided, if each rung promotes just its share."""
        if self._queue or self._promotion() or self._left or self._last_promotion():
            left = sum(total - sent for total, sent in self._sizes())
            return max(int(not self._queue), left) * len(self.run.train_seeds)
        return 0

    @property
    def full_trials(self) -> float:
        """The approximate number of whole trials that the steps left amount to."""
        ends = (0, *self.rungs, self.steps)
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        begun = sum(lengths[self._level[job.info["number"]]] for job in self._queue)
        left = zip(self._sizes(), lengths, strict=True)
        steps = sum((total - sent) * length for (total, sent), length in left)
        return (begun + steps * len(self.run.train_seeds)) / self.steps

    def next(self, idle: bool) -> Job | None:
        """Return the next job, None when there is none or the end of a running one may lead to it.

        idle: no job is running.
        """
        if not self._queue:
            decision = self._promotion()
            if decision is None and (number := self._sample()) is not None:
                decision = Decision(number, 0)
            if decision is None and idle:
                decision = self._last_promotion()
            if decision is None:
                return None
            self._decisions.append(decision)
            self._level[decision.number] = decision.level
            self._write()
            self._queue += [self._job(decision, seed) for seed in self.run.train_seeds]
        return self._queue.pop(0)

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Record a job's scores at its rung and at the earlier ones."""
        level = self.top if job.until is None else self.rungs.index(job.until)
        decision = Decision(job.info["number"], level)
        self._record(decision, job.train_seed, status, self._by_step(job), over=True)

    def ranking(self) -> list[tuple[int, Parameters]]:
        """Return numbers and parameters: of the highest level first, of these the best first.

        Those without a score are left out.
        """
        levels = reversed(range(self.top + 1))
        order = dict.fromkeys(number for level in levels for number in self._ranked(level))
        return [(number, self._parameters[number]) for number in order]

    def _write(self) -> None:
        content = {
            "schema": SCHEMA,
            "base": self._base,
            "factor": self.factor,
            "rungs": list(self.rungs),
            "points": {str(number): each for number, each in self._parameters.items()},
            "decisions": [list(decision) for decision in self._decisions],
        }
        if self.rungs:
            files.write_json(content, self._file)

    def _read(self) -> tuple[dict[int, Parameters], list[Decision]]:
        """Return the parameters on today's axes and the decisions on them, in order.

        Nothing when the file is absent or torn: the trials themselves show how far they were
        promoted. UserError when the search was begun with other rungs.
        """
        content = None
        if self.rungs:
            content = files.read_or(None, files.read_json, self._file)
        if content is None:
            return {}, []
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise UserError(f"{self._file} must be of schema {SCHEMA}, as this program writes it")
        if content["base"] != self._base:
            return {}, []  # of another search
        if (content["rungs"], content["factor"]) != (list(self.rungs), self.factor):
            raise UserError(
                f"a search keeps its rungs: {self._file.parent.name} was begun with rungs at "
                f"{content['rungs']} and factor {content['factor']}, given {list(self.rungs)} and "
                f"{self.factor}; give it another --name"
            )
        axes = self.run.search.axes
        parameters = {int(n): each for n, each in content["points"].items() if inside(axes, each)}
        decisions = [Decision(*each) for each in content["decisions"]]
        return parameters, [each for each in decisions if each.number in parameters]

    @property
    def _left(self) -> int:
        """How many parameters are still to be sampled."""
        return max(0, self.run.search.trials - len(self._parameters))

    def _sample(self) -> int | None:
        """Sample new parameters and return their number, None when there are no more."""
        parameters = self.sampler.ask(self._next, self._parameters.values()) if self._left else None
        if parameters is None:
            return None
        self._parameters[self._next] = parameters
        self._next += 1
        return self._next - 1

    def _promotion(self) -> Decision | None:
        """Return the promotion that the rule demands, from the highest rung down."""
        seeds = set(self.run.train_seeds)
        for level in reversed(range(self.top)):
            complete = sum(scores.keys() >= seeds for scores in self._scores[level].values())
            found = self._best_at(level, complete // self.factor)
            if found is not None:
                return found
        return None

    def _last_promotion(self) -> Decision | None:
        """Return the promotion that leads to a whole trial when the rule alone has led to none."""
        if self._ranked(self.top):
            return None
        found = (self._best_at(level) for level in reversed(range(self.top)))
        return next((each for each in found if each is not None), None)

    def _best_at(self, level: int, among: int | None = None) -> Decision | None:
        """Return the promotion of the best of a level's first `among` that was not promoted."""
        for number in self._ranked(level)[:among]:
            if self._level[number] == level:
                return Decision(number, level + 1)
        return None

    def _ranked(self, level: int) -> list[int]:
        """Return the numbers with a mean score at a level, the best first."""
        means = {number: self._mean(scores) for number, scores in self._scores[level].items()}
        scored = {number: mean for number, mean in means.items() if mean is not None}
        return sorted(scored, key=lambda number: (-scored[number], number))

    def _mean(self, scores: Mapping[int, float | None]) -> float | None:
        """Return the mean over the training seeds; None where one failed or is not done."""
        known = [score for s in self.run.train_seeds if (score := scores.get(s)) is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.run.train_seeds) else None

    def _job(self, decision: Decision, seed: int) -> Job:
        number, level = decision
        until = self.rungs[level] if level < self.top else None
        return self.run.job(number, self._parameters[number], seed, until=until)

    def _sizes(self) -> list[tuple[int, int]]:
        """Return for every level how many parameters will reach it, and how many were sent."""
        total, found = self.run.search.trials, []
        for level in range(self.top + 1):
            sent = sum(reached >= level for reached in self._level.values())
            found.append((max(total, sent), sent))
            total = max(1, total // self.factor)
        return found

    def _by_step(self, job: Job) -> dict[int, float]:
        return selection_scores(self.run.directory / "trials" / job.id) if self.rungs else {}

    def _record(
        self,
        decision: Decision,
        seed: int,
        status: Mapping[str, Any],
        by_step: Mapping[int, float],
        *,
        over: bool,
    ) -> None:
        """Record a trial's scores at the levels up to the decision's, at that one if it is over.

        A trial that ended without a score there has failed. The sampler gets the mean of whole
        trials when all training seeds are done.
        """
        number, level = decision
        for each in range(level + 1 if over else level):
            scores = self._scores[each].setdefault(number, {})
            found = self._score(each, status, by_step)
            if found is not None or (each == level and scores.get(seed) is None):
                scores[seed] = found
            elif status.get("status") == "failed":
                scores.setdefault(seed, None)
            if each == self.top and scores.keys() >= set(self.run.train_seeds):
                self.sampler.tell(number, self._mean(scores))

    def _score(
        self, level: int, status: Mapping[str, Any], by_step: Mapping[int, float]
    ) -> float | None:
        """Return the best selection score up to a level's step, None before its selection."""
        if level == self.top:
            return finite_score(status) if status.get("status") == "finished" else None
        rung = self.rungs[level]
        if rung in by_step:
            best = max(score for step, score in by_step.items() if step <= rung)
            return best if math.isfinite(best) else None
        return finite_score(status) if status.get("step") == rung else None

    def _resume(self, statuses: Mapping[tuple[int, int], Mapping[str, Any]]) -> None:
        """Apply the decisions of earlier runs and queue the trials that are not at their rung."""
        for number, parameters in self._parameters.items():
            self.sampler.add(number, parameters)
            if number not in self._level:  # without the file, a trial shows how far it was sent
                those = (statuses.get((number, seed), {}) for seed in self.run.train_seeds)
                level = max(self._reached(status) for status in those)
                self._decisions += [Decision(number, each) for each in range(level + 1)]
                self._level[number] = level
        last = {each.number: index for index, each in enumerate(self._decisions)}
        for number in sorted(last, key=lambda each: last[each]):
            decision = Decision(number, self._level[number])
            for seed in self.run.train_seeds:
                status = statuses.get((number, seed), {})
                job = self._job(decision, seed)
                by_step = self._by_step(job) if status else {}
                over = self.run.is_over(status)
                if status.get("status") == "stopped":
                    over = job.until in by_step
                self._record(decision, seed, status, by_step, over=over)
                if not over:
                    self._queue.append(job)

    def _reached(self, status: Mapping[str, Any]) -> int:
        if status.get("status") in ("finished", "lost"):
            return self.top
        return sum(status.get("step", 0) > rung for rung in self.rungs)
