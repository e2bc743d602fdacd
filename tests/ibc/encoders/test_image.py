"""Image encoders: what they see, where softargmax points, and how crops are taken."""

import pytest
import torch

from ibc.config.encoder import EncoderConfig
from ibc.encoders.backbones import ResidualBlock, ResNet18, build_backbone, group_norm
from ibc.encoders.image import (
    ImageEncoder,
    SoftArgmax,
    copied_crops,
    crop_frames,
    fold,
    gathered_crops,
)
from ibc.encoders.pose import build_encoder


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
    assert SoftArgmax(1.0)(maps)[0].tolist() == pytest.approx([1.0, 0.0, -0.5, 0.0])


def test_softargmax_temperature_flattens():
    maps = torch.zeros(1, 1, 1, 3)
    maps[..., 2] = 1.0
    sharp, flat = (SoftArgmax(t)(maps)[0, 0].item() for t in (0.1, 10.0))
    assert sharp > 0.99
    assert 0.0 < flat < 0.1


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


def test_crops_of_a_gpu_are_those_of_a_cpu():
    frames, top, left = images(n=4)["image"], [0, 12, 5, 3], [12, 0, 7, 3]
    gathered = gathered_crops(frames, 84, torch.tensor(top), torch.tensor(left))
    assert torch.equal(gathered, copied_crops(frames, 84, top, left))


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("channels", [3, 6])
def test_the_pixels_of_a_patch_become_the_channels_of_its_place(patch, channels):
    frames = torch.randint(256, (2, 16, 16, channels), dtype=torch.uint8)[:, 4:, :8]
    folded = fold(frames, patch)
    assert folded.shape == (2, 12 // patch, 8 // patch, patch**2 * channels)
    for y in range(12 // patch):
        for x in range(8 // patch):
            square = frames[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            assert torch.equal(folded[:, y, x], square.flatten(1))
    assert fold(frames.to("meta"), patch).shape == folded.shape


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="must fit into 64 x 64 images, got 84"):
        crop_frames(images(side=64)["image"], 84, None)


SMALL = {"channels": (8, 16), "reduce_maps": 8, "features": 12}
IMAGE_ENCODERS = [
    *[
        {"pooling": pooling, "reduce_maps": maps}
        for pooling in ("softargmax", "average", "max")
        for maps in (None, 8)
    ],
    {"trunk": "resnet18"},
    {"trunk": "resnet18", "pooling": "average", "reduce_maps": None},
    {"trunk": "residual"},
    {"trunk": "residual", "norm": "none", "downsample": "max_pool"},
    {"downsample": "max_pool", "pooling": "average"},
    {"downsample": "none", "norm": "none", "reduce_relu": True, "crop": 32},
    {"stacking": "recurrent"},
    {"stacking": "attention"},
    {"stacking": "channels", "trunk": "residual"},
    {"stacking": "channels", "patch": 2},
    {"patch": 4, "downsample": "none"},
]


@pytest.mark.parametrize("changes", IMAGE_ENCODERS, ids=str)
@pytest.mark.parametrize("horizon", [1, 3])
def test_every_image_encoder_has_the_features_it_says_and_gradients_everywhere(changes, horizon):
    config = EncoderConfig(**{**SMALL, **changes})
    torch.manual_seed(0)
    encoder = build_encoder(config, "image", horizon)
    features = encoder(images(frames=horizon, side=48 if config.crop == 32 else 96))
    vectors = horizon if config.stacking == "features" else 1
    assert features.shape == (2, encoder.out_features) == (2, vectors * 12 + 2 * horizon)
    features.pow(3).sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("changes", IMAGE_ENCODERS, ids=str)
def test_the_width_of_the_last_map_is_known_beforehand(changes):
    config = EncoderConfig(**{**SMALL, **changes})
    for side in (84, 63, 32):
        if side % config.patch:
            continue
        folded = side // config.patch
        maps = build_backbone(config, 3)(torch.zeros(1, 3, folded, folded))
        assert maps.shape == (1, config.maps, *[config.map_side(side)] * 2)


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


def test_relu_behind_the_reduction():
    obs = images(frames=1)
    outputs = []
    for relu in (False, True):
        torch.manual_seed(0)
        encoder = ImageEncoder(EncoderConfig(**SMALL, reduce_relu=relu), 1)
        assert encoder.pool is not None
        encoder.pool.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0].clone()))
        encoder(obs)
    assert outputs[0].min() < 0
    assert torch.equal(outputs[1], outputs[0].relu())


@pytest.mark.parametrize("stacking", ["features", "channels", "recurrent", "attention"])
def test_an_observation_passes_the_trunk_once(stacking):
    encoder = ImageEncoder(EncoderConfig(**SMALL, stacking=stacking), 4)
    passes = []
    encoder.trunk.register_forward_hook(lambda *_: passes.append(1))
    encoder(images(frames=4))
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("obs_mode", "stacking"),
    [
        *[("image", stacking) for stacking in ("channels", "recurrent", "attention")],
        *[("state", stacking) for stacking in ("recurrent", "attention")],
    ],
)
def test_one_frame_is_encoded_alike_by_every_stacking(obs_mode, stacking):
    obs = images(frames=1) if obs_mode == "image" else {"state": torch.rand(2, 1, 5) * 400}
    found = []
    for name in ("features", stacking):
        torch.manual_seed(0)
        found.append(build_encoder(EncoderConfig(**SMALL, stacking=name), obs_mode, 1)(obs))
    assert torch.equal(*found)


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


@pytest.mark.parametrize("norm", ["group", "none"])
def test_every_convolution_of_a_residual_trunk_matters(norm):
    torch.manual_seed(0)
    trunk = build_backbone(
        EncoderConfig(trunk="residual", channels=(8, 8), reduce_maps=4, norm=norm), 3
    )
    x = torch.randn(2, 3, 32, 32)
    out = trunk(x)
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            kept = module.weight.detach().clone()
            with torch.no_grad():
                module.weight.zero_()
                assert not torch.allclose(trunk(x), out)
                module.weight.copy_(kept)
    norms = [m for m in trunk.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) == (6 if norm == "group" else 0)


def test_trunk_sizes():
    assert ResNet18(3)(torch.zeros(1, 3, 84, 84)).shape == (1, 512, 3, 3)
    assert sum(p.numel() for p in ResNet18(3).parameters()) == 11_176_512
    assert build_backbone(EncoderConfig(), 3)(torch.zeros(1, 3, 84, 84)).shape == (1, 128, 11, 11)


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (128, 8), (24, 2), (7, 1), (16, 1)])
def test_group_norm_divides_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups
