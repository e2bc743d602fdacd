"""The ranges of reset seeds, kept apart so that no policy trains on evaluation starts."""

PLANNED = range(10_000, 20_000)  # demonstrations of the planner
DRIVEN = range(20_000, 100_000)  # demonstrations of people with the mouse
CORRECTED = range(110_000, 200_000)  # starts whose failures the planner corrects
EVALUATED = range(200_000, 2**32)  # checkpoint selection, then reports
# With the human demonstrations' seeds and the paper's test seeds.
RESERVED = (range(206), range(100_000, 100_050), EVALUATED)


def is_reserved(seed: int) -> bool:
    """Return whether new demonstrations must not start at this seed."""
    return any(seed in seeds for seeds in RESERVED)
