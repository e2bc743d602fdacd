"""One state under several checkpoints: each one's energy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from envs.expert.demonstrator import plan_episode
from harness.core.errors import UserError
from harness.media import landscape
from harness.media.landscape import GAP, HEAD, PANEL, compose, demonstrated, draw, panel
from harness.media.legend import CHOSEN

SEED = 300_000


def test_the_state_is_the_demonstrators(monkeypatch: pytest.MonkeyPatch) -> None:
    states, action = demonstrated(SEED, 4)
    episode = plan_episode(SEED, 5)
    assert np.array_equal(states, episode.states)
    assert np.array_equal(action, episode.actions[4])
    monkeypatch.setattr(landscape, "plan_episode", lambda seed, steps: episode)
    with pytest.raises(UserError, match="done after 5 steps, given 9"):
        demonstrated(SEED, 9)


@pytest.mark.parametrize("mode", ["state", "keypoints", "image"])
def test_a_panel_is_of_what_the_policy_would_do_there(tiny_policy: Any, mode: str) -> None:
    policy = tiny_policy(policy__obs_mode=mode)
    states, _ = demonstrated(SEED, 2)
    made = panel(policy, "title", states, SEED)
    assert made.decision.energies is not None
    assert made.caption.title == "title"
    lowest = np.unravel_index(made.decision.energies.argmin(), made.decision.energies.shape)
    assert made.decision.energies[lowest] < made.decision.energies.mean()


def test_policies_of_any_kind_are_drawn_side_by_side(tiny_policy: Any) -> None:
    states, action = demonstrated(SEED, 2)
    recipes: list[dict[str, Any]] = [
        {"policy__obs_mode": "image"},
        {"policy__kind": "mdn"},
        {"policy__kind": "mse"},
    ]
    panels = [panel(tiny_policy(**recipe), "x" * 200, states, SEED) for recipe in recipes]
    picture = compose(panels, states[-1], action, "title")
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 3 * (PANEL + GAP) + GAP
    for at, each in enumerate(panels):
        left = GAP + at * (PANEL + GAP)
        part = picture[:, left : left + PANEL]
        board = part[landscape.FOOT + HEAD :][:PANEL]
        # The tiny policies' bounds are the whole board, so all of it is shown.
        for place, colour in ((each.decision.plan[0], CHOSEN), (action, landscape.EXPERT)):
            x, y = np.clip(np.rint(place * PANEL / 512), 0, PANEL - 1).astype(int)
            near = board[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].reshape(-1, 3)
            assert (near == colour).all(1).any()
        purple = (board.astype(int)[..., 1] < 60) & (board.astype(int)[..., 2] > 100)
        assert purple.any() == (each.decision.energies is not None)


def test_checkpoints_of_a_sweep_become_a_file(tiny_results: Path, tmp_path: Path) -> None:
    trials = sorted(path.name for path in (tiny_results / "tiny" / "trials").iterdir())
    path = draw(tiny_results, None, [], SEED, 0)
    assert path == tiny_results / "tiny" / "pictures" / f"landscape-seed{SEED}-step0.png"
    with Image.open(path) as alone:
        assert alone.format == "PNG"
    folder = tiny_results / "tiny" / "trials" / trials[0]
    out = tmp_path / "new" / "a.png"
    assert draw(tiny_results, "tiny", [*trials, str(folder)], SEED, 3, out) == out
    with Image.open(out) as several:
        assert several.width > alone.width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "--step is 0 to 299, given -1"),
        ({"step": 300}, "given 300"),
        ({"seed": -1}, "seed"),
        ({"out": Path("a.gif")}, "must be a .png file, given 'a.gif'"),
        ({"specs": ["best"] * 13}, "1 to 12 checkpoints, given 13"),
        ({"specs": ["nothing"]}, "is no folder and no trial"),
        ({"out": Path("/proc/a.png")}, "must be a file that can be written"),
    ],
)
def test_what_cannot_be_drawn(tiny_results: Path, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"specs": [], "seed": SEED, "step": 0, "out": None, **changes}
    with pytest.raises(ValueError, match=message):
        draw(tiny_results, "tiny", given["specs"], given["seed"], given["step"], given["out"])
