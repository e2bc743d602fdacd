"""Numbers as the page writes them: the value, under it its interval in small print."""

import math
from collections.abc import Mapping, Sequence

from harness.page.elements import Element, Node, el
from harness.stats.intervals import Estimate

VERDICTS = {  # word: class, sign
    "helps": ("helps", "▲"),
    "hurts": ("hurts", "▼"),
    "no difference": ("same", "="),
    "not enough evidence": ("unsure", "?"),
    "nothing to compare": ("nothing", "·"),
}
STATES = ("finished", "running", "stopped", "pending", "failed")


def estimate(found: Estimate | None, *, percent: bool = False, sign: bool = False) -> list[Node]:
    """Return "0.612" and below it "[0.58, 0.64]"; a dash where nothing is known.

    A value without an interval says so: it must not look surer than one that has one.
    """
    if found is None or math.isnan(found.value):
        return [el("span", "–", class_="dim", title="not known yet")]
    plus, scale, digits, unit = ("+" if sign else ""), 1.0, 3, ""
    if percent:
        scale, digits, unit = 100.0, 1, " %"
    value = f"{found.value * scale:{plus}.{digits}f}{unit}"
    if math.isnan(found.low):
        return [el("span", value), el("small", "no interval")]
    ends = [f"{end * scale:{plus}.{max(0, digits - 1)}f}" for end in (found.low, found.high)]
    return [el("span", value), el("small", f"[{ends[0]}, {ends[1]}]")]


def inline(found: Estimate, *, percent: bool = False) -> str:
    """Return an estimate on one line, with its n."""
    if math.isnan(found.value):
        return "not known yet"
    scale, unit, digits = (100.0, " %", 1) if percent else (1.0, "", 3)
    fewer = max(0, digits - 1)
    text = f"{found.value * scale:.{digits}f}{unit}"
    if not math.isnan(found.low):
        text += f" [{found.low * scale:.{fewer}f}, {found.high * scale:.{fewer}f}]"
    return f"{text}, n = {found.n:,}"


def chip(word: str, title: str = "") -> Element:
    """Return a verdict as a sign and a word, told apart by more than their colour."""
    kind, sign = VERDICTS.get(word, ("nothing", "·"))
    return el("span", f"{sign} {word}", class_=f"chip {kind}", title=title or None)


def state(name: str) -> Element:
    """Return a trial's status as a word with its class."""
    return el("span", name, class_=f"state {name if name in STATES else 'other'}")


def plural(count: int, thing: str) -> str:
    """Return "1 trial", "1,200 trials"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def counted(counts: Mapping[str, int], names: Sequence[str] = STATES) -> str:
    """Return "12 finished, 3 running", what there is none of left out."""
    known = [*names, *sorted(set(counts) - set(names))]
    return ", ".join(f"{counts[name]:,} {name}" for name in known if counts.get(name))
