"""The package's default policy against the method as one file writes it (ibc/reference.py)."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from ibc import reference
from ibc.config.policy import PolicyConfig
from ibc.config.training import AugmentConfig, TrainConfig
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.sampling import negatives
from ibc.training.trainer import Trainer

# Ours is the reference's, layer by layer.
NAMES = {
    "encoder.layers.0": "encoder.0",
    "energy.observation.layers.0": "observation.0",
    "energy.observation.layers.1": "observation.2",
    "energy.observation.layers.2": "observation.4",
    "energy.action": "action.0",
    "energy.hidden.0": "action.2",
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def windows(toy_demos):
    return Windows(toy_demos, range(9), "keypoints", 2, 1)


@pytest.fixture
def policy(windows):
    """The default policy, with weights that are large enough for a density that is not flat."""
    config = PolicyConfig()
    policy = build_policy(config, fit_normalizer(config, windows), generator_seed=5)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.7)
    return policy


def weights_of(policy):
    """The policy's weights under the reference's names."""
    found = {}
    for name, value in policy.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer != "normalizer":
            found[f"{NAMES[layer]}.{kind}"] = value.clone()
    return found


def model_of(policy):
    model = reference.EnergyModel()
    model.load_state_dict(weights_of(policy))
    return model


def arrays(windows, indices):
    batch = windows.batch(indices)
    return torch.from_numpy(batch["keypoints"]), torch.from_numpy(batch["action"])[:, 0]


def test_same_loss(policy, windows):
    keypoints, actions = arrays(windows, np.arange(0, 160, 5))
    config = policy.config.negatives
    drawn, _ = negatives.sample(
        config, torch.zeros(32, 2), torch.zeros(32, 2), torch.Generator().manual_seed(7)
    )
    torch.testing.assert_close(drawn, reference.draw_negatives(torch.Generator().manual_seed(7)))
    batch = {"keypoints": keypoints, "action": actions[:, None]}
    loss, _ = policy.compute_loss(batch, torch.Generator().manual_seed(7))
    expected = reference.info_nce(model_of(policy), keypoints, actions, drawn)
    torch.testing.assert_close(loss, expected, **CLOSE)


def test_same_actions(policy, windows):
    keypoints, _ = arrays(windows, np.arange(0, 160, 5))
    generators = [[torch.Generator().manual_seed(i) for i in range(32)] for _ in range(2)]
    actions = policy.predict_action({"keypoints": keypoints}, generators[0])
    expected = reference.act(model_of(policy), keypoints, generators[1])
    assert expected.std(0).min() > 10.0
    torch.testing.assert_close(actions[:, 0] / 512, expected / 512, **CLOSE)


def test_same_weights_after_some_steps(policy, windows):
    """Trained weights and their average, each several times farther gone than the tolerance."""
    model = model_of(policy)
    before = weights_of(policy)
    config = TrainConfig(
        epoch_steps=4,
        precision="fp32",
        val_windows=1,
        augment=AugmentConfig(mirror=0.0, history_noise=0.0),
    )
    seeds = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
    run = Trainer(policy, windows, windows, config, seeds)
    run.run_epoch()
    size = config.batch_size
    per_pass = len(windows) // size
    orders = [np.random.default_rng([seeds["data"], k]).permutation(len(windows)) for k in range(2)]
    batches = [
        arrays(windows, orders[k // per_pass][k % per_pass * size :][:size]) for k in range(4)
    ]
    average = reference.train(model, batches, torch.Generator().manual_seed(seeds["negatives"]))
    for found, expected in ((run.policy, model), (run.policy_for_inference(), average)):
        weights = weights_of(found)
        moved = max(float((weights[name] - before[name]).abs().max()) for name in weights)
        assert moved > 2e-5
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(weights[name], value, **CLOSE)


@pytest.mark.parametrize("step", [0, 250, 499, 500, 5_000, 11_999])
def test_same_settings(step):
    policy, train = PolicyConfig(), TrainConfig()
    assert reference.learning_rate(step) == pytest.approx(train.learning_rate_at(step))
    assert train.ema_decay == reference.EMA_DECAY
    assert policy.negatives.count == reference.NEGATIVES


def test_it_is_one_short_file_that_imports_torch_alone():
    text = Path(reference.__file__).read_text()
    assert len(text.splitlines()) <= 150
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported <= {"torch", "copy", "math", "collections.abc"}
