"""What stands under a picture of the board: step and coverage, and what the colours mean."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.media.recorder import Floats, Frame, Step

Colour = tuple[int, int, int]
HIGHEST = 30.0  # nats above the lowest energy, from where on nothing is drawn
STRIP, SMALL_STRIP = 92, 26  # px under the board: with the meaning of the colours, and without
LEGEND_SIZE, WORDS_SIZE = 352, 160  # px of a board under which a legend, or any words, fit
INK, FAINT, PAPER = (40, 44, 52), (120, 126, 138), (255, 255, 255)
CHOSEN, WAY, EDGE = (214, 25, 25), (30, 70, 200), (70, 50, 20)
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


def shades(share: Floats) -> tuple[Floats, Floats]:
    """Return colours (..., 3) and covers (..., 1) of energies as shares of HIGHEST."""
    at = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(share, at, RAMP[:, c]) for c in range(3)], -1)
    return colour, np.interp(share, at, COVER)[..., None]


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
        font = text_font(14 if wide else 11)
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
    pen, font = ImageDraw.Draw(strip), text_font(12)
    pen.text((8, 13), words.title, INK, text_font(13), anchor="lm")
    if words.energy is None:  # a sentence, with a line to itself
        pen.text((8, 79), words.note, FAINT, font, anchor="lm")
    else:
        pen.text((size - 8, 13), words.note, FAINT, font, anchor="rm")
    signs = [("chosen action", cross_mark), ("agent's way", way_mark)]
    if words.energy is not None:
        put_ramp(strip, 8, 57)
        pen.text((98, 57), words.energy, INK, font, anchor="lm")
        width = round(pen.textlength("chosen action", font))
        put_sign(strip, size - width - 24, 57, *signs.pop(0))
    if words.candidates is not None:
        signs.insert(0, (words.candidates, dot_mark))
    x = 8
    for text, sign in signs:
        x = put_sign(strip, x, 79 if words.energy is not None else 57, text, sign) + 14
    return strip


Mark = Callable[[Image.Image, int, int], None]


def put_sign(strip: Image.Image, x: int, y: int, text: str, mark: Mark) -> int:
    """Draw a sign and what it means from x on; returns where that ends."""
    pen = ImageDraw.Draw(strip)
    mark(strip, x + 6, y)
    pen.text((x + 16, y), text, INK, text_font(12), anchor="lm")
    return x + 16 + round(pen.textlength(text, text_font(12)))


def put_ramp(strip: Image.Image, x: int, y: int) -> None:
    """Draw the colours of energies, with the numbers at their ends, over 90 px from x on."""
    pen = ImageDraw.Draw(strip)
    colour, cover = shades(np.linspace(0, 1, 60))
    bar = np.rint(255 * (1 - cover) + colour * cover).astype(np.uint8)
    strip.paste(Image.fromarray(np.repeat(bar[None], 10, 0)), (x + 10, y - 5))
    pen.rectangle((x + 9, y - 6, x + 70, y + 5), outline=FAINT)
    pen.text((x + 4, y), "0", FAINT, text_font(12), anchor="mm")
    pen.text((x + 73, y), f"{HIGHEST:.0f}", FAINT, text_font(12), anchor="lm")


def cross_mark(strip: Image.Image, x: int, y: int) -> None:
    """The mark of a chosen action."""
    pen = ImageDraw.Draw(strip)
    pen.rectangle((x - 5, y - 1, x + 5, y + 1), CHOSEN)
    pen.rectangle((x - 1, y - 5, x + 1, y + 5), CHOSEN)


def dot_mark(strip: Image.Image, x: int, y: int) -> None:
    """The mark of candidates: an unlikely and a likely one."""
    pen = ImageDraw.Draw(strip)
    for dx, colour in ((-4, UNLIKELY), (3, LIKELY)):
        pen.ellipse((x + dx - 3, y - 3, x + dx + 3, y + 3), colour, EDGE)


def way_mark(strip: Image.Image, x: int, y: int) -> None:
    """The mark of the agent's way."""
    ImageDraw.Draw(strip).line((x - 5, y, x + 6, y), WAY, 2)


@functools.lru_cache(maxsize=8)
def text_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow brings along, in px."""
    return ImageFont.load_default(size)
