"""Frames as files: H.264 in mp4, and looping GIF or WebP animations."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from envs.physics.dynamics import CONTROL_HZ
from harness.core.files import atomic, sync_folder, temporary_beside
from harness.media.recorder import Frame


def write_video(path: Path, frames: Iterable[Frame], fps: int = CONTROL_HZ) -> None:
    """Write frames uint8 (height, width, 3) as H.264 to an mp4 file, atomically.

    ValueError for no frames and for sizes that differ or are odd (H.264 halves the colours).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with av.open(temporary, "w", format="mp4") as container:
            _encode(container, frames, fps, path)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _encode(container: Any, frames: Iterable[Frame], fps: int, path: Path) -> None:
    stream, shape = None, None
    for frame in frames:
        if stream is None:
            shape = frame.shape
            if (
                frame.dtype != np.uint8
                or len(shape) != 3
                or shape[2] != 3
                or any(side % 2 for side in shape[:2])
            ):
                raise ValueError(
                    f"a video's frames are uint8 (height, width, 3) of even sizes, given "
                    f"{frame.dtype} {shape}"
                )
            stream = container.add_stream("libx264", rate=fps)
            stream.height, stream.width = shape[:2]
            stream.pix_fmt = "yuv420p"  # supported by every player
            stream.options = {"crf": "20", "preset": "veryfast"}
            stream.thread_count = 1
        if frame.shape != shape:
            raise ValueError(f"a video's frames have one size, given {shape} and {frame.shape}")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
    if stream is None:
        raise ValueError(f"a video has at least one frame, given none for {path}")
    container.mux(stream.encode())


def free_path(path: Path) -> Path:
    """Return the path, or the first of `<stem>-2`, `<stem>-3`, ... without a file."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


Kind = Literal["gif", "webp"]
GIF_BYTES = 3_000_000
ECONOMIES = {"gif": (256, 128, 64, 32), "webp": (70, 45, 25)}  # colours; WebP's quality
HOLD_MS = 1500  # of the last frame
_SAMPLED, _KEPT = 12, 16  # frames that give a GIF's palette; most frequent colours, kept exactly


def best_kind() -> Kind:
    """Return "webp" if Pillow was built with it, else "gif"."""
    return "webp" if features.check("webp") else "gif"


def write_animation(
    path: Path,
    frames: Sequence[Frame],
    *,
    every: int = 1,
    most_bytes: int = GIF_BYTES,
    hz: float = CONTROL_HZ,
) -> int:
    """Write frames uint8 (height, width, 3) as a .gif or .webp loop; return its size in bytes.

    `every`: frames are that many steps of 1 / `hz` s apart. Above `most_bytes`, fewer colours or
    less quality is tried, then every second frame, and so on. ValueError for no frames, sizes that
    differ, another suffix, or if two frames are too large. The file is written atomically.
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
        for economy in ECONOMIES[kind]:
            content = _encoded(pictures, kind, economy, round(1000 * apart / hz))
            if len(content) <= most_bytes:
                with atomic(path) as file:
                    file.write(content)
                return len(content)
        if len(pictures) <= 2:
            raise ValueError(
                f"{path.name} must be at most {most_bytes} bytes, two frames are {len(content)}"
            )
        # The last frame is kept: it shows the result.
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
            quality=economy,
            method=3,
            # No key frames after the first: loops are not searched, and they are a third of a file.
            kmin=0,
            kmax=0,
        )
        return file.getvalue()
    palette = _palette(pictures, economy)
    indexed = [_indexed(picture, palette) for picture in pictures]
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


def _palette(pictures: Sequence[Image.Image], colours: int) -> NDArray[np.uint8]:
    """Return one palette (n, 3) for all frames, so that the background does not flicker.

    The most frequent colours are exact. The others share the rest, each counted once, so that small
    marks keep their colour.
    """
    chosen = np.linspace(0, len(pictures) - 1, min(_SAMPLED, len(pictures))).astype(int)
    packed, counts = np.unique(
        np.concatenate([_packed(pictures[i]) for i in chosen]), return_counts=True
    )
    found = _unpacked(packed[np.argsort(-counts, kind="stable")])
    if len(found) <= colours:
        return found
    rest = Image.fromarray(found[None, _KEPT:]).quantize(colours - _KEPT, Image.Quantize.MEDIANCUT)
    entries = np.frombuffer(bytes(rest.getpalette() or b""), np.uint8).reshape(-1, 3)
    return np.concatenate([found[:_KEPT], entries[: colours - _KEPT]])


def _indexed(picture: Image.Image, palette: NDArray[np.uint8]) -> Image.Image:
    """Return the picture in the palette's nearest colours; Pillow rounds colours before that."""
    packed, places = np.unique(_packed(picture), return_inverse=True)
    apart = _unpacked(packed)[:, None].astype(np.int32) - palette.astype(np.int32)
    nearest = np.square(apart).sum(2).argmin(1).astype(np.uint8)
    made = Image.fromarray(nearest[places].reshape(picture.size[::-1]))
    made.putpalette(palette.tobytes())
    return made


def _packed(picture: Image.Image) -> NDArray[np.int32]:
    red, green, blue = np.asarray(picture).reshape(-1, 3).astype(np.int32).T
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _unpacked(packed: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)
