"""The README's results are those of the tables in docs/tables."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def results() -> dict[str, list[tuple[float, float]]]:
    """Mean score and success rate on the 500 test starts: of the trials by arm, of ensembles."""
    folder = ROOT / "docs/tables/recipes"
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    arms = {row["config_hash"]: row["arm"] for row in trials}
    episodes = pq.read_table(folder / "episodes.parquet")
    tested = episodes.filter(pc.greater_equal(episodes["env_seed"], 300_000))
    found: dict[str, list[tuple[float, float]]] = {}
    grouped = tested.group_by(["sweep", "config_hash"]).aggregate(
        [("score", "mean"), ("success", "mean"), ("env_seed", "count_distinct")]
    )
    for row in grouped.to_pylist():
        assert row["env_seed_count_distinct"] == 500
        kind = arms.get(row["config_hash"], "ensembles")
        found.setdefault(kind, []).append((row["score_mean"], row["success_mean"]))
    return found


def test_the_readme_tells_what_the_tables_hold(results):
    page = (ROOT / "README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| 206 human", "| half human"))]
    assert len(rows) == 2
    cells = [row.split("|") for row in rows]
    shown = {(each[2].split()[0], each[3].split()[0]) for each in cells}
    of_trials = [means for kind, found in results.items() if kind != "ensembles" for means in found]
    assert shown == {(f"{score:.3f}", f"{success:.1%}"[:-1]) for score, success in of_trials}
    shown = {(c.split()[0], c.split("], ")[1].split()[0]) for each in cells for c in each[4:6]}
    expected = {(f"{score:.3f}", f"{rate:.1%}"[:-1]) for score, rate in results["ensembles"]}
    assert shown == expected


def test_most_failures_are_near_misses():
    page = " ".join((ROOT / "README.md").read_text().split())
    folder = ROOT / "docs/tables/recipes"
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    episodes = pq.read_table(folder / "episodes.parquet")
    tested = episodes.filter(pc.greater_equal(episodes["env_seed"], 300_000))
    shown = []
    for config_hash in dict.fromkeys(r["config_hash"] for r in trials if r["report_n"]):
        own = tested.filter(pc.equal(tested["config_hash"], config_hash))
        failed = own.filter(pc.invert(own["success"]))["max_coverage"].to_numpy()
        shown.append((len(failed), f"{(failed > 0.9).mean():.0%}"[:-1]))
    (of_human, near_human), (of_both, near_both) = sorted(shown, reverse=True)
    assert f"of the {of_human} failed episodes of human data alone {near_human} % reached" in page
    assert f"of the {of_both} of the mixture {near_both} %." in page


ARMS = {
    "baseline: window of 100 px around the agent, lattice, mean shift": "baseline (keypoints)",
    "data's range around the agent": "data around the agent",
    "data's range on the board, margin 0": "data on the board, margin 0",
    "whole board (margins 0.05 and 0.2 give the same)": "whole board",
    "a sample of the lattice": "a sample",
    "DFO and mean shift": "DFO and mean shift",
    "DFO, half of it warm, and mean shift": "DFO, half of it warm",
    "softmax mean": "softmax mean",
    "mean of the best mode": "mean of the best mode",
    "DFO and argmax": "DFO and argmax",
    "argmax of the lattice": "argmax",
    "regression on the same encoder": "mse",
}
# The others have the baseline's weights.
TRAINED = {
    "baseline (keypoints)",
    "data around the agent",
    "data on the board, margin 0",
    "whole board",
    "mse",
}


def test_the_answers_are_those_of_their_tables():
    folder = ROOT / "docs/tables/verdicts"
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    finished = [row for row in trials if row["status"] == "finished"]
    episodes = pq.read_table(folder / "episodes.parquet")
    names = {row["config_hash"]: row["arm"] for row in finished}
    found = {}
    for hash_, name in names.items():
        own = episodes.filter(pc.equal(episodes["config_hash"], hash_))
        assert own.num_rows == 500 * sum(row["config_hash"] == hash_ for row in finished)
        score, rate = pc.mean(own["score"]).as_py(), pc.mean(own["success"]).as_py()
        found[name] = (f"{score:.3f}", f"{rate:.1%}"[:-1])
    page = (ROOT / "README.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    shown = {cells[0][2:]: (cells[1], cells[2].split()[0]) for cells in rows if len(cells) > 3}
    board = {found.pop(f"data on the board, margin {margin}") for margin in (0.05, 0.2)}
    assert board == {found["whole board"]}
    assert {ARMS[title]: numbers for title, numbers in shown.items() if title in ARMS} == found
    of_search = {name for title, name in ARMS.items() if name not in TRAINED}
    taken = sum(row["arm"] in of_search for row in finished)
    assert f"after {len(finished)} of 83 trials" in page
    assert f"{taken} of the {len(finished)} took the weights of the baseline" in " ".join(
        page.split()
    )
