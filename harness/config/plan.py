"""Turns a search-space file into a plan: all trials with their configs and hashes.

Later layers override earlier ones: the defaults, base, the track, the budget, the budget's track,
the arm. A preset (all of policy and train) is the layer below the base, track or arm that names
it; an arm's preset is below the budget too, so the budget can shorten it. Arms with the same
config are one trial with several names.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config import strict_yaml
from harness.config.search_spec import MAX_TRIALS, OF_SEARCH, Search, read_search
from harness.config.space_file import Layer, SpaceFile
from harness.config.strict_yaml import Location
from harness.config.trial_config import BASELINE as BASELINE
from harness.config.trial_config import DEFAULT_BUDGET as DEFAULT_BUDGET
from harness.config.trial_config import TrialConfig, config_hash, nearest, trial_id
from harness.core.errors import UserError
from harness.core.paths import check_name
from ibc.config.policy import config_warnings

VERSION = 1
_KEYS = (
    "version",
    "name",
    "data",
    "train_seeds",
    "base",
    "tracks",
    "questions",
    "search",
    "budgets",
)
ONLY_TRACK = "all"  # the track of a file without tracks
OF_BUDGET = 2  # the last layers of a track are the budget's and its track's


@dataclass(frozen=True)
class Arm:
    """One of the configs that a question compares."""

    name: str
    config_hash: str


@dataclass(frozen=True)
class Question:
    """A question on one track; the first arm is the track's baseline."""

    name: str
    text: str
    track: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class PlannedTrial:
    """One config with one training seed; `names` are its (question, arm) pairs."""

    config: TrialConfig
    config_hash: str
    train_seed: int
    track: str
    names: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """The name of the trial's folder."""
        return trial_id(self.config_hash, self.train_seed)


def extended(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """Return at least `count` training seeds: these, then the next ones above them."""
    return (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + count - len(seeds)))


def baseline_seeds(arm_seeds: int, arms: int) -> int:
    """Return how many training seeds a baseline has beside so many of each of its arms.

    Every difference contains the baseline: with the square root of the number of arms times as
    many, the differences' variances are smallest for all trials together (Dunnett 1955, JASA
    50(272)). One seed gives no verdict, and beside two a baseline with more would let an arm
    that varies much more than the others have too many wrong verdicts (docs/RESULTS.md).
    """
    return arm_seeds if arm_seeds < 3 else round(arm_seeds * math.sqrt(max(1, arms)))


