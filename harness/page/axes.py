"""From numbers to places on a picture: scales, round ticks, and as many points as can be seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 160


@dataclass(frozen=True)
class Axis:
    """One axis from `low` to `high` with its title, unit included; log: even steps are factors.

    form: of the tick labels; given: the places to label, where they are not found; names: what
    to write there instead of numbers.
    """

    title: str
    low: float
    high: float
    log: bool = False
    form: str = "g"
    given: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    def share(self, value: float) -> float:
        """Return where a value lies: 0 at `low`, 1 at `high`, cut to that."""
        if self.log:
            found = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            found = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, found))

    @property
    def ticks(self) -> list[float]:
        """Round values between the ends."""
        if self.given:
            return list(self.given)
        return _powers(self.low, self.high) if self.log else _steps(self.low, self.high)

    def label(self, value: float) -> str:
        """Return a tick's text."""
        if self.names:
            return self.names[self.given.index(value)]
        return compact(value) if self.form == "g" or value == 0 else format(value, self.form)


def compact(value: float) -> str:
    """Return a number in few characters: 0.25, 8,000 as 8k, 3e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.4g}k"
    return f"{value:.4g}"


def _steps(low: float, high: float, most: int = 6) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    if high / low < 8.0:
        return [tick for tick in _steps(low, high) if tick > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) <= 7:
            break
    return found[:: max(1, -(-len(found) // 7))] or [low, high]


def fitted(title: str, values: NDArray[np.float64], *, log: bool = False) -> Axis:
    """Return an axis on which all finite values lie, with a little room; log needs them > 0."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Axis(title, 0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if log and low > 0 and high / low > 1.001:
        room = (high / low) ** 0.04
        return Axis(title, low / room, high * room, log=True)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        room = 0.5 * abs(low) or 0.5
        return Axis(title, low - room, high + room)
    room = 0.04 * (high - low)
    floor = 0.0 if low >= 0 and low < 0.3 * high else low - room
    return Axis(title, floor, high + room)


def thinned(n: int, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Return which of n points in a row to draw: all, or evenly chosen with both ends."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return np.unique(np.linspace(0, n - 1, most).round().astype(np.int64))
