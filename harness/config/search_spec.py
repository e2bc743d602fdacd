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
    part = _Parts(file, where, content, budget)
    halving = part.halving(sampler, axes, base)
    confirm = part.confirm(train_seeds)
    if sampler == "grid":
        count = part.grid(axes, fixed, trials)
    else:
        # There are no more trials than points.
        count = int(min(part.trials(trials), size(axes)))
    return Search(
        file.text((*where, "ask"), content.get("ask", "")),
        sampler,
        file.whole((*where, "seed"), content.get("seed", 0), 0, 2**32 - 1),
        count,
        track,
        fixed,
        axes,
        halving,
        confirm,
    )


class _Parts:
    """Parts of a search that the budget may override."""

    def __init__(
        self, file: SpaceFile, where: Location, content: Mapping[str, Any], budget: Budget
    ) -> None:
        self.file, self.where, self.content, self.budget = file, where, content, budget

    def find(self, key: str) -> tuple[Location, Any]:
        """Return the place and the content of a part, None if absent."""
        at, chosen = self.budget
        if key in chosen:
            return (*at, key), chosen[key]
        return (*self.where, key), self.content.get(key)

    def trials(self, asked: int | None) -> int:
        at, given = self.find("trials")
        if asked is None:
            return self.file.whole(at, TRIALS if given is None else given, 1, MAX_TRIALS)
        if not 1 <= asked <= MAX_TRIALS:
            raise UserError(f"--trials must be from 1 to {MAX_TRIALS:,}, given {asked}")
        return asked

    def halving(self, sampler: str, axes: Mapping[str, Axis], base: TrialConfig) -> Halving | None:
        at, given = self.find("halving")
        if given is None:
            return None
        content = self.file.section(at, given, ("factor", "first"))
        if sampler == "tpe":
            raise self.file.error(at, "halving must go with sampler random or grid, given tpe")
        for key in _LENGTH:
            if key in axes:
                rule = f"halving compares trials at the same steps: {key} must not be an axis"
                raise self.file.error((*self.where, "axes", key), rule)
        first_at, steps, every = (*at, "first"), base.train.steps, base.select.every
        found = Halving(
            self.file.whole((*at, "factor"), content.get("factor", 3), 2, 100),
            self.file.whole(first_at, content.get("first"), 1, 2**31),
        )
        if every == 0 or found.first % every:
            rule = (
                "the first rung must be a multiple of select.every, as trials pause where they "
                f"select, given first {found.first} and select.every {every}"
            )
            raise self.file.error(first_at, rule)
        if not found.rungs(base):
            rule = f"the first rung must lie before the end, train.steps {steps}"
            raise self.file.error(first_at, f"{rule}, given {found.first}")
        return found

    def confirm(self, searched: Sequence[int]) -> Confirm | None:
        at, given = self.find("confirm")
        if given is None:
            return None
        content = self.file.section(at, given, ("winners", "train_seeds", "report_seeds"))
        seeds_at = (*at, "train_seeds")
        seeds = self.file.seeds(seeds_at, content.get("train_seeds", [100, 101, 102]))
        if not set(seeds).isdisjoint(searched):
            both = sorted(set(seeds).intersection(searched))
            rule = f"train_seeds must be other ones than the search's, given {both} in both"
            raise self.file.error(seeds_at, rule)
        return Confirm(
            self.file.whole((*at, "winners"), content.get("winners", 3), 1, MAX_WINNERS),
            seeds,
            self.file.whole(
                (*at, "report_seeds"), content.get("report_seeds", 200), 1, MAX_REPORT_SEEDS
            ),
        )

    def grid(self, axes: Mapping[str, Axis], fixed: Mapping[str, Any], asked: int | None) -> int:
        """Return the number of points of a grid, after checking the config of each."""
        at = (*self.where, "axes")
        for key, axis in axes.items():
            if not axis.choices:
                rule = f"{key} must list its values for a grid, given a range"
                raise self.file.error((*at, key), rule)
        count = int(size(axes))
        if asked is not None or self.find("trials")[1] is not None:
            place = self.find("trials")[0] if asked is None else self.where
            rule = f"a grid has the {count:,} points of its axes; trials are set for tpe and random"
            raise self.file.error(place, rule)
        if count > MAX_TRIALS:
            rule = f"a grid must have at most {MAX_TRIALS:,} points, given {count:,}"
            raise self.file.error(at, rule)
        for point in product(axes):
            try:
                resolve(fixed, point)
            except ConfigError as error:
                shown = ", ".join(f"{key} {value}" for key, value in point.items())
                raise self.file.error(at, f"the point {shown}: {error}") from None
        return count
