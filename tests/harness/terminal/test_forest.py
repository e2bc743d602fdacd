"""The forest plot in text: every arm is drawn where it belongs, at every width."""

import io

import pytest
from rich.console import Console

from benchmarks import generated_sweep
from harness.analysis import verdicts
from harness.analysis.sweep_results import Sweep
from harness.analysis.verdicts import Answer
from harness.core import files
from harness.stats.intervals import Estimate
from harness.terminal.forest import forest
from harness.terminal.formatting import SIGNS, difference_bar, difference_ruler, reach

NAN = float("nan")
NAMES = ("2 frames, recurrent", "64 of which half moved by Langevin", "autoregressive", "mse")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    folder = tmp_path_factory.mktemp("forest") / "made"
    size = generated_sweep.Size(
        configs=9, questions=2, train_seeds=3, select=40, report=0, epochs=1
    )
    generated_sweep.write(folder, size)
    plan = files.read_json(folder / "plan.json")
    for question in plan["questions"]:
        for entry, name in zip(question["arms"][1:], NAMES, strict=True):
            entry["arm"] = name
    files.write_json(plan, folder / "plan.json")
    return verdicts.answers(Sweep(folder))


def printed(answers: list[Answer], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(forest(answers, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_it_fits_and_no_word_is_cut(answers: list[Answer], width: int) -> None:
    lines = printed(answers, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    words = {word for name in NAMES for word in name.replace(",", "").split()}
    assert words <= set(text.replace(",", " ").replace("“", " ").replace("”", " ").split())
    for answer in answers:
        assert f"baseline: {answer.baseline}" in text
        assert answer.summary in " ".join(text.split())


def test_every_arm_is_drawn_with_its_verdict(answers: list[Answer]) -> None:
    lines = printed(answers, 160)
    for answer in answers:
        rows = []
        for verdict in answer.verdicts:
            sign = SIGNS[verdict.word][0]
            start = f"  {sign} {verdict.arm} "
            (row,) = [
                number
                for number, line in enumerate(lines)
                if line.startswith(start)
                and f"{verdict.score.value:+.3f} [" in line
                and f"{verdict.success.value:+.3f} [" in line
            ]
            rows.append((row, verdict.score.value))
        values = [value for _, value in sorted(rows)]
        assert values == sorted(values, reverse=True)


def test_a_difference_is_drawn_around_zero() -> None:
    def bar(value: float, low: float, high: float, sign: str = "●") -> str:
        return difference_bar(Estimate(value, low, high, 9), 0.2, 9, sign).plain

    assert bar(0.1, 0.05, 0.15, "▲") == "····│─▲─·"
    assert bar(0.05, -0.1, 0.2) == "··──┼●───"
    assert bar(0.0, -0.05, 0.05, "■") == "···─■─···"
    assert bar(-0.5, -0.6, -0.1, "▼") == "<──·│····"
    assert bar(0.5, NAN, NAN) == "····│···>"
    assert bar(NAN, NAN, NAN) == ""
    assert difference_ruler(0.2, 9).plain == "-0.20+0.2"


def test_one_wide_interval_does_not_hide_the_others() -> None:
    narrow = [Estimate(0.01, -0.02, 0.04, 9)] * 20
    assert reach(narrow) == 0.05
    assert reach([*narrow, Estimate(-0.5, -1.0, 0.1, 9)]) == 0.05
    assert reach([Estimate(-0.5, -1.0, 0.1, 9)]) == 1.0
    assert reach([Estimate(NAN, NAN, NAN, 0)]) == reach([]) == 0.1
