"""Encoders: what they see, where softargmax points, and how crops are taken."""

import pytest
import torch

from ibc.encoders import EncoderConfig, ImageEncoder, StateEncoder, build_encoder
from ibc.pooling import SoftArgmax, crop_frames
from ibc.trunks import ConvTrunk, ResidualBlock, ResNet18, group_norm


def images(n=2, frames=2, side=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(
            256, (n, frames, side, side, 3), generator=generator, dtype=torch.uint8
        ),
        "agent_pos": torch.rand(n, frames, 2, generator=generator) * 512,
    }


def test_softargmax_points_at_the_peak_x_then_y():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 1, 8] = 50.0  # second row of five: y = -0.5; last column: x = 1
    maps[0, 1, 2, 4] = 50.0  # the middle
    assert SoftArgmax(1.0, False)(maps)[0].tolist() == pytest.approx([1.0, 0.0, -0.5, 0.0])


def test_softargmax_temperature_flattens_and_can_be_learned():
    maps = torch.zeros(1, 1, 1, 3)
    maps[..., 2] = 1.0
    sharp, flat = (SoftArgmax(t, False)(maps)[0, 0].item() for t in (0.1, 10.0))
    assert sharp > 0.99
    assert 0.0 < flat < 0.1
    learned = SoftArgmax(1.0, True)
    learned(maps).sum().backward()
    assert learned.log_temperature.grad is not None
    assert learned.log_temperature.grad.abs() > 0
    assert not SoftArgmax(1.0, False).log_temperature.requires_grad


def test_centre_crop_without_a_generator():
    frames = images()["image"]
    assert torch.equal(crop_frames(frames, 84, None), frames[:, :, 6:90, 6:90])
    assert crop_frames(frames, None, None) is frames


def test_random_crop_is_one_window_for_all_frames_of_a_sample():
    frames = images(n=16, frames=2)["image"]
    crops = crop_frames(frames, 84, torch.Generator().manual_seed(0))
    assert crops.shape == (16, 2, 84, 84, 3)
    assert crops.dtype == torch.uint8
    found = set()
    for crop, frame in zip(crops, frames, strict=True):
        at = [
            (top, left)
            for top in range(13)
            for left in range(13)
            if torch.equal(crop, frame[:, top : top + 84, left : left + 84])
        ]
        assert len(at) == 1
        found.add(at[0])
    assert len(found) > 8, "samples have offsets of their own"


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="must fit into 64 x 64 images, got 84"):
        crop_frames(images(side=64)["image"], 84, None)


@pytest.mark.parametrize(
    ("trunk", "pooling", "reduce_maps"),
    [
        *[("conv", pooling, m) for pooling in ("softargmax", "average", "max") for m in (None, 8)],
        ("resnet18", "softargmax", 8),
        ("resnet18", "average", None),
    ],
)
def test_every_image_encoder_has_the_features_it_says_and_gradients_everywhere(
    trunk, pooling, reduce_maps
):
    config = EncoderConfig(
        trunk=trunk, channels=(8, 16), reduce_maps=reduce_maps, pooling=pooling, features=12
    )
    torch.manual_seed(0)
    encoder = build_encoder(config, "image", 2)
    features = encoder(images())
    assert features.shape == (2, encoder.out_features) == (2, 2 * 12 + 4)
    features.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_channel_stacking_sees_every_frame_in_one_pass():
    encoder = ImageEncoder(EncoderConfig(channels=(8,), reduce_maps=4, stacking="channels"), 3)
    obs = images(frames=3)
    before = encoder(obs)
    assert before.shape == (2, 64 + 6)
    for frame in range(3):
        changed = {**obs, "image": obs["image"].clone()}
        changed["image"][:, frame] = 255 - changed["image"][:, frame]
        assert not torch.allclose(encoder(changed)[:, :64], before[:, :64])


def test_feature_stacking_keeps_the_order_of_frames():
    encoder = ImageEncoder(EncoderConfig(channels=(8,), reduce_maps=4, features=5), 2)
    obs = images()
    flipped = {name: value.flip(1) for name, value in obs.items()}
    features, swapped = encoder(obs), encoder(flipped)
    torch.testing.assert_close(swapped[:, :5], features[:, 5:10])
    torch.testing.assert_close(swapped[:, 5:10], features[:, :5])


def test_image_scale_is_the_encoders_own():
    """White is 1, black is -1 at the trunk, whatever the caller does: images are uint8."""
    encoder = ImageEncoder(EncoderConfig(channels=(8,), reduce_maps=4, crop=None), 1)
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    obs = images(frames=1)
    obs["image"][0], obs["image"][1] = 255, 0
    encoder(obs)
    assert seen[0][0].unique().tolist() == [1.0]
    assert seen[0][1].unique().tolist() == [-1.0]


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


def test_both_convolutions_of_a_residual_block_matter():
    torch.manual_seed(0)
    block = ResidualBlock(16, 32, stride=2)
    x = torch.randn(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    out.square().sum().backward()
    for convolution in (block.conv1, block.conv2):
        assert convolution.weight.grad.abs().sum() > 0
    with torch.no_grad():
        block.conv1.weight.zero_()
    assert not torch.allclose(block(x), out), "the second convolution reads the first"


def test_trunk_sizes():
    assert ResNet18(3)(torch.zeros(1, 3, 84, 84)).shape == (1, 512, 3, 3)
    assert sum(p.numel() for p in ResNet18(3).parameters()) == 11_176_512
    assert ConvTrunk(3, (32, 64, 128))(torch.zeros(1, 3, 84, 84)).shape == (1, 128, 11, 11)


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (128, 8), (24, 2), (7, 1), (16, 1)])
def test_group_norm_divides_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups
