"""The demonstrator: its closed form against the engine, its paths, its episodes, its data set."""

import math
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.expert import pushes
from envs.expert.demonstrator import Demonstrator, ExpertPolicy, plan_episode, policy
from envs.expert.paths import NODES, Paths, crosses
from envs.expert.planner import PUSH_SPEED, Plan, Planner
from envs.physics.dynamics import World
from envs.physics.geometry import GOAL_POSE, coverage

BUILT_IN = Path(__file__).resolve().parents[3] / "data" / "expert.zarr"
EVERYWHERE = np.ones(len(NODES), dtype=bool)
poses = st.tuples(
    st.floats(150, 350), st.floats(150, 350), st.floats(0, 2 * math.pi, exclude_max=True)
)


def test_a_zero_pose_is_the_goal() -> None:
    pose, _ = pushes.observe(np.array([0, 0, *GOAL_POSE]))
    assert np.allclose(pose, 0)


@given(poses, st.floats(0, 512), st.floats(0, 512))
def test_observed_points_return_to_the_board(
    block: tuple[float, float, float], x: float, y: float
) -> None:
    pose, agent = pushes.observe(np.array([x, y, *block]))
    assert np.allclose(pushes.to_board(pose, agent[None])[0], (x, y))
    assert np.allclose(pushes.to_board(pose, np.zeros((1, 2)))[0], block[:2])


@pytest.mark.parametrize("face", range(len(pushes.FACE_NAMES)))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_closed_form_is_what_the_engine_does(face: int, share: float) -> None:
    low, high = pushes.FACE_LOW[face], pushes.FACE_HIGH[face]
    contact, offset = np.array(face), np.array(low + share * (high - low))
    start = np.array([0, 0, 230.0, 240.0, 1.0])
    pose, _ = pushes.observe(start)
    speed = max(float(pushes.agent_speed(contact, offset)), 0.5)
    stand = pushes.agent_point(contact, offset)
    world = World()
    world.set_state([*pushes.to_board(pose, stand[None])[0], *start[2:]])
    for length in np.arange(1, 40) * 1.5 / speed:
        ahead = pushes.pushed(pose, contact, offset, np.array(length))
        world.step(pushes.to_board(ahead, stand[None])[0])
    for _ in range(10):
        world.step(pushes.to_board(ahead, stand[None])[0])
    reached, _ = pushes.observe(world.state)
    assert np.abs(pushes.errors(pose) - pushes.errors(ahead)).max() > 10
    assert np.allclose(pushes.errors(reached), pushes.errors(ahead), atol=1.5)


@given(st.floats(-150, 150), st.floats(-110, 230), st.integers(0, 7), st.floats(0, 1))
@settings(deadline=None)
def test_paths_go_around_the_block(x: float, y: float, face: int, share: float) -> None:
    agent = np.array([x, y])
    contact = np.array(face)
    offset = pushes.FACE_LOW[face] + share * (pushes.FACE_HIGH[face] - pushes.FACE_LOW[face])
    paths = Paths(agent, EVERYWHERE)
    points = paths.points(contact, np.array(offset))
    legs = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.allclose(points[0], agent)
    assert np.allclose(points[-1], pushes.agent_point(contact, np.array(offset)))
    assert math.isclose(legs.sum(), float(paths.lengths(contact, np.array(offset))), abs_tol=1e-6)
    if len(points) > 3:
        assert not crosses(points[1:-3], points[2:-2]).any()


def test_a_path_avoids_corners_off_the_board() -> None:
    agent, contact, offset = np.array([0.0, -60.0]), np.array(7), np.array(0.0)
    direct = Paths(agent, EVERYWHERE)
    right = NODES[:, 0] > 0
    forced = Paths(agent, right)
    assert (forced.points(contact, offset)[1:-2, 0] > 0).all()
    assert forced.lengths(contact, offset) >= direct.lengths(contact, offset)


def test_one_push_is_planned_where_one_suffices() -> None:
    contact, offset, length = np.array(0), np.array(10.0), np.array(-60.0)
    pose = pushes.pushed(np.zeros(3), contact, offset, length)
    paths = Paths(pushes.agent_point(contact, offset), EVERYWHERE)
    plan = Planner().search(pose, paths, None)
    assert isinstance(plan, Plan)
    assert pushes.FACE_NAMES[plan.face[0]] == "bar top"
    assert abs(plan.offset[0] - 10) < 2
    assert abs(plan.length[0] - 60) < 3
    assert plan.cost < 60 / PUSH_SPEED * 2


def test_a_turned_block_is_turned_back_first() -> None:
    pose = np.array([20.0, -30.0, 1.2])
    paths = Paths(np.array([0.0, -80.0]), EVERYWHERE)
    plan = Planner().search(pose, paths, None)
    assert plan.turns
    after = pushes.pushed(pose, plan.face[0], plan.offset[0], plan.length[0])
    assert abs(after[2]) < 1e-9
    assert not Planner().search(np.array([20.0, -30.0, 0.1]), paths, None).turns
    assert Planner().search(np.array([20.0, -30.0, 0.1]), paths, plan).turns


def test_a_finished_push_is_followed_by_the_next() -> None:
    planner = Planner()
    first, second = (np.array(0), np.array(10.0)), (np.array(6), np.array(52.0))
    pose = np.zeros(3)
    for (face, offset), length in ((second, 80.0), (first, 40.0)):
        pose = pushes.pushed(pose, face, offset, np.array(-length))
    stand = pushes.agent_point(*first)
    faces, offsets = np.array([0, 6]), np.array([10.0, 52.0])
    plan: Plan | None = Plan(faces, offsets, np.array([40.0, 80.0]), 0.0)
    carried_out = []
    for _ in range(5):
        assert plan is not None
        plan = planner.follow(pose, Paths(stand, EVERYWHERE), plan)
        assert plan is not None
        carried_out.append(plan.face.tolist())
        pose = pushes.pushed(pose, *first, np.array(9.9))
    assert carried_out == [[0, 6], [0, 6], [0, 6], [0, 6], [6]]


