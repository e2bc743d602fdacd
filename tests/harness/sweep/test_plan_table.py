"""What a plan prints before a sweep starts."""

import io
from pathlib import Path

from rich.console import Console

from harness.config.plan import plan
from harness.sweep import pending
from harness.sweep.estimate import Estimate
from harness.sweep.folder import SweepFolder
from harness.sweep.plan_table import print_plan

SEARCH = """
version: 1
base: {policy.inference.sampler: dfo, policy.negatives.sampler: mixture, policy.action_horizon: 4}
search: {ask: "Which?", trials: 3, axes: {policy.energy.width: [8, 16]}}
"""


def test_warnings_come_first(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(SEARCH)
    found = plan(path)
    console = Console(file=io.StringIO(), width=80)
    work = pending.find(found, SweepFolder(tmp_path / "sweep"), (), retry_failed=False)
    print_plan(console, found, work, Estimate({}, ""))
    assert console.file.getvalue().startswith("warning: joint DFO over 8 action dimensions")
