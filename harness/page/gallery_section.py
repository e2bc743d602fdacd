"""The small looping pictures of episodes that a sweep's folder holds, checked and taken in.

pictures/index.json and what it names may come from a stranger: only files inside the folder, of a
known kind by their first bytes, of a sane size, are shown.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from harness.core import files
from harness.page.elements import Element, Node, el, short
from harness.page.labels import plural

MOST_BYTES = 400_000  # a file
MOST_IN_ALL = 2_400_000
MOST_SIDE = 1600  # px
MOST_ENTRIES = 1000
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))


@dataclass(frozen=True)
class Picture:
    """A picture's bytes as a source, its still (another source) where it moves, and its words."""

    source: str
    still: str | None
    width: int
    height: int
    entry: Mapping[str, Any]


def section(folder: Path) -> Element | None:
    """Return the pictures of a sweep; None where there are none and nothing to say."""
    found, refused = read(folder)
    if not found and not refused:
        return None
    body: list[Node] = [el("h2", "Episodes")]
    if any(picture.still for picture in found):
        body.append(
            el(
                "p",
                el("button", "Pause the pictures", type="button", id="pause", aria_pressed="false"),
                class_="tools scripted",
            )
        )
    for title, kinds in (
        ("Best and worst", ("episode",)),
        ("Energy over the board", ("energy", "landscape")),
        ("Others", ()),
    ):
        known = {"episode", "energy", "landscape"}
        part = [
            picture
            for picture in found
            if picture.entry.get("kind") in kinds
            or (not kinds and picture.entry.get("kind") not in known)
        ]
        if part:
            kind = "album" if kinds == ("episode",) else "album wide"
            body += [el("h3", title), el("div", *(_figure(p) for p in part), class_=kind)]
    if refused:
        body.append(el("p", f"Left out: {'; '.join(refused)}.", class_="note"))
    return el("section", *body, id="episodes")


def _figure(picture: Picture) -> Element:
    entry = picture.entry
    words = [str(entry[k]) for k in ("label", "arm", "caption") if isinstance(entry.get(k), str)]
    score, coverage = entry.get("score"), entry.get("max_coverage")
    facts = [f"start {entry['env_seed']}"] if isinstance(entry.get("env_seed"), int) else []
    if _is_number(score):
        facts.append(f"score {score:.3f}")
    if _is_number(coverage):
        facts.append(f"best coverage {coverage:.3f}")
    text = short(". ".join(words[-1:]) or "an episode", 300)
    size = {"width": picture.width, "height": picture.height, "alt": text}
    shown = [el("img", src=picture.source, class_="moving" if picture.still else None, **size)]
    if picture.still:
        shown.append(el("img", src=picture.still, class_="still", **size))
    label = short(": ".join(words[:2]) or "episode", 80)
    caption = el(
        "figcaption",
        el("strong", label),
        *([el("span", ", ".join(facts))] if facts else []),
        *([el("span", text)] if not facts else []),  # the caption says the same in words
    )
    return el("figure", *shown, caption)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def read(folder: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures that may be shown, and why others may not."""
    index = folder / "pictures" / "index.json"
    try:
        content = files.read_json(index)
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError):
        return [], ["pictures/index.json cannot be read"]
    if not isinstance(content, list):
        return [], ["pictures/index.json is not a list"]
    found: list[Picture] = []
    refused: list[str] = []
    taken = late = 0
    for entry in content[:MOST_ENTRIES]:
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            refused.append("an entry without a file's name")
            continue
        try:
            picture, size = _load(folder / "pictures", entry)
        except ValueError as error:
            refused.append(str(error))
            continue
        if taken + size > MOST_IN_ALL:
            late += 1
            continue
        taken += size
        found.append(picture)
    if late:
        refused.append(f"{plural(late, 'picture')} more than the page has room for")
    shown = refused[:5]
    if len(refused) > 5:
        shown.append(f"{len(refused) - 5} more")
    return found, shown


def _load(pictures: Path, entry: Mapping[str, Any]) -> tuple[Picture, int]:
    """Return an entry's picture and how many bytes it takes; ValueError says what is wrong."""
    name = entry["file"]
    told = repr(short(name, 60))
    root = pictures.resolve()
    try:
        path = (root / name).resolve()
        if root not in path.parents:
            raise ValueError(f"{told} lies outside the folder of pictures")
        if not path.is_file():
            raise ValueError(f"{told} is not a file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{told} has {size:,} bytes, and at most {MOST_BYTES:,} are shown")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{told} cannot be read ({error.strerror})") from error
    kind = kind_of(content)
    if kind is None:
        raise ValueError(f"{told} is not a PNG, GIF or WebP")
    try:
        # The formats are named, so that nothing but these three decoders ever sees the bytes.
        with Image.open(io.BytesIO(content), formats=[kind.upper()]) as picture:
            width, height = picture.size
            if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
                raise ValueError(f"{told} has {width} x {height} px, more than {MOST_SIDE} a side")
            still = _still(picture) if getattr(picture, "n_frames", 1) > 1 else None
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{told} is not a whole picture") from error
    taken = len(content) + (len(still) if still else 0)
    source = _source(content, kind)
    return Picture(source, _source(still, "webp") if still else None, width, height, entry), taken


def kind_of(content: bytes) -> str | None:
    """Return "png", "gif" or "webp" by the first bytes, None for anything else."""
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    return "webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def _still(picture: Image.Image) -> bytes:
    picture.seek(0)
    kept = io.BytesIO()
    picture.convert("RGB").save(kept, "WEBP", quality=80)
    return kept.getvalue()


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
