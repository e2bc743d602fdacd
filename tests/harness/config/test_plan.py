import dataclasses
import sys
import time
from pathlib import Path

import pytest

from harness.config import plan as space
from harness.config.trial_config import TrialConfig, config_hash
from harness.core import errors
from harness.core.errors import UserError
from ibc.config import presets
from run_sweep import main

ROOT = Path(__file__).resolve().parents[3]

SMALL = """
version: 1
name: small
train_seeds: [3, 1]
base: {train: {steps: 10, batch_size: 256}, policy: {energy: {width: 16, depth: 4}}}
tracks:
  keypoints: {policy.obs_mode: keypoints}
  state: {policy.obs_mode: state, train.steps: 20}
questions:
  width:
    ask: How wide?
    arms:
      narrow: {policy.energy.width: 8}
      as it is: {policy.energy.width: 16}
  grid:
    tracks: [state]
    grid: {policy.energy.depth: [1, 4], train.batch_size: [8, 256]}
budgets:
  smoke:
    train_seeds: [0]
    set: {train.steps: 3, train.batch_size: 8}
    tracks: {state: {train.steps: 4}}
  standard: {}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return path

    return write


def test_layers_override_each_other_in_the_order_that_is_promised(write):
    path = write(SMALL)
    standard, smoke = space.plan(path), space.plan(path, "smoke")
    steps = {t.track: t.config.train.steps for t in standard.trials}
    assert steps == {"keypoints": 10, "state": 20}
    steps = {t.track: t.config.train.steps for t in smoke.trials}
    assert steps == {"keypoints": 3, "state": 4}
    assert {t.config.train.batch_size for t in smoke.trials} == {8, 256}  # an arm over the budget
    assert smoke.trials[0].config.policy.energy.width == 16


def test_an_arm_that_equals_the_baseline_is_one_trial_with_several_names(write):
    plan = space.plan(write(SMALL), "smoke")
    first = plan.trials[0]
    assert first.config_hash == plan.baselines["keypoints"]
    assert first.names == (("width (keypoints)", "baseline"), ("width (keypoints)", "as it is"))
    assert len({t.id for t in plan.trials}) == len(plan.trials)
    # Keypoints: baseline and narrow; state: those and the cells but (depth 4, batch 8).
    assert len(plan.trials) == 2 + 2 + 3
    arms = {q.name: [arm.name for arm in q.arms] for q in plan.questions}
    assert arms["width (state)"] == ["baseline", "narrow", "as it is"]
    assert arms["grid"][1:] == [
        "depth 1, batch_size 8",
        "depth 1, batch_size 256",
        "depth 4, batch_size 8",
        "depth 4, batch_size 256",
    ]


def test_every_seed_runs_a_whole_replicate_before_the_next(write):
    plan = space.plan(write(SMALL))
    assert plan.train_seeds == (3, 1)
    assert [t.train_seed for t in plan.trials] == [3] * 7 + [1] * 7
    three = space.plan(write(SMALL.replace("[3, 1]", "[3, 1, 2]")))
    # Four arms share the baseline of the track `state`, so from three seeds on it has twice theirs.
    assert [t.train_seed for t in three.trials] == [3] * 7 + [1] * 7 + [2] * 7 + [4, 5, 6]
    assert {t.config_hash for t in three.trials[21:]} == {three.baselines["state"]}
    assert plan.trials[0].id == f"{plan.trials[0].config_hash}-s3"


PRESETS = """
version: 1
base: {preset: dp_state, policy.obs_horizon: 3}
tracks:
  as it is: {}
  other: {preset: kevinzakka, train.batch_size: 16}
questions:
  reference:
    arms:
      google: {preset: google_pixels, policy.encoder.features: 64}
      none: {policy.energy.width: 8}
budgets:
  smoke: {set: {train.steps: 7}, tracks: {other: {policy.negatives.count: 9}}}
  standard: {}
