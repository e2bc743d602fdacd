"""Numbers, verdicts and statuses as the page writes them."""

from harness.analysis.sweep_results import STATUSES
from harness.page.elements import Element, Node, el
from harness.stats.intervals import Estimate
from harness.terminal.formatting import SIGNS, parts

_CLASSES = {
    "helps": "helps",
    "hurts": "hurts",
    "no difference": "same",
    "not enough evidence": "unsure",
    "nothing to compare": "nothing",
}
VERDICTS = {word: (kind, SIGNS[word][0]) for word, kind in _CLASSES.items()}  # word: class, sign


def estimate(found: Estimate | None, *, percent: bool = False, sign: str = "") -> list[Node]:
    """Return an estimate with its interval below, or "no interval"; a dash where unknown."""
    value, interval = parts(found, percent=percent, sign=sign)
    if not value:
        return [el("span", "–", class_="dim", title="not known yet")]
    return [el("span", value), el("small", interval or "no interval")]


def inline(found: Estimate, *, percent: bool = False) -> str:
    """Return an estimate on one line, with its n."""
    value, interval = parts(found, percent=percent)
    return f"{value} {interval}".strip() + f", n = {found.n:,}" if value else "not known yet"


def chip(word: str, text: str = "", title: str = "") -> Element:
    """Return a verdict with a sign, so that it does not depend on colour alone."""
    kind, sign = VERDICTS[word]
    return el("span", f"{sign} {text or word}", class_=f"chip {kind}", title=title or None)


def state(name: str) -> Element:
    """Return a trial's status."""
    return el("span", name, class_=f"state {name if name in STATUSES else 'other'}")
