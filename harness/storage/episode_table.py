"""Selects the rows of an episode table that count: one per episode, of the best checkpoints.

A sweep can have more than a million rows, so all operations are on whole columns, and strings are
compared by their dictionary codes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS

KEY = (
    "config_hash",
    "train_seed",
    "checkpoint_step",
    "policy_hash",
    "protocol_hash",
    "env_seed",
)
Key = tuple[str, int]
Whole = NDArray[np.int64]


def in_order(content: pa.Table) -> pa.Table:
    """Return one row per episode, sorted by `KEY`, nulls last.

    Of several rows of an episode the last one without an error counts, else the last error.
    """
    n = content.num_rows
    rank = _rank(content)
    good = pc.is_null(content["error"]).to_numpy(zero_copy_only=False)
    order = np.argsort(rank, kind="stable")
    ranked = rank[order]
    last = np.append(ranked[1:] != ranked[:-1], True) if n else np.zeros(0, bool)
    if not last.all():
        # Within an episode, rows without an error come last; otherwise the order is kept.
        order = np.lexsort((np.arange(n), good, rank))
        order = order[last]
    if len(order) == n and (np.diff(order) == 1).all():
        return content
    return content.take(pa.array(order))


def _rank(content: pa.Table) -> Whole:
    """Return a number per row that orders rows as their keys do."""
    rank = np.zeros(content.num_rows, np.int64)
    count = 1
    for name in KEY:
        codes, values = _codes(content[name])
        place = np.empty(len(values) + 1, np.int64)
        place[np.argsort(np.asarray(values))] = np.arange(len(values))
        place[-1] = len(values)  # of the code -1: nulls last
        if count * (len(values) + 1) >= 2**63:
            _, rank = np.unique(rank, return_inverse=True)
            count = int(rank.max(initial=0)) + 1
        rank = rank * (len(values) + 1) + place[codes]
        count *= len(values) + 1
    return rank


def _codes(column: pa.ChunkedArray) -> tuple[Whole, list[Any]]:
    """Return the dictionary code of each row, -1 for null, and the values."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def spans(episodes: pa.Table) -> Iterator[tuple[Key, int, int]]:
    """Yield (config_hash, train_seed), first row and end of each trial; rows as of `in_order`."""
    if episodes.num_rows == 0:
        return
    hashes, names = _codes(episodes["config_hash"])
    seeds, numbers = _codes(episodes["train_seed"])
    change = (hashes[1:] != hashes[:-1]) | (seeds[1:] != seeds[:-1])
    edges = [0, *(np.flatnonzero(change) + 1).tolist(), episodes.num_rows]
    names, numbers = [*names, None], [*numbers, None]  # of the code -1
    for start, stop in pairwise(edges):
        yield (names[hashes[start]], numbers[seeds[start]]), start, stop


def by_trial(episodes: pa.Table) -> dict[Key, pa.Table]:
    """Split the episodes of `tables.read` by trial, without copies."""
    return {key: episodes.slice(start, stop - start) for key, start, stop in spans(episodes)}


def that_count(episodes: pa.Table, trials: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows that scores are computed from, in their order.

    They have no error, belong to the best checkpoint (its step and weights, from `trials`), are on
    selection or report seeds, and have the protocol of most of the trial's rows on these seeds.
    """
    row_of = {(trial["config_hash"], trial["train_seed"]): trial for trial in trials}
    n = episodes.num_rows
    policies, names = _codes(episodes["policy_hash"])
    code_of = {name: code for code, name in enumerate(names)}
    step, weights = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    number = np.zeros(n, np.int64)
    for i, (key, start, stop) in enumerate(spans(episodes)):
        trial = row_of.get(key, {})
        number[start:stop] = i
        if trial.get("best_step") is None:
            continue
        step[start:stop] = trial["best_step"]
        if trial.get("policy_hash") is not None:
            # A code that no row has if the hash is unknown; -1 would match every row.
            weights[start:stop] = code_of.get(trial["policy_hash"], len(names))
    steps = _whole(episodes["checkpoint_step"], -2)
    seeds = _whole(episodes["env_seed"], -1)
    keep = pc.is_null(episodes["error"]).to_numpy(zero_copy_only=False) & (steps == step)
    keep &= (weights == -1) | (policies == -1) | (policies == weights)
    keep &= (seeds >= SELECT_SEEDS.start) & (seeds < REPORT_SEEDS.stop)
    keep &= _usual_protocol(episodes["protocol_hash"], number * 2 + reported(episodes), keep)
    return episodes if keep.all() else episodes.filter(pa.array(keep))


def reported(episodes: pa.Table) -> NDArray[np.bool_]:
    """Return for each row of `that_count` whether it is on a report seed: bool (n,)."""
    return np.asarray(_whole(episodes["env_seed"], -1) >= REPORT_SEEDS.start)


def _whole(column: pa.ChunkedArray, null: int) -> Whole:
    found: Whole = pc.fill_null(column, null).to_numpy()
    return found


def _usual_protocol(
    column: pa.ChunkedArray, groups: Whole, among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return whether a row has the most frequent protocol of its group, ties by name: bool (n,)."""
    codes, names = _codes(column)
    if len(names) < 2 and not (codes == -1).any():
        return np.ones(len(codes), bool)
    place = np.empty(len(names) + 1, np.int64)
    place[np.argsort(np.asarray(names))] = np.arange(1, len(names) + 1)
    place[-1] = 0
    protocols, width = place[codes], len(names) + 1
    pairs, counts = np.unique(groups[among] * width + protocols[among], return_counts=True)
    order = np.lexsort((pairs % width, counts, pairs // width))
    chosen = np.zeros(int(groups.max(initial=0)) + 1, np.int64)
    chosen[(pairs // width)[order]] = (pairs % width)[order]  # the last of a group wins
    return np.asarray(protocols == chosen[groups])


def within(episodes: pa.Table, seeds: range) -> pa.Table:
    """Return the episodes whose environment seed lies in the range."""
    column = episodes["env_seed"]
    return episodes.filter(
        pc.and_(pc.greater_equal(column, seeds.start), pc.less(column, seeds.stop))
    )


def of_one_protocol(episodes: pa.Table) -> pa.Table:
    """Return the episodes of the most frequent protocol, as those of others are not comparable."""
    counts = episodes["protocol_hash"].value_counts().to_pylist()
    if len(counts) < 2:
        return episodes
    chosen = max(counts, key=lambda count: (count["counts"], count["values"]))["values"]
    return episodes.filter(pc.equal(episodes["protocol_hash"], chosen))
