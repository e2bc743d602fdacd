import io
import re

import pytest
from rich.console import Console

from harness.config.trial_config import TrialConfig
from harness.core.text import duration
from harness.scheduling.jobs import Job
from harness.sweep import progress
from harness.sweep.progress import Progress

FINISHED = {"status": "finished", "select_score": 0.25, "select_success_rate": 0.5}
FAILED = {"status": "failed", "error": "ValueError: [red]bad\x1b[0m"}
METRICS = {"step": 50.0, "steps": 100, "train_loss_ratio": 0.5, "samples_per_second": 1234.0}


def job(seed: int, label: str = "negatives / 8 uniform") -> Job:
    return Job(TrialConfig(), seed, f"{label}, seed {seed}")


def shown(console: Console) -> str:
    return console.file.getvalue()


def test_a_pipe_gets_plain_lines_without_any_control_character():
    console = Console(file=io.StringIO(), width=60)
    with Progress(console, 2, 1, {}) as bar:
        bar.start(job(0))
        bar.epoch(job(0), METRICS)
        bar.end(job(0), FINISHED)
        bar.start(job(1))
        bar.end(job(1), {"status": "failed", "error": "boom"})
    lines = shown(console).splitlines()
    assert lines == [
        "[1/2] finished  negatives / 8 uniform, seed 0: validation score 0.250, success 50%, 0 s",
        "[2/2] failed    negatives / 8 uniform, seed 1: boom",
    ]
    assert "\x1b" not in shown(console)


def test_what_a_search_stops_is_no_failure():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, no_color=True)
    with Progress(console, 3, 1, {}) as bar:
        bar.start(job(0))
        bar.end(job(0), {**FINISHED, "status": "stopped", "step": 50})
        bar.start(job(0))
    text = shown(console)
    assert (
        "stopped   negatives / 8 uniform, seed 0: validation score 0.250, success 50% at step 50"
        in text
    )
    assert "0 of 3 finished, 1 running, 1 stopped early, 0 failed" in text


def test_a_quiet_log_shows_a_sign_of_life(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", -1.0)
    console = Console(file=io.StringIO(), width=60)
    with Progress(console, 5, 2, {job(0).id: 10.0, job(1).id: 20.0}) as bar:
        bar.start(job(0))
        bar.epoch(job(0), METRICS)
    assert "running   negatives / 8 uniform, seed 0: step 50/100; about 35 s left" in shown(console)


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_table_and_names_cannot_style_it(no_color):
    console = Console(file=io.StringIO(), width=120, force_terminal=True, no_color=no_color)
    with Progress(console, 3, 1, {}) as bar:
        bar.start(job(0, "[bold]odd[/nonsense]"))
        bar.epoch(job(0, "[bold]odd[/nonsense]"), METRICS)
        bar.start(job(1))
        bar.end(job(1), FAILED)
    text = shown(console)
    assert "[bold]odd[/nonsense], seed 0" in text
    assert "50/100" in text
    assert "0 of 3 finished, 1 running, 1 failed" in text
    assert "[red]bad" in text
    assert ("\x1b[31m" in text) != no_color


def test_the_leader_and_a_bar_are_shown(monkeypatch):
    console = Console(file=io.StringIO(), width=40, force_terminal=True, no_color=True)
    with Progress(console, 2, 1, {}, (0.2, "earlier / one")) as bar:
        bar.start(job(0))
        bar.epoch(job(0), METRICS)
        assert "best so far 0.200, earlier / one" in drawn(bar)
        assert drawn(bar).splitlines()[0].startswith("━" * 10)  # half of one of two
        bar.end(job(0), FINISHED)
        assert "best so far 0.250, negatives / 8 uniform, seed 0" in " ".join(drawn(bar).split())
    assert max(map(len, drawn(bar).splitlines())) <= 40


def drawn(bar):
    console = Console(file=io.StringIO(), width=40, force_terminal=True, no_color=True)
    console.print(bar._render())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Progress(console, 1, 1, {}) as bar:
        bar.start(job(0))
        bar.end(job(0), FINISHED)
    assert shown(console).count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.6, "1 min"), (75, "1 min 15 s"), (7300, "2 h 1 min"), (180000, "2 d 2 h")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
