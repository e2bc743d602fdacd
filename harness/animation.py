"""Looping pictures for pages and READMEs: GIF and WebP files no larger than asked for."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, features

from harness.files import atomic
from harness.video import CONTROL_HZ, Frame

Kind = Literal["gif", "webp"]

GIF_BYTES = 3_000_000
COLOURS = (128, 64, 32)
QUALITIES = (70, 45, 25)
HOLD_MS = 1500  # the last picture stays
_SAMPLED = 12  # frames that a GIF's colours are chosen from


def best_kind() -> Kind:
    """Return "webp" where this machine can write moving ones, else "gif"."""
    return "webp" if features.check("webp") else "gif"


def write_animation(
    path: Path,
    frames: Sequence[Frame],
    *,
    every: int = 1,
    most_bytes: int = GIF_BYTES,
    hz: float = CONTROL_HZ,
) -> int:
    """Write frames uint8 (height, width, 3) as a loop at `hz` and return how many bytes it has.

    The ending of `path` says which kind. `every`: frames are that many steps apart, and shown so
    long. What is larger than `most_bytes` is tried with fewer colours or less quality, then with
    every second frame, and so on. ValueError for no frames, sizes that differ, another ending, or
    where two frames are too large. The file appears when whole; an existing one is replaced.
    """
    kind = path.suffix[1:].lower()
    if kind not in ("gif", "webp"):
        raise ValueError(f"a loop is a .gif or a .webp file, given {path.name}")
    if not frames:
        raise ValueError(f"a loop has at least one frame, given none for {path.name}")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"a loop's frames have one size, given {_sizes(frames)}")
    pictures = [Image.fromarray(frame) for frame in frames]
    apart = every
    while True:
        for economy in range(len(COLOURS)):
            content = _encoded(pictures, kind, economy, round(1000 * apart / hz))
            if len(content) <= most_bytes:
                with atomic(path) as file:
                    file.write(content)
                return len(content)
        if len(pictures) <= 2:
            raise ValueError(
                f"{path.name} must be at most {most_bytes} bytes, two frames are {len(content)}"
            )
        # The last frame is kept: it shows how it ends.
        pictures = pictures[(len(pictures) - 1) % 2 :: 2]
        apart *= 2


def _sizes(frames: Sequence[Frame]) -> str:
    return ", ".join(sorted({str(frame.shape) for frame in frames}))


def _encoded(pictures: Sequence[Image.Image], kind: str, economy: int, ms: int) -> bytes:
    durations = [ms] * (len(pictures) - 1) + [HOLD_MS]
    file = io.BytesIO()
    if kind == "webp":
        pictures[0].save(
            file,
            "WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=QUALITIES[economy],
            method=3,
        )
        return file.getvalue()
    palette = _palette(pictures, COLOURS[economy])
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    indexed[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=durations,
        loop=0,
        optimize=True,
        disposal=1,
    )
    return file.getvalue()


def _palette(pictures: Sequence[Image.Image], colours: int) -> Image.Image:
    """One palette for all frames, so that what stands still does not flicker."""
    chosen = np.linspace(0, len(pictures) - 1, min(_SAMPLED, len(pictures))).astype(int)
    sheet = np.concatenate([np.asarray(pictures[i]) for i in chosen])
    return Image.fromarray(sheet).quantize(colours, method=Image.Quantize.MEDIANCUT)
