"""Two policies on the same starts, until a test that may look at any time has decided.

The starts have an order, that of their seeds, and the test looks after each block of them. So the
decision is a function of the stored rows: a run that was interrupted, or has more workers, decides
the same after the same start.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import numpy as np

from harness.config.protocol import blocks
from harness.core.errors import UserError
from harness.evaluation.policy_source import Task
from harness.evaluation.progress import EvalProgress
from harness.evaluation.target_run import TargetRun
from harness.stats import betting
from harness.stats.betting import PairResult

DELTA = 0.05  # differences below it are called equal, as in a sweep's verdicts


def check_delta(delta: float | None, *, until_decided: bool) -> float:
    """Return the difference that does not matter; UserError for one that makes no sense."""
    if delta is None:
        return DELTA
    if not until_decided:
        raise UserError("--delta is the difference that --until-decided calls equal: give both")
    if not 0 < delta <= 1:
        raise UserError(f"--delta takes a difference in score above 0, at most 1; given {delta:g}")
    return delta


def compare(a: TargetRun, b: TargetRun, delta: float) -> PairResult:
    """Compare two policies on the blocks of starts that both have, up to the first missing one."""
    sides = [run.outcomes() for run in (a, b)]
    both = [seed for seed in a.seeds if all(seed in side for side in sides)]
    pairs: list[list[tuple[float, float]]] = []
    looks: list[int] = []
    seen = 0
    for block in blocks(a.seeds, a.protocol.block_size):
        if not set(block).issubset(both[seen : seen + len(block)]):
            break
        seen += len(block)
        found = [[side[seed] for side in sides] for seed in block]
        pairs += [pair for pair in found if not np.isnan(pair).any()]
        looks.append(len(pairs))
    values = np.array(pairs, np.float64).reshape(-1, 2, 2)  # start, side, (score, success)
    differences = values[:, 0] - values[:, 1]
    decision = betting.decide(differences[:, 0], looks, delta)
    used = values[: decision.starts]
    return PairResult(
        decision=decision,
        success=betting.anytime_difference(differences[: decision.starts, 1]),
        score_a=betting.anytime_mean(used[:, 0, 0]),
        score_b=betting.anytime_mean(used[:, 1, 0]),
        delta=delta,
        rolled_out=len(both),
        failed=seen - len(pairs),
    )


def run(
    runs: Sequence[TargetRun],
    delta: float,
    workers: int,
    roll: Callable[[Iterable[Task]], None],
    progress: EvalProgress,
) -> PairResult:
    """Roll out blocks of two policies in alternation until the test has decided; see `compare`.

    roll: evaluates tasks and adds their rows to the runs.
    """
    a, b = runs

    def number(task: Task) -> int:
        return task.block[0] // a.protocol.block_size

    tasks = sorted([*a.tasks, *b.tasks], key=number)
    waiting = deque(list(of_block) for _, of_block in groupby(tasks, number))
    while True:
        found = compare(a, b, delta)
        difference = found.decision.difference
        if found.decision.verdict is not None or not waiting:
            return found
        if difference.n:
            progress.note = (
                f"a - b {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] "
                f"after {difference.n} starts"
            )
        wave: list[Task] = []
        while waiting and len(wave) < workers:
            wave += waiting.popleft()
        roll(wave)