def seed_counts(
    tracks: Mapping[str, str], baselines: Mapping[str, str], arm_seeds: int
) -> dict[str, int]:
    """Return how many training seeds each config has, by config hash.

    tracks: the track of each config; baselines: the config hash of each track's baseline.
    """
    arms = Counter(track for hash_, track in tracks.items() if hash_ != baselines[track])
    found = dict.fromkeys(tracks, arm_seeds)
    for track, hash_ in baselines.items():
        if hash_ in found:
            found[hash_] = max(found[hash_], baseline_seeds(arm_seeds, arms[track]))
    return found


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep; `trials` is empty for a search, which makes them as it runs.

    baselines: the config hash of each track's baseline. data: the data sets that the file names.
    """

    name: str
    budget: str
    train_seeds: tuple[int, ...]
    questions: tuple[Question, ...]
    baselines: Mapping[str, str]
    trials: tuple[PlannedTrial, ...]
    search: Search | None
    data: tuple[str, ...] = ()

    def only(self, questions: Iterable[str]) -> "Plan":
        """Return the plan of the questions of these names, all when there is none.

        Their baselines have as many training seeds as their arms alone need. UserError for a
        question that the plan does not have.
        """
        names = tuple(questions)
        if not names:
            return self
        if self.search is not None:
            raise UserError(f"--question chooses among questions, and {self.name} holds a search")
        # A question of several tracks has its own name as well as one for each track.
        by_name: dict[str, list[Question]] = {}
        for question in self.questions:
            for name in {question.name, question.name.removesuffix(f" ({question.track})")}:
                by_name.setdefault(name, []).append(question)
        for name in names:
            if name not in by_name:
                near = nearest(name, by_name) or f"; there are {', '.join(by_name) or 'none'}"
                rule = f"--question must name a question of {self.name}"
                raise UserError(f"{rule}, given {name!r}{near}")
        asked = [question for name in names for question in by_name[name]]
        hashes = {arm.config_hash for question in asked for arm in question.arms}
        trials = tuple(trial for trial in self.trials if trial.config_hash in hashes)
        chosen = tuple(question for question in self.questions if question in asked)
        found = replace(self, questions=chosen, trials=trials)
        counts, seen = found.seed_counts(len(self.train_seeds)), Counter[str]()
        fewer = []
        for trial in trials:
            seen[trial.config_hash] += 1
            if seen[trial.config_hash] <= counts[trial.config_hash]:
                fewer.append(trial)
        return replace(found, trials=tuple(fewer))

    def seed_counts(self, arm_seeds: int) -> dict[str, int]:
        """Return the training seeds of each config by its hash, with so many of each arm."""
        tracks = {trial.config_hash: trial.track for trial in self.trials}
        return seed_counts(tracks, self.baselines, arm_seeds)

    @property
    def warnings(self) -> list[str]:
        """Warnings of settings that are known to perform badly, each with its arms."""
        found: dict[str, dict[str, None]] = {}
        for trial in self.trials:
            for text in config_warnings(trial.config.policy):
                arms = [arm for _, arm in trial.names] or [f"{BASELINE} ({trial.track})"]
                found.setdefault(text, {}).update(dict.fromkeys(arms))
        if self.search is not None:
            found = {text: {} for text in config_warnings(self.search.config({}).policy)}
        return [f"{', '.join(arms)}: {text}" if arms else text for text, arms in found.items()]


def plan(
    path: Path,
    budget: str = DEFAULT_BUDGET,
    *,
    trials: int | None = None,
    train_seeds: Sequence[int] = (),
    least_seeds: int = 1,
) -> Plan:
    """Read a search space and return its plan for this budget.

    trials: the number of trials of a search, instead of the one in the file. train_seeds: training
    seeds, instead of those in the file, of which there are at least `least_seeds` then. UserError
    names the file, the line and the rule that is broken.
    """
    file = SpaceFile(strict_yaml.read(path))
    root = file.section((), file.document.content, _KEYS)
    file.whole(("version",), root.get("version"), VERSION, VERSION)
    name = file.text(("name",), root.get("name", path.stem))
    try:
        check_name(name, "name")
    except ValueError as error:
        raise file.error(("name",), str(error)) from None
    data = file.texts(("data",), root.get("data", []))
    budget_at, chosen = _budget(file, root.get("budgets", {}), budget)
    seeds_at = (*budget_at, "train_seeds") if "train_seeds" in chosen else ("train_seeds",)
    seeds = file.seeds(seeds_at, chosen.get("train_seeds", root.get("train_seeds", [0])))
    seeds = tuple(train_seeds) or extended(seeds, least_seeds)
    tracks = _tracks(file, root, budget_at, chosen)
    if "search" in root:
        if "questions" in root:
            raise file.error(("search",), "a file must hold questions or a search, given both")
        search = read_search(file, root["search"], tracks, (budget_at, chosen), seeds, trials)
        return Plan(name, budget, seeds, (), {}, (), search, data)
    of_search = [key for key in OF_SEARCH if key in chosen]
    if trials is not None or of_search == ["trials"]:
        raise file.error(budget_at, "a number of trials needs a search, and the file has none")
    if of_search:
        at = (*budget_at, of_search[0])
        raise file.error(at, f"{of_search[0]} needs a search, and the file has none")
    builder = _Builder(file, tracks)
    questions = builder.questions(root.get("questions", {}))
    planned = builder.trials(seeds)
    return Plan(name, budget, seeds, questions, builder.baselines, planned, None, data)


def _budget(file: SpaceFile, given: object, name: str) -> tuple[Location, dict[str, Any]]:
    budgets = file.mapping(("budgets",), given)
    for each, content in budgets.items():
        file.section(("budgets", each), content, ("train_seeds", "set", "tracks", *OF_SEARCH))
    if name in budgets:
        return ("budgets", name), budgets[name]
    if not budgets and name == DEFAULT_BUDGET:
        return ("budgets",), {}
    known = ", ".join(budgets) or DEFAULT_BUDGET
    raise file.error(("budgets",), f"the budget must be one of {known}, given {name!r}")


def _tracks(
    file: SpaceFile, root: Mapping[str, Any], budget_at: Location, budget: Mapping[str, Any]
) -> dict[str, list[Layer]]:
    tracks = file.labels(("tracks",), root.get("tracks", {ONLY_TRACK: {}}))
    of_budget = file.section((*budget_at, "tracks"), budget.get("tracks", {}), list(tracks))
    base = file.layers(("base",), root.get("base", {}))
    budget_set = file.layer((*budget_at, "set"), budget.get("set", {}))
    return {
        name: [
            *base,
            *file.layers(("tracks", name), given),
            budget_set,
            file.layer((*budget_at, "tracks", name), of_budget.get(name, {})),
        ]
        for name, given in tracks.items()
    }


class _Builder:
    """Resolves arms and collects the names of each config."""

    def __init__(self, file: SpaceFile, tracks: Mapping[str, list[Layer]]) -> None:
        self.file = file
        self.tracks = tracks
        self.configs: dict[str, tuple[TrialConfig, str]] = {}
        self.names: dict[str, dict[tuple[str, str], None]] = {}
        self.baselines = {track: self.add(track, layers) for track, layers in tracks.items()}

    def add(self, track: str, layers: list[Layer], what: str = "") -> str:
        config = self.file.resolve(layers, f"{what or 'the baseline'} on track {track}")
        hash_ = config_hash(config)
        self.configs.setdefault(hash_, (config, track))
        self.names.setdefault(hash_, {})
        return hash_

    def questions(self, given: object) -> tuple[Question, ...]:
        questions = self.file.mapping(("questions",), given)
        if questions:
            self.file.labels(("questions",), questions)
        return tuple(q for name, content in questions.items() for q in self.question(name, content))

    def question(self, name: str, given: object) -> Iterator[Question]:
        where: Location = ("questions", name)
        content = self.file.section(where, given, ("ask", "tracks", "arms", "grid"))
        text = self.file.text((*where, "ask"), content.get("ask", ""))
        asked = content.get("tracks", list(self.tracks))
        if not isinstance(asked, list) or not asked or any(t not in self.tracks for t in asked):
            rule = f"tracks must list some of {', '.join(self.tracks)}, given {asked!r}"
            raise self.file.error((*where, "tracks"), rule)
        if ("arms" in content) == ("grid" in content):
            raise self.file.error(where, "a question must have either arms or a grid")
        arms = list(self.arms(where, content) if "arms" in content else self.grid(where, content))
        asked = list(dict.fromkeys(asked))
        for track in asked:
            title = f"{name} ({track})" if len(asked) > 1 else name
            found = [Arm(BASELINE, self.baselines[track])]
            below, budget = self.tracks[track][:-OF_BUDGET], self.tracks[track][-OF_BUDGET:]
            for arm, (*preset, own) in arms:
                layers = [*below, *preset, *budget, own]
                found.append(Arm(arm, self.add(track, layers, f"arm {arm!r}")))
            for each in found:
                self.names[each.config_hash][title, each.name] = None
            yield Question(title, text, track, tuple(found))

    def arms(
        self, where: Location, content: Mapping[str, Any]
    ) -> Iterator[tuple[str, list[Layer]]]:
        for name, overrides in self.file.labels((*where, "arms"), content["arms"]).items():
            at = (*where, "arms", name)
            if name == BASELINE:
                rule = f"the arm {BASELINE!r} is added by itself, and must not be given"
                raise self.file.error(at, rule)
            yield name, self.file.layers(at, overrides)

    def grid(
        self, where: Location, content: Mapping[str, Any]
    ) -> Iterator[tuple[str, list[Layer]]]:
        at = (*where, "grid")
        axes = self.file.layer(at, content["grid"])
        for key, values in axes.flat.items():
            if not isinstance(values, list) or not values:
                raise self.file.error(at, f"{key} must be a list of values, given {values!r}")
        cells = math.prod(len(values) for values in axes.flat.values())
        self.check_size(at, cells)
        for values in itertools.product(*axes.flat.values()):
            cell = dict(zip(axes.flat, values, strict=True))
            name = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in cell.items())
            yield name, [Layer(at, content["grid"], cell)]

    def trials(self, seeds: tuple[int, ...]) -> tuple[PlannedTrial, ...]:
        tracks = {hash_: track for hash_, (_, track) in self.configs.items()}
        counts = seed_counts(tracks, self.baselines, len(seeds))
        self.check_size(("questions",), sum(counts.values()))
        every = extended(seeds, max(counts.values()))
        return tuple(
            PlannedTrial(config, hash_, seed, track, tuple(self.names[hash_]))
            for number, seed in enumerate(every)  # first one seed of all, to compare arms early
            for hash_, (config, track) in self.configs.items()
            if number < counts[hash_]
        )

    def check_size(self, where: Location, trials: int) -> None:
        if trials > MAX_TRIALS:
            rule = f"a plan must have at most {MAX_TRIALS:,} trials, given {trials:,}"
            raise self.file.error(where, rule)
