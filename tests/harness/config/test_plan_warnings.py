"""The plan says which arms ask for what is known to go wrong."""

import io

from rich.console import Console

from harness.config import plan as space
from harness.sweep import pending
from harness.sweep.estimate import Estimate
from harness.sweep.folder import SweepFolder
from harness.sweep.plan_table import print_plan

CHUNKS = """
version: 1
base: {policy.inference.sampler: dfo, policy.negatives.sampler: mixture}
questions:
  chunks:
    ask: How long?
    grid: {policy.action_horizon: [2, 4, 8]}
"""
SEARCH = """
version: 1
base: {policy.inference.sampler: dfo, policy.negatives.sampler: mixture, policy.action_horizon: 4}
search: {ask: "Which?", trials: 3, axes: {policy.energy.width: [8, 16]}}
"""


def read(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return space.plan(path)


def test_arms_with_joint_dfo_over_chunks_are_warned_of(tmp_path):
    found = read(tmp_path, CHUNKS).warnings
    assert [text.split(":")[0] for text in found] == ["action_horizon 4", "action_horizon 8"]
    assert all('energy.conditionals "steps"' in text for text in found)
    assert read(tmp_path, CHUNKS.replace("[2, 4, 8]", "[2]")).warnings == []


def test_a_search_is_warned_once_and_the_plan_prints_it(tmp_path):
    plan = read(tmp_path, SEARCH)
    assert len(plan.warnings) == 1
    console = Console(file=io.StringIO(), width=80)
    work = pending.find(plan, SweepFolder(tmp_path / "sweep"), (), retry_failed=False)
    print_plan(console, plan, work, Estimate({}, ""))
    assert console.file.getvalue().startswith("warning: joint DFO over 8 action dimensions")
