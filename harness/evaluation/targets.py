"""The policies to evaluate: checkpoints by name, trial or folder, or the object of a factory."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from harness.analysis import sweep_results
from harness.core import paths
from harness.core.errors import UserError
from harness.core.text import one_line
from harness.evaluation import factories
from harness.evaluation.factories import Arguments
from harness.evaluation.policy_source import Source
from harness.evaluation.rollout import Predicts
from harness.storage import checkpoints, json_schemas, lookup, tables
from ibc.policies.ensemble import ensemble
from ibc.policies.factory import load_policy

EVERY = "all"


@dataclass(frozen=True)
class Target:
    """A policy to evaluate, the folder of its rows, and their common columns.

    note: how a checkpoint was chosen. made: the object of a factory. arm: its arm, if it is one of
    all trials of a sweep, which are shown by arm.
    """

    source: Source
    title: str
    folder: Path
    columns: dict[str, Any]
    note: str = ""
    made: Predicts | None = None
    arm: str = ""


def find_targets(
    ckpts: Sequence[str],
    policies: Sequence[str],
    results: Path,
    sweep: str | None,
    fetch: Callable[[Path], None] | None = None,
    *,
    arguments: Sequence[str] = (),
    names: Sequence[str] = (),
    join: bool = False,
    pair: bool = False,
) -> list[Target]:
    """Return what --ckpt or --policy names; UserError when it is not exactly one of them.

    `all` is every finished trial of the sweep. Repeated names count once. `fetch`: see
    `lookup.resolve`. arguments: of the object's factory, NAME=VALUE; names: of the objects'
    evaluations, one each, or none. join: the checkpoints become one, their ensemble. pair: two
    different policies, each a checkpoint or an object.
    """
    if join and policies:
        raise UserError("--ensemble joins checkpoints: it needs --ckpt, given --policy")
    if join and pair:
        raise UserError(
            "--ensemble makes one policy of all --ckpt, and --until-decided needs two: make the "
            "ensemble first, then give its folder as --ckpt"
        )
    if not pair and not (bool(ckpts) != bool(policies) and len(policies) < 2):
        raise UserError(
            "one of --ckpt and --policy is needed, and only one of them; --policy may be given once"
        )
    if arguments and len(policies) != 1:
        raise UserError(
            f"--policy-arg goes to the factory of one --policy, given {len(policies)} of them"
        )
    if names and len(names) != len(policies):
        raise UserError(
            "--name names the rows of a --policy, one for each; given "
            f"{len(names)} for {len(policies)}"
        )
    found: dict[Source, Target] = {}
    for name in ckpts:
        every = _finished(results, sweep) if name == EVERY else [(name, sweep, "")]
        for spec, of, arm in every:
            target = _checkpoint_target(lookup.resolve(spec, results, of, fetch), results)
            found.setdefault(target.source, replace(target, arm=arm))
    if join:
        return [_ensemble_target(list(found.values()), results)]
    for factory, given in zip(policies, names or [""] * len(policies), strict=True):
        target = _object_target(factory, _arguments(arguments), given if names else None, results)
        found.setdefault(target.source, target)
    if pair and len(found) != 2:
        raise UserError(
            "--until-decided compares two different policies (--ckpt or --policy for each), "
            f"given {len(found)}"
        )
    return list(found.values())


def _finished(results: Path, sweep: str | None) -> list[tuple[str, str, str]]:
    """Return each finished trial with its sweep and its arm, whose name is that of one config."""
    folder = lookup.sweep_dir(results, sweep)
    trials = tables.read(folder, "trials")
    rows = trials.filter(pc.equal(trials["status"], "finished")).to_pylist()
    if not rows:
        raise UserError(
            f"--ckpt {EVERY} takes the finished trials of a sweep, and none of the "
            f"{trials.num_rows} trials of {folder.name} is finished"
        )
    # Only a search's trials are called by a number, and have parameters to be shown.
    searched = any((row["arm"] or "").startswith("#") for row in rows)
    plan = json_schemas.read_or(folder / "plan.json") if searched else {}
    configs: dict[str, set[str]] = {}
    for row in rows:
        configs.setdefault(row["arm"] or "", set()).add(row["config_hash"])
    return sorted(
        (
            row["trial"],
            folder.name,
            sweep_results.arm_name(
                {**row, "question": "" if len(configs[row["arm"] or ""]) == 1 else row["question"]},
                plan,
            ),
        )
        for row in rows
    )


def _checkpoint_target(found: lookup.Checkpoint, results: Path) -> Target:
    columns = {
        "sweep": found.sweep,
        "config_hash": found.config_hash or found.policy_hash,
        "train_seed": found.train_seed,
        "checkpoint_step": found.step,
        "policy_hash": found.policy_hash,
    }
    trial_dir = found.trial_dir
    # A trial's rows belong to its sweep; what lies elsewhere is not written to.
    if trial_dir is not None and trial_dir.parents[2].resolve() == results.resolve():
        title = f"trial {trial_dir.name} of {found.sweep}, step {found.step}"
        folder = trial_dir / "episodes"
    else:
        # Policies that differ in their search alone have the same weights.
        parts = (_folder_name(found.path.resolve().name), found.config_hash, found.policy_hash)
        name = "-".join(filter(None, parts))
        title = f"checkpoint {found.path}"
        folder = results / "evaluations" / name / "episodes"
        columns["sweep"] = f"evaluations/{name}"
    return Target(Source(checkpoint=found.path.resolve()), title, folder, columns, found.note)


def _ensemble_target(members: Sequence[Target], results: Path) -> Target:
    """The ensemble of these checkpoints, saved as one where it is not yet."""
    # Policies that differ in their search alone have the same weights.
    hashes = sorted(
        f"{member.columns['policy_hash']} {member.columns['config_hash']}" for member in members
    )
    directory = results / "ensembles"
    name = f"of-{len(members)}-{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:12]}"
    if checkpoints.find(directory, name) is None:
        try:
            policy = ensemble(
                [load_policy(m.source.checkpoint) for m in members if m.source.checkpoint]
            )
        except ValueError as error:
            raise UserError(f"--ensemble: {error}") from None
        config = {"policy": asdict(policy.config)}
        info = {"members": [member.columns for member in members]}
        checkpoints.save(directory, name, policy, config=config, step=0, info=info)
    target = _checkpoint_target(lookup.resolve(str(directory / name), results), results)
    return replace(target, title=f"ensemble of {len(members)} policies, {directory / name}")


def _object_target(factory: str, arguments: Arguments, name: str | None, results: Path) -> Target:
    source = Source(factory=factory, folder=Path.cwd(), arguments=arguments)
    given = ", ".join("=".join(each) for each in arguments)
    shown = one_line(f"{factory}({given})" if given else factory)
    if name is None:
        name = _folder_name(shown.replace(":", "."))
    else:
        paths.check_name(name, "--name, the name of an evaluation,")
    made = source.load()
    policy_hash = factories.policy_hash(made, factory, source.folder, arguments)
    columns = {
        "sweep": f"evaluations/{name}",
        "config_hash": shown[:100],
        "train_seed": None,
        "checkpoint_step": None,
        "policy_hash": policy_hash,
    }
    folder = results / "evaluations" / name / "episodes"
    return Target(source, f"policy {shown}", folder, columns, made=made)


def _arguments(given: Sequence[str]) -> Arguments:
    """Return the names and values of --policy-arg NAME=VALUE."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--policy-arg takes NAME=VALUE, given {text[:120]!r}")
        if name in found:
            raise UserError(f"--policy-arg gives each argument once, given {name} twice")
        found[name] = value
    return tuple(found.items())


def _folder_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "policy"
