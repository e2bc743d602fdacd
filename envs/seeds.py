"""Which starts belong to whom, so that nobody trains on what is evaluated."""

PLANNED = range(10_000, 20_000)  # of the planning demonstrator
DRIVEN = range(20_000, 100_000)  # of the people who demonstrate with the mouse
# The recorded demonstrations, the paper's cell, the selection of checkpoints and the reports.
RESERVED = (range(206), range(100_000, 100_050), range(200_000, 400_000))


def is_reserved(seed: int) -> bool:
    """Whether new demonstrations must not begin at the reset with this seed."""
    return any(seed in seeds for seeds in RESERVED)
