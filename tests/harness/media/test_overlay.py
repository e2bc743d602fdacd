"""Frames of a policy's decisions: what is drawn, where, and its caption."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.rendering import frames as video
from harness.config.protocol import Protocol
from harness.evaluation.rollout import evaluate_block
from harness.media.legend import HIGHEST, LIKELY
from harness.media.overlay import describe, draw_board, frames, spread
from harness.media.recorder import Recorder, Step
from harness.media.replay import Decision

STATE = np.array([100.0, 400.0, 400.0, 100.0, 0.3])
CORNERS = np.array([[150.0, 200.0], [350.0, 300.0]])


def decision(**changes: Any) -> Decision:
    given = {"energies": None, "candidates": None, "probabilities": None}
    plan = np.array([[256.0, 256.0], [300.0, 256.0], [340.0, 256.0]])
    return Decision(**{"corners": CORNERS, "plan": plan, **given, **changes})


def changed(frame: Any, other: Any) -> np.ndarray:
    """The pixels that differ: rows (y, x)."""
    return np.argwhere((frame != other).any(-1))


def test_energies_colour_the_board_where_they_are_low() -> None:
    above = np.full((11, 21), 2 * HIGHEST)  # rows down, columns to the right
    above[8, 3] = 0.0
    frame = video.board(512)
    spread(frame, above, CORNERS)
    touched = changed(frame, video.board(512))
    cell = np.array([100 / 11, 200 / 21])
    place = np.array([200.0, 150.0]) + (np.array([8, 3]) + 0.5) * cell
    assert np.abs(touched.mean(0) - place).max() < 1.5
    assert (np.ptp(touched, 0) < 2 * cell).all()
    y, x = np.rint(place).astype(int)
    assert frame[y, x].sum() < 400  # the lowest is dark


def test_energies_beyond_the_board_are_cut() -> None:
    frame = video.board(96)
    spread(frame, np.zeros((5, 5)), np.array([[-100.0, 400.0], [100.0, 600.0]]))
    touched = changed(frame, video.board(96))
    assert touched.min(0).tolist() == [75, 0]
    assert touched.max(0).tolist() == [95, 18]


@pytest.mark.parametrize("size", [192, 384])
def test_candidates_the_choice_and_the_way_are_drawn_where_they_are(size: int) -> None:
    now = Step(STATE, None, 0.5)
    bare = draw_board([now], None, size)
    scale = size / 512
    places = np.array([[200.0, 250.0]])
    dotted = draw_board([now], decision(candidates=places, probabilities=np.ones(1), age=2), size)
    middle = changed(dotted, bare).mean(0) / scale
    assert np.abs(middle - (250, 200)).max() < 3
    chosen = draw_board([now._replace(action=np.array([300.0, 200.0]))], None, size)
    assert np.abs(changed(chosen, bare).mean(0) / scale - (200, 300)).max() < 3
    before = Step(STATE - [60, 0, 0, 0, 0], None, 0.5)
    way = changed(draw_board([before, now], None, size), bare) / scale
    assert np.abs(way[:, 0] - 400).max() < 8
    assert way[:, 1].min() < 60
    plan = changed(draw_board([now], decision(), size), bare) / scale
    assert np.ptp(plan[:, 1]) > 30  # the two actions of the chunk that are still to come


def test_unlikely_candidates_are_left_out_and_the_likeliest_lie_on_top() -> None:
    now = Step(STATE, None, 0.5)
    places = np.array([[200.0, 250.0], [200.0, 250.0], [300.0, 250.0]])
    seen = decision(candidates=places, probabilities=np.array([0.2, 0.799, 0.001]), age=2)
    frame = draw_board([now], seen, 512)
    assert tuple(frame[250, 200]) == LIKELY
    assert tuple(frame[250, 300]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("settings", "energy", "note"),
    [
        ({}, "energy - min", ""),
        ({"policy__kind": "mdn"}, "-log density - min", ""),
        (
            {"policy__kind": "mdn", "policy__action_horizon": 8},
            "-log density - min",
            "first of 8 actions",
        ),
        (
            {"policy__kind": "mse"},
            None,
            "regression has no energy: actions and the agent's path",
        ),
        ({"policy__kind": "diffusion"}, None, "a diffusion policy has no energy: actions and"),
    ],
)
def test_what_is_drawn_is_said(
    tiny_policy: Callable[..., Any], settings: dict[str, Any], energy: str | None, note: str
) -> None:
    caption = describe(tiny_policy(**settings), "title")
    assert caption.energy == energy
    assert caption.note.startswith(note)
    assert caption.title == "title"


def test_an_object_is_not_said_to_have_an_energy() -> None:
    caption = describe(object(), "t")
    assert caption.energy is None
    assert caption.candidates is None
    assert "no known energy" in caption.note


@pytest.mark.parametrize("settings", [{}, {"policy__kind": "mse"}])
def test_an_episode_becomes_frames_of_one_even_size(
    tiny_policy: Callable[..., Any], settings: dict[str, Any]
) -> None:
    policy = tiny_policy(**settings)
    recorder = Recorder([300_000])
    evaluate_block(policy, [300_000], Protocol(max_episode_steps=6), video=recorder)
    steps = recorder.steps[300_000]
    for size in (96, 384):
        made = list(frames(policy, 300_000, steps, "seed", size, every=4))
        assert len(made) == 3  # steps 0, 4 and the last
        assert {frame.shape for frame in made} == {made[0].shape}
        assert made[0].shape[0] % 2 == 0
        assert made[0].shape[1] == size
        assert made[0].dtype == np.uint8
    every = list(frames(policy, 300_000, steps, "seed", 96))
    assert np.array_equal(every[4], list(frames(policy, 300_000, steps, "seed", 96, every=4))[1])
