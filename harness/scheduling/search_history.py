"""The points of a search that earlier runs have left."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.config.domains import Axis
from harness.config.search_spec import Search
from harness.config.trial_config import ConfigError, config_hash, trial_id
from harness.core import files
from harness.scheduling.jobs import NONE, Job, Parameters, Statuses
from harness.storage import table_schemas
from harness.storage.trial_folder import TrialFolder

QUESTION = "search"
CONFIRMATION = "confirmation"


@dataclass(frozen=True)
class Earlier:
    """What the trials' folders say: points by number, each trial's status by number and seed.

    next: the number of the next new point.
    """

    parameters: Mapping[int, Parameters]
    statuses: Mapping[tuple[int, int], Mapping[str, Any]]
    next: int


def earlier(
    directory: Path, search: Search, question: str = QUESTION, statuses: Statuses = NONE
) -> Earlier:
    """Read the points of earlier runs that are points of today's search too, by their numbers.

    Others, of other axes or another base, keep their numbers to themselves. statuses: of trials by
    their names, where they are known already.
    """
    found: dict[int, Parameters] = {}
    stand: dict[tuple[int, int], Mapping[str, Any]] = {}
    following, hash_ = 0, ""
    for path in sorted((directory / "trials").glob("*")):
        folder = TrialFolder(path)
        described = folder.read_config()
        number, parameters = described.get("number"), described.get("parameters")
        if described.get("question") != question or not isinstance(number, int):
            continue
        following = max(following, number + 1)
        if not isinstance(parameters, dict) or not inside(search.axes, parameters):
            continue
        if found.get(number) != parameters:
            hash_ = _hash(search, parameters)
        seed = described["train_seed"]
        if path.name == trial_id(hash_, seed):
            found[number] = parameters
            stand[number, seed] = statuses.get(path.name) or folder.read_status()
    return Earlier(dict(sorted(found.items())), stand, following)


def _hash(search: Search, parameters: Parameters) -> str:
    """Return a point's identity, "" for one that is no config by today's rules."""
    try:
        return config_hash(search.config(parameters))
    except ConfigError:
        return ""


def inside(axes: Mapping[str, Axis], parameters: Parameters) -> bool:
    """Whether a point has a value on each of the axes and no other."""
    return parameters.keys() == axes.keys() and all(
        axis.holds(parameters[key]) for key, axis in axes.items()
    )


def typical_job(search: Search, sweep: str, train_seed: int) -> Job:
    """Return a whole trial in the middle of the space, for an estimate of the time."""
    middle = {key: axis.middle for key, axis in search.axes.items()}
    point = middle if _hash(search, middle) else {}
    return make_job(search, sweep, -1, point, train_seed)


def largest_jobs(search: Search, sweep: str, train_seed: int) -> list[Job]:
    """Return the job that wants the most of the demonstrations, where the axes leave that open."""
    axis = search.axes.get("train.batch_size")
    if axis is None:
        return []
    point = {"train.batch_size": max(axis.choices) if axis.choices else int(axis.high)}
    return [make_job(search, sweep, -1, point, train_seed)] if _hash(search, point) else []


def make_job(
    search: Search,
    sweep: str,
    number: int,
    parameters: Parameters,
    train_seed: int,
    *,
    until: int | None = None,
    question: str = QUESTION,
) -> Job:
    """Return the job of a point with one training seed; `until` as in Job."""
    info = {
        "sweep": sweep,
        "question": question,
        "arm": f"#{number}",
        "track": search.track,
        "number": number,
        "parameters": parameters,
    }
    label = f"{question} / #{number}, seed {train_seed}"
    if until is not None:
        label += f", to step {until}"
    return Job(search.config(parameters), train_seed, label, info, until)


def finite_score(status: Mapping[str, Any]) -> float | None:
    """Return the selection score of a status, None where there is none or it is not finite."""
    score = status.get("select_score")
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def selection_scores(trial: Path) -> dict[int, float]:
    """Return the mean score of each selection of a trial, by its step; torn files are left out."""
    found = {}
    for path in sorted((trial / "episodes").glob("select-*.parquet")):
        rows = files.read_or(None, table_schemas.read_file, path, "episodes")
        if rows is None:
            continue  # torn: the trial itself sets it aside and rolls out again
        scored = rows.filter(pc.is_valid(rows["score"]))
        if scored.num_rows:
            step = scored["checkpoint_step"][0].as_py()
            found[int(step)] = float(pc.mean(scored["score"]).as_py())
    return found
