"""Acting with the inference memo gives the same bits as acting without it."""

import pytest
import torch
from torch import Tensor

from ibc.config.action import ActionConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig
from ibc.config.policy import PolicyConfig, config_from_plain
from ibc.data.normalizer import Normalizer
from ibc.layers import Memo
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy


def _policy(**settings: object) -> Policy:
    config = config_from_plain(PolicyConfig, {"action": {"frame": "board", "bounds": "board"}})
    config = PolicyConfig(**{**vars(config), **settings})  # type: ignore[arg-type]
    bounds = torch.zeros(2), torch.full((2,), 512.0)
    normalizer = Normalizer(ActionConfig(frame="board", bounds="board"), *bounds)
    return build_policy(config, normalizer, generator_seed=0).eval()


def _episode(policy: Policy, steps: int = 4) -> list[Tensor]:
    """Act for some steps of frames that follow on each other, losing an episode on the way."""
    random = torch.Generator().manual_seed(0)
    T, B = policy.obs_horizon, 3
    images = torch.randint(0, 256, (B, steps + T, 96, 96, 3), dtype=torch.uint8, generator=random)
    images[:, 2] = images[:, 1]  # a frame may come twice
    places = torch.rand(B, steps + T, 20, generator=random) * 512
    generators = [torch.Generator().manual_seed(row) for row in range(B)]
    found = []
    for step in range(steps):
        rows = [0, 1, 2] if step < 2 else [0, 2]
        obs = {
            "image": images[rows, step : step + T],
            "agent_pos": places[rows, step : step + T, :2],
            "keypoints": places[rows, step : step + T],
        }
        found.append(policy.predict_action(obs, [generators[row] for row in rows]))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"obs_mode": "image"},
        {"obs_mode": "keypoints"},
        {"obs_mode": "keypoints", "energy": EnergyConfig(fusion="concat", width=32)},
        {"obs_mode": "keypoints", "inference": InferenceConfig(sampler="dfo", samples=16)},
    ],
)
def test_acting_gives_the_same_bits(settings: dict[str, object]) -> None:
    policy = _policy(obs_horizon=2, **settings)
    plain = _episode(policy)
    with policy.acting():
        kept = _episode(policy)
    for a, b in zip(plain, kept, strict=True):
        assert torch.equal(a, b)


def test_a_frame_seen_before_is_not_encoded_again() -> None:
    policy = _policy(obs_mode="image", obs_horizon=2)
    seen: list[int] = []
    policy.encoder.trunk.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with policy.acting():
        _episode(policy)
    assert seen == [6, 2, 2]  # the second step brings nothing new
    seen.clear()
    _episode(policy)
    assert seen == [6, 6, 4, 4]


def test_new_weights_are_used_once_it_is_over() -> None:
    policy = _policy(obs_mode="keypoints", obs_horizon=2)
    with policy.acting():
        before = _episode(policy)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.5)
    expected = _episode(policy)
    with policy.acting():
        after = _episode(policy)
    assert torch.equal(after[0], expected[0])
    assert not torch.equal(after[0], before[0])


def test_a_memo_keeps_the_last_call_only() -> None:
    calls: list[int] = []

    def double(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows * 2

    memo = Memo()
    a = torch.arange(6.0).view(3, 2)
    assert torch.equal(memo.rows(a, double), a * 2)
    assert torch.equal(memo.rows(a[1:], double), a[1:] * 2)
    assert torch.equal(memo.rows(a, double), a * 2)  # the first row was forgotten
    assert calls == [3, 1]
    assert torch.equal(memo.whole(a, double), a * 2)
    a += 1.0  # the caller may write into what was given
    assert torch.equal(memo.whole(a, double), a * 2)
    assert calls == [3, 1, 3, 3]


def test_a_memo_forgets_the_input_that_was_asked_for_longest_ago() -> None:
    calls: list[float] = []

    def double(rows: Tensor) -> Tensor:
        calls.append(float(rows[0]))
        return rows * 2

    memo = Memo()
    # A lattice and probes that come again, and other candidates each time.
    for other in (10.0, 11.0, 12.0):
        for value in (other, 1.0, 2.0):
            given = torch.full((3,), value)
            assert torch.equal(memo.whole(given, double), given * 2)
    assert calls == [10.0, 1.0, 2.0, 11.0, 12.0]


@pytest.mark.parametrize(
    "energy",
    [
        EnergyConfig(width=16),
        EnergyConfig(fusion="concat", width=16),
        EnergyConfig(width=16, conditionals="dimensions"),
    ],
)
def test_actions_for_all_observations_are_those_of_each(energy: EnergyConfig) -> None:
    sampler = "lattice" if energy.conditionals == "joint" else "autoregressive"
    policy = _policy(
        obs_mode="keypoints", obs_horizon=1, energy=energy, inference=InferenceConfig(sampler)
    )
    random = torch.Generator().manual_seed(0)
    obs = {"keypoints": torch.rand(4, 1, 20, generator=random) * 512}
    actions_1KD = torch.rand(1, 5, 2, generator=random) * 2 - 1
    with torch.no_grad():
        shared = policy.energies(obs, actions_1KD)  # type: ignore[operator]
        single = policy.energies(obs, actions_1KD.expand(4, -1, -1))  # type: ignore[operator]
    assert shared.shape == (4, 5)
    torch.testing.assert_close(shared, single)
