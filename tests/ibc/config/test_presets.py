"""The presets hold the references' values, one by one, and are whole recipes that run."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[3]))

from benchmarks.health_cases import Run, short_training, small
from ibc.config.presets import PRESETS, preset
from ibc.data.demos import Split
from ibc.policies.factory import build_policy, load_policy

SPLIT = Split(tuple(range(10)), (10, 11))
ADAM = {
    "learning_rate": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "schedule": "exponential",
    "decay": 0.99,
    "decay_every": 100,
    "warmup_steps": 0,
    "ema_decay": None,
    "grad_clip": None,
}
DP = {
    "kind": "ibc",
    "obs_horizon": 2,
    "action_horizon": 1,
    "action.frame": "board",
    "action.bounds": "data",
    "action.margin": 0.0,
    "energy.fusion": "concat",
    "energy.head": "mlp",
    "energy.width": 1024,
    "energy.depth": 4,
    "energy.dropout": 0.1,
    "negatives.sampler": "uniform",
    "negatives.count": 1024,
    "negatives.shared": False,
    "loss.gradient_penalty": 0.0,
    "inference.sampler": "dfo",
    "inference.samples": 1024,
    "inference.iterations": 5,
    "inference.noise": 0.03,
    "inference.shrink": 1.0,
    "inference.clip": False,
    "inference.readout": "sample",
    "encoder.low_dim": "plain",
}
DP_TRAIN = {
    "learning_rate": 1e-4,
    "betas": (0.95, 0.999),
    "weight_decay": 1e-6,
    "schedule": "cosine",
    "warmup_steps": 500,
    "ema_decay": None,
    "grad_clip": None,
}
GOOGLE = {
    "kind": "ibc",
    "obs_horizon": 2,
    "action_horizon": 1,
    "action.frame": "board",
    "action.bounds": "data",
    "action.margin": 0.05,
    "energy.head": "resnet",
    "negatives.shared": False,
    "inference.readout": "argmax",
    "inference.clip": True,
}
DFO = {
    "inference.sampler": "dfo",
    "inference.iterations": 3,
    "inference.noise": 0.33,
    "inference.shrink": 0.5,
    "inference.clip": True,
    "inference.readout": "argmax",
}
TABLE = {
    "dp_state": (
        {**DP, "obs_mode": "keypoints", "encoder.state_depth": 0},
        {**DP_TRAIN, "batch_size": 256, "steps": 220_000},
    ),
    "dp_image": (
        {
            **DP,
            "obs_mode": "image",
            "encoder.trunk": "resnet18",
            "encoder.norm": "group",
            "encoder.reduce_maps": 32,
            "encoder.pooling": "softargmax",
            "encoder.features": 64,
            "encoder.crop": 84,
            "encoder.stacking": "features",
        },
        {**DP_TRAIN, "batch_size": 128, "steps": 268_000},
    ),
    "google_states": (
        {
            **GOOGLE,
            "obs_mode": "state",
            "encoder.state_depth": 0,
            "energy.width": 128,
            "energy.depth": 8,
            "negatives.sampler": "langevin",
            "negatives.count": 8,
            "loss.gradient_penalty": 1.0,
            "loss.penalty_margin": 1.0,
            "loss.penalty_norm": "inf",
            "inference.sampler": "langevin",
            "inference.samples": 512,
            "inference.langevin.repeats": 2,
            **{
                f"{part}.langevin.{name}": value
                for part in ("negatives", "inference")
                for name, value in {
                    "form": "google",
                    "steps": 100,
                    "first_step": 0.1,
                    "last_step": 1e-5,
                    "power": 2.0,
                    "noise": 1.0,
                }.items()
            },
        },
        {**ADAM, "batch_size": 512, "steps": 100_000},
    ),
    "google_pixels": (
        {
            **GOOGLE,
            **DFO,
            "obs_mode": "image",
            "encoder.trunk": "conv",
            "encoder.channels": (32, 64, 128, 256),
            "encoder.downsample": "max_pool",
            "encoder.reduce_maps": None,
            "encoder.pooling": "average",
            "encoder.crop": None,
            "encoder.stacking": "channels",
            "energy.width": 1024,
            "energy.depth": 2,  # one residual block
            "negatives.sampler": "uniform",
            "negatives.count": 256,
            "inference.samples": 2048,
        },
        {**ADAM, "batch_size": 128, "steps": 100_000},
    ),
    "kevinzakka": (
        {
            **DFO,
            "kind": "ibc",
            "obs_mode": "image",
            "obs_horizon": 1,
            "action.margin": 0.0,
            "encoder.trunk": "residual",
            "encoder.channels": (16, 32, 32),
            "encoder.downsample": "none",
            "encoder.reduce_maps": 16,
            "encoder.reduce_relu": True,
            "encoder.pooling": "softargmax",
            "encoder.crop": None,
            "energy.head": "mlp",
            "energy.width": 256,
            "energy.depth": 1,
            "negatives.count": 128,
            "inference.samples": 16384,
        },
        {**ADAM, "batch_size": 8, "steps": 8_000},
    ),
}


def value_at(config, dotted):
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_is_the_references(name):
    policy, train = preset(name)
    for config, wanted in zip((policy, train), TABLE[name], strict=True):
        assert {key: value_at(config, key) for key in wanted} == wanted
    assert PRESETS[name].source
    assert PRESETS[name].differs


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"dp_state, .* \(did you mean google_pixels\?\), got 'go"):
        preset("google_pixel")
    with pytest.raises(ValueError, match="preset must be one of"):
        preset(["dp_state"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_predicts_and_comes_back_from_the_disk(toy_demos, tmp_path, name):
    policy = small(name)
    train = dataclasses.replace(
        preset(name)[1], steps=2, epoch_steps=2, batch_size=4, val_windows=4
    )
    trainer = Run(toy_demos, policy, train, SPLIT).trainer()
    assert trainer.run_epoch()["step"] == 2
    obs = {k: torch.from_numpy(v) for k, v in trainer.train.batch([0, 40]).items()}
    trainer.policy.save(tmp_path)
    actions = [
        made.predict_action(obs, [torch.Generator().manual_seed(i) for i in range(2)])
        for made in (trainer.policy, load_policy(tmp_path))
    ]
    assert actions[0].shape == (2, 1, 2)
    assert torch.equal(*actions)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_at_its_full_size(toy_demos, name):
    policy = preset(name)[0]
    trainer = Run(toy_demos, small(name), short_training(policy), SPLIT).trainer()
    with torch.device("meta"):
        built = build_policy(policy, trainer.policy.normalizer, generator_seed=0)
    count = sum(value.numel() for value in built.parameters())
    thousands = {
        "dp_state": 3_194,
        "dp_image": 14_485,
        "google_states": 134,
        "google_pixels": 2_825,
        "kevinzakka": 67,
    }
    assert round(count / 1000) == thousands[name]
