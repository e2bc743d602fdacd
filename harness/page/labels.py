"""Numbers, verdicts and statuses as the page writes them."""

import math

from harness.analysis.sweep_results import STATUSES
from harness.page.elements import Element, Node, el
from harness.stats.intervals import Estimate

VERDICTS = {  # word: class, sign
    "helps": ("helps", "▲"),
    "hurts": ("hurts", "▼"),
    "no difference": ("same", "="),
    "not enough evidence": ("unsure", "?"),
    "nothing to compare": ("nothing", "·"),
}


def _parts(found: Estimate, *, percent: bool, sign: bool = False) -> tuple[str, str]:
    """Return "0.612" and "[0.58, 0.64]", or "61.2 %" and "[58, 64]"; "" for no interval."""
    plus = "+" if sign else ""
    scale, digits, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
    value = f"{found.value * scale:{plus}.{digits}f}{unit}"
    if math.isnan(found.low):
        return value, ""
    low, high = (f"{end * scale:{plus}.{digits - 1}f}" for end in (found.low, found.high))
    return value, f"[{low}, {high}]"


def estimate(found: Estimate | None, *, percent: bool = False, sign: bool = False) -> list[Node]:
    """Return an estimate with its interval below, or "no interval"; a dash where unknown."""
    if found is None or math.isnan(found.value):
        return [el("span", "–", class_="dim", title="not known yet")]
    value, interval = _parts(found, percent=percent, sign=sign)
    return [el("span", value), el("small", interval or "no interval")]


def inline(found: Estimate, *, percent: bool = False) -> str:
    """Return an estimate on one line, with its n."""
    if math.isnan(found.value):
        return "not known yet"
    return f"{' '.join(_parts(found, percent=percent)).strip()}, n = {found.n:,}"


def chip(word: str, text: str = "", title: str = "") -> Element:
    """Return a verdict with a sign, so that it does not depend on colour alone."""
    kind, sign = VERDICTS.get(word, ("nothing", "·"))
    return el("span", f"{sign} {text or word}", class_=f"chip {kind}", title=title or None)


def state(name: str) -> Element:
    """Return a trial's status."""
    return el("span", name, class_=f"state {name if name in STATUSES else 'other'}")


def plural(count: int, thing: str) -> str:
    """Return "1 trial", "1,200 trials"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
