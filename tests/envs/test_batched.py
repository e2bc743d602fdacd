"""Episodes in lockstep go exactly as they go alone, freeze when over, and refuse bad input."""

import math

import numpy as np
import pytest

from envs.batched import LockstepPushT
from envs.physics.geometry import GOAL_POSE
from envs.pusht import PushTEnv

MODES = ("state", "keypoints", "image")
SEEDS = (3, 100000, 17, 3, 200001)


def actions_for(seeds: tuple[int, ...], steps: int) -> np.ndarray:
    """Actions (steps, B, 2) that depend on the seed alone."""
    columns = [np.random.default_rng(seed).uniform(60, 450, (steps, 2)) for seed in seeds]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("mode", MODES)
def test_every_episode_goes_as_it_goes_alone(mode: str) -> None:
    steps = 40
    actions = actions_for(SEEDS, steps)
    together = LockstepPushT(SEEDS, mode, max_episode_steps=steps)
    seen = [together.reset(), *(together.step(rows) for rows in actions)]
    assert not together.active.any()
    for row, seed in enumerate(SEEDS):
        env = PushTEnv(mode, max_episode_steps=steps)
        observation, info = env.reset(seed=seed)
        shares = []
        for step in range(steps + 1):
            expected = observation if mode == "image" else {mode: observation}
            assert sorted(seen[step]) == sorted(expected)
            for name, value in expected.items():
                assert seen[step][name][row].dtype == value.dtype
                assert np.array_equal(seen[step][name][row], value)
            if step < steps:
                observation, _, terminated, truncated, info = env.step(actions[step, row])
                shares.append(info["coverage"])
        assert together.coverage[row] == info["coverage"]
        assert together.max_coverage[row] == max(shares)
        assert (together.terminated[row], together.truncated[row]) == (terminated, truncated)
        assert together.length[row] == steps


def test_the_company_does_not_matter() -> None:
    actions = actions_for(SEEDS, 30)
    together, fewer = LockstepPushT(SEEDS), LockstepPushT(SEEDS[3:])
    together.reset()
    fewer.reset()
    for rows in actions:
        together.step(rows)
        fewer.step(rows[3:])
    assert np.array_equal(together.states[3:], fewer.states)
    assert np.array_equal(together.max_coverage[3:], fewer.max_coverage)


@pytest.mark.parametrize("mode", MODES)
def test_finished_episodes_freeze(mode: str) -> None:
    together = LockstepPushT((1, 2, 3), mode, max_episode_steps=6)
    together.reset()
    target = np.full((3, 2), 40.0)
    for _ in range(2):
        together.step(target)
    together._worlds[1].set_state((300, 60, *GOAL_POSE))
    last = {name: rows.copy() for name, rows in together.step(target).items()}
    assert together.active.tolist() == [True, False, True]
    assert together.terminated.tolist() == together.success.tolist() == [False, True, False]
    target[1] = math.nan
    for _ in range(3):
        observations = together.step(target)
        for name, rows in observations.items():
            assert np.array_equal(rows[1], last[name][1])
            assert not np.array_equal(rows[0], last[name][0])
    assert together.length.tolist() == [6, 3, 6]
    assert together.max_coverage[1] == together.coverage[1] == 1
    assert together.truncated.tolist() == [True, False, True]
    assert not together.active.any()


def test_solved_starts_are_named() -> None:
    together = LockstepPushT((1, 2))
    together.reset()
    assert together.success_at_reset.tolist() == [False, False]
    assert together.max_coverage.tolist() == [0, 0]


def test_resetting_again_starts_again() -> None:
    actions = actions_for((5, 6), 12)
    together = LockstepPushT((5, 6), max_episode_steps=12)
    runs = []
    for _ in range(2):
        seen = [together.reset()["state"], *(together.step(rows)["state"] for rows in actions)]
        runs.append(np.array(seen))
        assert together.length.tolist() == [12, 12]
    assert np.array_equal(runs[0], runs[1])


def test_observations_are_the_callers_own() -> None:
    for mode in MODES:
        together = LockstepPushT((5,), mode)
        for rows in together.reset().values():
            rows[:] = 0
        observations = together.step(np.array([[100.0, 100.0]]))
        assert all(rows.any() for rows in observations.values())
        assert together.states.any()


def test_time_is_accounted_for() -> None:
    together = LockstepPushT((5, 6), "image")
    together.reset()
    before = together.env_seconds, together.render_seconds
    together.step(np.full((2, 2), 200.0))
    assert together.env_seconds > before[0] > 0
    assert together.render_seconds > before[1] > 0


def test_without_a_limit_episodes_go_on() -> None:
    together = LockstepPushT((5,), max_episode_steps=None)
    together.reset()
    for _ in range(305):
        together.step([(10, 10)])
    assert together.active.all()
    assert together.length.tolist() == [305]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((), "at least one seed, got none"),
        ((1, -1), "between 0 and 2.* got -1"),
        ((1, 2.5), "an int, got 2.5"),
        ("12", "an int, got '1'"),
    ],
)
def test_bad_seeds_are_refused(seeds: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LockstepPushT(seeds)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="obs_mode must be one of"):
        LockstepPushT((1,), "pixels")
    with pytest.raises(ValueError, match="at least 1, got -3"):
        LockstepPushT((1,), max_episode_steps=-3)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3), (2, 1, 2)])
def test_actions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    together = LockstepPushT((1, 2))
    together.reset()
    with pytest.raises(ValueError, match=r"actions must have the shape \(2, 2\), got"):
        together.step(np.zeros(shape))


def test_actions_that_are_not_finite_are_refused_and_change_nothing() -> None:
    together = LockstepPushT((1, 2))
    together.reset()
    before = together.states.copy()
    with pytest.raises(ValueError, match=r"actions must be finite, got .* in row 1"):
        together.step([(1, 1), (math.nan, 1)])
    assert np.array_equal(together.states, before)
    assert together.length.tolist() == [0, 0]


def test_stepping_before_the_reset_and_after_the_end_is_refused() -> None:
    together = LockstepPushT((1,), max_episode_steps=1)
    with pytest.raises(ValueError, match="none was started"):
        together.step([(1, 1)])
    together.reset()
    together.step([(1, 1)])
    with pytest.raises(ValueError, match="all have ended"):
        together.step([(1, 1)])
