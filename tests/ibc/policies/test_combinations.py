"""Whatever a config allows trains for three steps and predicts."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import (
    READOUTS,
    EnergyConfig,
    InferenceConfig,
    LangevinConfig,
    LossConfig,
    NegativesConfig,
)
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.trainer import Trainer

CHAIN = LangevinConfig(steps=1, limit=0.1)
NEGATIVES = {
    "uniform": NegativesConfig(count=4),
    "around the agent": NegativesConfig("mixture", count=4),
    "around the positive": NegativesConfig("mixture", count=4, shared=False, centre="positive"),
    "dfo": NegativesConfig("dfo", count=4, shared=False),
    "langevin": NegativesConfig("langevin", count=4, shared=False, langevin=CHAIN),
    "proposal": NegativesConfig("proposal", count=4, shared=False),
}
SEARCHES = [
    *itertools.product(["joint"], ["lattice", "dfo", "langevin", "proposal"]),
    *itertools.product(["steps", "dimensions"], ["lattice", "dfo", "langevin"]),
]
TRAIN = TrainConfig(
    steps=3, epoch_steps=3, batch_size=4, micro_batch=4, warmup_steps=0, val_windows=2
)
SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}


def configs():
    """Every search with every kind of negatives; horizons, readouts and losses take turns."""
    rest = itertools.cycle(
        itertools.product(
            (1, 2, 8),
            READOUTS,
            ("product", "concat"),
            (0.0, 1.0, 0.5),
            (0.0, 0.5),
        )
    )
    # A stride that shares no factor with any of the lists steps through all of them at once.
    turns = itertools.islice(rest, 0, None, 67)
    for (conditionals, search), negatives in itertools.product(SEARCHES, NEGATIVES):
        if (negatives == "proposal" and conditionals != "joint") or (
            search == "proposal" and negatives != "proposal"
        ):
            continue  # not allowed together
        horizon, readout, fusion, weight, warm = next(turns)
        if conditionals == "joint" and search == "lattice":
            horizon = 1
        inference = InferenceConfig(
            search if conditionals == "joint" else "autoregressive",
            lattice=3,
            samples=6,
            iterations=2,
            readout=readout,
            langevin=CHAIN,
            part_sampler="lattice" if search == "proposal" else search,
            warm_start=warm if search in ("dfo", "langevin") else 0.0,
        )
        config = PolicyConfig(
            action_horizon=horizon,
            encoder=EncoderConfig(state_width=4),
            energy=EnergyConfig(fusion, width=4, conditionals=conditionals),
            negatives=NEGATIVES[negatives],
            loss=LossConfig(weight),
            inference=inference,
        )
        yield pytest.param(config, id=f"{conditionals}-{search}-{negatives}-{horizon}")


@pytest.mark.parametrize("config", list(configs()))
def test_trains_and_predicts(toy_demos, config):
    train = Windows(toy_demos, range(4), "keypoints", 2, config.action_horizon)
    val = Windows(toy_demos, range(4, 5), "keypoints", 2, config.action_horizon)
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=0)
    run = Trainer(policy, train, val, TRAIN, SEEDS)
    before = [p.clone() for p in policy.parameters()]
    metrics = run.run_epoch()
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert ("train_chain_energy_drop" in metrics) == config.negatives.moved
    assert ("val_gradient_penalty" in metrics) == (config.loss.gradient_penalty > 0)
    assert not all(map(torch.equal, before, policy.parameters()))
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    previous = torch.full((3, 1, 2), 250.0) if policy.uses_previous else None
    actions = policy.predict_action(val.batch(np.arange(3)), generators, previous)
    assert actions.shape == (3, config.action_horizon, 2)
    assert actions.isfinite().all()


def test_bf16_trains_with_chains_and_penalty(toy_demos):
    """Chains and penalty under autocast, as where a CPU has bf16 units."""
    config = PolicyConfig(
        action_horizon=2,
        encoder=EncoderConfig(state_width=8),
        energy=EnergyConfig(width=8, conditionals="steps"),
        negatives=NEGATIVES["langevin"],
        loss=LossConfig(gradient_penalty=1.0),
        inference=InferenceConfig("autoregressive", lattice=3),
    )
    train = Windows(toy_demos, range(4), "keypoints", 2, 2)
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=0)
    bf16 = dataclasses.replace(TRAIN, precision="bf16")
    metrics = Trainer(policy, train, train, bf16, SEEDS).run_epoch()
    assert all(np.isfinite(value) for value in metrics.values())


def test_observations_are_encoded_once_for_the_chain(toy_demos):
    config = PolicyConfig(
        encoder=EncoderConfig(state_width=8),
        energy=EnergyConfig(width=8),
        negatives=NEGATIVES["langevin"],
    )
    train = Windows(toy_demos, range(4), "keypoints", 2, 1)
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=0)
    calls = []
    policy.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    observe = policy.energy.observe
    policy.energy.observe = lambda *given: calls.append("observe") or observe(*given)
    policy.compute_loss(train.batch(np.arange(4)), torch.Generator().manual_seed(0))
    assert calls == ["encoder", "observe"]
