"""The encoder that reads the block's place out of an image."""

import math

import numpy as np
import pytest
import torch

from envs.physics.geometry import keypoints
from envs.rendering.observations import render_observations
from ibc.config.encoder import EncoderConfig
from ibc.config.policy import PolicyConfig
from ibc.data import symmetry
from ibc.data.normalizer import Normalizer
from ibc.encoders import pose
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy, load_policy

ENCODER = EncoderConfig(pose=True, patch=2, channels=(16, 32), crop=84)
CONFIG = PolicyConfig(obs_mode="image", encoder=ENCODER)


@pytest.fixture(scope="module")
def batch():
    """32 windows of two frames in which agent and block stand anywhere."""
    rng = np.random.default_rng(0)
    states = rng.uniform(120, 392, (64, 5))
    states[:, 4] = rng.uniform(0, 2 * math.pi, 64)
    points = keypoints(states)[:, :18]
    frames = torch.from_numpy(render_observations(states)).unflatten(0, (32, 2))
    agent = torch.from_numpy(states[:, :2]).float().unflatten(0, (32, 2))
    return {
        "image": frames,
        "agent_pos": agent,
        "block_points": torch.from_numpy(points).float()[1::2],
        "action": agent[:, 1:] + torch.randn(32, 1, 2, generator=torch.Generator().manual_seed(0)),
    }


def policy(kind="ibc") -> Policy:
    bounds = torch.full((2,), 100.0)
    config = PolicyConfig(obs_mode="image", encoder=ENCODER, kind=kind)
    return build_policy(config, Normalizer(config.action, -bounds, bounds), generator_seed=0)


def test_a_moved_crop_moves_nothing(batch, monkeypatch):
    """Agent, block and crop moved by the same pixels give points moved by these pixels."""
    encoder = pose.PoseEncoder(ENCODER, 2)
    frames = torch.zeros_like(batch["image"])
    frames[:, :, 12:80, 12:80] = batch["image"][:, :, 12:80, 12:80]
    corners = torch.full((32,), 6), torch.full((32,), 6)
    monkeypatch.setattr(pose, "crop_corners", lambda *_: corners)
    first = encoder.estimate({"image": frames, "agent_pos": batch["agent_pos"]})
    right, down = 3, -4
    moved = {
        "image": frames.roll((down, right), (2, 3)),
        "agent_pos": batch["agent_pos"] + torch.tensor([right, down]) * pose.PER_PIXEL,
    }
    corners = torch.full((32,), 6 + down), torch.full((32,), 6 + right)
    second = encoder.estimate(moved)
    by = torch.tensor([right, down] * 9) * pose.PER_PIXEL
    assert torch.allclose(second - first, by.expand(32, -1), atol=1e-2)


def test_older_images_are_not_seen_and_older_positions_are(batch):
    encoder = pose.PoseEncoder(ENCODER, 2)
    first = encoder(batch)
    images = batch["image"].clone()
    images[:, 0] = 0
    assert torch.equal(encoder({**batch, "image": images}), first)
    places = batch["agent_pos"].clone()
    places[:, 0] += 5.0
    assert not torch.equal(encoder({**batch, "agent_pos": places}), first)


@pytest.mark.parametrize(
    "kind", ["ibc", "mse", *(pytest.param(k, marks=pytest.mark.slow) for k in ("mdn", "diffusion"))]
)
def test_the_points_are_learned_and_kept(batch, kind, tmp_path):
    learner, generator = policy(kind), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        loss, metrics = learner.compute_loss(batch, generator, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(metrics["pose_error_px"]))
    assert np.mean(errors[-5:]) < 0.6 * errors[0]
    learner.save(tmp_path)
    obs = {name: batch[name] for name in ("image", "agent_pos")}
    draws = [[torch.Generator().manual_seed(i) for i in range(32)] for _ in range(2)]
    mine, other = (
        p.predict_action(obs, d)
        for p, d in zip((learner, load_policy(tmp_path)), draws, strict=True)
    )
    assert torch.equal(mine, other)


def test_its_loss_adds_a_gradient_and_no_value(batch):
    learner = policy("mse")
    loss, _ = learner.compute_loss(batch, torch.Generator())
    wrong = {**batch, "block_points": batch["block_points"] + 100.0}
    other, _ = learner.compute_loss(wrong, torch.Generator())
    assert torch.equal(loss, other)
    (first,) = torch.autograd.grad(loss, [learner.encoder.points.layers[-1].bias])
    (second,) = torch.autograd.grad(other, [learner.encoder.points.layers[-1].bias])
    assert not torch.allclose(first, second)


def test_labels_are_mirrored_with_the_image(batch):
    whole = torch.cat([batch["block_points"], batch["agent_pos"][:, 1]], 1)
    mirrored = symmetry.mirror({"keypoints": whole, "block_points": batch["block_points"]})
    assert torch.equal(mirrored["keypoints"][:, :18], mirrored["block_points"])


def test_what_cannot_be_is_refused(batch):
    with pytest.raises(ValueError, match=r"windows must hold the places of the block"):
        policy().compute_loss({k: v for k, v in batch.items() if k != "block_points"}, None)
    with pytest.raises(ValueError, match=r'encoder\.pose needs policy\.obs_mode "image"'):
        PolicyConfig(obs_mode="keypoints", encoder=ENCODER)
