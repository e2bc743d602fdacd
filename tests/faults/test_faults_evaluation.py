"""An evaluation's table does not depend on how many worked on it or in which order."""

import random

import pytest

from harness.config.protocol import Protocol, blocks
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import open_pool
from harness.storage import lookup

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SHORT = Protocol(max_episode_steps=10, block_size=4)
SEEDS = range(300_000, 300_022)
TIMES = {"policy_ms", "env_ms", "render_ms"}


def table(source, workers, order):
    tasks = [Task(source, block) for block in blocks(SEEDS, SHORT.block_size)]
    random.Random(order).shuffle(tasks)
    with open_pool(SHORT, workers) as pool:
        found = [row for _, outcome in pool.run(tasks) for row in outcome.rows]
    found.sort(key=lambda row: row["env_seed"])
    assert [row["env_seed"] for row in found] == list(SEEDS)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


@pytest.mark.ray
@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_one_two_and_four_workers_give_the_same_bits_in_any_order(golden, workers):
    source = Source(checkpoint=lookup.resolve("best", golden, "golden").path)
    expected = table(source, 1, order=0)
    assert len({row["max_coverage"] for row in expected}) > 1
    assert table(source, 1, order=1) == expected
    assert table(source, workers, order=workers) == expected
