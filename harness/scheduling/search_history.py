"""A search in its sweep's folder: what earlier runs have left of it, and its jobs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.config.domains import Axis, described
from harness.config.search_spec import Search
from harness.config.trial_config import config_hash, trial_id
from harness.core import files
from harness.scheduling.jobs import Job, Parameters, Statuses
from harness.scheduling.samplers import config_of
from harness.storage import table_schemas
from harness.storage.trial_folder import TrialFolder

QUESTION = "search"
CONFIRMATION = "confirmation"


@dataclass(frozen=True)
class Earlier:
    """What earlier runs left: parameters by number, statuses by number and training seed.

    next: the number of the next new parameters.
    """

    parameters: Mapping[int, Parameters]
    statuses: Mapping[tuple[int, int], Mapping[str, Any]]
    next: int


@dataclass(frozen=True)
class SearchRun:
    """A search, the sweep that it belongs to, and the state in which this run finds it.

    statuses: those of trials by id where they were read already; others are read here.
    """

    search: Search
    sweep: str
    directory: Path
    train_seeds: Sequence[int]
    retry_failed: bool = False
    statuses: Statuses = field(default_factory=dict)

    def job(
        self,
        number: int,
        parameters: Parameters,
        train_seed: int,
        *,
        until: int | None = None,
        question: str = QUESTION,
    ) -> Job:
        """Return the job of some parameters with one training seed; `until` as in Job."""
        info = {
            "sweep": self.sweep,
            "question": question,
            "arm": f"#{number}",
            "track": self.search.track,
            "number": number,
            "parameters": parameters,
        }
        label = f"{question} / #{number} ({described(parameters)}), seed {train_seed}"
        if until is not None:
            label += f", to step {until}"
        return Job(self.search.config(parameters), train_seed, label, info, until)

    @property
    def typical(self) -> Job:
        """A whole trial in the middle of the space, to estimate the time by."""
        middle = {key: axis.middle for key, axis in self.search.axes.items()}
        valid = config_of(self.search, middle) is not None
        return self.job(-1, middle if valid else {}, self.train_seeds[0])

    @property
    def largest(self) -> list[Job]:
        """The job with the largest batch, where the batch size is searched."""
        axis = self.search.axes.get("train.batch_size")
        if axis is None:
            return []
        largest = {"train.batch_size": max(axis.choices) if axis.choices else int(axis.high)}
        valid = config_of(self.search, largest) is not None
        return [self.job(-1, largest, self.train_seeds[0])] if valid else []

    def is_over(self, status: Mapping[str, Any]) -> bool:
        """Whether a trial of this status is left as it is."""
        state = status.get("status")
        return state == "finished" or (state == "failed" and not self.retry_failed)

    def earlier(self, question: str = QUESTION) -> Earlier:
        """Read what earlier runs left of today's search.

        Trials of other axes or another base are left out, but their numbers are not used again.
        """
        found: dict[int, Parameters] = {}
        statuses: dict[tuple[int, int], Mapping[str, Any]] = {}
        following, hash_ = 0, ""
        for path in sorted((self.directory / "trials").glob("*")):
            folder = TrialFolder(path)
            described = folder.read_config()
            number, parameters = described.get("number"), described.get("parameters")
            if described.get("question") != question or not isinstance(number, int):
                continue
            following = max(following, number + 1)
            if not isinstance(parameters, dict) or not inside(self.search.axes, parameters):
                continue
            if found.get(number) != parameters:
                config = config_of(self.search, parameters)
                hash_ = "" if config is None else config_hash(config)
            seed = described["train_seed"]
            if path.name == trial_id(hash_, seed):
                found[number] = parameters
                statuses[number, seed] = self.statuses.get(path.name) or folder.read_status()
        return Earlier(dict(sorted(found.items())), statuses, following)


def inside(axes: Mapping[str, Axis], parameters: Parameters) -> bool:
    """Whether parameters have a value on each of the axes and no other."""
    return parameters.keys() == axes.keys() and all(
        axis.holds(parameters[key]) for key, axis in axes.items()
    )


def finite_score(status: Mapping[str, Any]) -> float | None:
    """Return the selection score of a status, None where there is none or it is not finite."""
    score = status.get("select_score")
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def selection_scores(trial: Path) -> dict[int, float]:
    """Return the mean score of each selection of a trial by its step; torn files are left out."""
    found = {}
    for path in sorted((trial / "episodes").glob("select-*.parquet")):
        # A torn one is set aside by the trial itself, which then repeats its rollouts.
        rows = files.read_or(None, table_schemas.read_file, path, "episodes")
        scored = None if rows is None else rows.filter(pc.is_valid(rows["score"]))
        if scored is not None and scored.num_rows:
            step = scored["checkpoint_step"][0].as_py()
            found[int(step)] = float(pc.mean(scored["score"]).as_py())
    return found
