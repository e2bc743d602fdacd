"""`results ship`: a checkpoint becomes a policy that comes with the project.

policies/NAME holds it, the rows of its test episodes and of the trainings that it is made of, and
README.md, its card, which is made from them (`results study` renews and checks it).
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.protocol import Protocol
from harness.core import command_lines, files, paths
from harness.core.errors import OK, UserError
from harness.core.seeds import PAPER_SEEDS
from harness.evaluation.targets import Target, find_targets
from harness.results.model_card import CARD, STARTS, card
from harness.storage import episode_table, json_schemas, table_schemas, tables
from harness.storage.checkpoints import CONFIG, POLICY, WEIGHTS, describe

MAX_BYTES = 6_000_000  # of the weights of all policies together


def command(given: argparse.Namespace) -> int:
    """Copy an evaluated checkpoint to policies/NAME, with its rows and its card."""
    name = paths.check_name(given.name, "--name, the name of a policy,")
    (target,) = find_targets([given.ckpt], [], given.results, given.sweep)
    source = target.source.checkpoint
    assert source is not None
    described = describe(source)
    # A trial is its own only member.
    members = described.get("members") or [target.columns]
    if not all(isinstance(member, Mapping) and member.get("sweep") for member in members):
        raise UserError(f"{source} must be a sweep's trial or an ensemble of such, to have a card")
    trials, data = zip(*(_training(given.results, member) for member in members), strict=True)
    if len(set(data)) > 1:
        raise UserError(f"the members of an ensemble must have the same data, given {set(data)}")
    episodes = _test_rows(target, given)
    folder = given.root / "policies" / name
    others = {path for path in folder.parent.glob(f"*/{WEIGHTS}") if path.parent != folder}
    size = sum(path.stat().st_size for path in {*others, source / WEIGHTS})
    if size > MAX_BYTES:
        rule = f"all weights in {folder.parent} together must have at most {MAX_BYTES:,} bytes"
        raise UserError(f"{rule}, they would have {size:,}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (POLICY, WEIGHTS):
        shutil.copyfile(source / file, folder / file)
    files.write_json({**described, "data": data[0]}, folder / CONFIG)
    table_schemas.write(episodes, folder / "episodes.parquet")
    joined = pa.concat_tables(trials, promote_options="default")
    table_schemas.write(joined, folder / "trials.parquet")
    (folder / CARD).write_text(card(folder), encoding="utf-8")
    print(folder)
    return OK


def _training(results: Path, member: Mapping[str, Any]) -> tuple[pa.Table, str]:
    """Return a trial's row, and the names of its data sets."""
    folder = results / paths.check_name(member["sweep"])
    trials = tables.read(folder, "trials")
    own = pc.and_(
        pc.equal(trials["config_hash"], member["config_hash"]),
        pc.equal(trials["train_seed"], member["train_seed"]),
    )
    dataset = json_schemas.read_or(folder / "plan.json").get("dataset", {})
    return trials.filter(own), paths.names_alone(str(dataset.get("path", "")))


def _test_rows(target: Target, given: argparse.Namespace) -> pa.Table:
    """Return the policy's episodes on STARTS; UserError unless it has all of them."""
    # .../SWEEP/trials/TRIAL/episodes, or .../evaluations/NAME/episodes
    of_trial = target.folder.parent.parent.name == "trials"
    rows = tables.read(target.folder.parents[2 if of_trial else 0], "episodes")
    own = pc.and_(pc.is_null(rows["error"]), pc.equal(rows["protocol_hash"], Protocol().hash))
    for name, value in target.columns.items():
        if name != "sweep" and value is not None:
            own = pc.and_(own, pc.equal(rows[name], value))
    rows = rows.filter(own)
    rows = rows.filter(episode_table.usual_rules(rows))
    kept = pa.concat_tables(episode_table.within(rows, starts) for starts in (PAPER_SEEDS, STARTS))
    if kept.num_rows != len(PAPER_SEEDS) + len(STARTS):
        seeds = ",".join(f"{starts[0]}-{starts[-1]}" for starts in (PAPER_SEEDS, STARTS))
        line = command_lines.line(
            "eval", "--ckpt", given.ckpt, "--seeds", seeds, results=given.results
        )
        raise UserError(
            f"a policy is shipped with its episodes on {len(PAPER_SEEDS)} starts of the literature "
            f"and {len(STARTS)} test starts, and {kept.num_rows} of them are stored; first: {line}"
        )
    return kept
