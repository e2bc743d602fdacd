"""Encoders of states and keypoints: the numbers that go in, and the frames they come from."""

import math

import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.encoders.state import StateEncoder


def test_the_state_angle_has_no_seam():
    encoder = StateEncoder(EncoderConfig(state_width=16, state_depth=1), "state", 1)
    at = [torch.tensor([[[100.0, 200.0, 300.0, 250.0, angle]]]) for angle in (1e-4, 6.28308)]
    torch.testing.assert_close(
        encoder({"state": at[0]}), encoder({"state": at[1]}), atol=1e-3, rtol=0
    )


def test_low_dimensional_features_are_positions_offsets_and_moves():
    encoder = StateEncoder(EncoderConfig(state_depth=0), "keypoints", 2)
    frames = torch.full((1, 2, 20), 256.0)
    frames[0, 1, 0] = 276.0  # the first keypoint is 20 px right of the agent and moved by 20 px
    features = encoder({"keypoints": frames})[0]
    assert encoder.out_features == len(features) == 20 + 18 + 20
    found = {i: round(value, 6) for i, value in enumerate(features.tolist()) if value}
    assert found == {0: 20 / 256, 20: 0.2, 38: 1.0}


def test_state_features_are_positions_offsets_and_moves():
    encoder = StateEncoder(EncoderConfig(state_depth=0), "state", 2)
    frames = torch.tensor([[[256.0, 256.0, 256.0, 306.0, 0.0]] * 2])
    frames[0, 0, 1] = 266.0  # the agent moved up by 10 px; the block is 50 px below it
    features = encoder({"state": frames})[0]
    assert encoder.out_features == len(features) == 6 + 2 + 6
    expected = [0, 0, 0, 50 / 256, 0, 1, 0, 0.5, 0, -0.5, 0, 0, 0, 0]
    assert features.tolist() == pytest.approx(expected, abs=1e-5)


def test_plain_numbers_go_in_as_they_are():
    config = EncoderConfig(low_dim="plain", state_depth=0)
    encoder = StateEncoder(config, "state", 2)
    frames = torch.tensor([[[0.0, 512.0, 256.0, 128.0, 0.0], [512.0, 0.0, 64.0, 256.0, math.pi]]])
    assert not list(encoder.parameters())
    assert encoder.out_features == 10
    expected = [-1, 1, 0, -0.5, -1, 1, -1, -0.75, 0, 0]
    assert encoder({"state": frames})[0].tolist() == pytest.approx(expected)
    keypoints = torch.rand(3, 4, 20) * 512
    encoder = StateEncoder(config, "keypoints", 4)
    assert encoder.out_features == 80
    torch.testing.assert_close(
        encoder({"keypoints": keypoints}), keypoints.flatten(1) / 256 - 1, atol=1e-6, rtol=0
    )


def test_fused_frames_have_positions_offsets_and_moves_each():
    encoder = StateEncoder(EncoderConfig(stacking="recurrent", state_depth=0), "state", 3)
    assert encoder.fusion is not None
    seen = []
    encoder.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = torch.tensor([[[256.0, 256.0, 256.0, 306.0, 0.0]] * 3])
    frames[0, 1, 0] = 276.0  # to the right by 20 px, then back
    encoder({"state": frames})
    frames_TX = seen[0][0]
    assert frames_TX.shape == (3, 6 + 2 + 6)
    assert frames_TX[:, 0].tolist() == pytest.approx([0, 20 / 256, 0]), "the agent's place"
    assert frames_TX[:, 6].tolist() == pytest.approx([0, -0.2, 0]), "the block from the agent"
    assert frames_TX[:, 7].tolist() == pytest.approx([0.5] * 3)
    assert frames_TX[:, 8].tolist() == pytest.approx([0, 1, -1]), "its moves"
    assert frames_TX[0, 8:].tolist() == [0.0] * 6


@pytest.mark.parametrize("obs_mode", ["state", "keypoints"])
@pytest.mark.parametrize("stacking", ["features", "recurrent", "attention"])
@pytest.mark.parametrize("low_dim", ["pushing", "plain"])
@pytest.mark.parametrize("horizon", [1, 2, 8])
@pytest.mark.parametrize("depth", [0, 2])
def test_every_encoder_has_the_features_it_says_and_gradients_everywhere(
    obs_mode, stacking, low_dim, horizon, depth
):
    config = EncoderConfig(stacking=stacking, low_dim=low_dim, state_width=16, state_depth=depth)
    torch.manual_seed(0)
    encoder = StateEncoder(config, obs_mode, horizon)
    obs = {obs_mode: torch.rand(6, horizon, 5 if obs_mode == "state" else 20) * 500}
    features = encoder(obs)
    assert features.shape == (6, encoder.out_features)
    if any(p.requires_grad for p in encoder.parameters()):
        features.pow(3).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
