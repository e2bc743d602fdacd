"""A running sweep is watched through its files: running trials, time left, its end."""

import io
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.core import files
from harness.core.errors import INTERRUPTED
from harness.results import __main__ as results_main
from harness.results import watch, watcher
from harness.storage import table_schemas

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def running(tiny_results: Path) -> Path:
    """The sweep `tiny` with a live process: one finished, one running, one failed, one pending."""
    folder = tiny_results / "tiny"
    (folder / ".lock").write_text(f"process {os.getpid()} on {platform.node()}\n")
    first, second, third = sorted((folder / "trials").iterdir())
    finished = {"status": "finished", "select_score": 0.5, "train_seconds": 100.0}
    files.write_json({**finished, "select_seconds": 20.0}, first / "status.json")
    files.write_json(
        {
            "status": "running",
            "step": 250,
            "steps": 1000,
            "train_seconds": 50.0,
            "samples_per_second": 1234.0,
        },
        second / "status.json",
    )
    config_hash, _, seed = second.name.rpartition("-s")
    losses = [
        {
            "config_hash": config_hash,
            "train_seed": int(seed),
            "epoch": i,
            "step": 50 * i,
            "train_loss": 5.0 - i,
        }
        for i in range(5)
    ]
    table_schemas.write(table_schemas.table("curves", losses), second / "curves.parquet")
    failed = {"status": "failed", "error": "RuntimeError: \x1b[2Jboom", "updated": 2.0}
    files.write_json(failed, third / "status.json")
    return folder


def render(state: watcher.State, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(watch.shown(state, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_seen_of_a_running_sweep(running: Path) -> None:
    state = watcher.Watcher(running).look()
    assert state.alive
    assert state.counts == {"finished": 1, "running": 1, "failed": 1, "pending": 1}
    (trial,) = state.having("running")
    assert (trial.step, trial.steps, trial.loss) == (250, 1000, (5.0, 4.0, 3.0, 2.0, 1.0))
    assert trial.left == pytest.approx(150.0)
    assert state.left == pytest.approx(150.0 + 120.0)  # the pending one takes what the finished did
    for width in (80, 160):
        text = render(state, width)
        assert max(map(len, text.splitlines())) <= width
        assert "1 finished, 1 running, 1 failed, 1 pending; about 4 min 30 s left" in text
        for part in ("250/1,000", "1.000", "█▆▅▃▁", "1,234", "2 min 30 s", "RuntimeError"):
            assert part in text, part
        assert "\x1b" not in text


@pytest.mark.parametrize(
    ("lock", "alive"),
    [
        ("", False),
        (f"process 999999999 on {platform.node()}\n", False),
        ("process 1 on another-machine\n", True),
        (f"process {os.getpid()} on {platform.node()}\n", True),
        ("process 1e9 on \x00", False),
        (None, False),
    ],
    # Named here: workers that share out tests must all call them the same.
    ids=["empty", "dead", "far away", "alive", "no number", "absent"],
)
def test_whether_a_sweep_is_run(running: Path, lock: str | None, alive: bool) -> None:
    (running / ".lock").unlink()
    if lock is not None:
        (running / ".lock").write_text(lock)
    assert watcher.is_run(running) is alive


def test_nothing_is_locked_or_written(running: Path) -> None:
    torn = min((running / "trials").iterdir()) / "status.json"
    torn.write_text('{"status": "run')
    before = {path: path.stat().st_mtime_ns for path in running.rglob("*")}
    state = watcher.Watcher(running).look()
    assert state.counts["pending"] == 2  # a torn status says nothing
    assert {path: path.stat().st_mtime_ns for path in running.rglob("*")} == before


def test_once_and_as_data(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--results", str(running.parent)]
    assert results_main.main(["watch", "--once", *where]) == 0
    assert "1 running" in capsys.readouterr().out
    assert results_main.main(["watch", "--json", *where]) == 0
    rows = {row["status"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["running"]["seconds_left"] == pytest.approx(150.0)
    assert rows["running"]["train_loss"] == 1.0
    assert "boom" in rows["failed"]["error"]


def test_plain_lines_until_the_sweep_ends(
    running: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = sorted((running / "trials").iterdir())[1]

    def end() -> None:
        time.sleep(0.5)
        files.write_json({"status": "finished", "select_score": 0.75}, second / "status.json")
        time.sleep(0.5)
        (running / ".lock").write_text("")

    other = threading.Thread(target=end)
    other.start()
    assert results_main.main(["watch", "--every", "0.1", "--results", str(running.parent)]) == 0
    other.join()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sweep tiny: 1 finished, 1 running")
    assert any(
        line.startswith("finished") and line.endswith("validation score 0.750") for line in lines
    )
    assert lines[-1] == "sweep tiny: 2 finished, 1 failed, 1 pending; no process is running it"


def test_ctrl_c_leaves_quietly(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.results.watch.time.sleep", interrupt)
    assert results_main.main(["watch", "--results", str(running.parent)]) == INTERRUPTED


def test_a_live_table_on_a_terminal(running: Path) -> None:
    """Under a real pseudo-terminal the table is drawn in place and Ctrl-C ends it with 130."""
    import pty

    controller, terminal = pty.openpty()
    arguments = ["-m", "harness.results.__main__", "watch", "--every", "0.2"]
    child = subprocess.Popen(
        [sys.executable, *arguments, "--results", str(running.parent)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(terminal)
    seen, until = b"", time.monotonic() + 60
    while seen.count(b"samples/s") < 3 and time.monotonic() < until:
        seen += os.read(controller, 65536)
    assert seen.count(b"samples/s") >= 3
    assert b"\x1b[2Jboom" not in seen
    child.send_signal(2)
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # the terminal is closed on the other side
            break
        if not chunk:
            break
        seen += chunk
    assert child.wait(60) == INTERRUPTED
    os.close(controller)
    assert b"Traceback" not in seen
    assert b"interrupted" not in seen
