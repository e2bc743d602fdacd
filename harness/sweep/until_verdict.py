"""Jobs in rounds until every verdict is reached: the next training seeds go where one is open."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.analysis import verdicts
from harness.analysis.looks import Looks
from harness.analysis.sweep_results import Sweep
from harness.analysis.verdicts import Verdict
from harness.config.plan import Arm, Plan, seed_counts
from harness.scheduling.jobs import Job, Statuses, state_of, take
from harness.stats import comparisons
from harness.stats.sequential import FIRST_SEEDS
from harness.storage.rounds import Look, Round, Rounds
from harness.sweep.options import Until


class VerdictJobs:
    """The jobs of a plan in rounds, with a look at its open verdicts after each.

    A round brings the arms with an open verdict to one training seed more (the first one to two),
    the widest interval first, and their baselines to as many as these need (`plan.seed_counts`).
    What is begun and decided is on the disk first (`Rounds`): an interrupted sweep goes on with
    the rest of its round, and looks once all of it has ended. over: states of trials that are not
    run (again). note: prints a line.
    """

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[Job],
        folder: Path,
        until: Until,
        statuses: Callable[[], Statuses],
        over: Collection[str],
    ) -> None:
        self.plan, self.folder, self.until = plan, folder, until
        self.note: Callable[[str], None] = print
        self._statuses, self._over = statuses, over
        self._jobs = {job.id: job for job in jobs}
        self._seeds: dict[str, list[str]] = {}  # the trials of each config, by seed
        for job in jobs:
            self._seeds.setdefault(job.config_hash, []).append(job.id)
        self._deadline: float | None = None
        self._running: set[str] = set()
        self._resume(Rounds.read(folder))

    @property
    def begun(self) -> tuple[Job, ...]:
        """The jobs that are left of the rounds so far; before the first one, its jobs."""
        return tuple(self._queue)

    @property
    def most(self) -> int:
        """The number of all trials if no verdict were reached early."""
        return len(self._jobs.keys() | self.rounds.begun.keys())

    @property
    def further(self) -> int:
        """The number of jobs that follow those if no further verdict is reached."""
        most = self._counts(self._open(), len(self.plan.train_seeds))
        further = sum(max(0, count - self._begun[config]) for config, count in most.items())
        return min(further, self._room())

    def next(self, idle: bool) -> Job | None:
        """Return the next job; None while the last ones of a round run, and at the end."""
        if self._deadline is None:
            hours = self.until.max_hours
            self._deadline = time.monotonic() + (math.inf if hours is None else 3600 * hours)
            self.rounds.write(self.folder)
        if time.monotonic() > self._deadline:
            return None  # the next run goes on with the round
        while idle and not self._queue and (finished := self._to_look_at()) is not None:
            self._look(finished)
        job = take(self._queue, self._running)
        if job is not None:
            self._running.add(job.id)
        return job

    def done(self, job: Job, status: Mapping[str, Any]) -> None:
        """Record the end of a job; a look reads the trials' files."""
        self._running.discard(job.id)

    def _resume(self, rounds: Rounds) -> None:
        """Go on from these rounds: with the jobs that are left of them, or the next round's."""
        self.rounds = rounds
        self._begun = {
            config: len(rounds.begun.keys() & ids) for config, ids in self._seeds.items()
        }
        if rounds.ended and (trials := self._next_trials()):
            self._resume(Rounds((*rounds, Round(trials))))
            return
        known = self._statuses()
        self._queue = [
            self._jobs[id_]
            for id_ in rounds.begun
            if id_ in self._jobs and state_of(known.get(id_, {})) not in self._over
        ]

    def _compared(self) -> Iterator[tuple[str, Arm, Arm]]:
        """Yield the question, the arm and the baseline of every verdict."""
        for question in self.plan.questions:
            first, *rest = question.arms
            for arm in rest:
                if arm.config_hash != first.config_hash:
                    yield question.name, arm, first

    def _open(self) -> list[str]:
        """Return the configs with an open verdict and seeds that are left, the widest first."""
        widths: dict[str, float] = {}
        for question, arm, _ in self._compared():
            seen = self.rounds.latest(question, arm.name)
            config, look = arm.config_hash, None if seen is None else seen[0]
            if self._begun[config] < len(self._seeds[config]) and not (look and look.decided):
                width = math.inf if look is None else look.half_width
                widths[config] = max(width, widths.get(config, 0.0))
        return sorted(widths, key=lambda config: -widths[config])

    def _counts(self, configs: Sequence[str], seeds: int) -> dict[str, int]:
        """Return how many training seeds these configs and, first, their baselines need."""
        tracks = {trial.config_hash: trial.track for trial in self.plan.trials}
        asked = {tracks[config] for config in configs}
        baselines = {track: self.plan.baselines[track] for track in sorted(asked)}
        first = {hash_: track for track, hash_ in baselines.items()}
        return seed_counts(
            {**first, **{config: tracks[config] for config in configs}}, baselines, seeds
        )

    def _next_trials(self) -> tuple[str, ...]:
        configs = self._open()
        if not configs:
            return ()
        seeds = max(FIRST_SEEDS, 1 + min(self._begun[config] for config in configs))
        trials = [
            id_
            for config, count in self._counts(configs, seeds).items()
            for id_ in self._seeds[config][self._begun[config] : count]
        ]
        return tuple(trials[: self._room()])

    def _room(self) -> int:
        """Return how many further trials may begin."""
        if self.until.max_trials is None:
            return len(self._jobs)
        return max(0, self.until.max_trials - len(self.rounds.begun))

    def _to_look_at(self) -> list[str] | None:
        """Return the finished trials that no look has seen; None when no look is due."""
        known = self._statuses()
        finished = [
            id_
            for id_ in sorted(self.rounds.begun.keys() - self.rounds.finished)
            if state_of(known.get(id_, {})) == "finished"
        ]
        return None if self.rounds.ended and not finished else finished

    def _look(self, finished: Sequence[str]) -> None:
        """Judge the open verdicts on these trials too; write that and the next round."""
        sweep = Sweep(self.folder)
        asked = self._asked(sweep, self.rounds.finished.union(finished))
        seen = self.rounds.looked(finished, asked)
        found = {
            (answer.question, verdict.arm): verdict
            for answer in verdicts.answers(sweep, rounds=seen, selection=True)
            for verdict in answer.verdicts
        }
        looks = [_judged(look, found[look.question, look.arm]) for look in asked]
        self._resume(self.rounds.looked(finished, looks))
        self.rounds.write(self.folder)
        self._tell(looks, found)

    def _asked(self, sweep: Sweep, trials: frozenset[str]) -> list[Look]:
        """Return a look for every open verdict whose arm has more seeds than at its last one."""
        judged, looks = Looks(sweep), []
        for question, arm, first in self._compared():
            seeds, of_first = (
                len(trials.intersection(self._seeds[side.config_hash])) for side in (arm, first)
            )
            seen = self.rounds.latest(question, arm.name)
            before = FIRST_SEEDS - 1 if seen is None else seen[0].seeds
            decided = seen is not None and seen[0].decided
            if not decided and seeds > before and of_first >= FIRST_SEEDS:
                arms = sum(name == question for name, _, _ in self._compared())
                level = judged.level(seeds, comparisons.shared_level(arms))
                looks.append(Look(question, arm.name, seeds, level))
        return looks

    def _tell(self, looks: Sequence[Look], found: Mapping[tuple[str, str], Verdict]) -> None:
        """Print what the looks have decided and what follows, in a line."""
        decided = [
            f"“{look.arm}” {found[look.question, look.arm].text}" for look in looks if look.decided
        ]
        still = sorted((look for look in looks if not look.decided), key=lambda x: -x.half_width)
        parts = decided or ["nothing decided"]
        if still:
            parts.append(
                f"{len(still)} open, the widest “{still[0].arm}” +-{still[0].half_width:.3f}"
            )
        parts.append(f"next: {len(self._queue)} trials" if self._queue else self.end)
        number = sum(each.finished is not None for each in self.rounds)
        self.note(f"round {number}: {'; '.join(parts)}")

    @property
    def end(self) -> str:
        """How far the verdicts are, in words."""
        begun, most = len(self.rounds.begun) - len(self._queue), self.most
        seen = [self.rounds.latest(question, arm.name) for question, arm, _ in self._compared()]
        undecided = sum(look is None or not look[0].decided for look in seen)
        if not undecided:
            return f"decided after {begun:,} of {most:,} trials"
        return f"{undecided} of {len(seen)} verdicts open after {begun:,} of {most:,} trials"


def _judged(look: Look, verdict: Verdict) -> Look:
    width = (verdict.score.high - verdict.score.low) / 2
    return replace(look, verdict=verdict.word, half_width=1.0 if math.isnan(width) else width)
