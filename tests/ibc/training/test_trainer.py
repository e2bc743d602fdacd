"""Training: it learns, it resumes to the bit, and it stops at the first NaN."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch

from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import AugmentConfig, TrainConfig
from ibc.data.windows import Windows
from ibc.energy.models import ProductEnergy
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training import optim, validation
from ibc.training.nonfinite import NonFiniteError
from ibc.training.trainer import Trainer, micro_batch

SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
POLICY = PolicyConfig(
    encoder=EncoderConfig(
        channels=(8, 8), reduce_maps=4, features=8, state_width=32, state_depth=1
    ),
    energy=EnergyConfig(fusion="concat", width=32, depth=2, dropout=0.1),
    negatives=NegativesConfig(count=16, shared=False),
    inference=InferenceConfig(sampler="dfo", samples=64, readout="softmax_mean"),
    action=ActionConfig(bounds="data"),
)
TRAIN = TrainConfig(
    steps=80,
    epoch_steps=20,
    batch_size=32,
    micro_batch=12,
    warmup_steps=10,
    learning_rate=3e-3,
    augment=AugmentConfig(mirror=0.0, history_noise=0.0),  # the toy task is not symmetric
)
# 300 // 32 = 9 batches a pass: every epoch ends in the middle of one.
RESUMED = dataclasses.replace(TRAIN, steps=32, epoch_steps=8)


def trainer(toy_demos, policy=POLICY, train=TRAIN, seeds=SEEDS):
    windows = [
        Windows(toy_demos, episodes, policy.obs_mode, policy.obs_horizon, policy.action_horizon)
        for episodes in (range(10), range(10, 12))
    ]
    built = build_policy(policy, fit_normalizer(policy, windows[0]), generator_seed=0)
    return Trainer(built, *windows, train, seeds)


def without_times(metrics):
    return {k: v for k, v in metrics.items() if k not in ("seconds", "samples_per_second")}


@pytest.mark.parametrize(
    ("policy", "train"),
    [
        (POLICY, RESUMED),
        (
            dataclasses.replace(
                POLICY,
                action_horizon=2,
                negatives=NegativesConfig("proposal", count=8, shared=False),
                inference=InferenceConfig("proposal", samples=16),
            ),
            RESUMED,
        ),
        (dataclasses.replace(POLICY, kind="mse"), dataclasses.replace(RESUMED, grad_clip=0.1)),
        (
            dataclasses.replace(
                POLICY,
                obs_mode="image",
                energy=EnergyConfig(width=16, dropout=0.1),
                negatives=NegativesConfig("mixture", 8, centre="agent"),
            ),
            dataclasses.replace(TRAIN, ema_decay=None, epoch_steps=4, steps=16, batch_size=16),
        ),
    ],
    ids=["ibc", "proposal", "mse", "image"],
)
def test_four_epochs_are_two_and_two_more_to_the_bit(toy_demos, policy, train):
    whole = trainer(toy_demos, policy, train)
    expected = [whole.run_epoch() for _ in range(4)]
    assert whole.done

    first = trainer(toy_demos, policy, train)
    found = [first.run_epoch() for _ in range(2)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    # Another initial seed: everything that matters must come from the state.
    second = trainer(toy_demos, policy, train)
    with torch.no_grad():
        for parameter in second.policy.parameters():
            parameter.add_(1.0)
    second.load_state_dict(state)
    assert second.epoch == 2
    found += [second.run_epoch() for _ in range(2)]

    assert [without_times(m) for m in found] == [without_times(m) for m in expected]
    for ours, theirs in (
        (second.policy, whole.policy),
        (second.policy_for_inference(), whole.policy_for_inference()),
    ):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
    a, b = second.state_dict(), whole.state_dict()
    for name, value in b["generators"].items():
        assert torch.equal(a["generators"][name], value), name


@pytest.mark.parametrize(
    ("kind", "fusion"),
    [pytest.param("ibc", "concat", marks=pytest.mark.slow), ("ibc", "product"), ("mse", "concat")],
)
def test_learns_the_toy_task(toy_demos, kind, fusion):
    config = dataclasses.replace(
        TRAIN, steps=400, epoch_steps=200, ema_decay=0.98, batch_size=64, micro_batch=64
    )
    energy = EnergyConfig(fusion, width=32, depth=2)
    policy = dataclasses.replace(POLICY, kind=kind, energy=energy)
    run = trainer(toy_demos, policy, config)
    first, last = run.run_epoch(), run.run_epoch()
    assert last["train_loss"] < first["train_loss"]
    assert last["val_loss_ratio"] < 0.6
    assert last["val_readout_error_px"] < 0.5 * last["trivial_action_error_px"]
    assert last["dead_layers"] == 0.0
    assert all(type(value) is float and math.isfinite(value) for value in last.values())


def test_metrics_name_what_the_tables_need(toy_demos):
    metrics = trainer(toy_demos).run_epoch()
    assert {
        "epoch", "step", "train_loss", "train_loss_ratio", "val_loss", "val_loss_ratio",
        "val_action_error_px", "val_readout_error_px", "trivial_action_error_px", "train_grad_norm",
        "learning_rate", "samples_per_second", "seconds", "share_at_bounds", "train_energy_gap",
        "train_effective_negatives", "dead_layers", "train_clipped_share",
    } <= set(metrics)  # fmt: skip
    assert metrics["train_loss_ratio"] == pytest.approx(metrics["train_loss"] / math.log(17))
    assert (metrics["epoch"], metrics["step"]) == (1.0, 20.0)


def test_gradient_norms_of_the_parts_make_up_the_whole(toy_demos):
    run = trainer(toy_demos, train=dataclasses.replace(TRAIN, epoch_steps=1))
    metrics = run.run_epoch()
    parts = {k: v for k, v in metrics.items() if k.startswith("grad_norm_")}
    assert {"grad_norm_energy.hidden", "grad_norm_energy.out"} <= set(parts)
    whole = math.sqrt(sum(value**2 for value in parts.values()))
    assert whole == pytest.approx(metrics["train_grad_norm"], rel=1e-5)


def test_exponential_schedule_steps_down_after_the_warm_up(toy_demos):
    config = TrainConfig(
        schedule="exponential", warmup_steps=10, decay=0.5, decay_every=100, learning_rate=1e-3
    )
    at = [config.learning_rate_at(step) for step in (0, 9, 10, 99, 100, 199, 200)]
    assert at == pytest.approx([1e-4, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
    for wrong in ({"decay": 0.0}, {"decay": 1.1}, {"decay_every": 0}, {"schedule": "linear"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TrainConfig(**wrong)


def test_every_window_is_seen_once_a_pass(toy_demos):
    run = trainer(toy_demos)
    seen = []
    for step in range(18):
        run.step = step
        seen.append(run._indices())
    for number in (0, 1):
        indices = np.concatenate(seen[9 * number : 9 * number + 9])
        assert len(set(indices.tolist())) == 288
    assert not np.array_equal(seen[0], seen[9]), "another pass has another order"


def test_micro_batches_only_change_rounding(toy_demos):
    policy = dataclasses.replace(POLICY, kind="mse", energy=EnergyConfig(width=32, depth=2))
    runs = [
        trainer(toy_demos, policy, dataclasses.replace(TRAIN, micro_batch=size, steps=2))
        for size in (32, 5)
    ]
    whole, parts = (run.run_epoch() for run in runs)
    assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert parts["train_grad_norm"] == pytest.approx(whole["train_grad_norm"], rel=1e-3)


def test_inference_uses_the_averaged_weights(toy_demos):
    run = trainer(toy_demos)
    run.run_epoch()
    trained, averaged = run.policy.state_dict(), run.policy_for_inference().state_dict()
    assert not torch.equal(trained["energy.out.weight"], averaged["energy.out.weight"])
    plain = trainer(toy_demos, train=dataclasses.replace(TRAIN, ema_decay=None))
    assert plain.policy_for_inference() is plain.policy


def test_average_follows_its_formula(toy_demos):
    run = trainer(toy_demos, train=dataclasses.replace(TRAIN, ema_decay=0.5, epoch_steps=1))
    expected = run.policy.energy.out.weight.detach().clone()
    for step in range(3):
        run.run_epoch()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * run.policy.energy.out.weight.detach()
    torch.testing.assert_close(run.policy_for_inference().energy.out.weight, expected)


@pytest.mark.parametrize(
    ("break_it", "place"),
    [
        (
            lambda run: run.policy.energy.hidden[0].weight.data.fill_(math.nan),
            "energy.hidden.0.weight",
        ),
        (lambda run: run.policy.energy.out.bias.data.fill_(math.inf), "weights energy.out.bias"),
        (lambda run: run.policy.energy.out.weight.data.fill_(3e38), "output of energy.out"),
    ],
)
def test_a_non_finite_loss_stops_at_once_and_names_the_place(toy_demos, break_it, place):
    run = trainer(toy_demos)
    break_it(run)
    with pytest.raises(NonFiniteError, match=f"{place}.* at step 0"):
        run.run_epoch()
    assert run.step == 0


def test_nan_in_the_data_is_named(toy_demos):
    broken = dataclasses.replace(toy_demos, action=toy_demos.action.copy())
    run = trainer(toy_demos)
    broken.action[:, 0] = np.nan
    run.train.demos = broken
    with pytest.raises(NonFiniteError, match="the training data's action at step 0"):
        run.run_epoch()


def test_user_mistakes_are_refused(toy_demos):
    with pytest.raises(ValueError, match="must not exceed the 300 training windows, got 301"):
        trainer(toy_demos, train=dataclasses.replace(TRAIN, batch_size=301))
    with pytest.raises(ValueError, match="seeds must hold data, negatives, augment, validation"):
        trainer(toy_demos, seeds={"data": 1})
    run = trainer(toy_demos)
    with pytest.raises(ValueError, match="the run to resume has seeds"):
        trainer(toy_demos, seeds={**SEEDS, "data": 9}).load_state_dict(run.state_dict())
    no_average = trainer(toy_demos, train=dataclasses.replace(TRAIN, ema_decay=None))
    with pytest.raises(ValueError, match="ema_decay"):
        no_average.load_state_dict(run.state_dict())
    run.step = TRAIN.steps
    with pytest.raises(ValueError, match=r"training ends after train\.steps 80, got 80"):
        run.run_epoch()


def test_validation_scores_what_all_windows_share_once(toy_demos, monkeypatch):
    monkeypatch.setattr(validation, "ROWS", 10)  # six parts
    inference = InferenceConfig(lattice=11)
    policy = dataclasses.replace(
        POLICY, energy=EnergyConfig(width=8), inference=inference, obs_mode="keypoints"
    )
    run = trainer(toy_demos, policy)
    first = run.validation.run(run.policy)
    (model,) = (m for m in run.policy.modules() if isinstance(m, ProductEnergy))
    rows = []
    model.action.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    assert run.validation.run(run.policy) == first
    assert rows.count(10) == 2 * 6  # of each window the demonstrated action and the one found
    assert rows.count(11 * 11) == rows.count(validation.PROBES) == 1
    with torch.no_grad():
        for weight in run.policy.parameters():
            weight.mul_(1.5)
    assert run.validation.run(run.policy)["val_loss"] != first["val_loss"]


def test_an_empty_validation_set_leaves_its_metrics_out(toy_demos):
    run = trainer(toy_demos)
    nothing = Windows(toy_demos, (), "keypoints", 2, 1)
    metrics = Trainer(run.policy, run.train, nothing, TRAIN, SEEDS).run_epoch()
    assert "train_loss" in metrics
    assert not [name for name in metrics if name.startswith("val_")]


def test_a_layer_without_gradient_is_reported(toy_demos):
    run = trainer(toy_demos)
    with torch.no_grad():
        run.policy.energy.hidden[0].bias.fill_(-1e4)  # every unit of the layer is off for good
    assert run.run_epoch()["dead_layers"] >= 1.0
    assert "energy.hidden.0.weight" in run.facts["dead_layers"]


def test_precision_auto_is_for_convolutions_alone(toy_demos, monkeypatch):
    monkeypatch.setattr(optim, "fast_bf16", lambda device: True)
    assert trainer(toy_demos).precision == "fp32"
    policy = dataclasses.replace(POLICY, obs_mode="image")
    run = trainer(toy_demos, policy=policy, train=dataclasses.replace(TRAIN, steps=2))
    assert run.precision == "bf16 convolutions"
    seen = {}
    run.policy.encoder.trunk.register_forward_hook(
        lambda _, given, out: seen.update({torch.is_grad_enabled(): out.dtype})
    )
    run.run_epoch()
    run.policy.features(run.policy.prepare(run.train.batch(np.arange(2))))
    assert seen[True] == torch.bfloat16
    with torch.no_grad():
        run.policy.features(run.policy.prepare(run.train.batch(np.arange(2))))
    assert seen[False] == torch.float32


def test_bf16_trains_and_keeps_energies_in_float32(toy_demos):
    run = trainer(toy_demos, train=dataclasses.replace(TRAIN, precision="bf16", steps=2))
    metrics = run.run_epoch()
    assert math.isfinite(metrics["train_loss"])
    fp32 = trainer(toy_demos, train=dataclasses.replace(TRAIN, steps=2)).run_epoch()
    assert metrics["train_loss"] == pytest.approx(fp32["train_loss"], rel=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        energies = run.policy.energy.score(torch.zeros(1, 32), torch.zeros(1, 5, 2))
    assert energies.dtype == torch.float32


def test_micro_batches_bound_what_the_backward_pass_keeps():
    cpu, own = torch.device("cpu"), NegativesConfig(count=1024, shared=False)
    wide = PolicyConfig(energy=EnergyConfig("concat", width=1024), negatives=own)
    assert micro_batch(wide, 256, cpu) == 1
    assert micro_batch(wide, 256, torch.device("cuda")) == 15
    small = dataclasses.replace(wide, energy=EnergyConfig("concat", width=16))
    assert micro_batch(small, 32, cpu) == 32
    # Shared counter-examples, and policies without any, keep next to nothing a window.
    assert micro_batch(PolicyConfig(), 256, cpu) == 128
    assert micro_batch(PolicyConfig(kind="mse"), 64, cpu) == 64
