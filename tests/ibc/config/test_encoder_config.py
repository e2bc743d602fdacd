"""Settings of encoders and energies: what goes together, what is kept, what old files mean."""

import dataclasses
import json

import pytest

from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig
from ibc.config.policy import PolicyConfig, config_from_plain

OLD_ENCODER = {
    "trunk": "conv",
    "channels": [16, 32],
    "reduce_maps": None,
    "pooling": "average",
    "temperature": 0.5,
    "learn_temperature": False,
    "crop": None,
    "stacking": "channels",
    "features": 32,
    "state_width": 128,
    "state_depth": 2,
}
OLD_ENERGY = {"fusion": "concat", "width": 64, "depth": 3, "dropout": 0.1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(trunk="vgg"), "trunk must be one of conv, residual, resnet18"),
        (lambda: EncoderConfig(stacking="mean"), "stacking must be one of features, channels"),
        (lambda: EncoderConfig(downsample="avg"), "downsample must be one of stride, max_pool"),
        (lambda: EncoderConfig(norm="batch"), "norm must be one of group, none"),
        (lambda: EncoderConfig(low_dim="raw"), "low_dim must be one of pushing, plain"),
        (lambda: EncoderConfig(coordinates=1), "coordinates must be true or false, got 1"),
        (lambda: EncoderConfig(coordinates=True), "retired and must be false, got True"),
        (lambda: EncoderConfig(learn_temperature=True), "retired and must be false, got True"),
        (lambda: EncoderConfig(reduce_relu="yes"), "reduce_relu must be true or false"),
        (
            lambda: EncoderConfig(reduce_maps=None, reduce_relu=True),
            "reduce_relu needs encoder.reduce_maps",
        ),
        (
            lambda: EncoderConfig(trunk="residual", channels=(8, 16), reduce_maps=17),
            "must not exceed the trunk's 16 channels, got 17",
        ),
        (
            lambda: EncoderConfig(trunk="resnet18", downsample="none"),
            'downsample needs encoder.trunk "conv" or "residual"',
        ),
        (lambda: EncoderConfig(trunk="resnet18", norm="none"), "encoder.norm needs encoder.trunk"),
        (lambda: EncoderConfig(trunk="resnet18", patch=2), "encoder.patch needs encoder.trunk"),
        (lambda: EncoderConfig(patch=5), r"patch must divide the 84 px wide images .*, got 5"),
        (lambda: EncoderConfig(patch=0), "encoder.patch .* at least 1 and at most 16, got 0"),
        (
            lambda: EncoderConfig(patch=4, channels=(32,) * 5),
            "softargmax\" needs maps at least 2 px wide .*, got '1 px'",
        ),
        (
            lambda: EncoderConfig(channels=(32,) * 5, crop=32),
            "softargmax\" needs maps at least 2 px wide .*, got '1 px'",
        ),
        (lambda: EncoderConfig(trunk="resnet18", crop=32), "maps at least 2 px wide"),
        (lambda: EncoderConfig(state_width=0), "encoder.state_width .* at least 1"),
        (
            lambda: PolicyConfig(encoder=EncoderConfig(stacking="channels")),
            '"channels" needs policy.obs_mode "image", got \'keypoints\'',
        ),
        (lambda: EnergyConfig(head="transformer"), "energy.head must be one of mlp, resnet"),
        (lambda: EnergyConfig(head="resnet"), '"resnet" needs energy.fusion "concat"'),
        (lambda: EnergyConfig("concat", head="resnet", depth=3), "even energy.depth .* got 3"),
        (lambda: EnergyConfig(spectral_norm=None), "spectral_norm must be true or false"),
        (lambda: EnergyConfig(spectral_norm=True), "retired and must be false, got True"),
        (lambda: EnergyConfig(conditionals="all"), "must be one of joint, steps, dimensions"),
    ],
)
def test_rules_are_named_with_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_new_setting_survives_json():
    encoder = EncoderConfig(
        trunk="residual",
        channels=(16, 32, 32),
        reduce_maps=16,
        stacking="attention",
        downsample="max_pool",
        norm="none",
        reduce_relu=True,
        low_dim="plain",
        patch=4,
        pose=True,
    )
    energy = EnergyConfig("concat", head="resnet", depth=8, dropout=0.1)
    for part, given in ((EncoderConfig(), encoder), (EnergyConfig(), energy)):
        new = {f.name for f in dataclasses.fields(part)} - set(OLD_ENCODER) - set(OLD_ENERGY)
        same = {name for name in new if getattr(part, name) == getattr(given, name)}
        retired = {"coordinates", "spectral_norm"}
        assert same <= {"conditionals", "dropout_masks"} | retired, "settings that stay the same"
    config = PolicyConfig(obs_mode="image", encoder=encoder, energy=energy)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_from_plain(PolicyConfig, plain) == config


def test_configs_from_before_mean_what_they_meant():
    plain = {"obs_mode": "image", "encoder": OLD_ENCODER, "energy": OLD_ENERGY}
    config = config_from_plain(PolicyConfig, plain)
    for part, old in ((config.encoder, OLD_ENCODER), (config.energy, OLD_ENERGY)):
        defaults = type(part)()
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            wanted = old.get(field.name, getattr(defaults, field.name))
            assert value == (tuple(wanted) if isinstance(wanted, list) else wanted)
    new = EncoderConfig()
    found = (new.downsample, new.norm, new.coordinates, new.reduce_relu, new.low_dim)
    assert found == ("stride", "group", False, False, "pushing")
