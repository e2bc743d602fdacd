"""Which of a table's episodes count: sorted, one row an episode, of the best checkpoints.

A sweep has a million rows and more, so what is asked of every row is asked of whole columns, and
texts are compared by the number of their first occurrence.
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
    """Return one row an episode, sorted by `KEY`, nulls last.

    Of several rows of an episode the last that went well counts, else the last error.
    """
    n = content.num_rows
    rank = _rank(content)
    good = pc.is_null(content["error"]).to_numpy(zero_copy_only=False)
    order = np.argsort(rank, kind="stable")
    ranked = rank[order]
    last = np.append(ranked[1:] != ranked[:-1], True) if n else np.zeros(0, bool)
    if not last.all():
        # Within an episode the rows that went well come last, those of one kind in their order.
        order = np.lexsort((np.arange(n), good, rank))
        order = order[last]
    if len(order) == n and (np.diff(order) == 1).all():
        return content
    return content.take(pa.array(order))


def _rank(content: pa.Table) -> Whole:
    """Return a number a row that is smaller where its key is, and equal where it is equal."""
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
    """Return each row's number of its value, -1 for null, and the values."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def spans(episodes: pa.Table) -> Iterator[tuple[Key, int, int]]:
    """Yield each trial's (config_hash, train_seed) with where its rows begin and end.

    The rows must lie as `in_order` has them.
    """
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
    """Split the episodes of `store.read` into those of each trial, without copies."""
    return {key: episodes.slice(start, stop - start) for key, start, stop in spans(episodes)}


def that_count(episodes: pa.Table, trials: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Keep the rows that a trial's scores are made of, in the order that they have.

    Those that went well, of the best checkpoint (its step and weights, as `trials` say), on
    selection or report seeds, of the protocol that most of the trial's rows on these seeds have.
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
            # A hash that no row has, unlike -1, which goes with every row.
            weights[start:stop] = code_of.get(trial["policy_hash"], len(names))
    steps = _whole(episodes["checkpoint_step"], -2)
    seeds = _whole(episodes["env_seed"], -1)
    keep = pc.is_null(episodes["error"]).to_numpy(zero_copy_only=False) & (steps == step)
    keep &= (weights == -1) | (policies == -1) | (policies == weights)
    keep &= (seeds >= SELECT_SEEDS.start) & (seeds < REPORT_SEEDS.stop)
    keep &= _usual_protocol(episodes["protocol_hash"], number * 2 + reported(episodes), keep)
    return episodes if keep.all() else episodes.filter(pa.array(keep))


def reported(episodes: pa.Table) -> NDArray[np.bool_]:
    """Return whether each row that counts is on a report seed, not on a selection seed."""
    return np.asarray(_whole(episodes["env_seed"], -1) >= REPORT_SEEDS.start)


def _whole(column: pa.ChunkedArray, null: int) -> Whole:
    found: Whole = pc.fill_null(column, null).to_numpy()
    return found


def _usual_protocol(
    column: pa.ChunkedArray, groups: Whole, among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return whether a row has its group's most frequent protocol, the last by name of several."""
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
    chosen[(pairs // width)[order]] = (pairs % width)[order]  # the last of a group stays
    return np.asarray(protocols == chosen[groups])


def of_best(episodes: pa.Table, trial: Mapping[str, Any]) -> pa.Table:
    """Keep a trial's episodes that went well and are of its best checkpoint (its step, weights)."""
    step, weights = trial.get("best_step"), trial.get("policy_hash")
    if step is None:
        return episodes.slice(0, 0)
    keep = pc.and_(pc.equal(episodes["checkpoint_step"], step), pc.is_null(episodes["error"]))
    if weights is not None:
        same = pc.equal(episodes["policy_hash"], weights)
        keep = pc.and_(keep, pc.fill_null(same, True))
    return episodes.filter(pc.fill_null(keep, False))


def within(episodes: pa.Table, seeds: range) -> pa.Table:
    """Keep the episodes whose environment seed lies in the range."""
    column = episodes["env_seed"]
    return episodes.filter(
        pc.and_(pc.greater_equal(column, seeds.start), pc.less(column, seeds.stop))
    )


def of_one_protocol(episodes: pa.Table) -> pa.Table:
    """Keep the protocol with the most episodes: means over two protocols mean nothing."""
    counts = episodes["protocol_hash"].value_counts().to_pylist()
    if len(counts) < 2:
        return episodes
    chosen = max(counts, key=lambda count: (count["counts"], count["values"]))["values"]
    return episodes.filter(pc.equal(episodes["protocol_hash"], chosen))
