"""Frames that show what a policy acts by: its energy over the board, its candidates, its choice."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from envs.physics.dynamics import BOARD
from envs.rendering import frames as video
from harness.media.legend import (
    CHOSEN,
    EDGE,
    FAINT,
    HIGHEST,
    LIKELY,
    UNLIKELY,
    WAY,
    Colour,
    Words,
    shades,
    with_strip,
)
from harness.media.recorder import Floats, Frame, Step
from harness.media.replay import Look, looks
from ibc.policies.base import Policy
from ibc.policies.explicit import MDNPolicy
from ibc.policies.implicit import IBCPolicy

CANDIDATES, FEW = 256, 40  # how many are drawn at most, and up to how many with an edge
TRAIL = 60  # steps
PLANNED = (240, 140, 60)


def describe(policy: object, title: str) -> Words:
    """Return what the pictures of a policy are of, said so that nothing is taken for an energy."""
    if not isinstance(policy, Policy):
        return Words(title, "no energy is known of this policy: its actions and the agent's way")
    config = policy.config
    H, conditionals = config.action_horizon, config.energy.conditionals
    if isinstance(policy, IBCPolicy):
        note, candidates = "", None if conditionals == "dimensions" else "candidate, by probability"
        if H > 1 and conditionals == "joint":
            note = f"first of {H} actions, the others as chosen"
        elif H > 1:
            note = f"first of {H} actions"
        return Words(title, note, "energy above the lowest", candidates)
    if isinstance(policy, MDNPolicy):
        note = f"first of {H} actions" if H > 1 else ""
        return Words(title, note, "-log density above the lowest", "component, by weight")
    kind = {"mse": "regression", "diffusion": "a diffusion policy"}[config.kind]
    return Words(title, f"{kind} has no energy: its actions and the agent's way")


def frames(
    policy: object,
    seed: int,
    steps: Sequence[Step],
    title: str,
    size: int,
    every: int = 1,
) -> Iterator[Frame]:
    """Yield an episode's pictures (size + a strip, size, 3), each `every`-th step and the last."""
    words = describe(policy, title)
    last = len(steps) - 1

    def wanted(at: int) -> bool:
        return at % every == 0 or at == last

    for at, seen in enumerate(looks(policy, seed, steps, wanted)):
        if wanted(at):
            yield picture(steps[: at + 1], seen, words, size)


def picture(past: Sequence[Step], seen: Look | None, words: Words, size: int) -> Frame:
    """Return one frame: the newest of `past` with the agent's way there, and what is weighed."""
    return with_strip(draw_board(past, seen, size), past, words)


def draw_board(past: Sequence[Step], seen: Look | None, size: int) -> Frame:
    """Return the board (size, size, 3), its energies beneath the T and the agent."""
    now = past[-1]
    frame = video.board(size)
    if seen is not None and seen.energies is not None:
        spread(frame, seen.energies - seen.energies.min(), seen.corners)
        _outline(frame, seen.corners)
    video.draw_block(frame, now.state, opacity=0.45)
    _trail(frame, [step.state[:2] for step in past[-TRAIL:]])
    video.draw_agent(frame, now.state)
    if seen is not None:
        if seen.candidates is not None and seen.probabilities is not None:
            _candidates(frame, seen.candidates, seen.probabilities)
        for place in seen.plan[seen.age + 1 :]:
            _dot(frame, place, 3.0, PLANNED)
    if now.action is not None:
        video.draw_target(frame, now.action, CHOSEN)
    return frame


def spread(frame: Frame, above: Floats, corners: Floats) -> None:
    """Colour a square frame by energies above the lowest (rows, columns) within corners (2, 2) px.

    Between the middles of the cells they are interpolated; beyond HIGHEST the board is seen.
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
    """Draw the window in which actions are compared, where it is on the board."""
    (left, top), (right, bottom) = corners.tolist()
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for ends in itertools.pairwise(ring):
        video.draw_line(frame, ends, 0.6, FAINT, 0.5)


def _trail(frame: Frame, places: Sequence[Floats]) -> None:
    for i in range(1, len(places)):
        opacity = 0.7 * i / len(places)
        video.draw_line(frame, (places[i - 1], places[i]), 1.6, WAY, opacity)


def _candidates(frame: Frame, places_SA: Floats, probabilities_S: Floats) -> None:
    """Draw the likeliest ones, the likeliest on top."""
    heaviest = np.argsort(-probabilities_S, kind="stable")[:CANDIDATES]
    most = probabilities_S[heaviest[0]]
    keep = [i for i in heaviest if probabilities_S[i] >= most / 50]
    few = len(keep) <= FEW
    for i in reversed(keep):
        share = float(probabilities_S[i] / most) ** 0.5
        colour = tuple(round(a + (b - a) * share) for a, b in zip(UNLIKELY, LIKELY, strict=True))
        radius = 2.4 if few else 1.3
        _dot(frame, places_SA[i], radius, (colour[0], colour[1], colour[2]), edge=few)


def _dot(frame: Frame, place: Floats, radius: float, colour: Colour, edge: bool = True) -> None:
    x, y = place.tolist()
    if edge:
        video.draw_disc(frame, (x, y), radius + 0.9, EDGE, 0.8)
    video.draw_disc(frame, (x, y), radius, colour)
