"""Frames that show what a policy acts by: its energy over the board, its candidates, its choice."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs import video
from envs.dynamics import BOARD
from harness.replays import Look, looks
from harness.video import Floats, Frame, Step
from ibc.base import Policy
from ibc.explicit import MDNPolicy
from ibc.policy import IBCPolicy

Colour = tuple[int, int, int]

HIGHEST = 30.0  # nats above the lowest energy, from where on nothing is drawn
CANDIDATES, FEW = 256, 40  # how many are drawn at most, and up to how many with an edge
TRAIL = 60  # steps
STRIP, SMALL_STRIP = 92, 26  # px under the board: with the meaning of the colours, and without
LEGEND_SIZE, WORDS_SIZE = 352, 160  # px of a board under which a legend, or any words, fit

INK, FAINT, PAPER = (40, 44, 52), (120, 126, 138), (255, 255, 255)
CHOSEN, PLANNED, WAY, EDGE = (214, 25, 25), (240, 140, 60), (30, 70, 200), (70, 50, 20)
LIKELY, UNLIKELY = (255, 190, 0), (255, 255, 255)
# From the lowest energy to HIGHEST: colour, and how much of the board it covers.
RAMP = np.array(
    [[72, 10, 120], [150, 25, 140], [222, 80, 150], [250, 165, 185], [255, 225, 230]], float
)
COVER = np.array([0.9, 0.8, 0.65, 0.42, 0.0])


@dataclass(frozen=True)
class Words:
    """What stands under the board: a title, a note, and whether there is an energy to explain."""

    title: str
    note: str = ""
    energy: str | None = None
    candidates: str | None = None


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


def shades(share: Floats) -> tuple[Floats, Floats]:
    """Return colours (..., 3) and covers (..., 1) of energies as shares of HIGHEST."""
    at = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(share, at, RAMP[:, c]) for c in range(3)], -1)
    return colour, np.interp(share, at, COVER)[..., None]


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
        share = float(probabilities_S[i] / most)
        colour = tuple(round(a + (b - a) * share) for a, b in zip(UNLIKELY, LIKELY, strict=True))
        radius = 2.4 if few else 1.3
        _dot(frame, places_SA[i], radius, (colour[0], colour[1], colour[2]), edge=few)


def _dot(frame: Frame, place: Floats, radius: float, colour: Colour, edge: bool = True) -> None:
    x, y = place.tolist()
    if edge:
        video.draw_disc(frame, (x, y), radius + 0.9, EDGE, 0.8)
    video.draw_disc(frame, (x, y), radius, colour)


def with_strip(board: Frame, past: Sequence[Step], words: Words) -> Frame:
    """Return the board with a strip below: step, coverage, and what the colours mean."""
    size = len(board)
    wide = size >= LEGEND_SIZE
    strip = _legend(words, size).copy() if wide else Image.new("RGB", (size, SMALL_STRIP), PAPER)
    pen = ImageDraw.Draw(strip)
    now, best = past[-1].coverage, max(step.coverage for step in past)
    y = 34 if wide else SMALL_STRIP // 2
    left, right = 8, size - 8
    if size >= WORDS_SIZE:
        font = _font(14 if wide else 11)
        pen.text((left, y), f"step {len(past) - 1}", INK, font, anchor="lm")
        pen.text((right, y), f"{now:.0%} covered", INK, font, anchor="rm")
        left += round(pen.textlength("step 300", font)) + 8
        right -= round(pen.textlength("100% covered", font)) + 8
    _bar(pen, (left, y - 5, right, y + 5), now, best)
    return np.concatenate([board, np.asarray(strip)])


def _bar(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], now: float, best: float) -> None:
    """Coverage as a bar, the best so far behind it, a mark where it counts as solved."""
    left, top, right, bottom = box
    width = right - left
    pen.rectangle(box, (232, 234, 238))
    pen.rectangle((left, top, left + round(width * best), bottom), (190, 232, 190))
    pen.rectangle((left, top, left + round(width * now), bottom), (72, 172, 92))
    mark = left + round(width * 0.95)
    pen.line((mark, top - 2, mark, bottom + 2), INK)


@functools.lru_cache(maxsize=8)
def _legend(words: Words, size: int) -> Image.Image:
    """The strip's part that stays: what is seen, and which colour means what."""
    strip = Image.new("RGB", (size, STRIP), PAPER)
    pen, font = ImageDraw.Draw(strip), _font(12)
    pen.text((8, 13), words.title, INK, _font(13), anchor="lm")
    if words.energy is None:  # a sentence, with a line to itself
        pen.text((8, 79), words.note, FAINT, font, anchor="lm")
    else:
        pen.text((size - 8, 13), words.note, FAINT, font, anchor="rm")
    signs = [("chosen action", _cross_sign), ("agent's way", _way_sign)]
    if words.energy is not None:
        _ramp_sign(strip, 8, 57)
        pen.text((98, 57), words.energy, INK, font, anchor="lm")
        width = round(pen.textlength("chosen action", font))
        _sign(strip, size - width - 24, 57, *signs.pop(0))
    if words.candidates is not None:
        signs.insert(0, (words.candidates, _dot_sign))
    x = 8
    for text, sign in signs:
        x = _sign(strip, x, 79 if words.energy is not None else 57, text, sign) + 14
    return strip


Sign = Callable[[Image.Image, int, int], None]


def _sign(strip: Image.Image, x: int, y: int, text: str, sign: Sign) -> int:
    """Draw a sign and what it means from x on; returns where that ends."""
    pen = ImageDraw.Draw(strip)
    sign(strip, x + 6, y)
    pen.text((x + 16, y), text, INK, _font(12), anchor="lm")
    return x + 16 + round(pen.textlength(text, _font(12)))


def _ramp_sign(strip: Image.Image, x: int, y: int) -> None:
    pen = ImageDraw.Draw(strip)
    colour, cover = shades(np.linspace(0, 1, 60))
    bar = np.rint(255 * (1 - cover) + colour * cover).astype(np.uint8)
    strip.paste(Image.fromarray(np.repeat(bar[None], 10, 0)), (x + 10, y - 5))
    pen.rectangle((x + 9, y - 6, x + 70, y + 5), outline=FAINT)
    pen.text((x + 4, y), "0", FAINT, _font(12), anchor="mm")
    pen.text((x + 73, y), f"{HIGHEST:.0f}", FAINT, _font(12), anchor="lm")


def _cross_sign(strip: Image.Image, x: int, y: int) -> None:
    pen = ImageDraw.Draw(strip)
    pen.rectangle((x - 5, y - 1, x + 5, y + 1), CHOSEN)
    pen.rectangle((x - 1, y - 5, x + 1, y + 5), CHOSEN)


def _dot_sign(strip: Image.Image, x: int, y: int) -> None:
    pen = ImageDraw.Draw(strip)
    for dx, colour in ((-4, UNLIKELY), (3, LIKELY)):
        pen.ellipse((x + dx - 3, y - 3, x + dx + 3, y + 3), colour, EDGE)


def _way_sign(strip: Image.Image, x: int, y: int) -> None:
    ImageDraw.Draw(strip).line((x - 5, y, x + 6, y), WAY, 2)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
