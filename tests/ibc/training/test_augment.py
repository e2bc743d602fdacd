"""Augmentation: the mirror, noise on the past, and what stays exact."""

import dataclasses

import numpy as np
import pytest
import torch

from ibc.config.policy import PolicyConfig
from ibc.config.training import AugmentConfig, SplitConfig, TrainConfig
from ibc.data import demos as ibc_demos
from ibc.data import symmetry
from ibc.data.windows import Windows
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.training.augment import augment
from ibc.training.trainer import Trainer

PLAIN = AugmentConfig(mirror=0.0, history_noise=0.0)
SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}
CPU = torch.device("cpu")
OBS = {"state": ["state"], "keypoints": ["keypoints"], "image": ["image", "agent_pos"]}


def windows(demos, mode, horizon=3):
    return Windows(demos, range(10), mode, horizon, 2).batch(np.arange(200))


def changed(batch, config, seed=0):
    return augment(batch, config, np.random.default_rng(seed), CPU)


@pytest.mark.parametrize("mode", OBS)
def test_every_window_is_whole_or_wholly_mirrored(toy_demos, mode):
    batch = windows(toy_demos, mode)
    result = changed(batch, AugmentConfig(mirror=0.5, history_noise=0.0))
    given = {name: torch.from_numpy(value) for name, value in batch.items()}
    other = symmetry.mirror(given)
    turned = (result["action"] != given["action"]).flatten(1).any(1)
    assert 0.35 < turned.float().mean() < 0.65
    for name in [*OBS[mode], "action"]:
        assert torch.equal(result[name][turned], other[name][turned])
        assert torch.equal(result[name][~turned], given[name][~turned])


@pytest.mark.parametrize("mode", OBS)
def test_noise_is_on_the_agents_older_positions_alone(toy_demos, mode):
    batch = windows(toy_demos, mode)
    result = changed(batch, AugmentConfig(mirror=0.0, history_noise=4.0))
    name = OBS[mode][-1]
    noise = result[name].numpy() - batch[name]
    agent = {"state": slice(0, 2), "keypoints": slice(18, 20), "image": slice(0, 2)}[mode]
    assert noise[:, :-1, agent].std() == pytest.approx(4.0, rel=0.1)
    noise[:, :-1, agent] = 0.0
    assert not noise.any()
    assert np.array_equal(result["action"], batch["action"])


def test_dropped_frames_are_the_newest_one(toy_demos):
    batch = windows(toy_demos, "image")
    result = changed(batch, AugmentConfig(mirror=0.0, history_noise=0.0, frame_dropout=1.0))
    for name in OBS["image"]:
        assert (result[name].numpy() == batch[name][:, -1:]).all()


def test_nothing_to_do_gives_the_windows_themselves(toy_demos):
    batch = windows(toy_demos, "keypoints")
    assert all(value is batch[name] for name, value in changed(batch, PLAIN).items())


def trainer(demos, augmented, shares=(), steps=6):
    config = PolicyConfig()
    train = TrainConfig(steps=steps, epoch_steps=3, batch_size=16, augment=augmented)
    split = ibc_demos.split(demos, SplitConfig(shares=shares))
    shape = (config.obs_mode, config.obs_horizon, config.action_horizon)
    data = [Windows(demos, e, *shape) for e in (split.train_episodes, split.val_episodes)]
    policy = build_policy(config, fit_normalizer(config, data[0]), generator_seed=0)
    return Trainer(policy, *data, train, SEEDS, shares=shares)


def test_an_augmented_run_resumes_to_the_bit(toy_demos):
    augmented = AugmentConfig(mirror=0.5, history_noise=4.0, frame_dropout=0.1)
    whole, first = trainer(toy_demos, augmented), trainer(toy_demos, augmented)
    whole.run_epoch()
    whole.run_epoch()
    first.run_epoch()
    second = trainer(toy_demos, augmented)
    second.load_state_dict(first.state_dict())
    second.run_epoch()
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name


def test_data_sets_are_mixed_by_their_shares(toy_demos):
    other = dataclasses.replace(toy_demos, fingerprint="other", path="other")
    both = ibc_demos.join([toy_demos, other])
    run = trainer(both, PLAIN, shares=(0.25, 0.75), steps=200)
    rows = len(toy_demos.action)
    drawn = []
    for run.step in range(200):
        drawn.append(run.train.steps[run._indices()])
    share = (np.concatenate(drawn) >= rows).mean()
    assert share == pytest.approx(0.75, abs=0.03)
    alone = trainer(both, PLAIN, shares=(1.0, 0.0))
    assert alone.train.steps.max() < rows
    # Validation is that of the first set, so runs on other mixtures can be compared.
    assert run.validation.rows.max() < rows
    with pytest.raises(ValueError, match="shares must be empty or one for each of 2 data sets"):
        trainer(both, PLAIN, shares=(1.0,))
    with pytest.raises(ValueError, match="must add up to 1"):
        SplitConfig(shares=(0.5, 0.6))


def test_joined_images_are_those_of_the_sets(toy_demos):
    other = dataclasses.replace(toy_demos, images=255 - toy_demos.images)
    both = ibc_demos.join([toy_demos, other])
    rows = np.array([[0, 400], [5, 719]])
    expected = np.concatenate([toy_demos.images, other.images])[rows]
    assert np.array_equal(both.images[rows], expected)
    with pytest.raises(ValueError, match="must all be read with images, or none"):
        ibc_demos.join([toy_demos, dataclasses.replace(toy_demos, images=None)])
