"""The animations of episodes in a sweep's pictures/, checked and embedded in the page.

pictures/index.json and the files that it names are untrusted: only files inside the folder are
shown, of a known format by their first bytes and of limited size.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from harness.core import files
from harness.core.text import plural
from harness.page.elements import Element, Node, el, note, short

MAX_BYTES = 400_000  # of a file
MAX_TOTAL_BYTES = 2_400_000
MAX_SIDE = 1600  # px
MAX_ENTRIES = 1000
KINDS = {"episode": "Best and worst", "energy": "Energy over the board"}
FORMATS = ("PNG", "GIF", "WEBP")  # only their decoders may read the untrusted bytes


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI; still: the first frame of an animation, as another one."""

    source: str
    still: str | None
    width: int
    height: int
    entry: Mapping[str, Any]


def section(folder: Path) -> Element | None:
    """Return the pictures of a sweep; None where there is no index."""
    found, refused = read(folder)
    if not found and not refused:
        return None
    body: list[Node] = [el("h2", "Episodes")]
    if any(picture.still for picture in found):
        button = el("button", "Pause animations", type="button", id="pause", aria_pressed="false")
        body.append(el("p", button, class_="tools scripted"))
    groups: dict[str, list[Picture]] = {title: [] for title in (*KINDS.values(), "Others")}
    for picture in found:
        kind = str(picture.entry.get("kind")).replace("landscape", "energy")
        groups[KINDS.get(kind, "Others")].append(picture)
    for title, part in groups.items():
        if part:
            wide = "" if title == KINDS["episode"] else " wide"
            figures = [_figure(picture) for picture in part]
            body += [el("h3", title), el("div", *figures, class_=f"gallery{wide}")]
    if refused:
        body.append(note(f"Not shown: {'; '.join(refused)}."))
    return el("section", *body, id="episodes")


def _figure(picture: Picture) -> Element:
    entry = picture.entry
    words = [str(entry[k]) for k in ("label", "arm", "caption") if isinstance(entry.get(k), str)]
    facts = [f"start {entry['env_seed']}"] if isinstance(entry.get("env_seed"), int) else []
    for key, name in (("score", "score"), ("max_coverage", "max. coverage")):
        if _is_number(entry.get(key)):
            facts.append(f"{name} {entry[key]:.3f}")
    text = short(words[-1] if words else "an episode", 300)
    size = {"width": picture.width, "height": picture.height, "alt": text}
    shown = [el("img", src=picture.source, class_="moving" if picture.still else None, **size)]
    if picture.still:
        shown.append(el("img", src=picture.still, class_="still", **size))
    label = short(": ".join(words[:2]) or "episode", 80)
    caption = [el("strong", label), el("span", ", ".join(facts) or text)]
    return el("figure", *shown, el("figcaption", *caption))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def read(folder: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures to show, and why others are not shown."""
    try:
        content = files.read_json(folder / "pictures" / "index.json")
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError):
        content = None
    if not isinstance(content, list):
        return [], ["pictures/index.json is not a list of pictures"]
    found: list[Picture] = []
    refused: list[str] = []
    total = too_many = 0
    for entry in content[:MAX_ENTRIES]:
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            refused.append("an entry without a file's name")
            continue
        try:
            picture, size = _load(folder / "pictures", entry)
        except ValueError as error:
            refused.append(str(error))
            continue
        if total + size > MAX_TOTAL_BYTES:
            too_many += 1
            continue
        total += size
        found.append(picture)
    if too_many:
        refused.append(f"{plural(too_many, 'picture')} beyond the page's size limit")
    more = [f"{len(refused) - 5} more"] if len(refused) > 5 else []
    return found, [*refused[:5], *more]


def _load(pictures: Path, entry: Mapping[str, Any]) -> tuple[Picture, int]:
    """Return an entry's picture and its bytes' number; ValueError for one not to be shown."""
    shown = repr(short(entry["file"], 60))
    root = pictures.resolve()
    try:
        path = (root / entry["file"]).resolve()
        if root not in path.parents:
            raise ValueError(f"{shown} lies outside the folder of pictures")
        if not path.is_file():
            raise ValueError(f"{shown} is not a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{shown} has {size:,} bytes, and at most {MAX_BYTES:,} are shown")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror})") from error
    still = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            kind, (width, height) = str(opened.format).lower(), opened.size
            if max(width, height) > MAX_SIDE:
                raise ValueError(f"{shown} has {width} x {height} px, more than {MAX_SIDE} a side")
            if getattr(opened, "n_frames", 1) > 1:
                opened.seek(0)
                opened.convert("RGB").save(still, "WEBP", quality=80)
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{shown} is not a whole PNG, GIF or WebP") from error
    first = _source(still.getvalue(), "webp") if still.getvalue() else None
    picture = Picture(_source(content, kind), first, width, height, entry)
    return picture, len(content) + len(still.getvalue())


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
