"""The gymnasium environment: replayed demonstrations, spaces, episodes, rendering, bad input."""

import copy
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.physics.dynamics import World
from envs.physics.geometry import GOAL_POSE, coverage, keypoints
from envs.rendering.frames import video_frame
from envs.rendering.observations import Renderer

MODES = ("state", "keypoints", "image")
ID = "ibc_harness/PushT-v0"
# gymnasium advises [-1, 1] for actions; ours are px, as the task defines them.
px_actions = pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")


def test_all_recorded_demonstrations_replay(human: SimpleNamespace) -> None:
    env = envs.PushTEnv()
    position, angle, best, ended = 0.0, 0.0, [], 0
    for seed, (start, end) in enumerate(zip(human.starts, human.ends, strict=True)):
        observation, info = env.reset(seed=seed)
        most = 0.0
        for row in range(start, end):
            off = observation - human.state[row]
            position = max(position, np.abs(off[:4]).max())
            angle = max(angle, abs((off[4] + math.pi) % (2 * math.pi) - math.pi))
            observation, _, terminated, truncated, info = env.step(human.action[row])
            most = max(most, info["coverage"])
            assert not truncated
            assert terminated == (info["coverage"] > 0.95) == info["is_success"]
        best.append(most)
        ended += terminated
    assert position < 1e-3
    assert angle < 1e-5
    assert np.mean(best) == pytest.approx(0.8995, abs=1e-4)
    assert np.min(best) == pytest.approx(0.861, abs=1e-3)
    assert np.median(best) == pytest.approx(0.897, abs=1e-3)
    assert np.percentile(best, 95) == pytest.approx(0.936, abs=1e-3)
    assert np.max(best) == pytest.approx(0.966, abs=1e-3)
    assert ended == sum(share > 0.95 for share in best) == 7
    assert np.clip(np.array(best) / 0.95, 0, 1).mean() == pytest.approx(0.9466, abs=1e-4)


def test_all_built_in_demonstrations_succeed_on_replay(built_in: SimpleNamespace) -> None:
    env = envs.PushTEnv()
    assert len(built_in.ends) == 200
    for seed, start, end in zip(built_in.seeds, built_in.starts, built_in.ends, strict=True):
        observation, _ = env.reset(seed=int(seed))
        for row in range(start, end):
            assert np.array_equal(observation.astype(np.float32), built_in.state[row])
            observation, reward, terminated, truncated, info = env.step(built_in.action[row])
            assert terminated == (row == end - 1)
            assert not truncated
        assert reward == 1
        assert info["coverage"] > 0.95


