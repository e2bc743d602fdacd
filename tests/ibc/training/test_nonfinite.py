"""A NaN or infinity put in on purpose, at one place after another, is found at that place."""

import dataclasses
import math
import re

import pytest
import torch
from torch import nn

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, LangevinConfig, LossConfig, NegativesConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.windows import Windows
from ibc.energy import losses
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.sampling import langevin, negatives
from ibc.training import optim
from ibc.training.nonfinite import NonFiniteError, locate
from ibc.training.trainer import Trainer

POLICY = PolicyConfig(
    encoder=EncoderConfig(state_width=16),
    energy=EnergyConfig(width=16, fusion="concat"),
    negatives=NegativesConfig(count=8),
)
SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
TRAIN = TrainConfig(steps=20, epoch_steps=20, batch_size=16, warmup_steps=2)


def run(toy_demos, policy=POLICY):
    windows = [Windows(toy_demos, e, "keypoints", 2, 1) for e in (range(10), range(10, 12))]
    built = build_policy(policy, fit_normalizer(policy, windows[0]), generator_seed=0)
    return Trainer(built, *windows, TRAIN, SEEDS)


def stopped(trainer):
    with pytest.raises(NonFiniteError) as caught:
        trainer.run_epoch()
    return str(caught.value)


def test_an_overflow_in_a_layer_is_named_by_the_layer(toy_demos):
    trainer = run(toy_demos)
    trainer.policy.encoder.layers[0].weight.data.fill_(3e38)
    assert "the output of encoder.layers.0 at step 0" in stopped(trainer)


def test_counter_examples_that_left_the_numbers_are_named_by_their_line(toy_demos, monkeypatch):
    draw = negatives._uniform
    monkeypatch.setattr(negatives, "_uniform", lambda *given: (draw(*given) - 2.0).sqrt())
    message = stopped(run(toy_demos))
    assert "sample (ibc/sampling/negatives.py, line" in message or "uniform" in message
    assert "sqrt" in message


def test_a_broken_density_is_named_by_its_line(toy_demos):
    config = dataclasses.replace(
        POLICY, negatives=NegativesConfig(sampler="mixture", centre="agent", count=8)
    )
    object.__setattr__(config.negatives, "scales", (math.nan,))  # no config can say this
    assert "draw (ibc/sampling/negatives.py, line" in stopped(run(toy_demos, config))


def test_a_broken_loss_is_named_by_its_line(toy_demos, monkeypatch):
    real = losses.info_nce
    monkeypatch.setattr(losses, "info_nce", lambda *given: real(*given) / 0.0)
    message = stopped(run(toy_demos))
    assert re.search(r"in \w+ \(ibc/[\w/]+\.py, line \d+: div\) at step 0", message)


def test_a_gradient_alone_can_break(toy_demos):
    """The root has the value 0 at 0 and no finite slope."""

    class Root(nn.Module):
        def forward(self, x):
            return x + (x.detach() - x).square().sum(-1, keepdim=True).sqrt()

    trainer = run(toy_demos)
    trainer.policy.energy.out = nn.Sequential(trainer.policy.energy.out, Root())
    message = stopped(trainer)
    assert "the gradient of energy.out.0.bias at step 0" in message


def test_a_chain_that_ran_away_is_named_by_its_line(toy_demos, monkeypatch):
    moved = NegativesConfig(
        sampler="langevin", count=4, shared=False, langevin=LangevinConfig(steps=3)
    )
    real, calls = langevin.slope, []

    def steep(*given, **more):
        energies, slope = real(*given, **more)
        calls.append(None)
        second = len(calls) % 4 == 2  # of three steps and a look at where they led
        return energies, (-1.0 - slope.abs()).sqrt() if second else slope

    monkeypatch.setattr(langevin, "slope", steep)
    message = stopped(run(toy_demos, dataclasses.replace(POLICY, negatives=moved)))
    assert "chain (ibc/sampling/langevin.py, line" in message


def test_a_penalty_that_overflows_is_named_by_its_line(toy_demos):
    trainer = run(toy_demos, dataclasses.replace(POLICY, loss=LossConfig(gradient_penalty=1.0)))
    trainer.policy.energy.out.weight.data.fill_(1e25)  # its energies are finite, their squares not
    assert "gradient_penalty (ibc/energy/losses.py, line" in stopped(trainer)


def test_a_mixture_and_a_diffusion_are_named_by_their_lines(toy_demos):
    trainer = run(toy_demos, dataclasses.replace(POLICY, kind="mdn"))
    trainer.policy.out.bias.data.fill_(-3e38)
    assert "ibc/sampling/mixture.py, line" in stopped(trainer)
    trainer = run(toy_demos, dataclasses.replace(POLICY, kind="diffusion"))
    trainer.policy.signal.fill_(2.0)  # more signal than there is
    assert "add_noise (ibc/policies/diffusion.py, line" in stopped(trainer)


def test_the_step_is_repeated_with_the_random_numbers_it_had(toy_demos, monkeypatch):
    """One draw in a few thousand breaks; only the generator's own state finds it again."""
    trainer = run(toy_demos)
    batch = trainer.train.batch(trainer._indices())
    draw = negatives._uniform

    def rarely(*given):
        drawn = draw(*given)
        return drawn * math.inf if drawn.min() < -0.999 else drawn

    monkeypatch.setattr(negatives, "_uniform", rarely)
    generator = torch.Generator()
    found = {}
    for seed in range(2000):
        states = {"generator": generator.manual_seed(seed).get_state()}
        if draw(torch.zeros(1, 2), 8, generator).min() < -0.999:
            found["bad"] = states
        else:
            found["good"] = states
        if len(found) == 2:
            break
    assert "ibc/sampling/negatives.py" in locate(trainer.policy, batch, states=found["bad"])
    assert "not again" in locate(trainer.policy, batch, states=found["good"], micro_batch=8)


def test_masks_and_uninitialised_memory_are_not_reported(toy_demos, monkeypatch):
    real = losses.info_nce

    def masked(energies_BK, correction_BK=None):
        mask = torch.full_like(energies_BK, -math.inf).masked_fill(energies_BK < 1e9, 0.0)
        return real(energies_BK - mask, correction_BK) + torch.empty(9).fill_(-math.inf).exp().sum()

    monkeypatch.setattr(losses, "info_nce", masked)
    trainer = run(toy_demos)
    batch = trainer.train.batch(trainer._indices())
    assert "not again" in locate(trainer.policy, batch)


def test_gradient_norms_are_those_of_the_parts(toy_demos):
    trainer = run(toy_demos)
    batch = {k: torch.from_numpy(v) for k, v in trainer.train.batch(trainer._indices()).items()}
    loss, _ = trainer.policy.compute_loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    found = optim.norms(dict(trainer.policy.named_parameters()))
    assert set(found) == {
        "encoder.layers",
        "energy.observation",
        "energy.action",
        "energy.hidden",
        "energy.out",
    }
    out = trainer.policy.energy.out
    expected = math.hypot(out.weight.grad.norm(), out.bias.grad.norm())
    assert found["energy.out"] == pytest.approx(expected, rel=1e-5)
    trainer.policy.zero_grad(set_to_none=True)
    assert set(optim.norms(dict(trainer.policy.named_parameters())).values()) == {0.0}
