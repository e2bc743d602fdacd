"""Verdicts follow from the numbers by the rule, and text from files is escaped."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.analysis import verdicts
from harness.analysis.sweep_results import Arm, Group, Sweep
from harness.core import files
from harness.core.errors import UserError
from harness.results import __main__ as results_main
from harness.stats.intervals import Estimate
from harness.storage import table_schemas
from harness.terminal import answers_markdown

NONE = Estimate(float("nan"), float("nan"), float("nan"), 0)


def arm(name: str, scores: np.ndarray[Any, Any], first: int = 200_000) -> Arm:
    """An arm with scores (S, E) on the seeds from `first` on."""
    trials, rows = [], []
    for train_seed, line in enumerate(scores):
        trials.append({"status": "finished", "config_hash": name, "train_seed": train_seed})
        rows += [
            {
                "train_seed": train_seed,
                "env_seed": first + i,
                "score": float(score),
                "success": bool(score > 0.95),
            }
            for i, score in enumerate(line)
        ]
    episodes = pa.Table.from_pylist(rows, schema=table_schemas.SCHEMAS["episodes"])
    group = Group(name, tuple(trials), episodes)
    return Arm("q", "Which?", name, name, group, NONE, None, NONE, NONE, NONE)


class FakeSweep(Sweep):
    def __init__(self) -> None:
        self.plan = {}


def judged(*arms: Arm) -> dict[str, verdicts.Verdict]:
    (answer,) = verdicts.answers(FakeSweep(), arms)
    return {verdict.arm: verdict for verdict in answer.verdicts}


def noise(seed: int, seeds: int = 3, starts: int = 60, sd: float = 0.02) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0.5, sd, (seeds, starts))


def test_the_rule() -> None:
    found = judged(
        arm("base", noise(0)),
        arm("better", noise(1) + 0.2),
        arm("worse", noise(2) - 0.2),
        arm("same", noise(3)),
        arm("unclear", noise(4, sd=0.4)),
    )
    words = {name: verdict.word for name, verdict in found.items()}
    assert words == {
        "better": "helps",
        "worse": "hurts",
        "same": "no difference",
        "unclear": "not enough evidence",
    }
    assert found["better"].text.startswith("helps: +0.198 [+0.1")
    assert "no difference larger than 0.0" in found["same"].text
    assert "training seeds" in found["unclear"].text
    assert found["better"].n == 60
    assert found["better"].train_seeds == 3


def test_one_training_seed_is_no_evidence_and_few_starts_rule_nothing_out() -> None:
    found = judged(arm("base", noise(0, seeds=1)), arm("better", noise(1, seeds=1) + 0.3))
    assert found["better"].word == "not enough evidence"
    assert "train at least 3 seeds" in found["better"].text
    few = np.full((3, 5), 0.01)
    assert judged(arm("base", few), arm("same", few.copy()))["same"].word == "not enough evidence"
    many = np.full((3, 30), 0.01)
    assert judged(arm("base", many), arm("same", many.copy()))["same"].word == "no difference"


def test_report_starts_are_taken_when_all_arms_have_them() -> None:
    chosen, reported = noise(0), noise(1)
    both = [
        Group(g.name, g.trials, pa.concat_tables([g.episodes, h.episodes]))
        for g, h in (
            (arm("a", chosen).group, arm("a", reported, 300_000).group),
            (arm("b", chosen + 0.3).group, arm("b", reported - 0.3, 300_000).group),
        )
    ]
    arms = [Arm("q", "", g.name, g.name, g, NONE, None, NONE, NONE, NONE) for g in both]
    assert judged(*arms)["b"].word == "hurts"
    assert judged(arm("a", chosen), arms[1])["b"].word == "helps"


def test_more_comparisons_widen_the_intervals() -> None:
    base, other = arm("base", noise(0)), arm("other", noise(1))
    alone = judged(base, other)["other"].score
    among = judged(base, other, *(arm(f"x{i}", noise(9 + i)) for i in range(9)))["other"].score
    assert among.high - among.low > 1.2 * (alone.high - alone.low)
    assert among.value == alone.value


def test_answers_of_a_sweep_are_written_and_printed(
    tiny_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers_markdown.write(tiny_results / "tiny")
    text = path.read_text()
    assert path.name == "answers.md"
    assert "## loss" in text
    assert "Does an energy help?" in text
    assert "Not enough evidence for any arm" in text
    assert results_main.main(["answers", "tiny", "--results", str(tiny_results)]) == 0
    assert capsys.readouterr().out.split() == text.split()
    assert results_main.main(["answers", "tiny", "--results", str(tiny_results), "--json"]) == 0
    assert '"verdict": "not enough evidence"' in capsys.readouterr().out


def test_scores_and_differences_are_of_the_same_starts(evaluated_results: Path) -> None:
    folder = evaluated_results / "tiny"
    (answer,) = verdicts.answers(Sweep(folder))
    assert answer.reported
    shown = [f"{arm.report.value:.3f} [" for arm in answer.arms]
    text = answers_markdown.write(folder).read_text()
    assert all(score in text for score in shown)
    difference = answer.arms[1].report.value - answer.arms[0].report.value
    assert answer.verdicts[0].score.value == pytest.approx(difference, abs=1e-9)


def test_foreign_text_stays_text(tiny_results: Path) -> None:
    path = tiny_results / "tiny" / "plan.json"
    plan = files.read_json(path)
    plan["questions"][0]["text"] = "<script>alert(1)</script> | [x](http://y) \x1b[31m & #"
    files.write_json(plan, path)
    text = answers_markdown.write(tiny_results / "tiny").read_text()
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&#60;script&#62;alert(1)&#60;/script&#62; &#124; &#91;x&#93;(http://y)" in text


def test_a_search_asks_no_question(tiny_results: Path) -> None:
    path = tiny_results / "tiny" / "plan.json"
    plan = {**files.read_json(path), "questions": [], "search": {"text": "?"}}
    files.write_json(plan, path)
    assert "asks no question" in answers_markdown.write(tiny_results / "tiny").read_text()
    with pytest.raises(UserError, match="is a search and asks no question"):
        results_main.main(["answers", "tiny", "--results", str(tiny_results)])


def test_of_a_search_only_the_confirmation_is_a_question() -> None:
    sweep = FakeSweep()
    sweep.plan = {"search": {"text": "?"}, "questions": [{"question": "confirmation"}]}
    winners = [
        dataclasses.replace(arm(name, scores, 300_000), question="confirmation")
        for name, scores in (("#4", noise(0)), ("#7", noise(1) - 0.2))
    ]
    points = [dataclasses.replace(arm("#1", noise(2)), question="search")]
    (answer,) = verdicts.answers(sweep, [*winners, *points])
    assert answer.question == "confirmation"
    assert answer.reported
    assert [verdict.word for verdict in answer.verdicts] == ["hurts"]
    assert answer.summary == "“#7” scores lower than “#4”."


def test_a_row_has_its_seeds_and_starts_and_more_than_a_mean() -> None:
    (answer,) = verdicts.answers(FakeSweep(), [arm("a", noise(0)), arm("b", noise(1) + 0.2)])
    (row,) = verdicts.rows([answer])
    assert (row["train_seeds"], row["score_difference_n"]) == (3, 60)
    assert row["probability_a_better"] == 1.0
    assert row["middle_half_a"] > row["middle_half_b"] + 0.15
    assert 0 < row["detectable"] < 0.1
