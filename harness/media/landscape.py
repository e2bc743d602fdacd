"""A PNG of one state's energy over the board, for several checkpoints side by side.

The state is one of a demonstrator's episode: the same for all policies, whatever they observe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from envs.expert.demonstrator import plan_episode
from envs.physics.dynamics import BOARD
from envs.rendering import frames
from harness.core import files, seeds
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.media import legend, overlay
from harness.media.legend import FAINT, INK, PAPER, Caption, text_font
from harness.media.recorder import Floats, Frame, Step
from harness.media.replay import Decision, decide, observe
from harness.storage import json_schemas, lookup
from ibc.policies.base import Policy
from ibc.policies.factory import load_policy

MOST, COLUMNS = 12, 4  # checkpoints in a picture, and in a row
MOST_STEPS = 300
PANEL, HEAD, FOOT, GAP = 320, 40, 30, 10
SIDE = 101
EXPERT = (0, 130, 70)
NEAREST = 300.0  # px: the least part of the board that a panel shows


class Panel(NamedTuple):
    """One checkpoint's caption, and its decision in the state."""

    caption: Caption
    decision: Decision


def draw(
    results: Path,
    sweep: str | None,
    specs: Sequence[str],
    seed: int,
    step: int,
    out: Path | None = None,
) -> Path:
    """Draw the energies of checkpoints in one state and return the PNG's path.

    specs: `best`, trials or folders, as of --ckpt; none means the sweep's best. The state is that
    after `step` steps of the demonstrator from `seed`. `out` None: in the sweep's pictures/.
    UserError for bad arguments.
    """
    if len(specs) > MOST:
        raise UserError(f"a picture takes 1 to {MOST} checkpoints, given {len(specs)}")
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"--out must be a .png file, given {out.name!r}")
    if not 0 <= step < MOST_STEPS:
        raise UserError(f"--step is 0 to {MOST_STEPS - 1}, given {step}")
    found = [lookup.resolve(spec, results, sweep) for spec in specs or ("best",)]
    policies = [(_title(each), load_policy(each.path)) for each in found]
    states, action = demonstrated(seed, step)
    panels = [panel(policy, title, states, seed) for title, policy in policies]
    picture = compose(panels, states[-1], action, f"start {seed}, step {step}")
    if out is None:
        folder = found[0].path if found[0].trial_dir is None else found[0].trial_dir.parent.parent
        out = folder / "pictures" / f"landscape-seed{seed}-step{step}.png"
    try:
        with files.atomic(out) as file:
            Image.fromarray(picture).save(file, "PNG", optimize=True)
    except OSError as error:
        raise UserError(f"--out must be a file that can be written: {error}") from error
    return out


def demonstrated(seed: int, step: int) -> tuple[list[Floats], Floats]:
    """Return the states (5,) up to a step of the demonstrator's episode, and its action there."""
    episode = plan_episode(seed, step + 1)
    if len(episode.states) <= step:
        raise UserError(
            f"--step must lie in the episode: from start {seed} the demonstrator is done after "
            f"{len(episode.states)} steps, given {step}"
        )
    return list(episode.states.astype(float)), episode.actions[step].astype(float)


def panel(policy: Policy, title: str, states: Sequence[Floats], seed: int) -> Panel:
    """Return a policy's panel for the last of the states."""
    obs = observe(states, len(states) - 1, policy.obs_horizon, policy.obs_mode)
    decision = decide(policy, obs, seeds.episode_generator(seed), side=SIDE)
    return Panel(overlay.describe(policy, title), decision)


def compose(panels: Sequence[Panel], state: Floats, expert: Floats, title: str) -> Frame:
    """Return the panels side by side with a legend, uint8 (h, w, 3)."""
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width = max(columns, 2) * (PANEL + GAP) + GAP
    cell = PANEL + HEAD
    sheet = Image.new("RGB", (width, FOOT + rows * cell + 2 * FOOT), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, FOOT // 2), title, INK, text_font(15), anchor="lm")
    # The part of the board that is shown: the window of candidate actions with a margin.
    widest = max(float(np.ptp(each.decision.corners, 0).max()) for each in panels)
    shown = min(BOARD, max(NEAREST, 1.1 * widest))
    for at, each in enumerate(panels):
        row, column = divmod(at, columns)
        x, y = GAP + column * (PANEL + GAP), FOOT + row * cell
        note = each.caption.note
        if each.caption.energy == "-log density - min":
            note = f"mixture: -log density {note}".strip()
        pen.text((x, y + 9), _cut(pen, each.caption.title), INK, text_font(13), anchor="lm")
        pen.text((x, y + 27), _cut(pen, note), FAINT, text_font(12), anchor="lm")
        sheet.paste(Image.fromarray(_board(each.decision, state, expert, shown)), (x, y + HEAD))
        pen.rectangle((x, y + HEAD, x + PANEL - 1, y + HEAD + PANEL - 1), outline=FAINT)
    _foot(sheet, sheet.height - 2 * FOOT)
    return np.asarray(sheet)


def _board(decision: Decision, state: Floats, expert: Floats, shown: float) -> Frame:
    """Return `shown` px of the board around the agent, (PANEL, PANEL, 3)."""
    size = 2 * round(PANEL * BOARD / shown / 2)
    frame = overlay.draw_board([Step(state, decision.plan[0], 0.0)], decision, size)
    x, y = expert.tolist()
    for radius, colour in ((9.0, PAPER), (6.5, EXPERT)):

        def distance(u: frames.Floats, v: frames.Floats, radius: float = radius) -> frames.Floats:
            return np.asarray((np.abs(u - x) + np.abs(v - y) - radius) / 2**0.5)

        frames.paint(frame, (x, y), radius, distance, colour)
    scale = size / BOARD
    left, top = (
        int(np.clip(round(middle * scale - PANEL / 2), 0, size - PANEL)) for middle in state[:2]
    )
    return frame[top : top + PANEL, left : left + PANEL]


def _foot(sheet: Image.Image, y: int) -> None:
    pen = ImageDraw.Draw(sheet)
    legend.put_ramp(sheet, GAP, y + 14)
    text = "energy - min of each panel, in nats; one scale for all"
    pen.text((GAP + 92, y + 14), text, INK, text_font(12), anchor="lm")
    x = GAP
    for text, mark in (
        ("demonstrator's action", _diamond_mark),
        ("policy's action", legend.cross_mark),
        ("candidate, by probability", legend.dot_mark),
    ):
        x = legend.put_sign(pen, x, y + 42, text, mark) + 14


def _diamond_mark(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    pen.polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], EXPERT)


def _title(found: lookup.Checkpoint) -> str:
    if found.trial_dir is None:
        return one_line(found.path.name)
    arm = json_schemas.read_or(found.trial_dir / "config.json").get("arm")
    name = found.trial_dir.name
    return one_line(f"{arm}, {name}" if arm else name)


def _cut(pen: ImageDraw.ImageDraw, text: str) -> str:
    """Return the text, shortened to a panel's width."""
    short = text
    while pen.textlength(short, text_font(13)) > PANEL and len(text) > 1:
        text = text[:-1]
        short = f"{text}..."
    return short
