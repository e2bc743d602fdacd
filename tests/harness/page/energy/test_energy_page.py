"""The energy page in a real browser: its numbers are Python's, and keys and touch work."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.physics.geometry import keypoints
from harness.config.protocol import Protocol
from harness.core import paths
from harness.core.errors import UserError
from harness.core.seeds import REPORT_SEEDS
from harness.page.energy import document, episodes, shown
from harness.page.energy.episodes import record
from harness.results.__main__ import main
from harness.storage.checkpoints import weights_hash
from ibc.config.encoder import EncoderConfig
from ibc.config.implicit import EnergyConfig, InferenceConfig
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.policies.factory import build_policy
from ibc.policies.implicit import IBCPolicy
from ibc.sampling.readout import Samples, read_out, resample
from ibc.sampling.search import cells
from tests.harness.page.browsing import CONTRAST, Shown

NARROW = PolicyConfig(
    members=2, encoder=EncoderConfig(state_width=16), energy=EnergyConfig(width=30, depth=3)
)
COMPARED = 8  # energies of each state
HEAT = "document.getElementById('heat').toDataURL()"


def save(config: PolicyConfig, folder: Path, steepness: float = 1.0) -> Path:
    """Save a policy of random weights whose energies differ by so much more than at first."""
    policy = build_policy(
        config, Normalizer.fit(config.action, *[torch.empty(0)] * 2), generator_seed=0
    )
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if name.endswith(f"energy.observation.layers.{config.energy.depth}.weight"):
                weight *= steepness
    policy.save(folder)
    return folder


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[PolicyConfig], tuple[IBCPolicy, Path]]:
    """A policy of a config and its page, made once, with few and short episodes."""

    @cache
    def make(config: PolicyConfig) -> tuple[IBCPolicy, Path]:
        folder = tmp_path_factory.mktemp("energy")
        policy = shown.load(save(config, folder / "policy", steepness=2000.0))
        recording = record(policy, Protocol(max_episode_steps=12), REPORT_SEEDS[:4])
        page = folder / "energy.html"
        page.write_text(document.page(policy, recording, "random <b>weights</b>"))
        return policy, page

    return make


class Energy(Shown):
    """The page of a policy, and what it says after the next frame."""

    paused = False

    def pause_clock(self) -> None:
        self.page.clock.install()
        self.page.clock.pause_at(self.page.evaluate("Date.now() + 1000"))
        self.paused = True

    def frame(self) -> None:
        if self.paused:
            self.page.clock.run_for(20)
        else:
            self.page.evaluate(
                "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
            )

    def text(self, name: str) -> str:
        self.frame()
        return str(self.page.locator(f"#{name}").text_content())

    def value(self, name: str) -> tuple[int, str]:
        self.frame()
        grip = self.page.locator(f"#{name}")
        return int(grip.get_attribute("aria-valuenow")), str(grip.get_attribute("aria-valuetext"))


@pytest.fixture
def opened(browser: Any, made: Any) -> Iterator[Callable[..., Energy]]:
    """Opens the page of a policy; it may neither complain nor ask for anything."""
    pages: list[Energy] = []

    def open_(config: PolicyConfig, width: int = 1280, **options: Any) -> Energy:
        pages.append(Energy(browser, made(config)[1], width, **options))
        return pages[-1]

    yield open_
    for page in pages:
        page.context.close()
        assert page.complaints == []


# Of scenes, cells and uniform numbers the energies and the choices; then, of all recorded steps,
# the distances in px between the choice there and the action that was taken.
COMPUTE = """([scenes, cells, units]) => {
  const { policy, episodes, recorded } = energyPage;
  const found = scenes.map((scene, k) => {
    const energies = policy.energies(scene);
    return [
      cells[k].map((cell) => energies[cell]),
      policy.choose(energies, scene.agent, [units[k]])[0],
    ];
  });
  const distances = episodes.flatMap((episode) =>
    [...Array(episode.states.length / 5 - 1).keys()].map((step) => {
      const scene = recorded(episode, step);
      const [x, y] = policy.choose(policy.energies(scene), scene.agent, [scene.unit])[0];
      return Math.hypot(x - episode.taken[4 * step], y - episode.taken[4 * step + 1]);
    }),
  );
  return [...[0, 1].map((part) => found.map((each) => each[part])), distances];
}"""


@pytest.mark.parametrize(("config", "states"), [(PolicyConfig(), 1000), (NARROW, 100)])
def test_its_energies_and_choices_are_pythons(config, states, made, opened):
    policy, page = made(config)
    assert len(page.read_bytes()) < document.MOST_BYTES
    rng = np.random.default_rng(0)
    now = rng.uniform((20, 20, 60, 60, 0), (492, 492, 450, 450, 2 * np.pi), (states, 5))
    before = now - rng.normal(0, (15, 15, 1, 1, 0.01), now.shape)
    seen = np.stack([keypoints(before), keypoints(now)], 1).astype(np.float32)
    obs = policy.prepare({"keypoints": torch.from_numpy(seen)})
    side = policy.config.inference.lattice
    lattice = cells(side, 2, policy.device)
    with torch.no_grad():
        energies = policy.energies(obs, lattice)
    # Draws in the middle of what falls to a cell, as rounding decides about one on an edge.
    units = torch.from_numpy(rng.uniform(size=states))
    picks = resample(energies, units[:, None])[:, 0].numpy()
    reached = torch.softmax(-energies, 1).double().cumsum(1).numpy()
    reached = np.concatenate([np.zeros((states, 1)), reached], 1) / reached[:, -1:]
    rows = np.arange(states)
    middles = (reached[rows, picks] + reached[rows, picks + 1]) / 2
    samples = Samples(lattice, energies, torch.from_numpy(middles))
    bandwidth = policy.normalizer.lengths(policy.config.inference.bandwidth)
    chosen = policy.normalizer.decode(
        read_out(samples, "mean_shift", bandwidth), policy.newest_agent(obs)
    )[:, 0]
    compared = rng.integers(0, side * side, (states, COMPARED))
    scenes = [
        {"agent": n[:2], "block": n[2:], "before": b[:2], "blockBefore": b[2:]}
        for n, b in zip(now.tolist(), before.tolist(), strict=True)
    ]
    given = [scenes, compared.tolist(), middles.tolist()]
    found, actions, distances = opened(config).page.evaluate(COMPUTE, given)

    wanted = energies.numpy()[rows[:, None], compared]
    assert np.ptp(wanted, 1).mean() > 5  # as those of trained policies, which tell moves apart
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(actions, chosen.numpy(), rtol=0, atol=0.1)
    assert len(distances) == 4 * 12
    assert np.quantile(distances, 0.9) < 0.1
    assert max(distances) < 200 / side + 0.1  # a draw on an edge may fall to the next cell


def test_it_works_by_keys_alone(opened):
    page = opened(NARROW)
    keys, order = page.page.keyboard, []
    for _ in range(16):
        keys.press("Tab")
        order.append(page.page.evaluate("document.activeElement.id || 'start'"))
    assert order == [
        *("theme", "tee", "turn", "agent", "speed", *["start"] * 4, "play", "next", "step"),
        *("draw", "behind", "faster", "half"),
    ]
    page.pause_clock()
    assert page.text("scene").startswith("Start 1, step 0 of 12: the T covers ")

    page.page.locator("#agent").focus()
    x, _ = page.value("agent")
    keys.press("ArrowRight" if x < 400 else "ArrowLeft")
    assert abs(page.value("agent")[0] - x) == 5
    assert page.text("scene") == "Your own scene, taken over from start 1, step 0."
    page.page.locator("#tee").focus()
    angle, _ = page.value("turn")
    keys.press("]")
    assert page.value("turn")[0] == (angle + 5) % 360
    page.page.locator("#speed").focus()
    keys.press("ArrowUp")
    keys.press("Shift+ArrowUp")
    assert page.value("speed") == (10, "move 10 px up")

    keys.press(" ")  # plays the recording on from where it was taken over
    page.page.clock.run_for(1030)
    assert page.text("scene").startswith("Start 1, step 10 of 12: ")
    assert page.text("play") == "Pause"
    page.page.clock.run_for(1000)
    assert page.text("scene").startswith("Start 1, step 12 of 12: ")
    assert page.text("play") == "Play"
    page.page.emulate_media(reduced_motion="reduce")
    page.page.get_by_role("button", name="Start 2").click()
    page.page.locator("#play").press("Enter")
    page.page.clock.run_for(1030)
    assert page.text("scene").startswith("Start 2, step 2 of 12: ")


def test_it_works_by_touch_on_a_phone(opened):
    page = opened(NARROW, width=390, has_touch=True, is_mobile=True, color_scheme="dark")
    width = page.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    pictures = []
    for theme in ("light", "dark"):
        page.page.locator("#theme").click()
        assert page.text("theme") == f"Theme: {theme}"
        readable = page.page.evaluate(CONTRAST)
        assert readable["checked"] > 30
        assert readable["poor"] == []
        pictures.append(page.page.evaluate(HEAT))
    assert pictures[0] != pictures[1]

    board = page.page.locator("#board")
    board.scroll_into_view_if_needed()
    whole, agent = board.bounding_box(), page.page.locator("#agent .agent").bounding_box()
    start = (agent["x"] + agent["width"] / 2, agent["y"] + agent["height"] / 2)
    end = (whole["x"] + whole["width"] / 4, whole["y"] + whole["height"] / 2)
    finger = page.context.new_cdp_session(page.page)
    for kind, places in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
        points = [{"x": x, "y": y} for x, y in places]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    x, y = (int(number) for number in re.findall(r"\d+", page.value("agent")[1]))
    assert abs(x - 128) <= 2
    assert abs(y - 256) <= 2
    assert page.page.evaluate(HEAT) != pictures[1]
    page.page.get_by_role("button", name="Back to the recording").click()
    page.frame()
    assert page.page.evaluate(HEAT) == pictures[1]


def test_the_command_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(episodes, "MOST", 2)
    ckpt, out = save(NARROW, tmp_path / "policy"), tmp_path / "docs" / "energy.html"
    given = ["energy", "--ckpt", str(ckpt), "--out", str(out), "--results", str(tmp_path)]
    assert main(given) == 0
    assert f"wrote {out}" in capsys.readouterr().out.replace("\n", "")
    page = out.read_text()
    assert f"Policy: policy, weights {weights_hash(ckpt)}, rounded to 16 bits." in page
    assert "It solved 0 of the 2 starts that were tried; shown are the first 2 that it did" in page


REFUSED = (
    ({"kind": "mse"}, "kind ibc, given mse"),
    ({"obs_mode": "state"}, "obs_mode keypoints, given state"),
    (
        {"action_horizon": 2, "inference": InferenceConfig(sampler="dfo")},
        "action_horizon 1, given 2",
    ),
    ({"inference": InferenceConfig(mirror=True)}, "inference.mirror false, given true"),
    ({"members": 40}, "1,048,576 bytes, of which weights take"),
)


@pytest.mark.parametrize(("changed", "rule"), REFUSED, ids=[rule for _, rule in REFUSED])
def test_what_it_cannot_show_is_refused(changed, rule, tmp_path):
    alone = dataclasses.replace(NARROW, members=1, energy=EnergyConfig(width=64))
    config = dataclasses.replace(alone, **changed)
    ckpt, out = save(config, tmp_path / "policy"), tmp_path / "energy.html"
    with pytest.raises(UserError, match=rule):
        main(["energy", "--ckpt", str(ckpt), "--out", str(out), "--results", str(tmp_path)])
    assert not out.exists()


def test_the_page_of_the_documents_shows_the_policy_that_is_shipped() -> None:
    page = paths.ROOT / "docs/energy.html"
    described = json.loads((paths.POLICIES / "keypoints/config.json").read_text())
    assert f"weights {described['policy_hash']}" in " ".join(page.read_text().split())
    assert page.stat().st_size < 2**20
