"""Selects the rows of an episode table that count: one per episode, of the best checkpoints.

A sweep can have more than a million rows, so all operations are on whole columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS

KEY = ("config_hash", "train_seed", "checkpoint_step", "policy_hash", "protocol_hash", "env_seed")
Key = tuple[str, int]
Whole = NDArray[np.int64]


def in_order(content: pa.Table) -> pa.Table:
    """Return one row per episode, sorted by `KEY`, nulls last.

    Of several rows of an episode the last one without an error counts, else the last error.
    """
    keys = [_codes(content[name]) for name in KEY]
    good = pc.is_null(content["error"]).to_numpy(zero_copy_only=False)
    order = np.lexsort((good, *reversed(keys)))  # within an episode, rows without an error last
    last = np.any([np.diff(key[order], append=-1) != 0 for key in keys], axis=0)
    order = order[last]
    if np.array_equal(order, np.arange(content.num_rows)):
        return content
    return content.take(pa.array(order))


def _codes(column: pa.ChunkedArray) -> Whole:
    """Return a number per row that orders rows as their values do, nulls last."""
    encoded = column.combine_chunks().dictionary_encode()
    ranks = pc.rank(encoded.dictionary, tiebreaker="dense").cast(pa.int64())
    return _whole(ranks.take(encoded.indices), len(ranks) + 1)


def _whole(column: pa.ChunkedArray, null: int) -> Whole:
    found: Whole = pc.fill_null(column, null).to_numpy()
    return found


def _spans(episodes: pa.Table) -> Iterator[tuple[Key, slice]]:
    """Yield (config_hash, train_seed) and the rows of each trial; rows as of `in_order`."""
    hashes, seeds = episodes["config_hash"], episodes["train_seed"]
    change = [np.diff(_codes(column), prepend=-1) != 0 for column in (hashes, seeds)]
    starts = np.flatnonzero(np.any(change, axis=0)).tolist()
    for start, stop in pairwise([*starts, episodes.num_rows]):
        yield (hashes[start].as_py(), seeds[start].as_py()), slice(start, stop)


def by_trial(episodes: pa.Table) -> dict[Key, pa.Table]:
    """Split the episodes of `tables.read` by trial, without copies."""
    return {key: episodes[rows] for key, rows in _spans(episodes)}


def that_count(
    episodes: pa.Table,
    trials: Sequence[Mapping[str, Any]],
    starts: Sequence[range] = (SELECT_SEEDS, REPORT_SEEDS),
) -> pa.Table:
    """Return the rows that scores are computed from, in their order.

    They have no error, belong to the best checkpoint (its step and weights, from `trials`), are on
    selection or report seeds (or other `starts`), and have the protocol of most of the trial's rows
    on these seeds.
    Repeated rollouts and those with delayed actions do not count.
    """
    row_of = {(trial["config_hash"], trial["train_seed"]): trial for trial in trials}
    seeds, steps = _whole(episodes["env_seed"], -1), _whole(episodes["checkpoint_step"], -1)
    protocols = _codes(episodes["protocol_hash"])
    good = pc.is_null(episodes["error"]).to_numpy(zero_copy_only=False) & usual_rules(episodes)
    keep = np.zeros(episodes.num_rows, bool)
    for key, rows in _spans(episodes):
        trial = row_of.get(key, {})
        if trial.get("best_step") is None:
            continue
        best = good[rows] & (steps[rows] == trial["best_step"])
        if trial.get("policy_hash") is not None:
            same = pc.equal(episodes["policy_hash"][rows], trial["policy_hash"])
            best &= pc.fill_null(same, True).to_numpy(zero_copy_only=False)
        for part in starts:
            chosen = best & (seeds[rows] >= part.start) & (seeds[rows] < part.stop)
            counts = np.bincount(protocols[rows][chosen], minlength=1)
            usual = np.flatnonzero(counts == counts.max())[-1]  # ties by name
            keep[rows] |= chosen & (protocols[rows] == usual)
    return episodes if keep.all() else episodes.filter(pa.array(keep))


def usual_rules(episodes: pa.Table) -> NDArray[np.bool_]:
    """Return for each row whether it is a first rollout without delayed actions: bool (n,)."""
    return np.asarray(
        (_whole(episodes["repeat"], 0) == 0) & (_whole(episodes["execute_delay"], 0) == 0)
    )


def reported(episodes: pa.Table) -> NDArray[np.bool_]:
    """Return for each row of `that_count` whether it is on a report seed: bool (n,)."""
    return np.asarray(_whole(episodes["env_seed"], -1) >= REPORT_SEEDS.start)


def within(episodes: pa.Table, seeds: range) -> pa.Table:
    """Return the episodes whose environment seed lies in the range."""
    column = episodes["env_seed"]
    return episodes.filter(
        pc.and_(pc.greater_equal(column, seeds.start), pc.less(column, seeds.stop))
    )


def of_one_protocol(episodes: pa.Table) -> pa.Table:
    """Return the episodes of the most frequent protocol, as those of others are not comparable.

    Repeated rollouts and those with delayed actions count only where there are no others.
    """
    usual = usual_rules(episodes)
    if usual.any():
        episodes = episodes.filter(pa.array(usual))
    counts = episodes["protocol_hash"].value_counts().to_pylist()
    if len(counts) < 2:
        return episodes
    chosen = max(counts, key=lambda count: (count["counts"], count["values"]))["values"]
    return episodes.filter(pc.equal(episodes["protocol_hash"], chosen))