"""


def test_a_preset_lies_beneath_what_names_it_and_an_arms_beneath_the_budget(write):
    path = write(PRESETS)
    for budget in ("standard", "smoke"):
        plan = space.plan(path, budget)
        dp, kevin = presets.preset("dp_state"), presets.preset("kevinzakka")
        found = {name: trial.config for trial in plan.trials for name in trial.names}
        first = found["reference (as it is)", "baseline"]
        assert first.policy == dataclasses.replace(dp[0], obs_horizon=3)
        other = found["reference (other)", "baseline"]
        assert other.policy.encoder == kevin[0].encoder  # the track's replaces that of the base
        assert other.policy.obs_horizon == 1
        assert other.train.batch_size == 16
        assert found["reference (other)", "none"].policy.energy == dataclasses.replace(
            kevin[0].energy, width=8
        )
        google = found["reference (other)", "google"]
        assert google.policy.encoder.pooling == "average"
        assert google.policy.encoder.features == 64  # the arm's own word
        assert google.policy.obs_horizon == 2
        assert google.train.batch_size == 128
        short = budget == "smoke"
        assert {config.train.steps == 7 for config in found.values()} == {short}
        assert (google.policy.negatives.count == 9) == short


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\nbase: {preset: dp_stat}", 2),
        ("version: 1\ntracks:\n  a:\n    preset: dp_stat", 4),
        ("version: 1\nquestions:\n  q:\n    arms:\n      a: {preset: dp_stat}", 5),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest(write, monkeypatch, text, line):
    path = write(text)
    with pytest.raises(UserError, match="did you mean dp_state") as caught:
        space.plan(path)
    assert str(caught.value).startswith(f"{path}:{line}: preset must be one of dp_state, ")
    monkeypatch.setattr(sys, "argv", ["run_sweep.py", str(path), "--dry-run"])
    assert errors.run(main) == 2


def test_the_smallest_file_is_the_default_config(write):
    plan = space.plan(write("version: 1\n"))
    assert [t.config for t in plan.trials] == [TrialConfig()]
    assert plan.name == "x"
    assert plan.trials[0].config_hash == config_hash(TrialConfig())


SEARCH = """
version: 1
base: {train.steps: 10}
search:
  trials: 7
  axes:
    train.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    policy.energy.width: [8, 16]
    policy.energy.depth: {low: 1, high: 3}
