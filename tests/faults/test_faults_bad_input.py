"""Names and texts from strangers: shown as what they are, and harmless."""

import functools
import io
import json
import os
import shutil
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from harness.core import errors, files, imports
from harness.core.errors import UserError
from harness.evaluation.job import Options as EvalOptions
from harness.evaluation.job import evaluate
from harness.results import __main__ as results_main
from harness.results import sql
from harness.sweep import driver
from harness.sweep.driver import sweep
from harness.sweep.options import Options
from ibc.policies.factory import load_policy
from tests import bare_sweep
from tests.memory import peak

pytestmark = [pytest.mark.bad_input, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
HTML = "<img src=x onerror=alert(1)>[red]"


def dry_run(commands, **options):
    console = Console(file=io.StringIO(), width=200)
    given = {
        "space": commands.space,
        "data": (commands.data,),
        "results": commands.results,
        "dry_run": True,
    }
    code = sweep(Options(**{**given, **options}), console)
    return code, console.file.getvalue()


@pytest.fixture(autouse=True)
def _no_estimate(monkeypatch):
    monkeypatch.setattr(driver, "estimate", bare_sweep.estimate)


@pytest.mark.parametrize("name", ["../up", "a\nb", "😀", "x" * 300, HTML, "\x1b[31mred", ".", ""])
def test_a_sweeps_name_is_a_name_on_the_command_line_and_in_the_file(commands, name):
    with pytest.raises(UserError, match=r"1 to 100 letters|a letter or digit") as refused:
        dry_run(commands, name=name or " ")
    assert len(str(refused.value)) < 300
    text = commands.space.read_text().replace("name: tiny", f"name: {json.dumps(name)}")
    commands.space.write_text(text)
    with pytest.raises(UserError, match=r"1 to 100 letters|a letter or digit") as refused:
        dry_run(commands)
    assert str(refused.value).startswith(f"{commands.space}:3: ")
    assert not commands.results.exists()


def test_an_arms_name_is_text_and_nothing_else(commands):
    arms = ["../up", "😀 wide", HTML, "[bold]b"]
    lines = [
        f"      {json.dumps(arm, ensure_ascii=False)}: {{policy.energy.width: {4 + width}}}"
        for width, arm in enumerate(arms)
    ]
    head = commands.space.read_text().partition("      narrow:")[0]
    commands.space.write_text("\n".join([head.rstrip(), *lines, ""]))
    code, out = dry_run(commands)
    assert code == 0
    for arm in arms:
        assert arm in out


@pytest.mark.parametrize("arm", ["a\nb", "\x1b[31m", "x" * 300, "\u202egnp", ""])
def test_an_arms_name_that_moves_the_cursor_or_fills_the_screen_is_refused(commands, arm):
    commands.space.write_text(commands.space.read_text().replace("narrow:", f"{json.dumps(arm)}:"))
    with pytest.raises(UserError, match="printable characters"):
        dry_run(commands)


HUGE = (
    "policy.inference.samples: 1000000, policy.energy.width: 8192, select.seeds: 50",
    "policy.energy.width: 8192, policy.energy.depth: 32, policy.members: 64",
)


@pytest.mark.parametrize("setting", HUGE)
def test_a_trial_that_no_memory_holds_is_refused_before_it_is_built(commands, setting):
    """It was measured for the estimate of the time, and took the machine's memory with it."""
    commands.space.write_text(f"{commands.space.read_text()}      huge: {{{setting}}}\n")
    with pytest.raises(
        UserError, match=r"a trial must fit into the \d+ GB .* need at least \d+ GB"
    ):
        dry_run(commands)


def test_a_query_has_limits_of_memory_and_time(golden, monkeypatch):
    ask = functools.partial(sql.ask, [golden / "golden"])
    assert ask("SELECT 1 AS one")["one"].to_pylist() == [1]
    for day in ("date 'infinity'", "timestamptz '-infinity'", "[{'a': date 'infinity'}]"):
        with pytest.raises(UserError, match="dates must be from the year 1 to 9999"):
            ask(f"SELECT {day} AS day")
    # DuckDB's own limit leaves these out.
    monkeypatch.setattr(sql, "MAX_MEMORY", 3 * 10**8)
    with peak() as taken, pytest.raises(UserError, match=r"may take 0\.3 GB of memory"):
        ask("SELECT repeat('x', 50000000) FROM range(100)")
    assert taken[0] < 400
    words = ["sql", "SELECT interval '9 years' AS i", "--csv", "--results", str(golden)]
    assert results_main.main(words) == 0
    assert ask("SELECT current_setting('memory_limit') AS m")["m"].to_pylist() == ["953.6 MiB"]
    monkeypatch.setattr(sql, "MAX_SECONDS", 0.2)
    with pytest.raises(UserError, match="a query may take 0 s"):
        ask("SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) WHERE x * y % 7 = 3")


EVIL = HTML + "\x1b[2J\x07\u202e\nnew line 😀 " + "x" * 300


def test_texts_of_a_strangers_results_are_escaped_in_the_terminal_and_on_the_page(golden, capsys):
    """Names and errors are in files that anybody may have written."""
    from harness.page import document

    folder = golden / "golden"
    plan = json.loads((folder / "plan.json").read_text().replace('"regression"', json.dumps(EVIL)))
    plan["questions"][0]["text"] = plan["questions"][0]["question"] = EVIL
    files.write_json(plan, folder / "plan.json")
    (failed,) = folder.glob("trials/282ae7886436-s0")
    status = files.read_json(failed / "status.json")
    files.write_json({**status, "error": EVIL, "device": EVIL}, failed / "status.json")
    health = [{"name": EVIL, "text": EVIL, "severity": "warning"}]
    (finished,) = folder.glob("trials/5490ec3bac53-s0")
    findings = files.read_json(finished / "health.json")
    files.write_json([{**findings[0], **health[0]}], finished / "health.json")
    for command in ("show", "trials", "list", "best"):
        assert results_main.main([command, "--results", str(golden)]) == 0
        assert not set(capsys.readouterr().out) & {"\x1b", "\x07", "\u202e"}, command
    text = document.write(folder).read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_output_that_cannot_be_written_has_its_code_and_no_traceback(golden, python):
    """Stdout closed by who starts the command, on a full disk, and read in part (`| head`)."""
    command = (
        "import sys; from harness.results import __main__ as m; from harness.core import errors"
    )
    command += "; sys.exit(errors.run(lambda: m.main({words})))"
    short = command.format(words=["list", "--results", str(golden)])
    for redirected, code, said in (
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 1, "error: [Errno 28] No space left on device; free disk space"),
    ):
        done = python(short, prefix=("sh", "-c", f'"$@" {redirected}', "sh"))
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith(said), done
        assert done.stderr.count("\n") == bool(said), done
    rows = "SELECT a.range FROM range(100000) a"
    long = command.format(words=["sql", rows, "--limit", "0", "--csv", "--results", str(golden)])
    done = python(long, prefix=("bash", "-c", '"$@" | head -n 2; exit ${PIPESTATUS[0]}', "bash"))
    assert (done.returncode, done.stdout, done.stderr) == (141, '"range"\n0\n', "")


