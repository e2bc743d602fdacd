"""The method's settings: every rule is named, with what was given."""

import dataclasses
import math

import pytest

from ibc.config.action import ActionConfig
from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig, LossConfig, NegativesConfig
from ibc.config.policy import PolicyConfig, config_from_plain, config_warnings
from ibc.config.training import TrainConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActionConfig(frame="board", bounds="window"), 'needs action.frame "agent"'),
        (lambda: ActionConfig(margin=-0.1), "action.margin .* at least 0 .* got -0.1"),
        (lambda: ActionConfig(window=0.0), "action.window .* above 0"),
        (lambda: ActionConfig(frame="robot"), "action.frame must be one of board, agent"),
        (lambda: EncoderConfig(reduce_maps=256), "must not exceed the trunk's 128 channels"),
        (lambda: EncoderConfig(channels=()), "encoder.channels must hold 1 to 5"),
        (lambda: EncoderConfig(crop=97), "encoder.crop .* at most 96, got 97"),
        (lambda: EncoderConfig(temperature=math.nan), "finite number above 0, got nan"),
        (lambda: EnergyConfig(width=0), "energy.width .* at least 1"),
        (lambda: EnergyConfig(depth=True), "energy.depth must be a whole number"),
        (lambda: NegativesConfig(count=0), "negatives.count .* got 0"),
        (lambda: NegativesConfig(scales=(0.9,)), "negatives.scales .* at most 0.5"),
        (lambda: InferenceConfig(readout="median"), "readout must be one of argmax"),
        (lambda: InferenceConfig(bandwidth=0.0), "inference.bandwidth .* above 0"),
        (lambda: InferenceConfig(samples=1.5), "inference.samples must be a whole number"),
        (lambda: PolicyConfig(obs_horizon=0), "policy.obs_horizon .* at least 1"),
        (lambda: PolicyConfig(action_horizon=2), '"lattice" needs policy.action_horizon 1'),
        (
            lambda: PolicyConfig(inference=InferenceConfig("autoregressive")),
            '"autoregressive" belongs to energy.conditionals .* conditionals "joint"',
        ),
        (
            lambda: PolicyConfig(energy=EnergyConfig(conditionals="steps")),
            'belongs to energy.conditionals .* got \'sampler "lattice" with conditionals "steps"',
        ),
        (lambda: NegativesConfig("langevin"), "negatives.shared must be false, got .*langevin"),
        (lambda: NegativesConfig("proposal"), "negatives.shared must be false, got .*proposal"),
        (
            lambda: PolicyConfig(inference=InferenceConfig("proposal")),
            'draws from that of negatives.sampler "proposal", got .*uniform',
        ),
        (
            lambda: PolicyConfig(
                energy=EnergyConfig(conditionals="steps"),
                negatives=NegativesConfig("proposal", shared=False),
                inference=InferenceConfig("autoregressive"),
            ),
            "energy.conditionals must be \"joint\", got 'steps'",
        ),
        (
            lambda: PolicyConfig(
                negatives=NegativesConfig("proposal", shared=False),
                loss=LossConfig(form="likelihood"),
            ),
            "needs loss.form \"info_nce\".* got 'likelihood'",
        ),
        (
            lambda: InferenceConfig("proposal", warm_start=0.5),
            "warm_start needs samples .* got 'proposal'",
        ),
        (lambda: NegativesConfig(moved_share=0.0), "negatives.moved_share .* above 0"),
        (lambda: NegativesConfig(iterations=1), "negatives.iterations .* at least 2"),
        (lambda: InferenceConfig(warm_start=0.5), "warm_start needs samples .* got 'lattice'"),
        (
            lambda: InferenceConfig("autoregressive", warm_start=0.5),
            "warm_start needs samples .* got 'lattice'",
        ),
        (lambda: InferenceConfig(warm_noise=-1.0), "inference.warm_noise"),
        (lambda: InferenceConfig(clip=1), "inference.clip must be true or false, got 1"),
        (lambda: InferenceConfig(part_sampler="grid"), "inference.part_sampler must be one of"),
        (lambda: LossConfig(gradient_share=0.125), "retired and must be 1.0, got 0.125"),
        (lambda: LossConfig(penalty_norm="2"), "retired and must be \"inf\", got '2'"),
        (lambda: PolicyConfig(kind="gan"), "policy.kind must be one of"),
        (lambda: TrainConfig(learning_rate=math.inf), "train.learning_rate must be a finite"),
        (lambda: TrainConfig(betas=(0.9, 1.0)), "train.betas must be below 1"),
        (lambda: TrainConfig(ema_decay=1.0), "train.ema_decay must be below 1"),
        (lambda: TrainConfig(grad_clip=0.0), "train.grad_clip"),
        (lambda: TrainConfig(learning_rate="1e-3"), "train.learning_rate .* got '1e-3'"),
    ],
)
def test_rules_are_named_with_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_config_survives_plain_values():
    config = PolicyConfig(
        kind="ibc",
        obs_mode="image",
        encoder=EncoderConfig(channels=(8, 16), reduce_maps=None),
        negatives=NegativesConfig(sampler="mixture", scales=(0.2, 0.1)),
    )
    plain = dataclasses.asdict(config)
    plain["encoder"]["channels"] = list(plain["encoder"]["channels"])
    assert config_from_plain(PolicyConfig, plain) == config


def test_joint_samples_over_chunks_are_warned_of_with_the_way_out():
    dfo = InferenceConfig("dfo")
    assert config_warnings(PolicyConfig()) == []
    assert config_warnings(PolicyConfig(action_horizon=2, inference=dfo)) == []
    assert config_warnings(PolicyConfig("mse", action_horizon=8, inference=dfo)) == []
    mixture = NegativesConfig("mixture")
    (text,) = config_warnings(PolicyConfig(action_horizon=4, negatives=mixture, inference=dfo))
    assert "joint DFO over 8 action dimensions" in text
    assert 'take energy.conditionals "steps" with inference.sampler "autoregressive"' in text
    (text,) = config_warnings(PolicyConfig(action_horizon=4, inference=InferenceConfig("langevin")))
    assert "uniform negatives over 8 action dimensions" in text
    assert 'take energy.conditionals "steps", or negatives.sampler "proposal"' in text
    way_out = PolicyConfig(
        action_horizon=4,
        energy=EnergyConfig(conditionals="steps"),
        inference=InferenceConfig("autoregressive"),
    )
    assert config_warnings(way_out) == []


def test_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r"policy.energy has the keys fusion.*got 'widht'"):
        config_from_plain(PolicyConfig, {"energy": {"widht": 3}})


def test_a_retired_setting_is_read_at_its_only_value():
    plain = {"loss": {"gradient_share": 1.0}}
    assert config_from_plain(PolicyConfig, plain) == PolicyConfig()


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=1000, warmup_steps=100, learning_rate=1e-3)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == pytest.approx(1e-3)
    assert rates[550] == pytest.approx(5e-4)
    assert 0.0 <= rates[-1] < 1e-8
    assert max(rates) <= 1e-3
    constant = dataclasses.replace(config, schedule="constant")
    assert constant.learning_rate_at(999) == 1e-3
