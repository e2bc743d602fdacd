"""How much memory something takes at its peak, whatever was before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak() -> Iterator[list[float]]:
    """Yield a list that has the MiB which the body took at its peak, once it has ended."""
    _CLEAR.write_text("5")  # the peak is what there is now, see proc(5)
    before, found = _resident("VmRSS"), list[float]()
    yield found
    found.append(_resident("VmHWM") - before)


def _resident(name: str) -> float:
    (line,) = (each for each in _STATUS.read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) / 1024