budgets: {smoke: {trials: 2}, standard: {}}
"""


def test_a_search_has_axes_instead_of_trials(write):
    path = write(SEARCH)
    search = space.plan(path).search
    assert (search.trials, search.sampler, search.track) == (7, "tpe", "all")
    assert space.plan(path, "smoke").search.trials == 2
    assert space.plan(path, "smoke", trials=9).search.trials == 9
    assert search.axes["policy.energy.depth"].whole
    assert search.axes["policy.energy.width"].choices == (8, 16)
    config = search.config({"policy.energy.width": 8, "train.learning_rate": 1e-3})
    assert (config.train.steps, config.policy.energy.width) == (10, 8)


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("name: x", 1, "version must be a whole number from 1 to 1, given None"),
        ("version: 2", 1, "version must be a whole number from 1 to 1, given 2"),
        ("version: 1\nquestion: {}", 2, "did you mean questions?"),
        ("version: 1\nseed: 3", 2, "did you mean train_seeds?"),
        ("version: 1\nname: ../x", 2, "a letter or digit"),
        ("version: 1\nname: [1]", 2, "name must be a text"),
        ("version: 1\ntrain_seeds: []", 2, "train_seeds must be a list"),
        ("version: 1\ntrain_seeds: [0, -1]", 2, "given [0, -1]"),
        ("version: 1\ntrain_seeds: [1, 1]", 2, "different whole numbers"),
        ("version: 1\ntrain_seeds: 3", 2, "train_seeds must be a list"),
        ("version: 1\ntracks: {}", 2, "must name at least one"),
        ("version: 1\nbase:\n  train:\n    step: 3", 4, "did you mean train.steps?"),
        ("version: 1\nbase:\n  train:\n    steps: yes", 4, "valid integer, given 'yes'"),
        ("version: 1\nbase:\n  train.steps: 0", 3, "at least 1, got 0"),
        ("version: 1\nbase: 3", 2, "base must be a mapping, given 3"),
        (
            "version: 1\nquestions:\n  q:\n    arms:\n      a: {policy.action.frame: board}",
            5,
            "arm 'a' on track all: action.bounds",
        ),
        ("version: 1\nquestions:\n  q: {arms: {}}", 3, "must name at least one"),
        ("version: 1\nquestions:\n  q: {}", 3, "either arms or a grid"),
        ("version: 1\nquestions:\n  q: {arms: {baseline: {}}}", 3, "added by itself"),
        ("version: 1\nquestions:\n  q: {arms: {a: {}}, tracks: [b]}", 3, "tracks must list some"),
        ('version: 1\nquestions:\n  "q\\e[31m": {arms: {a: {}}}', 3, "printable characters"),
        (f"version: 1\nquestions:\n  {'q' * 81}: {{arms: {{a: {{}}}}}}", 3, "1 to 80 printable"),
        ("version: 1\nquestions:\n  q: {grid: {train.steps: []}}", 3, "must be a list of values"),
        ("version: 1\nquestions:\n  q: {grid: {train.steps: 3}}", 3, "must be a list of values"),
        (
            "version: 1\nquestions:\n  q: {grid: {train.steps: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],"
            "train.epoch_steps: *a, train.batch_size: *a, train.val_windows: *a,"
            "train.warmup_steps: *a, select.seeds: *a}}",
            3,
            "at most 100,000 trials, given 1,000,000",
        ),
        ("version: 1\nbudgets: {smoke: {}}", 2, "must be one of smoke, given 'standard'"),
        ("version: 1\nbudgets: {standard: {tracks: {x: {}}}}", 2, "must be a known key"),
        ("version: 1\nbudgets: {standard: {trials: 3}}", 2, "and the file has none"),
        ("version: 1\nbudgets: {standard: {set: {preset: dp_state}}}", 2, "preset must be a known"),
        ("version: 1\nbase: {preset: [1]}", 2, "preset must be one of dp_state"),
        ("version: 1\nquestions: {}\nsearch: {}", 3, "questions or a search, given both"),
    ],
)
def test_mistakes_name_their_line(write, text, line, rule):
    path = write(text)
    with pytest.raises(UserError) as caught:
        space.plan(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "rule"),
    [
        ("train.steps: []", "must list different choices"),
        ("train.steps: [1, 1]", "must list different choices"),
        ("train.steps: [1, x]", "valid integer, given 'x'"),
        ("train.steps: {low: 5, high: 2}", "low must be below high, given 5 and 2"),
        ("train.steps: {low: 0, high: 2}", "at least 1, got 0"),
        ("train.steps: {low: 1.5, high: 2.5}", "takes whole numbers"),
        ("train.steps: {low: 1}", "list of choices or a range"),
        ("train.steps: {low: 1, hihg: 3}", "list of choices or a range"),
        ("train.weight_decay: {low: 0, high: 1, log: true}", "above 0 with log, given 0"),
        ("train.weight_decay: {low: a, high: 1}", "must be numbers"),
        ("train.stepps: [1]", "did you mean train.steps?"),
        ("train.batch_size: [1]", "an axis or a fixed setting, given both"),
    ],
)
def test_axes_are_checked(write, axis, rule):
    path = write(f"version: 1\nbase: {{train.batch_size: 3}}\nsearch:\n  axes:\n    {axis}\n")
    with pytest.raises(UserError) as caught:
        space.plan(path)
    assert str(caught.value).startswith(f"{path}:5: ")
    assert rule in str(caught.value)


@pytest.mark.parametrize("budget", ["smoke", "standard", "full"])
def test_the_ablations_hold_the_four_questions_on_both_tracks(budget):
    plan = space.plan(ROOT / "search_spaces/ablations.yaml", budget)
    asked = {question.name.split(" (")[0] for question in plan.questions}
    assert {"reduction", "time on images", "time on keypoints", "bounds", "negatives"} <= asked
    arms = {arm.name for question in plan.questions for arm in question.arms}
    assert {f"{h} actions, {how}" for h in (2, 4, 8) for how in ("joint DFO", "Langevin")} <= arms
    modes = [t.config.policy.obs_mode for t in plan.trials if t.train_seed == 0]
    baselines = set(plan.baselines.values())
    assert modes.count("keypoints") >= 8
    assert modes.count("image") >= 6
    for trial in plan.trials:
        assert trial.names
        assert trial.train_seed in plan.train_seeds or trial.config_hash in baselines
    assert len(plan.train_seeds) == (1 if budget == "smoke" else 3)
    with pytest.raises(UserError, match="must be one of smoke, standard, full"):
        space.plan(ROOT / "search_spaces/ablations.yaml", "huge")


@pytest.mark.parametrize("budget", ["smoke", "standard", "full"])
def test_the_references_recipes_stand_beside_ours(budget):
    plan = space.plan(ROOT / "search_spaces/presets.yaml", budget)
    found = {arm: trial.config for trial in plan.trials for _, arm in trial.names}
    for arm, name in (
        ("Diffusion Policy's IBC", "dp_state"),
        ("Google's, states", "google_states"),
        ("Google's, pixels", "google_pixels"),
        ("kevinzakka's", "kevinzakka"),
    ):
        policy, train = presets.preset(name)
        if name == "dp_state":
            both = [t.config.policy for t in plan.trials if arm in {a for _, a in t.names}]
            assert {given.obs_mode for given in both} == {"keypoints", "image"}
            assert all(given.inference.noise == policy.inference.noise for given in both)
            continue
        config = found[arm]
        assert config.policy.encoder == policy.encoder
        assert config.policy.obs_mode == policy.obs_mode
        assert config.train.learning_rate == train.learning_rate
        assert (config.policy == policy) == (budget != "smoke")
        assert (config.train == train) == (budget == "full")


def test_the_recipe_for_images_is_taught_the_place_of_the_block():
    plan = space.plan(ROOT / "search_spaces/images.yaml")
    baselines = {(question, "baseline") for question in ("data", "pose", "parts", "reduction")}
    recipe = {t.config for t in plan.trials if baselines <= {*t.names}}
    (policy,) = {config.policy for config in recipe}
    assert (policy.obs_mode, policy.obs_horizon, policy.encoder.patch) == ("image", 2, 2)
    assert policy.encoder.pose
    assert {trial.config.policy.obs_mode for trial in plan.trials} == {"image"}


def test_the_optuna_space_is_a_search():
    plan = space.plan(ROOT / "search_spaces/optuna.yaml", "smoke")
    assert plan.search is not None
    assert len(plan.search.axes) >= 4


def test_thousands_of_trials_are_planned_in_seconds(write):
    path = write(
        "version: 1\nquestions:\n  q:\n    grid: {train.steps: ["
        + ", ".join(str(n) for n in range(1, 51))
        + "], train.batch_size: ["
        + ", ".join(str(n) for n in range(1, 51))
        + "]}\n"
    )
    start = time.process_time()
    assert len(space.plan(path).trials) == 2_501
    assert time.process_time() - start < 8  # 1 s on an idle core


CHUNKS = """
version: 1
base: {policy.inference.sampler: dfo, policy.negatives.sampler: mixture}
questions:
  chunks:
    ask: How long?
    grid: {policy.action_horizon: [2, 4, 8]}
"""


def test_arms_with_joint_dfo_over_chunks_are_warned_of(write):
    found = space.plan(write(CHUNKS)).warnings
    assert [text.split(":")[0] for text in found] == ["action_horizon 4", "action_horizon 8"]
    assert all('energy.conditionals "steps"' in text for text in found)
    assert space.plan(write(CHUNKS.replace("[2, 4, 8]", "[2]"))).warnings == []
    base = CHUNKS[: CHUNKS.index("questions")].replace("dfo", "dfo, policy.action_horizon: 4")
    axes = 'search: {ask: "Which?", trials: 3, axes: {policy.energy.width: [8, 16]}}'
    assert len(space.plan(write(base + axes)).warnings) == 1
