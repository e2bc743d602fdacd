"""Cells of terminal tables, and the tables of an evaluation."""

import io
import math

import pytest
from rich.console import Console

from harness.stats.intervals import Estimate
from harness.storage import table_schemas
from harness.terminal.evaluation_tables import TimeSpent, evaluation
from harness.terminal.formatting import bar, number, percent, plain, say, signed, sparkline

NAN = math.nan


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(0.6123, 0.581, 0.642, 50), "0.612 [0.58, 0.64]"),
        (Estimate(0.5, NAN, NAN, 1), "0.500"),
        (Estimate(NAN, NAN, NAN, 0), ""),
        (None, ""),
    ],
)
def test_a_number_with_its_interval(estimate: Estimate | None, shown: str) -> None:
    assert number(estimate) == shown


def test_a_rate_in_percent() -> None:
    assert percent(Estimate(0.452, 0.409, 0.496, 500)) == "45.2 % [41, 50]"
    assert percent(Estimate(NAN, NAN, NAN, 0)) == ""


def test_a_difference_is_coloured_when_zero_is_outside() -> None:
    assert signed(Estimate(0.1, 0.01, 0.2, 9)).style == "green"
    assert signed(Estimate(-0.1, -0.2, -0.01, 9)).style == "red"
    assert signed(Estimate(0.1, -0.01, 0.2, 9)).style == ""
    assert signed(Estimate(0.1, -0.01, 0.2, 9)).plain == "+0.100 [-0.01, +0.20]"


def test_a_bar_has_the_interval_and_the_value_on_it() -> None:
    drawn = bar(Estimate(0.5, 0.25, 0.75, 9), width=9).plain
    assert drawn == "··──●──··"
    assert bar(Estimate(0.0, 0.0, 0.0, 9), width=5).plain == "●····"
    assert bar(Estimate(1.0, 0.9, 1.2, 9), width=5).plain == "····●"
    assert bar(Estimate(NAN, NAN, NAN, 0)).plain == ""


def test_a_sparkline_lies_between_its_own_ends() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8).plain == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0], 8).plain == "▁▁"
    assert sparkline([1.0, NAN, 2.0], 8).plain == "▁×█"
    assert sparkline([0, 0, 5, 5, 9, 9], 3).plain == "▁▅█"
    assert len(sparkline(list(range(1000)), 16).plain) == 16
    assert sparkline([], 8).plain == sparkline([1.0], 0).plain == ""


def test_foreign_text_is_one_harmless_line() -> None:
    assert plain("[bold]a\x1b[31m\nb").plain == "[bold]a\\x1b[31m b"


def rows(count: int, failed: int = 0) -> list[dict[str, object]]:
    good = [
        {
            "env_seed": 300_000 + i,
            "max_coverage": 0.78 + 0.05 * (i % 5),
            "final_coverage": 0.5,
            "score": 0.9,
            "success": i % 5 == 4,
            "length": 100,
            "success_at_reset": i == 0,
            "idle_share": 0.25,
            "action_jerk": 2.0,
            "policy_ms": 60.0,
            "env_ms": 20.0,
            "render_ms": 10.0,
        }
        for i in range(count)
    ]
    bad = [{"env_seed": 400_000 + i, "error": "boom"} for i in range(failed)]
    return [*good, *bad]


def shown(content: list[dict[str, object]], spent: TimeSpent, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(evaluation(table_schemas.table("episodes", content), spent, width))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_an_evaluation_in_numbers() -> None:
    lines = shown(rows(50), TimeSpent(2.5, 2, 50))
    for line in (
        "success, coverage > 0.80 80.0 % 67.0 % to 88.8 % 50",  # Wilson's
        "success, coverage > 0.85 60.0 % 46.2 % to 72.4 % 50",
        "success, coverage > 0.90 40.0 % 27.6 % to 53.8 % 50",
        "success, coverage > 0.95 20.0 % 11.2 % to 33.0 % 50",
        "score 0.900 0.891 to 0.908 50",
        "starts already solved at reset: 1",
    ):
        assert line in lines, lines
    text = " ".join(lines)
    assert "episodes of 100 steps on average, 25 % of them idle; action jerk 2.0 px; inf" in text
    assert "inference 60 %, simulation 20 %, rendering 10 %, start-up and idle 10 %" in text


def test_failed_episodes_are_not_counted() -> None:
    lines = shown(rows(10, failed=3), TimeSpent(1.0, 1, 13), width=160)
    assert any(line.startswith("score 0.900") for line in lines)
    expected = "3 of 13 episodes failed and are not counted above; the first, seed 400000: boom"
    assert expected in lines


def test_an_evaluation_with_nothing_in_it() -> None:
    lines = shown(rows(0, failed=2), TimeSpent(1.0, 1, 2))
    assert any("2 of 2 episodes failed" in line for line in lines)
    assert "score 0" in lines


def test_a_line_wraps_at_words_on_a_terminal_alone() -> None:
    text = "wrote /a/path/that/is/longer/than/the/terminal and [red] that is all"
    for terminal, expected in (
        (True, ["wrote", "/a/path/that/is/longer/than/the/terminal", "and [red] that is", "all"]),
        (False, [text]),
    ):
        console = Console(file=io.StringIO(), width=17, force_terminal=terminal, no_color=True)
        say(console, text)
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue().splitlines() == expected
