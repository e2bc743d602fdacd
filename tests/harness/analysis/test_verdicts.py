"""Verdicts follow from the numbers by the rule, and text from files is escaped."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import generated_sweep
from benchmarks.generated_sweep import Size
from harness.analysis import verdicts
from harness.analysis.groups import Group, Pairing
from harness.analysis.sweep_results import Arm, Sweep
from harness.core import files
from harness.core.errors import UserError
from harness.core.seeds import REPORT_SEEDS
from harness.results import __main__ as results_main
from harness.stats import comparisons, intervals
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
    assert re.search(r"; needs (about \d+ more training seed|more than 100)", found["unclear"].text)
    assert found["better"].n == 60
    assert found["better"].train_seeds == 3


def test_a_question_is_answered_in_a_line() -> None:
    arms = [
        arm("base", noise(0)),
        arm("small gain", noise(1) + 0.1),
        arm("large gain", noise(2) + 0.2),
        arm("worse", noise(3) - 0.2),
        arm("same", noise(4)),
        arm("unclear", noise(5, sd=0.4)),
        arm("unfinished", noise(6)[:0]),
    ]
    (answer,) = verdicts.answers(FakeSweep(), arms)
    same, unclear = (v for v in answer.verdicts if v.arm in ("same", "unclear"))
    assert unclear.needed is not None
    equal = " (success rate: no difference)"  # no score is near 1
    assert answer.summary == (
        f"helps: large gain{equal}, small gain{equal}; hurts: worse{equal}; "
        f"no difference > {same.farthest:.3f}: same; open: unclear, "
        f"needs about {unclear.needed.seeds} more seeds and more starts; "
        "not evaluated yet: unfinished"
    )
    assert [v.arm for v in answer.ranked][:2] == ["large gain", "small gain"]
    assert [v.arm for v in answer.ranked][-1] == "worse"
    assert "unfinished" not in {v.arm for v in answer.ranked}
    # Names with the line's own signs are put in quotes.
    renamed = dataclasses.replace(arms[1], arm="2 frames, joined")
    (answer,) = verdicts.answers(FakeSweep(), [arms[0], renamed, arms[3]])
    assert answer.summary == (f"helps: “2 frames, joined”{equal}; hurts: “worse”{equal}")


def test_what_an_open_verdict_needs_decides_it() -> None:
    rng = np.random.default_rng(11)
    grids = 0.5 + rng.normal(0, 0.03, (2, 40, 1)) + rng.normal(0, 0.05, (2, 40, 200))
    grids += 0.03 * np.array([1.0, 0.0])[:, None, None] - grids.mean((1, 2), keepdims=True) + 0.5
    first = [grid[:3] - grid[:3].mean() + grid.mean() for grid in grids]
    found = judged(arm("base", first[1]), arm("better", first[0]))["better"]
    assert found.word == "not enough evidence"
    assert found.needed is not None
    assert found.needed.starts is None
    seeds = 3 + (found.needed.seeds or 0)
    assert 4 < seeds < 40
    spread = comparisons.spread(first[0], first[1])
    assert spread.half_width(seeds, 200) <= 0.03 < spread.half_width(seeds - 1, 200)


def test_a_baseline_is_named_by_what_it_is() -> None:
    base = {"status": "finished", "policy.obs_horizon": 2, "train.augment.mirror": 0.5}
    base |= {"policy.inference.mirror": False, "policy.kind": "ibc"}

    def made(name: str, config: str, **changes: Any) -> Arm:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        whole = arm(name, noise(0))
        group = dataclasses.replace(whole.group, name=config, trials=({**base, **dotted},))
        return dataclasses.replace(whole, config_hash=config, group=group)

    first = made("baseline", "a")
    others = [
        made("one frame", "b", policy__obs_horizon=1),
        made("both", "c", policy__obs_horizon=1, train__augment__mirror=0.0),
        made("averaged", "d", policy__inference__mirror=True),
    ]
    (answer,) = verdicts.answers(FakeSweep(), [first, *others])
    assert answer.baseline == "obs horizon 2, augment.mirror 0.5, inference.mirror false"
    again = made("two frames", "a")
    (answer,) = verdicts.answers(FakeSweep(), [first, again, *others])
    assert answer.baseline == "two frames"
    named = dataclasses.replace(first, arm="the recipe")
    (answer,) = verdicts.answers(FakeSweep(), [named, again, *others])
    assert answer.baseline == "the recipe"


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


def test_arms_share_the_variance_of_their_seeds_and_say_so() -> None:
    rng = np.random.default_rng(5)
    grids = 0.6 + rng.normal(0, 0.01, (6, 3, 1)) + rng.normal(0, 0.1, (6, 3, 300))
    arms = [arm(f"arm {i}", grid + 0.04 * (i == 1)) for i, grid in enumerate(grids)]
    (answer,) = verdicts.answers(FakeSweep(), arms)
    found = answer.verdicts[0]
    assert found.paired.seeds is not None
    own = intervals.paired_difference(grids[1] + 0.04, grids[0], found.level)
    assert found.score != own
    assert found.score.value == pytest.approx(own.value)
    (check,) = answer.check
    assert check.startswith("Variance between training seeds, from 6 arms: standard deviation 0.0")
    assert "equal variances: p = " in check
    # With fewer arms each keeps its own, as with one training seed.
    (answer,) = verdicts.answers(FakeSweep(), arms[:3])
    assert answer.verdicts[0].paired.seeds is None
    alone = answer.verdicts[0].score
    own = intervals.paired_difference(grids[1] + 0.04, grids[0], answer.verdicts[0].level)
    assert (alone.low, alone.high) == pytest.approx((own.low, own.high))
    assert "each arm's own, as fewer than 4 arms" in answer.check[0]
    (answer,) = verdicts.answers(FakeSweep(), [arm("a", grids[0][:1]), arm("b", grids[1][:1])])
    assert answer.check == ()


def test_an_arm_that_varies_more_is_named_and_keeps_its_own_variance() -> None:
    rng = np.random.default_rng(6)
    grids = 0.6 + rng.normal(0, 0.01, (6, 3, 1)) + rng.normal(0, 0.05, (6, 3, 300))
    grids[5] += np.array([[-0.3], [0.0], [0.3]])
    arms = [arm(f"arm {i}", grid) for i, grid in enumerate(grids)]
    (answer,) = verdicts.answers(FakeSweep(), arms)
    (check,) = answer.check
    assert check.endswith("“arm 5” varies more and keeps its own variance.")
    assert answer.verdicts[4].word == "not enough evidence"
    assert all(verdict.success_word for verdict in answer.verdicts)


def test_no_difference_is_shown_by_the_90_percent_interval() -> None:
    rng = np.random.default_rng(7)
    a, b = 0.5 + rng.normal(0, 0.1, (2, 5, 60))
    found = judged(arm("base", b), arm("same", a))["same"]
    near = intervals.paired_difference(a, b, 0.9)
    farthest = max(-near.low, near.high)
    assert found.word == "no difference"
    assert f"no difference larger than {farthest:.3f}: " in found.text
    assert farthest < max(-found.score.low, found.score.high)


def test_a_verdict_names_a_success_rate_that_says_something_else() -> None:
    # Scores lower by a little everywhere, and more of them above the threshold.
    rng = np.random.default_rng(8)
    base = np.where(rng.random((3, 400)) < 0.3, 1.0, 0.9) + rng.normal(0, 0.001, (3, 400))
    other = np.where(rng.random((3, 400)) < 0.6, 0.96, 0.7) + rng.normal(0, 0.001, (3, 400))
    found = judged(arm("base", base), arm("other", other))["other"]
    assert (found.word, found.success_word) == ("hurts", "helps")
    assert found.text.startswith("hurts: -0.0")
    assert "; in success rate helps: +0." in found.text
    (answer,) = verdicts.answers(FakeSweep(), [arm("base", base), arm("other", other)])
    assert verdicts.rows([answer])[0]["success_verdict"] == "helps"


def test_an_old_sweep_gets_the_verdicts_of_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "old"
    size = Size(configs=6, questions=1, train_seeds=3, select=40, report=60, epochs=2)
    generated_sweep.write(folder, size)
    (folder / "answers.md").write_text("# old\n\n- the verdicts of an earlier version\n")
    assert results_main.main(["rebuild", "old", "--results", str(tmp_path), "--json"]) == 0
    changes = {row["table"]: row["change"] for row in json.loads(capsys.readouterr().out)}
    assert changes["answers.md"] == "changed"
    text = (folder / "answers.md").read_text()
    assert "Variance between training seeds, from 6 arms" in text
    assert "earlier version" not in text
    assert results_main.main(["answers", "old", "--results", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    sweep = Sweep(folder)
    first, *others = sweep.arms()
    pairing = Pairing(each.group for each in (first, *others))
    for row, each in zip(rows, others, strict=True):
        paired = pairing.pair(each.group, first.group, "score", REPORT_SEEDS)
        assert paired.seeds is not None
        expected = paired.difference(0.99)
        assert (row["score_difference_low"], row["score_difference_high"]) == pytest.approx(
            (expected.low, expected.high)
        )
        assert f"[{expected.low:+.3f}, {expected.high:+.3f}]" in row["text"]
        assert each.report_difference == paired.difference()
        assert row["equal_variances_p"] == pytest.approx(paired.shared.equal)
    assert results_main.main(["show", "old", "--results", str(tmp_path)]) == 0
    assert "baseline: count 512" in capsys.readouterr().out


def test_answers_of_a_sweep_are_written_and_printed(
    tiny_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers_markdown.write(tiny_results / "tiny")
    text = path.read_text()
    assert path.name == "answers.md"
    assert "## loss" in text
    assert "Does an energy help?" in text
    assert "- **loss** open: explicit, needs about 2 more seeds. Baseline: energy.\n" in text
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


def test_a_search_answers_with_its_best_point(tiny_results: Path) -> None:
    path = tiny_results / "tiny" / "plan.json"
    plan = {**files.read_json(path), "questions": [], "search": {"text": "?"}}
    files.write_json(plan, path)
    assert "The best of 3 finished" in answers_markdown.write(tiny_results / "tiny").read_text()
    for path in (tiny_results / "tiny" / "trials").iterdir():
        shutil.rmtree(path)
    assert "no best point yet" in answers_markdown.write(tiny_results / "tiny").read_text()
    with pytest.raises(UserError, match="has no finished trial"):
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
    assert answer.summary == "hurts: #7 (success rate: no difference)"
    assert answer.baseline == "#4"


def test_a_row_has_its_seeds_and_starts_and_more_than_a_mean() -> None:
    (answer,) = verdicts.answers(FakeSweep(), [arm("a", noise(0)), arm("b", noise(1) + 0.2)])
    (row,) = verdicts.rows([answer])
    assert (row["train_seeds"], row["score_difference_n"]) == (3, 60)
    assert row["probability_a_better"] == 1.0
    assert row["middle_half_a"] > row["middle_half_b"] + 0.15
    assert 0 < row["detectable"] < 0.1
