"""Reading results takes bounded time and memory, and the benchmarks run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import evaluation, generated_sweep, results_size, sweep_efficiency
from benchmarks.generated_sweep import Size
from harness.analysis.sweep_results import Sweep
from harness.storage import tables

ROWS = Size(configs=20, questions=3, train_seeds=3, select=50, report=900, epochs=10)
# 60,000 rows of 150 bytes are 9 MiB; what reads them may take so much more than reading nothing.
ROOM_MIB = 120
SECONDS = 60.0  # of a second or two, on a machine that does much else


@pytest.mark.slow
def test_show_and_report_of_many_rows_stay_within_bounds(tmp_path: Path) -> None:
    few, many = (tmp_path / name for name in ("few", "many"))
    for results, size in ((few, results_size.QUICK), (many, ROWS)):
        generated_sweep.write(results / "generated", size)
        tables.rebuild(results / "generated")
    for command in ("show", "report"):
        _, base = results_size.run(few, (command, "generated"))
        wall, peak = results_size.run(many, (command, "generated"))
        assert wall < SECONDS
        assert peak < base + ROOM_MIB, f"{command}: {peak:.0f} MiB, with few rows {base:.0f}"


def test_a_made_up_sweep_reads_like_a_real_one(tmp_path: Path) -> None:
    size = Size(configs=4, questions=2, train_seeds=3, select=10, report=20, epochs=3)
    generated_sweep.write(tmp_path / "made-up", size)
    trials, episodes = tables.read_both(tmp_path / "made-up")
    assert (trials.num_rows, episodes.num_rows) == (size.trials, size.episodes)
    assert set(trials["status"].to_pylist()) == {"finished"}
    assert tables.read(tmp_path / "made-up", "curves").num_rows == 3 * size.trials
    sweep = Sweep(tmp_path / "made-up")
    assert {arm.question for arm in sweep.arms()} == {"question 0", "question 1"}
    for arm in sweep.arms():
        # The early selection's rows are not the best checkpoint's.
        seeds = len(arm.group.trials)  # five of the baseline
        assert arm.group.episodes.num_rows == seeds * (size.select + size.report)
    assert {len(arm.group.trials) for arm in sweep.arms()} == {3, 5}
    tables.rebuild(tmp_path / "made-up")
    again = Sweep(tmp_path / "made-up")
    assert [arm.as_row() for arm in again.arms()] == [arm.as_row() for arm in sweep.arms()]


@pytest.mark.slow
def test_the_efficiency_of_a_plan_is_measured(tmp_path: Path) -> None:
    found = sweep_efficiency.plan(tmp_path, quick=True)
    assert found["trials"] == "100"
    assert re.search(r"1\d\d to run", (tmp_path / "log").read_text())


def test_the_evaluation_benchmark_says_what_it_found() -> None:
    shares = {"inference": 0.5, "world": 0.25, "rendering": 0.0}
    scores = {300_000 + i: i / 10 for i in range(10)}
    theirs = evaluation.Side(50.0, 9.0, 100, shares, scores, "25 environments, 2 threads")
    ours = evaluation.Side(5.0, 8.0, 100, shares, scores, "2 workers")
    text = "\n".join(evaluation.tables({"keypoints": (theirs, ours)}))
    assert "| keypoints | 2.00 | 25 environments, 2 threads | 20.00 | 10.0 x |" in text
    assert "| keypoints, ours | 50 % | 25 % | 0 % | 25 % | 8.0 s |" in text
    assert "(ours) on the same 10 starts, difference +0.000" in evaluation.agreement(theirs, ours)


def test_the_peers_worker_needs_its_own_packages_only() -> None:
    # It is started by another Python, which has neither torch nor this project in front.
    code = "import ast, sys; print(ast.dump(ast.parse(open(sys.argv[1]).read())))"
    path = evaluation.PEER_WORKER
    subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True)
    top = [line for line in path.read_text().splitlines() if re.match("(import|from) ", line)]
    assert not [line for line in top if re.search("torch|ibc|harness|envs", line)]
