"""The checks that every config of this package runs on its values.

Each raises ValueError with the rule first, then what was given.
"""

import math
from collections.abc import Sequence


def check(ok: bool, rule: str, given: object) -> None:
    """Raise ValueError("rule, got given") unless ok."""
    if not ok:
        raise ValueError(f"{rule}, got {given!r}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices."""
    check(value in choices, f"{name} must be one of {', '.join(choices)}", value)


def check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse what is not a whole number in [low, high]."""
    upper = "" if high is None else f" and at most {high}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    ok = whole and low <= value and (high is None or value <= high)  # type: ignore[operator]
    check(ok, f"{name} must be a whole number of at least {low}{upper}", value)


def check_float(
    name: str, value: object, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Refuse what is not a finite number in [low, high], or in (low, high] with open_low."""
    upper = "" if math.isinf(high) else f" and at most {high:g}"
    rule = f"{name} must be a finite number {'above' if open_low else 'of at least'} {low:g}{upper}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    check(number and math.isfinite(value), rule, value)  # type: ignore[arg-type]
    assert isinstance(value, int | float)
    check((value > low if open_low else value >= low) and value <= high, rule, value)
