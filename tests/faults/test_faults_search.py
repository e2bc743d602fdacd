"""A halved search whose driver is killed: from the command to the confirmed winner."""

import pytest

from harness.core import files
from harness.scheduling.search_history import selection_scores
from harness.storage import tables
from tests.commands import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SEARCH = """
search:
  ask: Which learning rate?
  sampler: random
  trials: 4
  halving: {factor: 2, first: 4}
  confirm: {winners: 1, train_seeds: [7], report_seeds: 2}
  axes: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


def test_a_killed_search_halves_on_and_confirms_its_winner(commands):
    base = commands.space.read_text().partition("questions:")[0]
    base = base.replace("steps: 40", "steps: 16").replace(
        "select.seeds: 2", "select: {seeds: 2, every: 4}"
    )
    commands.space.write_text(base + SEARCH)
    process = commands.start_sweep("--name", "search")
    try:
        wait_for(lambda: any(s["status"] == "stopped" for s in commands.statuses("search")), 200)
    finally:
        process.kill()
        process.communicate()
    decided = files.read_json(commands.results / "search/halving.json")["decisions"]

    code, out, err = commands.run_sweep("--name", "search", "--yes")
    assert code == 0, out + err
    note = files.read_json(commands.results / "search/halving.json")
    assert note["decisions"][: len(decided)] == decided
    assert note["rungs"] == [4, 8]

    rows = tables.read(commands.results / "search", "trials").to_pylist()
    searched = [row for row in rows if row["question"] == "search"]
    levels = dict(note["decisions"])  # the last one of each point counts
    ends = {0: (4, "stopped"), 1: (8, "stopped"), 2: (16, "finished")}
    assert {row["arm"]: (row["step"], row["status"]) for row in searched} == {
        f"#{number}": ends[level] for number, level in levels.items()
    }
    (winner,) = [row for row in searched if row["status"] == "finished"]
    folder = commands.results / "search/trials" / winner["trial"]
    assert selection_scores(folder).keys() == {4, 8, 12, 16}

    (confirmed,) = [row for row in rows if row["question"] == "confirmation"]
    assert (confirmed["arm"], confirmed["train_seed"]) == (winner["arm"], 7)
    assert (confirmed["status"], confirmed["step"], confirmed["report_n"]) == ("finished", 16, 2)
    (asked,) = files.read_json(commands.results / "search/plan.json")["questions"]
    assert [arm["config_hash"] for arm in asked["arms"]] == [winner["config_hash"]]
    assert "confirmation" in (commands.results / "search/answers.md").read_text()

    code, out, _ = commands.run_sweep("--name", "search", "--dry-run")
    assert code == 0
    assert "2 finished, 0 failed, 3 stopped early, 0 to run" in out
