"""Episode rows are what the world says, whatever shares the batch and whatever goes wrong."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import envs
from harness.config.protocol import MAX_EPISODES, Protocol, blocks, caution, parse_seeds, span
from harness.core.errors import UserError
from harness.evaluation.rollout import evaluate_block
from harness.storage.table_schemas import SCHEMAS
from ibc.policies.base import Policy

SEEDS = tuple(range(300_000, 300_006))
SHORT = Protocol(max_episode_steps=40)
TIMES = ("policy_ms", "env_ms", "render_ms")


class Centre:
    """Always the goal's centre; counts the rows of every inference."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_action(self, obs: dict[str, Tensor], generators: Any) -> Tensor:
        self.batches.append(len(obs["state"]))
        return torch.full((len(generators), 1, 2), 256.0)


class Random:
    """Chunks of three random targets, each episode's from its own generator."""

    obs_mode = "keypoints"
    obs_horizon = 2

    def predict_action(self, obs: dict[str, Tensor], generators: Sequence[Any]) -> Tensor:
        return torch.stack([torch.rand(3, 2, generator=g) * 512 for g in generators])


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_rows_are_those_of_the_public_environment() -> None:
    rows = evaluate_block(Centre(), SEEDS, SHORT)
    env = envs.PushTEnv(obs_mode="state", max_episode_steps=40)
    for seed, row in zip(SEEDS, rows, strict=True):
        state, _ = env.reset(seed=seed)
        agents, coverages, over = [state[:2]], [], False
        while not over:
            state, _, terminated, truncated, info = env.step(np.array([256.0, 256.0]))
            agents.append(state[:2])
            coverages.append(info["coverage"])
            over = terminated or truncated
        assert row["env_seed"] == seed
        assert row["max_coverage"] == max(coverages)
        assert row["final_coverage"] == coverages[-1]
        assert row["score"] == min(1.0, max(coverages) / 0.95)
        assert (row["length"], row["truncated"], row["terminated"]) == (40, True, False)
        moved = np.linalg.norm(np.diff(agents, axis=0), axis=1)
        assert row["idle_share"] == np.mean(moved < 1.0)
        assert row["action_jerk"] == 0.0
        assert row["error"] is None
    known = {"sweep", "config_hash", "train_seed", "checkpoint_step", "policy_hash"}
    assert set(rows[0]) == set(SCHEMAS["episodes"].names) - known


def test_neither_batch_nor_order_changes_an_episode() -> None:
    together = evaluate_block(Random(), SEEDS, SHORT)
    alone = [row for seed in SEEDS for row in evaluate_block(Random(), [seed], SHORT)]
    backwards = evaluate_block(Random(), SEEDS[::-1], SHORT)[::-1]
    assert without_times(together) == without_times(alone) == without_times(backwards)


def test_history_is_oldest_first_and_begins_with_the_first_frame() -> None:
    seen: list[Tensor] = []

    class Spy(Random):
        obs_horizon = 3

        def predict_action(self, obs: dict[str, Tensor], generators: Sequence[Any]) -> Tensor:
            seen.append(obs["keypoints"].clone())
            return super().predict_action(obs, generators)[:, :2]

    evaluate_block(Spy(), SEEDS[:2], Protocol(max_episode_steps=6))
    first, second, third = seen  # two actions of a chunk are executed between them
    assert first.shape == (2, 3, 20)
    assert first.dtype == torch.float32
    assert torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(first[:, 0], first[:, 2])
    assert torch.equal(second[:, 0], first[:, 2])
    assert torch.equal(third[:, 0], second[:, 2])
    assert not torch.equal(third[:, 1], third[:, 2])


def test_executed_actions_come_back_to_a_policy_that_asks_for_them() -> None:
    """Row by row, also when an episode has left the batch; to others they are not given."""
    last: dict[int, Tensor] = {}
    sizes = []

    class Remembers(Random):
        uses_previous = True

        def predict_action(  # type: ignore[override]
            self, obs: dict[str, Tensor], generators: Sequence[Any], previous: Tensor
        ) -> Tensor:
            assert previous.dtype == torch.float32
            for generator, row in zip(generators, previous, strict=True):
                if id(generator) in last:
                    assert torch.equal(row, last[id(generator)])
                else:
                    assert row.shape == (1, 2)
                    assert row.isnan().all()
            actions = super().predict_action(obs, generators)
            if len(sizes) == 1:  # the second of the episodes ends with the second prediction
                actions[1] = torch.nan
            last.update(zip(map(id, generators), actions, strict=True))
            sizes.append(len(generators))
            return actions

    rows = evaluate_block(Remembers(), SEEDS[:3], Protocol(max_episode_steps=12))
    assert sizes == [3, 3, 2, 2]
    assert [row["error"] is None for row in rows] == [True, False, True]


