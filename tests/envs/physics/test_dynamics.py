"""The bodies: golden numbers, both engines alike, states put back, bad input."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from envs.physics import dynamics
from envs.physics.dynamics import World


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a - b + math.pi) % (2 * math.pi) - math.pi


def run(engine: str, demos: SimpleNamespace, episodes: range) -> tuple[np.ndarray, list[int]]:
    """Replay episodes; return the states before every action and the contacts of every action."""
    world, states, contacts = World(engine), [], []
    for k in episodes:
        world.reset(int(demos.seeds[k]))
        for action in demos.action[demos.starts[k] : demos.ends[k]]:
            states.append(world.state)
            contacts.append(world.step(action))
    return np.array(states), contacts


@pytest.mark.parametrize("engine", ["cffi", "pymunk"])
@pytest.mark.parametrize(
    ("seed", "state"),
    [
        (0, (222, 97, 222.994, 381.600, 3.008)),
        (100000, (235, 124, 299.613, 145.202, 5.378)),
    ],
)
def test_the_legacy_reset_has_its_golden_values(
    engine: str, seed: int, state: tuple[float, ...]
) -> None:
    world = World(engine)
    world.reset(seed)
    assert world.state == pytest.approx(state, abs=1e-3)
    assert world.agent_velocity.tolist() == [0, 0]


def test_the_raw_draw_is_placed_in_the_original_order() -> None:
    world, other = World(), World()
    draw = np.random.RandomState(0)
    start = [draw.randint(50, 450), draw.randint(50, 450)]
    start += [draw.randint(100, 400), draw.randint(100, 400), draw.randn() * 2 * np.pi - np.pi]
    assert start == pytest.approx((222, 97, 217, 292, 3.008), abs=1e-3)
    world.place(start)
    other.reset(0)
    assert world.values == other.values


@pytest.mark.parametrize("engine", ["cffi", "pymunk"])
def test_built_in_demonstrations_replay(engine: str, built_in: SimpleNamespace) -> None:
    episodes = range(0, len(built_in.ends), 10)
    states, _ = run(engine, built_in, episodes)
    recorded = np.concatenate(
        [built_in.state[built_in.starts[k] : built_in.ends[k]] for k in episodes]
    )
    assert np.abs(states[:, :4] - recorded[:, :4]).max() < 1e-4
    assert np.abs(turn(states[:, 4], recorded[:, 4])).max() < 1e-6


def test_auto_takes_the_fast_path_here() -> None:
    assert World().engine == "cffi"


def test_auto_falls_back_where_the_fast_path_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics._fast_path_is_exact.cache_clear()
    monkeypatch.setattr(dynamics, "_chipmunk", lambda: None)
    try:
        assert World().engine == "pymunk"
        with pytest.raises(ValueError, match=r"cffi.*needs"):
            World("cffi")
    finally:
        dynamics._fast_path_is_exact.cache_clear()


def test_auto_falls_back_where_the_fast_path_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics._fast_path_is_exact.cache_clear()
    step = dynamics._FastBodies.step

    def step_an_ulp_off(self: dynamics._FastBodies, x: float, y: float) -> None:
        step(self, math.nextafter(x, 1000.0), y)

    monkeypatch.setattr(dynamics._FastBodies, "step", step_an_ulp_off)
    try:
        assert World().engine == "pymunk"
    finally:
        dynamics._fast_path_is_exact.cache_clear()


def test_both_engines_are_identical_over_demonstrations(human: SimpleNamespace) -> None:
    episodes = range(0, len(human.ends), 4)
    states, contacts = run("cffi", human, episodes)
    plain_states, plain_contacts = run("pymunk", human, episodes)
    assert np.array_equal(states, plain_states)
    assert contacts == plain_contacts


@pytest.mark.parametrize("span", [(0, 512), (-200, 712), (200, 300)])
def test_both_engines_are_identical_over_random_actions(span: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    fast, plain = World("cffi"), World("pymunk")
    touched = 0
    for seed in range(25):
        fast.reset(seed)
        plain.reset(seed)
        for action in rng.uniform(*span, (40, 2)):
            contacts = fast.step(action)
            assert contacts == plain.step(action)
            assert fast.values == plain.values
            touched += contacts > 0
        assert np.array_equal(fast.agent_velocity, plain.agent_velocity)
    assert touched > 50


def test_driving_is_stepping_without_the_count() -> None:
    rng = np.random.default_rng(3)
    stepped, driven = World(), World()
    stepped.reset(5)
    driven.reset(5)
    for x, y in rng.uniform(100, 400, (60, 2)).tolist():
        stepped.step((x, y))
        driven.drive(x, y)
    assert stepped.values == driven.values


def test_resetting_twice_is_the_same_whatever_happened_before() -> None:
    used, new = World(), World()
    used.reset(1)
    for _ in range(30):
        used.step((256, 256))
    used.reset(2)
    new.reset(2)
    for action in np.random.default_rng(0).uniform(0, 512, (50, 2)):
        used.step(action)
        new.step(action)
        assert used.values == new.values


def test_a_recorded_state_is_put_back_exactly() -> None:
    state = (100.25, 200.5, 300.125, 310.75, 6.125)
    world = World()
    world.set_state(state, agent_velocity=(3.0, -4.0))
    assert world.values == state
    assert world.agent_velocity.tolist() == [3, -4]
    world.set_state((*state[:4], state[4] - 4 * math.pi))
    assert world.state == pytest.approx(state, abs=1e-12)
    assert world.agent_velocity.tolist() == [0, 0]


def test_a_state_put_back_with_its_velocity_goes_on_as_before() -> None:
    world, other = World(), World()
    world.set_state((50, 50, 300, 300, 1.0))
    world.step((90, 130))
    other.set_state(world.state, agent_velocity=world.agent_velocity.tolist())
    for action in np.random.default_rng(0).uniform(100, 400, (40, 2)):
        world.step(action)
        other.step(action)
        assert world.values == other.values


def test_contacts_are_counted() -> None:
    world = World()
    # Above the bar's long side, the block upright: nothing, then one contact as it pushes down.
    world.set_state((256, 100, 256, 256, 0.0))
    assert world.contacts == world.step((256, 120)) == 0
    assert [world.step((256, 400)) for _ in range(4)][-1] == 1
    # Into the corner between bar and stem: one contact with each.
    world.set_state((310, 330, 256, 256, 0.0))
    assert max(world.step((256, 256)) for _ in range(3)) == 2


def test_a_free_block_stays_and_a_pushed_one_moves() -> None:
    world = World()
    world.set_state((60, 60, 300, 300, 0.5))
    for _ in range(20):
        world.step((100, 60))
    assert world.values[2:] == (300, 300, 0.5)
    world.set_state((256, 235, 256, 256, 0.0))
    for _ in range(3):
        world.step((256, 300))
    assert world.values[3] > 270


def test_targets_outside_the_board_are_followed() -> None:
    world = World()
    world.set_state((256, 256, 100, 100, 0.0))
    for _ in range(40):
        world.step((900, -300))
    assert world.values[:2] == pytest.approx((900, -300), abs=1.0)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ((1, 2, 3), r"shape \(2,\), got \(3,\)"),
        ([[1, 2]], r"shape \(2,\), got \(1, 2\)"),
        (5, r"shape \(2,\), got \(\)"),
        ((math.nan, 0), "finite, got"),
        ((0, math.inf), "finite, got"),
        (("a", "b"), "2 numbers, got"),
        (None, r"shape \(2,\)|2 numbers"),
        ((1 + 2j, 0), "2 numbers, got"),
    ],
)
def test_bad_actions_are_refused(action: object, message: str) -> None:
    world = World()
    world.reset(0)
    before = world.values
    with pytest.raises(ValueError, match=message):
        world.step(action)
    assert world.values == before


@pytest.mark.parametrize("state", [(1, 2, 3, 4), (1, 2, 3, 4, math.nan), np.zeros((5, 1)), "abcde"])
def test_bad_states_are_refused(state: object) -> None:
    with pytest.raises(ValueError, match=r"state must"):
        World().set_state(state)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None, True, math.nan])
def test_bad_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ValueError, match=r"a seed must .* got"):
        World().reset(seed)


def test_numpy_seeds_are_seeds() -> None:
    world, other = World(), World()
    world.reset(np.int64(3))
    other.reset(3)
    assert world.values == other.values


def test_a_world_that_was_not_reset_says_so() -> None:
    with pytest.raises(ValueError, match="must be reset"):
        World().step((1, 1))
    with pytest.raises(ValueError, match="must be reset"):
        _ = World().state


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(ValueError, match=r"engine must be .* got 'bullet'"):
        World("bullet")
