"""Two policies until decided: when it stops, what is stored, what a second run does, bad input."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config.protocol import Protocol
from harness.core.errors import UserError
from harness.evaluation import policy_source, until_decided
from harness.evaluation.policy_source import Outcome, Task
from harness.evaluation.progress import EvalProgress
from harness.evaluation.rollout import rules
from harness.evaluation.target_run import TargetRun
from harness.evaluation.targets import find_targets
from harness.storage import tables
from tests.harness.evaluation.test_job import POLICIES, run

Chance = float


@pytest.fixture
def pair(tiny_results: Path) -> tuple[str, ...]:
    """Two trials of the sweep `tiny`, an energy and an explicit policy."""
    trials = tables.read(tiny_results / "tiny", "trials").to_pylist()
    done = [row for row in trials if row["status"] == "finished" and row["train_seed"] == 0]
    return tuple(row["trial"] for row in sorted(done, key=lambda row: str(row["arm"])))


class Rolls:
    """Stands for rollouts: an energy succeeds with chance `a`, an explicit policy with `b`."""

    def __init__(self, a: Chance, b: Chance) -> None:
        self.chances = {True: a, False: b}
        self.done: list[tuple[bool, int]] = []
        self.stop_after = 10**9
        self.fail: Sequence[int] = ()
        self.delays: set[int] = set()

    def __call__(self, policy: Any, seeds: Sequence[int], protocol: Any, _: object) -> Outcome:
        if len(self.done) >= self.stop_after:
            raise KeyboardInterrupt
        energy = policy.config.kind == "ibc"
        rows = []
        for seed in seeds:
            self.done.append((energy, seed))
            key = (seed, energy, protocol.repeat) if protocol.repeat else (seed, energy)
            luck = float(np.random.default_rng(key).random())
            success = luck < self.chances[energy]
            row = {**rules(protocol), "env_seed": seed, "error": None}
            self.delays.add(protocol.execute_delay)
            score = 1.0 if success else 0.3
            numbers = {"score": score, "success": success, "max_coverage": 0.96 * score}
            numbers |= {"final_coverage": score, "length": 100, "policy_ms": 40.0, "env_ms": 1.0}
            failed = {"error": "broken"} if seed in self.fail else numbers
            rows.append({**row, **failed})
        return Outcome(rows, {})


@pytest.fixture
def rolls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Chance, Chance], Rolls]:
    def make(a: Chance, b: Chance) -> Rolls:
        made = Rolls(a, b)
        monkeypatch.setattr(policy_source, "roll", made)
        return made

    return make


def sentence(text: str) -> str:
    """What is decided, without what was run."""
    flat = " ".join(text.split())
    return flat[flat.index("a - b in score") : flat.index("starts.", flat.index("a - b in score"))]


def test_it_stops_when_it_is_decided_and_an_interrupted_run_decides_the_same(
    tiny_results: Path, pair: tuple[str, ...], rolls: Callable[[Chance, Chance], Rolls]
) -> None:
    done = rolls(0.9, 0.7)
    options = {"ckpt": pair, "seeds": "1000", "results": tiny_results, "until_decided": True}
    done.stop_after = 75
    with pytest.raises(KeyboardInterrupt):
        run(**options)
    # In alternation: a block of each, then the next.
    assert [done.done[k] for k in (0, 25, 50)] == [
        (True, 300_000),
        (False, 300_000),
        (True, 300_025),
    ]
    done.stop_after = 10**9
    code, text = run(**options)
    assert code == 0
    said = sentence(text)
    assert f"a (trial {pair[0]} of tiny, step 500) is better than b (trial {pair[1]}" in said
    assert "after 75 of at most 1000" in said
    # Each episode once, although it was interrupted, and not one more than needed.
    assert set(Counter(done.done).values()) == {1}
    assert len(done.done) == 2 * 75
    count = len(done.done)
    _, text = run(**options)
    assert sentence(text) == said
    assert len(done.done) == count
    assert "nothing to run: all episodes that decide are stored already" in text
    for name in pair:
        (merged,) = (tiny_results / "tiny" / "trials" / name / "episodes").glob("eval-0002-*")
        assert "part" not in merged.name


def test_more_workers_and_more_rows_decide_after_the_same_start(
    tiny_results: Path, pair: tuple[str, ...], rolls: Callable[[Chance, Chance], Rolls]
) -> None:
    rolls(0.9, 0.7)
    options = {"ckpt": pair, "results": tiny_results}
    run(**options, seeds="300")  # stored beyond the decision
    _, text = run(**options, seeds="1000", until_decided=True)
    assert "both were rolled out on 300 starts; the first 75 decided" in " ".join(text.split())
    protocol, seeds = Protocol(), tuple(range(300_000, 301_000))
    found = []
    for workers in (1, 7):
        targets = find_targets(pair, (), tiny_results, None, pair=True)
        runs = [TargetRun(target, protocol, seeds, redo=True) for target in targets]
        of = {each.target.source: each for each in runs}

        def roll_all(tasks: Sequence[Task], of: Any = of) -> None:
            for task in tasks:
                policy = task.source.load()
                of[task.source].add(policy_source.roll(policy, task.block, protocol, ()))

        with EvalProgress(2000) as progress:
            found.append(until_decided.run(runs, 0.05, workers, roll_all, progress))
        if workers == 1:  # more of them decide at the first look
            assert "a - b +0." in progress.note
    assert found[0].decision == found[1].decision
    assert (found[0].rolled_out, found[1].rolled_out) == (75, 100)


def test_equal_policies_and_too_few_starts(
    tiny_results: Path, pair: tuple[str, ...], rolls: Callable[[Chance, Chance], Rolls]
) -> None:
    done = rolls(0.97, 0.97)
    options = {"ckpt": pair, "results": tiny_results, "until_decided": True}
    _, text = run(**options, seeds="75")
    assert "Not decided: which of a (trial" in sentence(text)
    assert "after 75 of at most 75" in sentence(text)
    done.fail = (300_080, 300_081)
    code, text = run(**options, seeds="800", delta=0.08)
    assert code == 1
    flat = " ".join(text.split())
    assert "differ by less than 0.08 in score, after" in flat
    assert "2 starts are left out, as an episode failed there" in flat


def test_objects_are_compared_too(
    tiny_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peers.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    made = {"policy": ("peers:fixed", "peers:other"), "results": tiny_results}
    with pytest.raises(UserError, match=r"peers has no other\(\)"):
        run(**made, seeds="25", until_decided=True)
    # One episode each is enough here, and "best" needs no rollout.
    code, text = run(
        ckpt="best",
        policy="peers:fixed",
        seeds="300000-300000",
        results=tiny_results,
        until_decided=True,
    )
    assert code == 0
    assert "b (policy peers:fixed)" in " ".join(text.split())


def test_repeated_and_delayed_rollouts_never_mix_with_the_others(
    tiny_results: Path, pair: tuple[str, ...], rolls: Callable[[Chance, Chance], Rolls]
) -> None:
    done = rolls(0.7, 0.7)
    options = {"ckpt": pair[0], "results": tiny_results}
    run(**options, seeds="50")
    (before,) = [row for row in trials_of(tiny_results) if row["trial"] == pair[0]]
    code, text = run(**options, seeds="60", repeats=4)
    assert code == 0
    assert len(done.done) == 50 + 10 + 3 * 60  # the first rollouts are those of before
    flat = " ".join(text.split())
    assert "episodes 240: 60 of each, 4 times" in flat
    assert "60 starts, 4 rollouts of each" in flat
    for part in ("start's difficulty", "pass^k", "k = 1", "k = 2", "k = 4"):
        assert part in flat, part
    assert "k = 3" not in flat
    run(**options, seeds="100", execute_delay=3)
    assert done.delays == {0, 3}
    rows = tables.read(tiny_results / "tiny", "episodes").to_pylist()
    rows = [row for row in rows if row["env_seed"] >= 300_000]
    assert Counter((row["repeat"], row["execute_delay"]) for row in rows) == {
        **{(k, 0): 60 for k in range(4)},
        (0, 3): 100,
    }
    assert len({row["protocol_hash"] for row in rows}) == 5
    # The trial's score is that of its first rollouts without a delay, however many others exist.
    (after,) = [row for row in trials_of(tiny_results) if row["trial"] == pair[0]]
    assert (before["report_n"], after["report_n"]) == (50, 60)
    firsts = [row["score"] for row in rows if row["repeat"] == row["execute_delay"] == 0]
    assert after["report_score"] == pytest.approx(np.mean(firsts))
    count = len(done.done)
    _, text = run(**options, seeds="60", repeats=4)
    assert len(done.done) == count
    _, text = run(**options, seeds="100", execute_delay=3)
    assert len(done.done) == count
    flat = " ".join(text.split())
    assert "actions delayed by 3 steps" in flat
    assert "inference 0.40 ms an action, executed 3 steps (0.3 s) after the observation" in flat
    _, text = run(ckpt=pair, results=tiny_results, seeds="30", repeats=2)
    assert text.count("30 starts, 2 rollouts of each") == 2


def trials_of(results: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tables.read(results / "tiny", "trials").to_pylist()
    return found


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0, "until_decided": True}, "--delta takes .* above 0, at most 1; given 0"),
        ({"delta": 1.5, "until_decided": True}, "above 0, at most 1; given 1.5"),
        ({"delta": 0.05}, "--delta is the difference that --until-decided calls equal"),
        ({"until_decided": True}, "compares two different policies .*, given 1"),
        ({"until_decided": True, "ckpt": "all"}, "given 3"),
        ({"until_decided": True, "ckpt": ("best", "best")}, "given 1"),
        ({"until_decided": True, "ensemble": True}, "--until-decided needs two"),
        ({"until_decided": True, "video": 1}, "--until-decided makes no videos"),
        ({"ckpt": (), "policy": ("a:b", "c:d")}, "--policy may be given once"),
        ({"until_decided": True, "repeats": 2}, "leave out --repeats"),
        ({"repeats": 0}, "--repeats must be 1 to 100, given 0"),
        ({"repeats": 100, "seeds": "2000"}, "at most 100000 episodes, given 100 x 2000"),
        ({"execute_delay": -1}, r"--execute-delay takes 0 to \d+ steps, given -1"),
        ({"execute_delay": 300}, r"0 to \d+ steps, given 300"),
        ({"until_decided": True, "seeds": "0-9"}, "starts of the demonstrations"),
        ({"until_decided": True, "seeds": "300000-300009,300009-300012"}, "is given twice"),
    ],
)
def test_bad_input_is_one_line(tiny_results: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(**{"results": tiny_results, "ckpt": "best", "seeds": "9", **options})
