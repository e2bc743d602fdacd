"""Which of many rows count, against the plain word-by-word way of picking them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.core import seeds as store
from harness.storage import episode_table, table_schemas
from harness.storage.episode_table import KEY


def _rows(count: int) -> list[dict[str, object]]:
    random = np.random.default_rng(0)

    def one(*choices: object) -> object:
        return choices[int(random.integers(len(choices)))]

    return [
        {
            "config_hash": one("b", "a", "c", None),
            "train_seed": one(10, 2, None),
            "checkpoint_step": one(500, 1000, None),
            "policy_hash": one("p", "q", None),
            "protocol_hash": one("x", "y"),
            "env_seed": one(200_001, 200_000, 300_000, 300_001, 300_002, 7),
            "score": float(i),
            "success": True,
            "error": one(None, None, "broken"),
        }
        for i in range(count)
    ]


def _order(row: dict[str, object]) -> tuple[object, ...]:
    return tuple((row[name] is None, row[name] or 0) for name in KEY)


def test_one_row_an_episode_the_last_that_went_well_in_order() -> None:
    rows = _rows(600)
    kept: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        key = _order(row)
        if key not in kept or row["error"] is None or kept[key]["error"] is not None:
            kept[key] = row
    found = episode_table.in_order(table_schemas.table("episodes", rows)).to_pylist()
    assert len(found) < len(rows)
    assert [row["score"] for row in found] == [kept[key]["score"] for key in sorted(kept)]


def test_what_is_in_order_is_not_copied() -> None:
    content = episode_table.in_order(table_schemas.table("episodes", _rows(50)))
    assert episode_table.in_order(content) is content
    assert episode_table.in_order(content.slice(0, 0)).num_rows == 0


def of_best(episodes: pa.Table, trial: dict[str, Any]) -> pa.Table:
    """The rows without an error of the trial's best checkpoint, one by one."""
    weights = trial["policy_hash"]
    keep = [
        trial["best_step"] is not None
        and row["checkpoint_step"] == trial["best_step"]
        and row["error"] is None
        and (weights is None or row["policy_hash"] in (None, weights))
        for row in episodes.to_pylist()
    ]
    return episodes.filter(pa.array(keep, pa.bool_()))


def test_rows_that_count_are_those_picked_trial_by_trial() -> None:
    episodes = episode_table.in_order(table_schemas.table("episodes", _rows(2000)))
    trials = [
        {"config_hash": "a", "train_seed": 2, "best_step": 500, "policy_hash": "p"},
        {"config_hash": "a", "train_seed": 10, "best_step": 1000, "policy_hash": None},
        {"config_hash": "b", "train_seed": 2, "best_step": 1000, "policy_hash": "unknown"},
        {"config_hash": "c", "train_seed": None, "best_step": None, "policy_hash": "p"},
    ]
    by_trial = episode_table.by_trial(episodes)
    expected = [
        episode_table.of_one_protocol(episode_table.within(of_best(by_trial[key], trial), seeds))
        for trial in trials
        for key in [(trial["config_hash"], trial["train_seed"])]
        for seeds in (store.SELECT_SEEDS, store.REPORT_SEEDS)
    ]
    scores = sorted(pa.concat_tables(expected)["score"].to_pylist())
    found = episode_table.that_count(episodes, trials)
    assert sorted(found["score"].to_pylist()) == scores
    assert len(scores) > 10
    assert set(episode_table.by_trial(found)) == {("a", 2), ("a", 10), ("b", 2)}


@pytest.mark.parametrize("empty", [True, False])
def test_a_table_without_trials_keeps_nothing(empty: bool) -> None:
    episodes = episode_table.in_order(table_schemas.table("episodes", [] if empty else _rows(20)))
    assert episode_table.that_count(episodes, []).num_rows == 0
