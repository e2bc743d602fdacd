"""Verdicts that are looked at while training seeds arrive, with the error rate of a single look."""

import itertools

# Two seeds hardly show an arm's own variance: a look at them would decide little, and often wrongly
# where an arm varies more than the others. benchmarks/interval_coverage.py shows both choices.
FIRST_SEEDS = 3
EXPONENT = 1.5


def look_levels(seeds: int, level: float) -> tuple[float, ...]:
    """Return the level of the interval at each look: after 3, 4, ... `seeds` training seeds.

    level: that of all looks together.

    Alpha spending (Lan and DeMets 1983, Biometrika 70(3)): until a share t of the seeds, looks may
    be wrong with a probability of t ** 1.5 of that of all looks together (Kim and DeMets 1987,
    Biometrika 74(1)). Each look has what has been added since the last one, by Bonferroni's
    inequality: how the looks depend on each other is not known, as variances are estimated anew.
    Intervals of these levels cover the truth at all looks together with `level` (Jennison and
    Turnbull 1989, JRSS B 51(3)). ValueError for fewer than three seeds.
    """
    if seeds < FIRST_SEEDS:
        raise ValueError(f"a look needs at least {FIRST_SEEDS} training seeds, given {seeds}")
    shares = [(count / seeds) ** EXPONENT for count in range(FIRST_SEEDS, seeds + 1)]
    added = (after - before for before, after in itertools.pairwise((0.0, *shares)))
    return tuple(1 - (1 - level) * each for each in added)