def test_the_world_moves_on_with_the_last_action_while_the_policy_thinks() -> None:
    """Observations are those before the delay; the agent rests before the first prediction."""
    seen: list[tuple[float, ...]] = []

    class Looks(Random):
        obs_mode = "state"
        obs_horizon = 1

        def predict_action(self, obs: dict[str, Tensor], generators: Sequence[Any]) -> Tensor:
            seen.append(tuple(obs["state"][0, 0].tolist()))
            return super().predict_action(obs, generators)

    steps: list[tuple[Any, Any]] = []
    protocol = Protocol(max_episode_steps=10, execute_delay=2)
    (row,) = evaluate_block(
        Looks(),
        SEEDS[:1],
        protocol,
        video=lambda _seed, state, action, _: steps.append((state, action)),
    )
    states = [state for state, _ in steps]
    actions = np.array([action for _, action in steps[:-1]])
    assert row["length"] == 10 == len(actions)
    assert (actions[:2] == states[0][:2]).all()  # it rests
    assert np.allclose(seen[0], states[0])
    assert np.allclose(seen[1], states[5])  # two steps of delay, three executed
    assert len(np.unique(actions[2:5], axis=0)) == 3
    assert (actions[5:7] == actions[4]).all()
    assert not (actions[7] == actions[4]).all()
    assert (row["execute_delay"], row["repeat"]) == (2, 0)


def test_a_repeat_has_other_noise_and_the_first_is_as_before() -> None:
    rows = [evaluate_block(Random(), SEEDS[:2], Protocol(8, repeat=k)) for k in (0, 1, 2)]
    again = evaluate_block(Random(), SEEDS[:2], Protocol(8, repeat=1))
    assert without_times(rows[1]) == without_times(again)
    assert len({row[0]["action_jerk"] for row in rows}) == 3
    assert without_times(rows[0]) == without_times(evaluate_block(Random(), SEEDS[:2], Protocol(8)))
    assert [[row["repeat"] for row in each] for each in rows] == [[0, 0], [1, 1], [2, 2]]


def test_images_stay_bytes() -> None:
    class Look:
        obs_mode = "image"
        obs_horizon = 2

        def predict_action(self, obs: dict[str, Tensor], generators: Sequence[Any]) -> Tensor:
            assert obs["image"].shape == (2, 2, 96, 96, 3)
            assert obs["image"].dtype == torch.uint8
            assert obs["agent_pos"].shape == (2, 2, 2)
            return obs["agent_pos"][:, -1:]

    rows = evaluate_block(Look(), SEEDS[:2], Protocol(max_episode_steps=3))
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["render_ms"] > 0


def test_finished_episodes_leave_the_batch() -> None:
    from envs.expert.demonstrator import ExpertPolicy

    class Counted(ExpertPolicy):
        def __init__(self) -> None:
            super().__init__()
            self.rows = 0

        def predict_action(self, obs: Any, generators: Any) -> Any:
            self.rows += len(generators)
            return super().predict_action(obs, generators)

    policy = Counted()
    rows = evaluate_block(policy, SEEDS[:2], Protocol())
    assert any(row["terminated"] and row["success"] for row in rows)
    assert policy.rows == sum(row["length"] for row in rows)
    for row in rows:
        if row["success"]:
            assert row["final_coverage"] == row["max_coverage"] > 0.95
            assert (row["score"], row["truncated"]) == (1.0, False)


def test_an_action_that_is_no_place_ends_its_own_episode_only() -> None:
    class Sometimes(Centre):
        def predict_action(self, obs: dict[str, Tensor], generators: Any) -> Tensor:
            actions = super().predict_action(obs, generators)
            if len(self.batches) == 3:
                actions[0] = torch.nan
                actions[1, 0, 1] = 1e9
            return actions

    policy = Sometimes()
    rows = evaluate_block(policy, SEEDS, SHORT)
    assert rows[0]["error"] == (
        "an action is finite and within 1e+06 px of the board, given (nan, nan) in step 2"
    )
    assert "given (256, 1e+09) in step 2" in rows[1]["error"]
    assert "score" not in rows[0]
    assert without_times(rows[2:]) == without_times(evaluate_block(Centre(), SEEDS[2:], SHORT))
    assert policy.batches[:4] == [6, 6, 6, 4]


