"""Frames that show a policy's decisions: energy over the board, candidates and chosen action."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from envs.physics.dynamics import BOARD
from envs.rendering import frames as drawing
from harness.media.legend import (
    CHOSEN,
    EDGE,
    FAINT,
    HIGHEST,
    LIKELY,
    PATH,
    UNLIKELY,
    Caption,
    Colour,
    shades,
    with_strip,
)
from harness.media.recorder import Floats, Frame, Step
from harness.media.replay import Decision, decisions
from ibc.policies.base import Policy
from ibc.policies.explicit import MDNPolicy
from ibc.policies.implicit import IBCPolicy

CANDIDATES, FEW = 256, 40  # candidates drawn at most, and drawn with an edge at most
TRAIL = 60  # steps
PLANNED = (240, 140, 60)


def describe(policy: object, title: str) -> Caption:
    """Return the caption of a policy's frames, with the quantity that the colours show."""
    if not isinstance(policy, Policy):
        return Caption(title, "this policy has no known energy: actions and the agent's path")
    config = policy.config
    H, conditionals = config.action_horizon, config.energy.conditionals
    note = f"first of {H} actions" if H > 1 else ""
    if isinstance(policy, IBCPolicy):
        if H > 1 and conditionals == "joint":
            note += ", the others as chosen"
        candidates = None if conditionals == "dimensions" else "candidate, by probability"
        return Caption(title, note, "energy - min", candidates)
    if isinstance(policy, MDNPolicy):
        return Caption(title, note, "-log density - min", "component, by weight")
    kind = {"mse": "regression", "diffusion": "a diffusion policy"}[config.kind]
    return Caption(title, f"{kind} has no energy: actions and the agent's path")


def frames(
    policy: object,
    seed: int,
    steps: Sequence[Step],
    title: str,
    size: int,
    every: int = 1,
) -> Iterator[Frame]:
    """Yield an episode's frames (size + a strip, size, 3), of each `every`-th step and the last."""
    caption = describe(policy, title)
    last = len(steps) - 1

    def wanted(at: int) -> bool:
        return at % every == 0 or at == last

    for at, decision in enumerate(decisions(policy, seed, steps, wanted)):
        if wanted(at):
            past = steps[: at + 1]
            yield with_strip(draw_board(past, decision, size), past, caption)


def draw_board(past: Sequence[Step], decision: Decision | None, size: int) -> Frame:
    """Return the board (size, size, 3), its energies below the T and the agent."""
    now = past[-1]
    frame = drawing.board(size)
    if decision is not None and decision.energies is not None:
        spread(frame, decision.energies - decision.energies.min(), decision.corners)
        _outline(frame, decision.corners)
    drawing.draw_block(frame, now.state, opacity=0.45)
    trail = [step.state[:2] for step in past[-TRAIL:]]
    for i, ends in enumerate(itertools.pairwise(trail), start=1):
        drawing.draw_line(frame, ends, 1.6, PATH, 0.7 * i / len(trail))
    drawing.draw_agent(frame, now.state)
    if decision is not None:
        if decision.candidates is not None and decision.probabilities is not None:
            _candidates(frame, decision.candidates, decision.probabilities)
        for place in decision.plan[decision.age + 1 :]:
            _dot(frame, place, 3.0, PLANNED)
    if now.action is not None:
        drawing.draw_target(frame, now.action, CHOSEN)
    return frame


def spread(frame: Frame, above: Floats, corners: Floats) -> None:
    """Colour a square frame by energies above the minimum (rows, columns) in corners (2, 2) px.

    They are interpolated between the centres of the cells; above HIGHEST the board is seen.
    """
    size = len(frame)
    scale = size / BOARD
    ranges, weights = [], []
    for axis, count in ((1, above.shape[0]), (0, above.shape[1])):
        low, high = corners[:, axis]
        first, last = (int(np.clip(np.rint(edge * scale), 0, size)) for edge in (low, high))
        places = ((np.arange(first, last) + 0.5) / scale - low) / (high - low) * count - 0.5
        near = np.clip(np.abs(np.arange(count) - np.clip(places, 0, count - 1)[:, None]), 0, 1)
        ranges.append(slice(first, last))
        weights.append(1.0 - near)
    shown = np.clip(weights[0] @ np.minimum(above, HIGHEST) @ weights[1].T / HIGHEST, 0, 1)
    colour, cover = shades(shown)
    under = frame[ranges[0], ranges[1]]
    under[:] = np.rint(under * (1 - cover) + colour * cover).astype(np.uint8)


def _outline(frame: Frame, corners: Floats) -> None:
    """Draw the window of candidate actions."""
    (left, top), (right, bottom) = corners.tolist()
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for ends in itertools.pairwise(ring):
        drawing.draw_line(frame, ends, 0.6, FAINT, 0.5)


def _candidates(frame: Frame, places_SA: Floats, probabilities_S: Floats) -> None:
    """Draw the most probable candidates, the most probable on top."""
    order = np.argsort(-probabilities_S, kind="stable")[:CANDIDATES]
    most = probabilities_S[order[0]]
    drawn = [i for i in order if probabilities_S[i] >= most / 50]
    few = len(drawn) <= FEW
    for i in reversed(drawn):
        share = float(probabilities_S[i] / most) ** 0.5
        colour = tuple(round(a + (b - a) * share) for a, b in zip(UNLIKELY, LIKELY, strict=True))
        radius = 2.4 if few else 1.3
        _dot(frame, places_SA[i], radius, (colour[0], colour[1], colour[2]), edge=few)


def _dot(frame: Frame, place: Floats, radius: float, colour: Colour, edge: bool = True) -> None:
    x, y = place.tolist()
    if edge:
        drawing.draw_disc(frame, (x, y), radius + 0.9, EDGE, 0.8)
    drawing.draw_disc(frame, (x, y), radius, colour)
