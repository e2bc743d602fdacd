"""The illnesses of the failure diary, made on purpose, are named; a healthy run has none."""

import dataclasses

import pytest
import torch

from ibc import inference, negatives
from ibc.base import PolicyConfig
from ibc.demos import Windows
from ibc.encoders import EncoderConfig
from ibc.energy import EnergyConfig
from ibc.health import diagnose
from ibc.inference import InferenceConfig
from ibc.negatives import NegativesConfig
from ibc.normalize import ActionConfig
from ibc.policy import build_policy, fit_normalizer
from ibc.train import TrainConfig, Trainer

POLICY = PolicyConfig(
    encoder=EncoderConfig(state_width=32),
    energy=EnergyConfig(width=32),
    negatives=NegativesConfig(count=256),
    inference=InferenceConfig(sampler="dfo", readout="argmax"),
    action=ActionConfig(window=80.0),
)
SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
TRAIN = TrainConfig(
    steps=400, epoch_steps=200, batch_size=64, warmup_steps=10, learning_rate=3e-3, ema_decay=0.9
)


def names(toy_demos, policy=POLICY, train=TRAIN, breaking=None):
    windows = [Windows(toy_demos, e, "keypoints", 2, 1) for e in (range(10), range(10, 12))]
    built = build_policy(policy, fit_normalizer(policy, windows[0]), generator_seed=0)
    run = Trainer(built, *windows, train, SEEDS)
    if breaking is not None:
        breaking(run)
    history = [run.run_epoch(), run.run_epoch()]
    findings = diagnose(history, run.facts)
    assert all(finding.evidence and finding.mend for finding in findings)
    return {finding.name for finding in findings}


@pytest.mark.parametrize("kind", ["ibc", "mse"])
def test_a_healthy_run_has_no_finding(toy_demos, kind):
    assert names(toy_demos, dataclasses.replace(POLICY, kind=kind)) == set()


def test_negatives_in_px(toy_demos, monkeypatch):
    sample = negatives.sample

    def in_px(*given):
        drawn, correction = sample(*given)
        return drawn * 256.0 + 256.0, correction

    monkeypatch.setattr(negatives, "sample", in_px)
    assert "loss is zero" in names(toy_demos)


def test_samples_in_another_space_than_the_model(toy_demos, monkeypatch):
    read_out = inference.read_out
    monkeypatch.setattr(inference, "read_out", lambda *given: read_out(*given) * 50.0)
    assert "predictions at the bounds" in names(toy_demos)


def test_learning_rate_too_small(toy_demos):
    train = dataclasses.replace(TRAIN, learning_rate=1e-9)
    assert "nothing is learned" in names(toy_demos, train=train)


def test_too_few_negatives_for_the_tolerance(toy_demos):
    """Eight negatives over the whole board tell the block's side of it, and nothing finer."""
    policy = dataclasses.replace(
        POLICY, action=ActionConfig(bounds="board"), negatives=NegativesConfig(count=8)
    )
    assert "loss falls, action error does not" in names(toy_demos, policy)


def test_a_normaliser_of_other_data(toy_demos):
    def stale(run):
        for policy in (run.policy, run.policy_for_inference()):
            policy.normalizer.low.fill_(-5.0)
            policy.normalizer.high.fill_(5.0)

    assert "demonstrated actions outside the bounds" in names(toy_demos, breaking=stale)


def test_a_dead_layer(toy_demos):
    def kill(run):
        with torch.no_grad():
            run.policy.energy.hidden[0].bias.fill_(-1e4)

    found = names(toy_demos, breaking=kill)
    assert {"dead layers", "nothing is learned"} <= found


def test_a_policy_that_does_not_look(toy_demos):
    def blind(run):
        for policy in (run.policy, run.policy_for_inference()):
            policy.encoder.register_forward_hook(lambda *given: given[-1] * 0.0)

    policy = dataclasses.replace(POLICY, kind="mse")
    assert "predictions are stuck" in names(toy_demos, policy, breaking=blind)


def test_no_history_no_finding():
    assert diagnose([], {"kind": "ibc"}) == []