def test_the_agent_never_creeps() -> None:
    states = np.concatenate([plan_episode(seed).states for seed in (10_035, 10_056)])
    moved = np.linalg.norm(np.diff(states[:, :2], axis=0), axis=1)
    assert np.mean(moved < 1) < 0.05


@pytest.mark.parametrize("seed", [10_000, 10_001, 10_002])
def test_an_episode_succeeds_and_replays_exactly(seed: int) -> None:
    episode = plan_episode(seed)
    assert episode.success
    assert episode.max_coverage > 0.95
    assert len(episode.states) == len(episode.actions) <= 300
    assert episode.actions.min() >= 0
    assert episode.actions.max() <= 512
    world = World()
    world.reset(seed)
    for state, action in zip(episode.states, episode.actions, strict=True):
        assert np.array_equal(world.state.astype(np.float32), state)
        world.step(action)
    assert coverage(*world.state[2:]) == episode.max_coverage


def test_a_seed_gives_one_episode() -> None:
    first, second = plan_episode(10_003), plan_episode(10_003)
    assert np.array_equal(first.actions, second.actions)
    assert not np.array_equal(first.states[0], plan_episode(10_004, max_steps=1).states[0])


def test_the_first_aim_is_hit_before_the_goal() -> None:
    aim, world = np.array([9.0, -7.0, 0.2]), World()
    world.reset(10_002)
    demonstrator, nearest = Demonstrator(first_aim=aim), math.inf
    best_before = 0.0
    for _ in range(300):
        world.step(demonstrator.act(world.state))
        pose, _ = pushes.observe(world.state)
        if nearest >= 2.5:
            best_before = max(best_before, coverage(*world.state[2:]))
        nearest = min(nearest, float(pushes.distance(pushes.relative_to(aim, pose))))
        if coverage(*world.state[2:]) > 0.95:
            break
    assert nearest < 2.5
    assert best_before < 0.95
    assert coverage(*world.state[2:]) > 0.95


def test_a_pose_is_zero_relative_to_itself() -> None:
    pose = np.array([12.0, -30.0, 3.0])
    assert np.allclose(pushes.relative_to(pose, pose), 0)
    step = np.array([4.0, 5.0, 0.3])
    assert np.allclose(pushes.relative_to(pose, pushes.moved(pose, step)), step)


def test_an_episode_ends_at_the_limit() -> None:
    episode = plan_episode(10_000, max_steps=5)
    assert len(episode.actions) == 5
    assert not episode.success


@pytest.mark.parametrize(("seed", "steps"), [(-1, 300), (1.5, 300), (10_000, 0)])
def test_bad_numbers_are_refused(seed: int, steps: int) -> None:
    with pytest.raises(ValueError, match="must"):
        plan_episode(seed, max_steps=steps)


def test_a_bad_state_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        Demonstrator().act(np.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        Demonstrator().act([0, 0, 0, 0, math.nan])


def test_the_policy_plays_many_episodes_at_once() -> None:
    torch = pytest.importorskip("torch")
    alone = {seed: Demonstrator() for seed in (10_005, 10_006, 10_007)}
    worlds = {seed: World() for seed in alone}
    generators = {seed: torch.Generator() for seed in alone}
    for seed, world in worlds.items():
        world.reset(seed)
    player = policy()
    assert isinstance(player, ExpertPolicy)
    for t in range(12):
        seeds = [seed for seed in worlds if t < 6 or seed != 10_005][:: 1 if t % 2 else -1]
        states = torch.tensor(np.stack([worlds[seed].state for seed in seeds]))[:, None]
        actions = player.predict_action({"state": states}, [generators[seed] for seed in seeds])
        assert actions.shape == (len(seeds), 1, 2)
        assert actions.dtype == torch.float32
        for seed, action in zip(seeds, actions[:, 0].numpy(), strict=True):
            assert np.array_equal(action, alone[seed].act(worlds[seed].state).astype(np.float32))
            worlds[seed].step(action)


def test_the_policy_wants_a_generator_a_row() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="one generator a row, got 0 for 2"):
        policy().predict_action({"state": torch.zeros(2, 1, 5)}, [])


def test_the_built_in_episodes_replay_exactly_and_succeed() -> None:
    root = zarr.open_group(str(BUILT_IN), mode="r")
    states, actions = np.asarray(root["data/state"][:]), np.asarray(root["data/action"][:])
    ends, seeds = np.asarray(root["meta/episode_ends"][:]), np.asarray(root["meta/seeds"][:])
    assert len(ends) == len(seeds) >= 200
    assert (states.dtype, actions.dtype, ends.dtype) == (np.float32, np.float32, np.int64)
    for seed, start, end in zip(seeds.tolist(), [0, *ends[:-1]], ends, strict=True):
        assert 10_000 <= seed < 100_000
        world = World()
        world.reset(seed)
        for state, action in zip(states[start:end], actions[start:end], strict=True):
            assert np.array_equal(world.state.astype(np.float32), state)
            world.step(action)
        assert coverage(*world.state[2:]) > 0.95
    size = sum(path.stat().st_size for path in BUILT_IN.rglob("*") if path.is_file())
    assert size <= 1_000_000


@pytest.mark.slow
def test_99_of_100_starts_are_solved_in_130_steps() -> None:
    episodes = [plan_episode(seed) for seed in range(300_000, 300_100)]
    assert sum(episode.success for episode in episodes) >= 99
    assert np.median([len(episode.actions) for episode in episodes]) <= 130
