"""Reads the search section of a search space: domains, sampler, halving, confirmation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.domains import Axis, product, read_axis, size
from harness.config.space_file import Layer, SpaceFile
from harness.config.strict_yaml import Location
from harness.config.trial_config import ConfigError, TrialConfig, resolve
from harness.core.errors import UserError

MAX_TRIALS = 100_000
TRIALS = 20
SAMPLERS = ("tpe", "random", "grid")
MAX_WINNERS = 100
MAX_REPORT_SEEDS = 100_000


# These settings determine when a trial selects: equal for all trials of successive halving.
_LENGTH = ("train.steps", "train.epoch_steps", "select.every")
OF_SEARCH = ("trials", "halving", "confirm")  # what a budget may set for a search
Budget = tuple[Location, Mapping[str, Any]]


@dataclass(frozen=True)
class Halving:
    """Successive halving: at each rung the best 1 / `factor` of the trials are promoted.

    first: optimiser steps of the first rung; each further rung has `factor` times as many.
    """

    factor: int
    first: int

    def rungs(self, config: TrialConfig) -> tuple[int, ...]:
        """Return the steps of the rungs for this config, without its end."""
        steps, epoch = config.train.steps, config.train.epoch_steps
        found, rung = [], self.first
        while (at := -(-rung // epoch) * epoch) < steps:
            found.append(at)
            rung *= self.factor
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Confirm:
    """The best points are trained again on these seeds and evaluated on report seeds."""

    winners: int
    train_seeds: tuple[int, ...]
    report_seeds: int


@dataclass(frozen=True)
class Search:
    """A search for the highest selection score.

    sampler: "tpe" or "random", seeded by `seed`, or "grid", all points of the domains' product.
    trials: the number of points. fixed: the settings that all trials share.
    """

    text: str
    sampler: str
    seed: int
    trials: int
    track: str
    fixed: Mapping[str, Any]
    axes: Mapping[str, Axis]
    halving: Halving | None = None
    confirm: Confirm | None = None

    def config(self, parameters: Mapping[str, Any]) -> TrialConfig:
        """Return the config of one point of the search."""
        return resolve(self.fixed, parameters)

    def describe(self) -> dict[str, Any]:
        """Return the search as in plan.json; rungs in optimiser steps."""
        halving, confirm = self.halving, self.confirm
        return {
            "text": self.text,
            "sampler": self.sampler,
            "trials": self.trials,
            "axes": {key: vars(axis) for key, axis in self.axes.items()},
            "rungs": [] if halving is None else list(halving.rungs(self.config({}))),
            "factor": None if halving is None else halving.factor,
            "confirm": None if confirm is None else vars(confirm),
        }


def read_search(
    file: SpaceFile,
    given: object,
    tracks: Mapping[str, list[Layer]],
    budget: Budget,
    train_seeds: Sequence[int],
    trials: int | None,
) -> Search:
    """Read the `search` section; `trials`, else the budget, overrides its number of trials."""
    where: Location = ("search",)
    known = ("ask", "sampler", "seed", "trials", "track", "axes", "halving", "confirm")
    content = file.section(where, given, known)
    sampler = content.get("sampler", "tpe")
    if sampler not in SAMPLERS:
        rule = f"sampler must be one of {', '.join(SAMPLERS)}, given {sampler!r}"
        raise file.error((*where, "sampler"), rule)
    track = content.get("track", next(iter(tracks)))
    if track not in tracks or ("track" not in content and len(tracks) > 1):
        rule = f"a search must name its track, one of {', '.join(tracks)}"
        raise file.error((*where, "track"), rule)
    layers = tracks[track]
    fixed = {key: value for layer in layers for key, value in layer.flat.items()}
    base = file.resolve(layers, f"track {track}")
    axes_at = (*where, "axes")
    axes = {}
    for key, values in file.labels(axes_at, content.get("axes", {})).items():
        try:
            axes[key] = read_axis(key, values, fixed)
        except ConfigError as error:
            raise file.error((*axes_at, key), str(error)) from None
    # The budget may override these parts.
    places = {key: (*(budget[0] if key in budget[1] else where), key) for key in OF_SEARCH}
    parts = {key: budget[1].get(key, content.get(key)) for key in OF_SEARCH}
    halving = confirm = None
    if parts["halving"] is not None:
        if sampler == "tpe":
            rule = "halving must go with sampler random or grid, given tpe"
            raise file.error(places["halving"], rule)
        halving = _halving(file, places["halving"], parts["halving"], axes, base)
    if parts["confirm"] is not None:
        confirm = _confirm(file, places["confirm"], parts["confirm"], train_seeds)
    if sampler == "grid":
        count = _grid(file, axes_at, axes, fixed)
        if trials is not None or parts["trials"] is not None:
            rule = f"a grid has the {count:,} points of its axes; trials are set for tpe and random"
            raise file.error(where if trials is not None else places["trials"], rule)
    elif trials is None:
        given = TRIALS if parts["trials"] is None else parts["trials"]
        count = file.whole(places["trials"], given, 1, MAX_TRIALS)
    elif 1 <= trials <= MAX_TRIALS:
        count = trials
    else:
        raise UserError(f"--trials must be from 1 to {MAX_TRIALS:,}, given {trials}")
    return Search(
        file.text((*where, "ask"), content.get("ask", "")),
        sampler,
        file.whole((*where, "seed"), content.get("seed", 0), 0, 2**32 - 1),
        int(min(count, size(axes))),  # there are no more trials than points
        track,
        fixed,
        axes,
        halving,
        confirm,
    )


def _halving(
    file: SpaceFile, at: Location, given: object, axes: Mapping[str, Axis], base: TrialConfig
) -> Halving:
    content = file.section(at, given, ("factor", "first"))
    for key in _LENGTH:
        if key in axes:
            rule = f"halving compares trials at the same steps: {key} must not be an axis"
            raise file.error(("search", "axes", key), rule)
    first_at, steps, every = (*at, "first"), base.train.steps, base.select.every
    found = Halving(
        file.whole((*at, "factor"), content.get("factor", 3), 2, 100),
        file.whole(first_at, content.get("first"), 1, 2**31),
    )
    if every == 0 or found.first % every:
        rule = (
            "the first rung must be a multiple of select.every, as trials pause where they "
            f"select, given first {found.first} and select.every {every}"
        )
        raise file.error(first_at, rule)
    if not found.rungs(base):
        rule = f"the first rung must lie before the end, train.steps {steps}"
        raise file.error(first_at, f"{rule}, given {found.first}")
    return found


def _confirm(file: SpaceFile, at: Location, given: object, searched: Sequence[int]) -> Confirm:
    content = file.section(at, given, ("winners", "train_seeds", "report_seeds"))
    seeds_at, count_at = (*at, "train_seeds"), (*at, "report_seeds")
    seeds = file.seeds(seeds_at, content.get("train_seeds", [100, 101, 102]))
    if both := sorted(set(seeds).intersection(searched)):
        rule = f"train_seeds must be other ones than the search's, given {both} in both"
        raise file.error(seeds_at, rule)
    return Confirm(
        file.whole((*at, "winners"), content.get("winners", 3), 1, MAX_WINNERS),
        seeds,
        file.whole(count_at, content.get("report_seeds", 200), 1, MAX_REPORT_SEEDS),
    )


def _grid(file: SpaceFile, at: Location, axes: Mapping[str, Axis], fixed: Mapping[str, Any]) -> int:
    """Return the number of points of a grid, after checking the config of each."""
    for key, axis in axes.items():
        if not axis.choices:
            rule = f"{key} must list its values for a grid, given a range"
            raise file.error((*at, key), rule)
    count = int(size(axes))
    if count > MAX_TRIALS:
        rule = f"a grid must have at most {MAX_TRIALS:,} points, given {count:,}"
        raise file.error(at, rule)
    for point in product(axes):
        try:
            resolve(fixed, point)
        except ConfigError as error:
            shown = ", ".join(f"{key} {value}" for key, value in point.items())
            raise file.error(at, f"the point {shown}: {error}") from None
    return count
