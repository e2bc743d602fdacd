"""HTML and SVG as a tree of elements, in which text is always escaped.

No template engine: figures are built by code, and here every tag, attribute and link is checked
too. A string becomes markup in `render` only, which escapes it.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

# fmt: off
TAGS = frozenset({
    "a", "article", "body", "br", "button", "canvas", "caption", "code", "dd", "details", "div",
    "dl", "dt", "figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "head", "header", "html",
    "img", "input", "kbd", "label", "li", "main", "meta", "nav", "ol", "p", "pre", "script",
    "section", "small", "span", "strong", "style", "summary", "table", "tbody", "td", "th",
    "thead", "title", "tr", "ul", "svg", "g", "path", "line", "circle", "rect", "text", "polygon",
    "desc",
})
# fmt: on
_VOID = frozenset({"br", "img", "input", "meta"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_PICTURE = re.compile(r"data:image/(png|gif|webp);base64,[A-Za-z0-9+/=]*")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Own(str):
    """CSS or JavaScript of this package: the only text that is not escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Element:
    """A tag with attributes and children; children are elements or plain text."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    children: tuple["Node", ...]


Node = Element | str


def el(tag: str, *children: Node | None, **attributes: object) -> Element:
    """Return an element; `class_` is class, `stroke_width` stroke-width; None is left out.

    ValueError for an unknown tag and for an attribute that could run code or load something:
    on..., style, a link that leaves the page, a source other than embedded image bytes.
    """
    if tag not in TAGS:
        raise ValueError(f"a tag must be one of {len(TAGS)} known ones, given {tag[:40]!r}")
    named = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        text = "" if value is True else str(value)
        _check(name, text)
        named.append((name, text))
    return Element(tag, tuple(named), tuple(child for child in children if child is not None))


def _check(name: str, value: str) -> None:
    lower = name.lower()
    if not _NAME.fullmatch(name) or lower.startswith("on") or lower in ("style", "srcdoc"):
        raise ValueError(f"an attribute must not be able to run code, given {name[:40]!r}")
    if lower in ("href", "action", "formaction") and not value.startswith("#"):
        raise ValueError(f"a link must stay within the page, given {value[:80]!r}")
    if lower in ("src", "srcset", "data", "poster") and not _PICTURE.fullmatch(value):
        raise ValueError(f"a source must be embedded image bytes, given {value[:80]!r}")


def own_files(*names: str) -> Own:
    """Return this package's CSS or JavaScript files, one after the other."""
    folder = resources.files("harness.page")
    return Own("".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))


def whole_page(title: str, css: Own, script: Own, *body: Node | None) -> str:
    """Return a page's HTML; it may load nothing, and only this CSS and this script apply to it."""
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("style", css),
    )
    whole = el("html", head, el("body", *body, el("script", script)), lang="en")
    return f"<!DOCTYPE html>\n{render(whole)}\n"


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def visible(text: str) -> str:
    """Return text with control and direction characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def short(text: str, most: int = 60) -> str:
    """Return text of at most so many characters, its middle replaced by an ellipsis."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[-half:]}"


def note(text: str) -> Element:
    """Return a remark in small print."""
    return el("p", text, class_="note")


def head(name: str, kind: str | None = None) -> Element:
    """Return the head of a table's column; kind: its CSS class."""
    return el("th", name, scope="col", class_=kind)


def table(
    heads: Sequence[Element], rows: Sequence[Element], *before: Node, **attributes: object
) -> Element:
    """Return a table of rows under heads."""
    return el("table", *before, el("thead", el("tr", *heads)), el("tbody", *rows), **attributes)


def scrolling(content: Element, label: str) -> Element:
    """Return a wide table in a region that scrolls on its own and can be focused."""
    return el("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def render(node: Node) -> str:
    """Return the markup of a tree."""
    pieces: list[str] = []
    _collect(node, pieces)
    return "".join(pieces)


def _collect(node: Node, into: list[str]) -> None:
    if isinstance(node, str):
        into.append(node if isinstance(node, Own) else escape(visible(node), quote=False))
        return
    into.append(f"<{node.tag}")
    for name, value in node.attributes:
        into.append(f' {name}="{escape(visible(value))}"')
    into.append(">")
    if node.tag in _VOID:
        return
    for child in node.children:
        _collect(child, into)
    into.append(f"</{node.tag}>")