@px_actions
@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_checks_pass(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(envs.PushTEnv(mode), skip_render_check=True)
    check_env(gymnasium.make(ID, obs_mode=mode).unwrapped)


@pytest.mark.parametrize("mode", MODES)
def test_observations_lie_in_their_space(mode: str) -> None:
    env = envs.PushTEnv(mode)
    rng = np.random.default_rng(0)
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        for _ in range(60):
            assert env.observation_space.contains(observation)
            # At the block from anywhere: pushed hard enough to go through walls.
            state = env._world.state
            push = np.clip(state[2:4] + rng.normal(0, 150, 2), 0, 512)
            observation, reward, *_ = env.step(push)
            assert 0 <= reward <= 1
    assert env.observation_space.contains(observation)


def test_modes_see_the_same_world() -> None:
    worlds = {mode: envs.PushTEnv(mode) for mode in MODES}
    seen = {mode: env.reset(seed=11)[0] for mode, env in worlds.items()}
    for action in np.random.default_rng(1).uniform(100, 400, (30, 2)):
        state = seen["state"]
        assert state.dtype == np.float64
        assert np.array_equal(seen["keypoints"], keypoints(state))
        assert seen["keypoints"].shape == (20,)
        assert np.array_equal(seen["image"]["image"], Renderer().observation(state))
        assert np.array_equal(seen["image"]["agent_pos"], state[:2])
        seen = {mode: env.step(action)[0] for mode, env in worlds.items()}


def test_gymnasium_makes_it_and_cuts_it_where_asked() -> None:
    env = gymnasium.make(ID, max_episode_steps=400)
    env.reset(seed=0)
    lengths = 0
    truncated = False
    while not truncated:
        _, _, terminated, truncated, _ = env.step(np.array([10.0, 10.0]))
        lengths += 1
        assert not terminated
    assert lengths == 400


@pytest.mark.parametrize("mode", MODES)
def test_gymnasium_makes_many(mode: str) -> None:
    many = gymnasium.make_vec(ID, num_envs=3, obs_mode=mode)
    alone = gymnasium.make(ID, obs_mode=mode)
    observations, _ = many.reset(seed=5)
    other, _ = alone.reset(seed=7)
    for action in np.random.default_rng(0).uniform(0, 512, (5, 2)):
        last = observations["agent_pos"] if mode == "image" else observations
        assert np.array_equal(last[2], other["agent_pos"] if mode == "image" else other)
        observations, *_ = many.step(np.array([action] * 3))
        other, *_ = alone.step(action)
    many.close()


def test_an_episode_ends_in_success_above_the_threshold() -> None:
    env = envs.PushTEnv()
    for shift, wins in ((8.0, False), (1.0, True)):
        state = (20, 20, GOAL_POSE[0] + shift, *GOAL_POSE[1:])
        observation, info = env.reset(options={"state": state})
        assert np.array_equal(observation, state)
        assert info["coverage"] == coverage(*state[2:])
        assert info["is_success"] == wins
        _, reward, terminated, truncated, info = env.step((20, 20))
        assert terminated == info["is_success"] == wins
        assert not truncated
        assert reward == pytest.approx(min(info["coverage"] / 0.95, 1))
        assert info["n_contacts"] == 0
        assert np.array_equal(info["state"], state)


@pytest.mark.parametrize("limit", [1, 7])
def test_episodes_are_truncated_and_then_over(limit: int) -> None:
    env = envs.PushTEnv(max_episode_steps=limit)
    for _ in range(2):
        env.reset(seed=3)
        ends = [env.step((50, 50))[2:4] for _ in range(limit)]
        assert ends == [(False, False)] * (limit - 1) + [(False, True)]
        with pytest.raises(ValueError, match="running episode"):
            env.step((50, 50))


def test_success_on_the_last_step_is_not_a_truncation() -> None:
    env = envs.PushTEnv(max_episode_steps=1)
    env.reset(options={"state": (20, 20, *GOAL_POSE)})
    assert env.step((20, 20))[2:4] == (True, False)
    with pytest.raises(ValueError, match="running episode"):
        env.step((20, 20))


def test_stepping_before_the_first_reset_is_refused() -> None:
    with pytest.raises(ValueError, match="running episode, got none: call reset"):
        envs.PushTEnv().step((1, 1))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_gives_the_same_episode(mode: str) -> None:
    first, second = envs.PushTEnv(mode), envs.PushTEnv(mode)
    actions = np.random.default_rng(2).uniform(0, 512, (25, 2))
    runs = []
    for env in (first, second, first):
        seen = [env.reset(seed=42)[0], *(env.step(action)[0] for action in actions)]
        runs.append([s["image"] if mode == "image" else s for s in seen])
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


def test_resets_without_a_seed_go_on_from_the_last_seed() -> None:
    env, other = envs.PushTEnv(), envs.PushTEnv()
    env.reset(seed=1)
    other.reset(seed=1)
    drawn = [env.reset()[0] for _ in range(3)]
    assert np.array_equal(drawn, [other.reset()[0] for _ in range(3)])
    assert not np.array_equal(drawn[0], drawn[1])


def test_resets_that_are_not_legacy_start_where_gym_pusht_starts() -> None:
    # Read off gym-pusht 0.1.8 with pymunk 6.11: the start, and the state after eight steps
    # towards the block's position, in float32.
    env = envs.PushTEnv(legacy_reset=False)
    golden = {
        0: (
            (390.0, 304.0, 241.54255640895335, 268.5169735431818, 3.3990368971690628),
            (
                146.32156144290454,
                178.30324143475713,
                121.36944789408099,
                103.81989335496294,
                4.693066569688693,
            ),
        ),
        1: (
            (239.0, 254.0, 290.5891546977548, 457.7681838617591, 4.047374214118495),
            (
                354.20998945394035,
                500.10788620064596,
                419.901348239442,
                495.72022019370206,
                2.9334732322006753,
            ),
        ),
    }
    for seed, (start, after) in golden.items():
        state, _ = env.reset(seed=seed)
        assert state == pytest.approx(start, abs=1e-9)
        for _ in range(8):
            state, *_ = env.step(state[2:4].astype(np.float32))
        assert state == pytest.approx(after, abs=1e-6)


def test_a_velocity_can_be_put_back_with_a_state() -> None:
    env = envs.PushTEnv()
    env.reset(options={"state": (50, 50, 300, 300, 1), "agent_velocity": (100, 0)})
    moved, *_ = env.step((50, 50))
    assert moved[0] > 51


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize(
    ("mode", "engine"), [("state", "cffi"), ("keypoints", "pymunk"), ("image", "auto")]
)
def test_a_copy_goes_on_to_the_bit(mode: str, engine: str, copied: Callable[[Any], Any]) -> None:
    """Also in the middle of a push, where Chipmunk remembers contacts; and with its generator."""
    env = envs.PushTEnv(obs_mode=mode)  # type: ignore[arg-type]
    env._world = World(engine)  # type: ignore[arg-type]
    assert copied(env).obs_mode == mode
    _, info = env.reset(seed=3)
    touched = 0
    for _ in range(25):
        target = info["state"][2:4] + 20 * np.sin(info["state"][:2])
        *_, info = env.step(target)
        touched += info["n_contacts"]
    assert touched
    twin = copied(env)
    assert twin._world is not env._world
    for k in range(25):
        ends = [each.step(info["state"][2:4] + k) for each in (env, twin)]
        (first, *rest), (second, *others) = ends
        for a, b in zip(values_of(first), values_of(second), strict=True):
            assert np.array_equal(a, b)
        info = rest[-1]
        assert str((rest, info["state"].tolist())) == str((others, others[-1]["state"].tolist()))
    starts = [each.reset()[1]["state"].tolist() for each in (env, twin)]
    assert starts[0] == starts[1]


def values_of(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def test_frames_for_people() -> None:
    env = envs.PushTEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (512, 512, 3)
    assert before.dtype == np.uint8
    env.step((400, 80))
    assert env.render()[80, 400].tolist() == [255, 0, 0]


def test_a_window_shows_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = envs.PushTEnv(render_mode="human")
    env.reset(seed=0)
    for _ in range(2):
        env.step((400, 80))
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
        assert np.array_equal(shown, video_frame(env._world.state, action=(400, 80)))
    env.close()
    assert not pygame.display.get_init()
    env.close()


def test_a_missing_display_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nowhere")
    with pytest.raises(ValueError, match="a window needs a display, got"):
        envs.PushTEnv(render_mode="human").reset(seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs_mode": "pixels"}, r"obs_mode must be one of .* got 'pixels'"),
        ({"obs_mode": None}, r"obs_mode must be one of .* got None"),
        ({"render_mode": "ansi"}, r"render_mode must be None or one of .* got 'ansi'"),
        ({"max_episode_steps": 0}, "at least 1, got 0"),
        ({"max_episode_steps": 1.5}, "an int or None, got 1.5"),
        ({"max_episode_steps": True}, "an int or None, got True"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.PushTEnv(**arguments)


@pytest.mark.parametrize("seed", [-1, 2.0, "7", True, 2**32])
def test_bad_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ValueError, match=r"a seed must .* got"):
        envs.PushTEnv().reset(seed=seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sate": (1,) * 5}, r"may hold .* got \['sate'\]"),
        ({"state": (1, 2)}, r"state must have the shape \(5,\), got \(2,\)"),
        ({"state": (1, 2, 3, 4, math.inf)}, "state must be finite"),
        ({"state": None}, "state must"),
        ({"agent_velocity": (1, 2)}, "need 'state' beside"),
        ({"state": (1,) * 5, "agent_velocity": (1,)}, "agent_velocity must have the shape"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.PushTEnv().reset(options=options)


@pytest.mark.parametrize("action", [(1, 2, 3), (math.nan, 1), (1, -math.inf), "go", [[1, 2]], None])
def test_bad_actions_are_refused_and_leave_the_episode_as_it_was(action: object) -> None:
    env = envs.PushTEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must"):
        env.step(action)
    reference = envs.PushTEnv()
    reference.reset(seed=0)
    assert np.array_equal(env.step((100, 100))[0], reference.step((100, 100))[0])


def test_actions_outside_the_board_are_followed_as_in_the_original() -> None:
    env = envs.PushTEnv()
    env.reset(options={"state": (500, 500, 200, 200, 0)})
    for _ in range(10):
        observation, *_ = env.step((600, 500))
    assert observation[0] > 550
    assert not env.observation_space.contains(observation)


def test_rendering_without_a_mode_is_refused() -> None:
    env = envs.PushTEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="render needs a render_mode, got None"):
        env.render()
