"""Which starts belong to whom, so that nobody trains on what is evaluated."""

PLANNED = range(10_000, 20_000)  # of the planning demonstrator
DRIVEN = range(20_000, 100_000)  # of the people who demonstrate with the mouse
EVALUATED = range(200_000, 2**32)  # the selection of checkpoints, then the reports
# Beside them the recorded demonstrations' and the paper's cell.
RESERVED = (range(206), range(100_000, 100_050), EVALUATED)


def is_reserved(seed: int) -> bool:
    """Whether new demonstrations must not begin at the reset with this seed."""
    return any(seed in seeds for seeds in RESERVED)
