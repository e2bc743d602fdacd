"""Windows: the right frames and actions, padded at the ends, never across episodes."""

import time

import numpy as np
import pytest

from ibc.data.demos import Demos, read
from ibc.data.windows import Windows

LENGTHS = (9, 5, 12)


@pytest.fixture(scope="module")
def demos(tmp_path_factory, write_demos) -> Demos:
    """Data in which every row tells its own number: action, state and pixels are all row t."""
    rows = np.arange(sum(LENGTHS), dtype=np.float32)
    folder = tmp_path_factory.mktemp("windows")
    write_demos(
        folder / "a.zarr",
        lengths=LENGTHS,
        action=np.stack([rows, rows + 100], axis=1),
        state=np.repeat(rows[:, None], 5, axis=1) + 0.1 * np.arange(5, dtype=np.float32),
        img=np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (26, 96, 96, 3)),
    )
    return read(folder / "a.zarr", images=folder / "a.npy")


def expected(start: int, end: int, t: int, obs_horizon: int, action_horizon: int):
    """The rows of one window, the slow way."""
    frames = [max(start, t - back) for back in reversed(range(obs_horizon))]
    actions = [min(end - 1, t + ahead) for ahead in range(action_horizon)]
    return frames, actions


@pytest.mark.parametrize(("obs_horizon", "action_horizon"), [(1, 1), (2, 1), (4, 8), (20, 20)])
@pytest.mark.parametrize("episodes", [(0, 1, 2), (1,), (2, 0)])
def test_frames_and_actions_of_every_window(demos, episodes, obs_horizon, action_horizon):
    windows = Windows(demos, episodes, "state", obs_horizon, action_horizon)
    bounds = [(0, 9), (9, 14), (14, 26)]
    steps = [(*bounds[k], t) for k in episodes for t in range(*bounds[k])]
    assert len(windows) == len(steps) == sum(LENGTHS[k] for k in episodes)
    batch = windows.batch(np.arange(len(windows)))
    for i, (start, end, t) in enumerate(steps):
        frames, actions = expected(start, end, t, obs_horizon, action_horizon)
        assert batch["state"][i, :, 0].tolist() == frames
        assert batch["action"][i, :, 0].tolist() == actions
        assert batch["state"][i, -1, 0] == batch["action"][i, 0, 0] == t
    assert windows.steps.tolist() == [t for _, _, t in steps]


def test_what_each_mode_gives(demos):
    indices = np.array([3, 0, 25, 3])
    shapes = {
        "state": {"state": (4, 2, 5)},
        "keypoints": {"keypoints": (4, 2, 20)},
        "image": {
            "image": (4, 2, 96, 96, 3),
            "agent_pos": (4, 2, 2),
            "block_points": (4, 18),
        },
    }
    for mode, wanted in shapes.items():
        batch = Windows(demos, (0, 1, 2), mode, 2, 3).batch(indices)
        assert {k: v.shape for k, v in batch.items()} == {**wanted, "action": (4, 3, 2)}
        for name, values in batch.items():
            assert values.dtype == (np.uint8 if name == "image" else np.float32)
            assert type(values) is np.ndarray
            assert values.flags.writeable
        if mode == "image":
            assert batch["image"][:, :, 5, 5, 1].tolist() == [[2, 3], [0, 0], [24, 25], [2, 3]]
            assert np.allclose(batch["agent_pos"][0], [[2, 2.1], [3, 3.1]])
            np.testing.assert_array_equal(batch["block_points"][0], demos.keypoints[3, :18])
        if mode == "keypoints":
            np.testing.assert_array_equal(batch["keypoints"][0], demos.keypoints[[2, 3]])


def test_no_episodes_no_windows(demos):
    windows = Windows(demos, (), "keypoints", 2, 1)
    assert len(windows) == 0
    assert windows.batch(np.empty(0, np.int64))["action"].shape == (0, 1, 2)


@pytest.mark.parametrize("indices", [[26], [-1], [0, 99]])
def test_windows_that_do_not_exist(demos, indices):
    with pytest.raises(IndexError, match="windows are numbered 0 to 25"):
        Windows(demos, (0, 1, 2), "state", 1, 1).batch(np.array(indices))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((0, 3), "state", 1, 1), r"episodes must be numbers from 0 to 2, got \(0, 3\)"),
        (((-1,), "state", 1, 1), "episodes must be numbers from 0 to 2"),
        (((0,), "pixels", 1, 1), "obs_mode must be one of .*, got 'pixels'"),
        (((0,), "state", 0, 1), "obs_horizon must be a whole number of at least 1, got 0"),
        (((0,), "state", 1, 1.0), "action_horizon must be a whole number of at least 1, got 1.0"),
        (((0,), "state", True, 1), "obs_horizon must be a whole number of at least 1, got True"),
    ],
)
def test_refused_arguments(demos, arguments, said):
    with pytest.raises(ValueError, match=said):
        Windows(demos, *arguments)


def test_image_windows_need_images(tmp_path, write_demos):
    write_demos(tmp_path / "a.zarr", images="uint8")
    with pytest.raises(ValueError, match="needs demonstrations that were read with images"):
        Windows(read(tmp_path / "a.zarr"), (0,), "image", 1, 1)


def test_a_batch_of_keypoints_takes_well_under_a_millisecond(human_data):
    windows = Windows(read(human_data, pixels=""), tuple(range(180)), "keypoints", 2, 1)
    indices = np.random.default_rng(0).integers(0, len(windows), (200, 256))
    seconds = []
    for row in indices:
        start = time.perf_counter()
        windows.batch(row)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 1e-3  # 0.05 ms on an idle core; the rest is for a busy machine
