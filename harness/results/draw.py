"""The commands that run policies, and so need torch: pictures, landscape, energy."""

import argparse
from pathlib import Path

import numpy as np

from harness.config.protocol import Protocol, blocks
from harness.core import files
from harness.core.errors import UserError
from harness.core.seeds import REPORT_SEEDS
from harness.demos import pictures as sheets
from harness.evaluation.policy_source import Source, Task
from harness.evaluation.pool import open_pool
from harness.media.landscape import draw
from harness.page import gallery
from harness.page.energy import document as energy_page
from harness.results.output import Answer, files_written
from harness.storage import episode_table, lookup, tables


def pictures(given: argparse.Namespace) -> Answer:
    """Roll out the best trials' episodes again and animate them."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    if given.failures:
        specs = given.trial or ["best"]
        return files_written([_failures(given.results, folder, spec) for spec in specs])
    entries = gallery.make(folder, given.trial or ())
    if not entries:
        raise UserError("nothing to draw: no trial has a checkpoint and episodes yet")
    return files_written([folder / gallery.FOLDER / entry["file"] for entry in entries])


def _failures(results: Path, folder: Path, spec: str) -> Path:
    """Draw a contact sheet of a trial's failed episodes, the nearest to success first."""
    found = lookup.resolve(spec, results, folder.name)
    if found.trial_dir is None or found.trial_dir.parent.parent != folder:
        raise UserError(f"--trial takes a trial of {folder.name}, given {spec[:120]!r}")
    id_ = found.trial_dir.name
    trials = tables.read(folder, "trials").to_pylist()
    counted = episode_table.by_trial(
        episode_table.that_count(tables.read(folder, "episodes"), trials)
    )
    key = str(found.config_hash), int(found.train_seed or 0)
    rows = counted[key].to_pylist() if key in counted else []
    rows = [row for row in rows if row["env_seed"] in REPORT_SEEDS] or rows
    failed = sorted((row for row in rows if not row["success"]), key=lambda r: -r["max_coverage"])
    if not failed:
        raise UserError(f"there is nothing to draw: none of {len(rows)} episodes of {id_} failed")
    out = folder / gallery.FOLDER / f"{id_}-failures.png"
    files.check_writable(out.parent)
    shown = {failed[k]["env_seed"]: failed[k] for k in sheets.evenly(len(failed))}
    seeds = sorted({row["env_seed"] for row in rows})
    source = Source(checkpoint=found.path)
    tasks = [
        Task(source, block)
        for block in blocks(seeds, Protocol().block_size)
        if not shown.keys().isdisjoint(block)
    ]
    states = {}
    with open_pool(Protocol(), 1) as pool:
        for _, outcome in pool.run(tasks, list(shown)):
            for seed, steps in outcome.steps.items():
                states[seed] = np.array([step.state for step in steps])
    sheet = sheets.draw_sheet(
        [(f"{seed}: covers {row['max_coverage']:.3f}", states[seed]) for seed, row in shown.items()]
    )
    sheets.save(sheet, out)
    return out


def landscape(given: argparse.Namespace) -> Answer:
    """Draw one state's energy over the board for several checkpoints."""
    out = None if given.out is None else given.out.expanduser()
    path = draw(given.results, given.sweep, given.which, given.seed, given.step, out)
    return files_written([path])


def energy(given: argparse.Namespace) -> Answer:
    """Write the page on which a person moves the T and the agent and sees a policy's energy."""
    found = lookup.resolve(given.ckpt, given.results, given.sweep)
    return files_written([energy_page.write(found, given.out.expanduser())])
