"""Spectral norm: the largest gain is 1, evaluation repeats itself, averaged weights are normed."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.windows import Windows
from ibc.energy.models import build_energy
from ibc.layers import SpectralLinear, advance
from ibc.policies.factory import build_policy, fit_normalizer, load_policy
from ibc.training.trainer import Trainer

SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
TRAIN = TrainConfig(
    steps=32,
    epoch_steps=8,
    batch_size=32,
    micro_batch=20,
    warmup_steps=2,
    learning_rate=1e-2,
    val_windows=8,
)
HEADS = {
    "concat": EnergyConfig("concat", width=16, depth=3, spectral_norm=True),
    "resnet": EnergyConfig("concat", width=16, depth=2, head="resnet", spectral_norm=True),
    "product": EnergyConfig("product", width=16, depth=3, spectral_norm=True),
}
heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def layers(model):
    return [module for module in model.modules() if isinstance(module, SpectralLinear)]


def gain(layer):
    """The largest singular value of what the layer multiplies with, without its bias."""
    eye = torch.eye(layer.in_features)
    return float(torch.linalg.matrix_norm(layer(eye) - layer.bias, 2).detach())


def trainer(toy_demos, head, train=TRAIN):
    policy = PolicyConfig(
        encoder=EncoderConfig(state_width=16),
        energy=head,
        negatives=NegativesConfig(count=16, shared=False),
        inference=InferenceConfig(lattice=11),
    )
    windows = [
        Windows(toy_demos, episodes, policy.obs_mode, policy.obs_horizon, 1)
        for episodes in (range(10), range(10, 12))
    ]
    built = build_policy(policy, fit_normalizer(policy, windows[0]), generator_seed=0)
    return Trainer(built, *windows, train, SEEDS)


def test_the_largest_gain_is_one_and_its_gradient_is_exact():
    torch.manual_seed(0)
    layer = SpectralLinear(12, 9)
    for _ in range(20):
        layer.advance()
    assert gain(layer) == pytest.approx(1.0, abs=1e-4)
    x = torch.randn(4, 12)
    layer(x).square().sum().backward()
    ours = layer.weight.grad.clone()
    layer.weight.grad = None
    exact = layer.weight / torch.linalg.matrix_norm(layer.weight, 2)
    torch.nn.functional.linear(x, exact, layer.bias).square().sum().backward()
    torch.testing.assert_close(ours, layer.weight.grad, atol=1e-3, rtol=1e-3)


@heads
def test_layers_between_hidden_units_are_normed_and_the_ends_are_free(head):
    model = build_energy(6, 2, head)
    advance(model)
    # concat: 3 hidden layers; resnet: two in a block behind the first; product: both towers.
    count = {"concat": 2, "product": 4}[head.fusion]
    assert len(layers(model)) == count
    assert all(layer.weight.shape == (16, 16) for layer in layers(model))
    plain = build_energy(6, 2, dataclasses.replace(head, spectral_norm=False))
    assert not layers(plain)
    names = [name for name, _ in plain.named_parameters()]
    assert names == [name for name, _ in model.named_parameters()]


@heads
def test_only_a_training_forward_takes_a_step(head):
    torch.manual_seed(0)
    model = build_energy(6, 2, head)
    with torch.no_grad():
        for layer in layers(model):
            layer.weight.add_(torch.randn(16, 16))
    features, actions = torch.randn(3, 6), torch.randn(3, 5, 2)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert len(before) == len(layers(model))
    context = model.observe(features)
    first = model.score(context, actions)
    assert torch.equal(first, model.score(model.observe(features), actions))
    model.score(context, actions, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.observe(features, torch.Generator().manual_seed(0))
    assert not any(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_the_step_is_taken_in_full_precision():
    torch.manual_seed(0)
    layer = SpectralLinear(32, 32)
    half = copy.deepcopy(layer)
    layer.advance()
    with torch.autocast("cpu", torch.bfloat16):
        half.advance()
    assert torch.equal(half.u, layer.u)


@heads
def test_training_norms_both_weights_and_their_average(toy_demos, head):
    run = trainer(toy_demos, head)
    first = {name: p.detach().clone() for name, p in run.policy.named_parameters()}
    while not run.done:
        run.run_epoch()
    averaged = run.policy_for_inference()
    assert averaged is not run.policy
    for policy in (run.policy, averaged):
        for layer in layers(policy):
            assert gain(layer) == pytest.approx(1.0, abs=0.02)
    for name, p in run.policy.named_parameters():
        if not name.startswith("normalizer"):
            assert not torch.equal(p, first[name]), name


@heads
def test_resumes_to_the_bit_and_loads_what_it_saved(toy_demos, head, tmp_path):
    whole = trainer(toy_demos, head)
    for _ in range(4):
        whole.run_epoch()
    first, second = trainer(toy_demos, head), trainer(toy_demos, head)
    for _ in range(2):
        first.run_epoch()
    with torch.no_grad():
        for layer in layers(second.policy):
            layer.u.copy_(torch.ones(16) / 4)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.run_epoch()
    for ours, theirs in (
        (second.policy, whole.policy),
        (second.policy_for_inference(), whole.policy_for_inference()),
    ):
        assert any(name.endswith(".u") for name in theirs.state_dict())
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name

    policy = whole.policy_for_inference()
    policy.save(tmp_path)
    loaded = load_policy(tmp_path)
    obs = whole.train.batch(np.arange(3))
    actions = [
        p.predict_action(obs, [torch.Generator().manual_seed(i) for i in range(3)])
        for p in (policy, loaded)
    ]
    # Products of a matrix and a vector differ in their last bit by where the file's bytes lie.
    torch.testing.assert_close(*actions, atol=1e-2, rtol=0)
    # What was loaded trains on: its u is an ordinary buffer again.
    energy = loaded.energy
    energy.observe(torch.randn(3, 16), torch.Generator().manual_seed(0)).sum().backward()
