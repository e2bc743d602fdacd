"""Frames as files: H.264 in mp4, and looping GIF or WebP animations."""

import io
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image

from envs.physics.dynamics import CONTROL_HZ
from harness.core.files import atomic
from harness.media.recorder import Frame

GIF_BYTES = 3_000_000
ECONOMIES = {"gif": (256, 128, 64, 32), "webp": (70, 45, 25)}  # colours; WebP's quality
HOLD_MS = 1500  # of the last frame
_SAMPLED = 12  # frames that give a GIF's palette


def write_video(path: Path, frames: Iterable[Frame]) -> None:
    """Write frames uint8 (height, width, 3) as H.264 to an mp4 file, atomically.

    There is at least one, and all have the same even height and width.
    """
    frames = iter(frames)
    first = next(frames)
    # The index in front of the frames: a browser plays the file while it loads.
    options = {"movflags": "faststart"}
    # By its name, as the library reads the file again to move the index.
    with atomic(path) as file, av.open(file.name, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=CONTROL_HZ)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"  # supported by every player
        stream.options = {"crf": "20", "preset": "veryfast"}
        stream.thread_count = 1
        for frame in chain([first], frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_animation(
    path: Path, frames: Sequence[Frame], *, every: int = 1, most_bytes: int = GIF_BYTES
) -> None:
    """Write frames uint8 (height, width, 3) as a .gif or .webp loop, atomically.

    `every`: frames are that many steps apart. Above `most_bytes`, fewer colours or less quality is
    tried, then every second frame, and so on. ValueError if two frames are too large.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    while True:
        for economy in ECONOMIES[path.suffix[1:]]:
            content = _encoded(pictures, path.suffix, economy, round(1000 * every / CONTROL_HZ))
            if len(content) <= most_bytes:
                with atomic(path) as file:
                    file.write(content)
                return
        if len(pictures) <= 2:
            raise ValueError(
                f"{path.name} must be at most {most_bytes} bytes, two frames are {len(content)}"
            )
        # The last frame is kept: it shows the result.
        pictures = pictures[(len(pictures) - 1) % 2 :: 2]
        every *= 2


def _encoded(pictures: Sequence[Image.Image], suffix: str, economy: int, ms: int) -> bytes:
    if suffix == ".webp":
        # No key frames after the first: loops are not searched, and they are a third of a file.
        options = {"quality": economy, "method": 3, "kmin": 0, "kmax": 0}
    else:
        options = {"optimize": True, "disposal": 1}
        # One palette for all frames, so that the background does not flicker.
        chosen = np.linspace(0, len(pictures) - 1, min(_SAMPLED, len(pictures))).astype(int)
        sample = Image.fromarray(np.concatenate([np.asarray(pictures[i]) for i in chosen]))
        palette = sample.quantize(economy, Image.Quantize.FASTOCTREE)
        pictures = [
            picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
        ]
    file = io.BytesIO()
    pictures[0].save(
        file,
        suffix[1:],
        save_all=True,
        append_images=pictures[1:],
        duration=[ms] * (len(pictures) - 1) + [HOLD_MS],
        loop=0,
        **options,
    )
    return file.getvalue()