def test_what_a_policy_raises_is_in_the_rows() -> None:
    class Broken:
        def predict_action(self, obs: Any, generators: Any) -> Any:
            raise RuntimeError("the weights\nare \x1b[31mred")

    class Flat:
        def predict_action(self, obs: Any, generators: Any) -> Any:
            return torch.zeros(len(generators), 2)

    (row,) = evaluate_block(Broken(), SEEDS[:1], SHORT)
    assert row["error"].startswith("RuntimeError: the weights are \\x1b[31mred (test_rollout.py:")
    rows = evaluate_block(Flat(), SEEDS, SHORT)
    assert all("must return actions of shape (6, H, 2), given (6, 2)" in r["error"] for r in rows)


def test_a_real_policy_repeats_itself(tiny_policy: Callable[..., Policy]) -> None:
    rows = [evaluate_block(tiny_policy(0), SEEDS, SHORT) for _ in range(2)]
    assert without_times(rows[0]) == without_times(rows[1])
    assert rows[0][0]["score"] is not None


def test_every_state_is_shown(tiny_policy: Callable[..., Policy]) -> None:
    shown: dict[int, list[Any]] = {seed: [] for seed in SEEDS}

    def watch(seed: int, state: Any, action: Any, coverage: float) -> None:
        shown[seed].append((state.copy(), action, coverage))

    rows = evaluate_block(Random(), SEEDS, SHORT, video=watch)
    for row in rows:
        steps = shown[row["env_seed"]]
        assert len(steps) == row["length"] + 1
        assert steps[-1][1] is None
        assert all(action is not None for _, action, _ in steps[:-1])
        assert max(coverage for _, _, coverage in steps[1:]) == row["max_coverage"]


def test_seeds_are_counts_or_ranges() -> None:
    assert parse_seeds("500") == tuple(range(300_000, 300_500))
    assert parse_seeds("400000-400002, 300007-300007") == (300_007, 400_000, 400_001, 400_002)
    assert parse_seeds("206-207") == (206, 207)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "1 to 100000 episodes; given 0"),
        ("-1", "given '-1'"),
        ("1e9", "given '1e9'"),
        ("1000000000", "given 1000000000"),
        ("", "given ''"),
        ("a-b", "given 'a-b'"),
        ("5-", "given '5-'"),
        ("300009-300000", "from the lower to the higher; given '300009-300000'"),
        ("300000-300009,300009-300010", "seed 300009 is given twice"),
        ("300000-300000,300000-300000", "seed 300000 is given twice"),
        ("300000-999999", "at most 100000 episodes; given 700000"),
        ("4294967296-4294967297", "at most 4294967295"),
        ("0-499", "starts of the demonstrations.*given 0"),
        ("205-300", "starts of the demonstrations.*given 205"),
        ("٣", "given '٣'"),
        ("1,000", "given '1,000'"),
    ],
)
def test_bad_seeds_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_seeds(text)


@given(st.text("0123456789-, e", max_size=20))
def test_no_text_is_too_much_for_the_seeds(text: str) -> None:
    try:
        seeds = parse_seeds(text)
    except UserError:
        return
    assert 1 <= len(seeds) <= MAX_EPISODES
    assert list(seeds) == sorted(set(seeds))
    assert seeds[0] > 205


def test_blocks_do_not_depend_on_what_else_is_asked_for() -> None:
    assert blocks(range(300_000, 300_060), 25) == [
        tuple(range(300_000, 300_025)),
        tuple(range(300_025, 300_050)),
        tuple(range(300_050, 300_060)),
    ]
    assert blocks([300_030, 300_026, 300_001], 25) == [(300_001,), (300_026, 300_030)]


def test_the_selection_seeds_are_warned_of() -> None:
    assert caution(range(300_000, 300_500)) is None
    assert "50 of these seeds" in str(caution(range(200_000, 200_050)))
    assert "built-in" in str(caution(range(10_000, 10_005)))


def test_the_protocol_has_a_hash() -> None:
    assert Protocol().hash == Protocol(300, 25).hash == "fc6f1c0ac65f"
    assert len({Protocol().hash, Protocol(200).hash, Protocol(300, 50).hash}) == 3
    assert Protocol(execute_delay=0, repeat=0).hash == "fc6f1c0ac65f"
    others = Protocol(execute_delay=1), Protocol(repeat=1), Protocol(execute_delay=1, repeat=1)
    assert len({Protocol().hash, *(other.hash for other in others)}) == 4
    with pytest.raises(ValueError, match="repeat must be a non-negative integer, given -1"):
        Protocol(repeat=-1)
    for bad in (0, -1, True, 2.5):
        with pytest.raises(ValueError, match="block_size must be a positive integer"):
            Protocol(block_size=bad)  # type: ignore[arg-type]


def test_seeds_in_words() -> None:
    assert span(range(300_000, 300_500)) == "300000-300499"
    assert span([1, 2, 5, 7, 8, 10, 12]) == "1-2, 5, 7-8, 10, ..."