@contextmanager
def another_user():
    """Act as a user with no rights on what root has made; others have none on what has mode 0."""
    if os.geteuid():
        yield
        return
    os.setegid(65534), os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0), os.setegid(0)


@pytest.fixture
def foreign(capsys):
    """A copy of the golden sweep's results, in a folder that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="ibc-harness-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        results = Path(folder) / "results"
        shutil.copytree(ROOT / "tests/golden/sweep_1/results", results)
        (results / "golden/pictures").mkdir()
        (results / "golden/pictures").chmod(0o777)
        # Another user may not be able to read the libraries: they are imported before.
        for where, _ in results_main.COMMANDS.values():
            imports.load(f"harness.results.{where}")
        results_main.main(["best", "--json", "--results", str(results)])
        capsys.readouterr()
        yield results
        for path in (results, *results.rglob("*")):
            path.chmod(0o755)


TRIAL = "golden/trials/ae9d6b4ceea4-s1"
READING = ("list", "show", "best", "pictures", "landscape", "report")


@pytest.mark.parametrize(
    ("closed", "mode", "commands", "named"),
    [
        ("golden", 0, READING, "golden"),
        (".", 0, READING, ""),
        (f"{TRIAL}/checkpoints/best/model.safetensors", 0, READING[2:5], "model.safetensors"),
        ("golden/pictures", 0o555, ("pictures",), "golden"),
    ],
    ids=["sweep", "results", "weights", "read-only"],
)
def test_folders_of_other_users_are_one_line(foreign, capsys, closed, mode, commands, named):
    """Every command, and the Python function, names the file without rights, and changes none."""
    path = foreign / closed
    before = {each: each.stat().st_mtime_ns for each in foreign.rglob("*") if each.is_file()}
    path.chmod(mode)
    evaluation = EvalOptions("2", "best", results=foreign, workers=1)
    with another_user():
        words = {name: [name, "--results", str(foreign)] for name in commands}
        found = {
            name: errors.run(functools.partial(results_main.main, given))
            for name, given in words.items()
        }
        found["run_eval"] = errors.run(lambda: evaluate(evaluation, Console(file=io.StringIO())))
        if mode == 0:
            with pytest.raises(ValueError, match="must be readable, got: Permission denied"):
                load_policy(foreign / TRIAL / "checkpoints/best")
    said = capsys.readouterr()
    assert set(found.values()) == {2}, (found, said.err)
    lines = said.err.splitlines()
    assert len(lines) == len(found)
    for line in lines:
        assert line.startswith("error: ")
        assert "ermission denied" in line or "no access to golden" in line
        assert f"{foreign}" in line
        assert named in line
    path.chmod(0o755)
    assert {
        each: each.stat().st_mtime_ns for each in foreign.rglob("*") if each.is_file()
    } == before


def test_a_sweep_without_access_does_not_hide_the_others(foreign, capsys):
    shutil.copytree(foreign / "golden", foreign / "open")
    (foreign / "golden").chmod(0)
    (foreign / TRIAL.replace("golden", "open")).chmod(0)
    with another_user():
        assert results_main.main(["best", "--results", str(foreign)]) == 1
        trial, golden = (
            f"warning: left out: {foreign}/{name} cannot be read: Permission denied\n"
            for name in (TRIAL.replace("golden", "open"), "golden")
        )
        assert capsys.readouterr().err.endswith(trial)
        assert results_main.main(["trials", "--results", str(foreign)]) == 1
        assert trial in capsys.readouterr().err
        assert results_main.main(["list", "--results", str(foreign)]) == 1
    said = capsys.readouterr()
    assert said.err.endswith(trial + golden)
    assert "open" in said.out


def test_a_pipe_as_a_file_is_refused_at_once(commands):
    commands.space.unlink()
    os.mkfifo(commands.space)
    with pytest.raises(UserError, match="must be a regular file of its folder, it is a pipe"):
        dry_run(commands)


def test_the_path_of_data_moves_no_cursor(commands, capsys):
    data = commands.folder / "a\x1b[2J\x07b\u202e.zarr"
    code = errors.run(lambda: dry_run(commands, data=(data,))[0])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert "a\\x1b[2J\\x07b\\u202e.zarr" in err


def test_warnings_are_errors_for_the_whole_suite():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["filterwarnings"] == ["error"]
