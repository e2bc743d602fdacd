"""The strip below a frame of the board: step, coverage and the legend of the colours."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs.physics.geometry import SUCCESS_COVERAGE
from harness.media.recorder import Floats, Frame, Step

Colour = tuple[int, int, int]
HIGHEST = 30.0  # nats above the lowest energy, from which on nothing is drawn
STRIP, SMALL_STRIP = 92, 26  # height in px, with and without a legend
TITLED_STRIP = 46  # of a title and the step alone
LEGEND_SIZE, TEXT_SIZE = 352, 160  # px: the least width of a board for a legend, and for text
INK, FAINT, PAPER = (40, 44, 52), (120, 126, 138), (255, 255, 255)
CHOSEN, PATH, EDGE = (214, 25, 25), (30, 70, 200), (70, 50, 20)
LIKELY, UNLIKELY = (255, 190, 0), (255, 255, 255)

# From the lowest energy to HIGHEST: colour and opacity.
RAMP = np.array(
    [[72, 10, 120], [150, 25, 140], [222, 80, 150], [250, 165, 185], [255, 225, 230]], float
)
COVER = np.array([0.9, 0.8, 0.65, 0.42, 0.0])


@dataclass(frozen=True)
class Caption:
    """The texts of a strip; `energy` and `candidates` name what colours and dots show, if any."""

    title: str
    note: str = ""
    energy: str | None = None
    candidates: str | None = None


def shades(share: Floats) -> tuple[Floats, Floats]:
    """Return colours (..., 3) and opacities (..., 1) of energies as shares of HIGHEST."""
    at = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(share, at, RAMP[:, c]) for c in range(3)], -1)
    return colour, np.interp(share, at, COVER)[..., None]


def with_strip(board: Frame, past: Sequence[Step], caption: Caption) -> Frame:
    """Return the board with a strip below."""
    size = len(board)
    wide = size >= LEGEND_SIZE
    strip = _legend(caption, size).copy() if wide else Image.new("RGB", (size, SMALL_STRIP), PAPER)
    _draw_progress(strip, past, 34 if wide else SMALL_STRIP // 2)
    return np.concatenate([board, np.asarray(strip)])


def with_title(board: Frame, past: Sequence[Step], title: str) -> Frame:
    """Return the board with a strip below: a title, the step and the coverage."""
    size = len(board)
    strip = Image.new("RGB", (size, TITLED_STRIP), PAPER)
    font = text_font(13 if size >= LEGEND_SIZE else 11)
    ImageDraw.Draw(strip).text((8, 12), title, INK, font, anchor="lm")
    _draw_progress(strip, past, 33)
    return np.concatenate([board, np.asarray(strip)])


def _draw_progress(strip: Image.Image, past: Sequence[Step], y: int) -> None:
    """Draw the step, the coverage in per cent and as a bar, and its maximum so far."""
    size = strip.width
    wide, pen = size >= LEGEND_SIZE, ImageDraw.Draw(strip)
    now, best = past[-1].coverage, max(step.coverage for step in past)
    left, right = 8, size - 8
    if size >= TEXT_SIZE:
        font = text_font(14 if wide else 11)
        pen.text((left, y), f"step {len(past) - 1}", INK, font, anchor="lm")
        pen.text((right, y), f"{now:.0%} covered", INK, font, anchor="rm")
        left += round(pen.textlength("step 300", font)) + 8
        right -= round(pen.textlength("100% covered", font)) + 8
    # Coverage as a bar, its maximum so far behind it, and a mark at success.
    for share, colour in ((1.0, (232, 234, 238)), (best, (190, 232, 190)), (now, (72, 172, 92))):
        pen.rectangle((left, y - 5, left + round((right - left) * share), y + 5), colour)
    mark = left + round((right - left) * SUCCESS_COVERAGE)
    pen.line((mark, y - 7, mark, y + 7), INK)


@functools.lru_cache(maxsize=8)
def _legend(caption: Caption, size: int) -> Image.Image:
    """Return the part of the strip that all frames share."""
    strip = Image.new("RGB", (size, STRIP), PAPER)
    pen, font = ImageDraw.Draw(strip), text_font(12)
    pen.text((8, 13), caption.title, INK, text_font(13), anchor="lm")
    if caption.energy is None:  # a sentence, with a line to itself
        pen.text((8, 79), caption.note, FAINT, font, anchor="lm")
    else:
        pen.text((size - 8, 13), caption.note, FAINT, font, anchor="rm")
    signs: list[tuple[str, Mark]] = [("chosen action", cross_mark), ("agent's path", path_mark)]
    if caption.energy is not None:
        put_ramp(strip, 8, 57)
        pen.text((98, 57), caption.energy, INK, font, anchor="lm")
        width = round(pen.textlength("chosen action", font))
        put_sign(pen, size - width - 24, 57, *signs.pop(0))
    if caption.candidates is not None:
        signs.insert(0, (caption.candidates, dot_mark))
    x = 8
    for text, sign in signs:
        x = put_sign(pen, x, 79 if caption.energy is not None else 57, text, sign) + 14
    return strip


Mark = Callable[[ImageDraw.ImageDraw, int, int], None]


def put_sign(pen: ImageDraw.ImageDraw, x: int, y: int, text: str, mark: Mark) -> int:
    """Draw a sign and its meaning from x on; return the x at its end."""
    mark(pen, x + 6, y)
    pen.text((x + 16, y), text, INK, text_font(12), anchor="lm")
    return x + 16 + round(pen.textlength(text, text_font(12)))


def put_ramp(strip: Image.Image, x: int, y: int) -> None:
    """Draw the colour scale of energies with its ends' numbers, 90 px wide."""
    pen = ImageDraw.Draw(strip)
    colour, cover = shades(np.linspace(0, 1, 60))
    bar = np.rint(255 * (1 - cover) + colour * cover).astype(np.uint8)
    strip.paste(Image.fromarray(np.repeat(bar[None], 10, 0)), (x + 10, y - 5))
    pen.rectangle((x + 9, y - 6, x + 70, y + 5), outline=FAINT)
    pen.text((x + 4, y), "0", FAINT, text_font(12), anchor="mm")
    pen.text((x + 73, y), f"{HIGHEST:.0f}", FAINT, text_font(12), anchor="lm")


def cross_mark(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw the sign of a chosen action."""
    pen.rectangle((x - 5, y - 1, x + 5, y + 1), CHOSEN)
    pen.rectangle((x - 1, y - 5, x + 1, y + 5), CHOSEN)


def dot_mark(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw the sign of candidates: an unlikely and a likely one."""
    for dx, colour in ((-4, UNLIKELY), (3, LIKELY)):
        pen.ellipse((x + dx - 3, y - 3, x + dx + 3, y + 3), colour, EDGE)


def path_mark(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw the sign of the agent's path."""
    pen.line((x - 5, y, x + 6, y), PATH, 2)


@functools.lru_cache(maxsize=8)
def text_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font in a size in px."""
    return ImageFont.load_default(size)
