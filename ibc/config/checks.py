"""Checks of config values; each raises ValueError with the rule first, then what was given."""

import functools
import json
import math
import typing


def check(ok: bool, rule: str, given: object) -> None:
    """Raise ValueError("rule, got given") unless ok."""
    if not ok:
        raise ValueError(f"{rule}, got {given!r}")


def check_options(section: str, config: typing.Any) -> None:
    """Refuse values of Literal fields that are not listed, and of bool fields that are no bool."""
    for name, choices in _options(config.__class__).items():
        value = getattr(config, name)
        if choices:
            rule = f"{section}.{name} must be one of {', '.join(choices)}"
            check(value in choices, rule, value)
        else:
            check(type(value) is bool, f"{section}.{name} must be true or false", value)


def check_retired(section: str, config: object, **only: object) -> None:
    """Refuse other values of settings whose fields stay only for the hashes of old configs."""
    for name, value in only.items():
        given = getattr(config, name)
        check(given == value, f"{section}.{name} is retired and must be {json.dumps(value)}", given)


@functools.cache
def _options(config: type) -> dict[str, tuple[str, ...]]:
    """The choices of each Literal field; none for a bool field."""
    hints = typing.get_type_hints(config)
    literal = {
        n: typing.get_args(h) for n, h in hints.items() if typing.get_origin(h) is typing.Literal
    }
    return literal | {n: () for n, h in hints.items() if h is bool}


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
