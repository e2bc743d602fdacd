"""Text for terminals: one line, counts, durations."""

import unicodedata


def one_line(text: object) -> str:
    """Return the text on a single line with control characters escaped, safe for a terminal."""
    words = " ".join(str(text).split())
    return "".join(
        character
        if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
        else character.encode("unicode_escape").decode("ascii")
        for character in words
    )


def plural(count: int, thing: str) -> str:
    """Return "1 trial", "1,200 trials"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in words: 45 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    for big, big_name, small, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"
