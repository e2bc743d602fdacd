"""Every command on every kind of broken results folder: a clear message and no wrong number."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import errors, files
from harness.results import __main__ as results_main
from harness.storage import table_schemas, tables

EVIL = "<script>alert(1)</script>[red]\x1b[2J\x07‮evil\nnew line"
CONTROL = {"\x1b", "\x07", "‮"}
COMMANDS = {
    "list": "list",
    "show": "show",
    "answers": "answers",
    "trials": "trials",
    "episodes": "episodes",
    "best": "best",
    "compare": "compare energy explicit",
    "sql": "sql",
    "query": "sql 'SELECT trial, arm, question, error FROM trials'",
    "all": "sql 'SELECT sweep, arm FROM trials JOIN curves USING (sweep, trial)' --all",
    "export": "export --to {out}",
    "latex": "export --to {out} --format latex",
    "markdown": "export --to {out} --format markdown",
    "report": "report",
    "rebuild": "rebuild",
    "watch": "watch",
}


# These roll policies out where there are any.
DRAWING = {"pictures": "pictures", "landscape": "landscape"}


def empty(folder: Path) -> None:
    shutil.rmtree(folder)


def begun(folder: Path) -> None:
    """A plan and nothing else: the sweep was killed before its first trial."""
    shutil.rmtree(folder / "trials")


def all_failed(folder: Path) -> None:
    failed = {"status": "failed", "attempts": 1, "error": f"NonFiniteError: {EVIL}"}
    for trial in (folder / "trials").iterdir():
        files.write_json(failed, trial / "status.json")
        shutil.rmtree(trial / "episodes")
        shutil.rmtree(trial / "checkpoints")


def torn(folder: Path) -> None:
    """Every file of the first trial, the plan and the derived tables are cut in half."""
    tables.rebuild(folder)
    first = min((folder / "trials").iterdir())
    paths = [*first.rglob("*.json"), *first.rglob("*.parquet"), *folder.glob("tables/*.parquet")]
    for path in [*paths, folder / "plan.json"]:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def hostile(folder: Path) -> None:
    path = folder / "plan.json"
    text = path.read_text().replace('"energy"', json.dumps(EVIL)).replace("loss", "../../\\u001b]")
    files.write_json(json.loads(text), path)
    for trial in (folder / "trials").iterdir():
        config = trial / "config.json"
        config.write_text(config.read_text().replace('"energy"', json.dumps(EVIL)))
        files.write_json([{"name": EVIL}], trial / "health.json")


def older(folder: Path) -> None:
    """Episode rows and curves from before columns were added."""
    for path in folder.glob("trials/*/episodes/*.parquet"):
        rows = table_schemas.read_file(path, "episodes").drop_columns(
            ["render_ms", "policy_hash", "error"]
        )
        table_schemas.write(rows, path)


STATES = (empty, begun, all_failed, torn, hostile, older)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_command_has_a_clear_word(
    tiny_results: Path,
    tmp_path: Path,
    state: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    state(tiny_results / "tiny")
    drawing = DRAWING if state in (empty, begun, all_failed) else {}
    for index, (name, line) in enumerate({**COMMANDS, **drawing}.items()):
        # Each command in one form here, in the other ones in other states.
        form = ("", "--json", "", "--csv")[(index + STATES.index(state)) % 4]
        words = [part.strip("'") for part in split(line.format(out=tmp_path / name / form))]
        arguments = [*words, *form.split(), "--results", str(tiny_results)]
        code = errors.run(lambda arguments=arguments: results_main.main(arguments))
        said = capsys.readouterr()
        what = f"{state.__name__}: {' '.join(arguments)}\n{said.out}{said.err}"
        assert code in (0, 1, 2), what
        assert "Traceback" not in said.err, what
        assert not CONTROL & set(said.out + said.err), what
        if code == 2:
            assert said.out == "", what
            assert said.err.splitlines()[-1].startswith("error: "), what
            assert said.err.count("error: ") == 1, what
        else:
            assert said.out.strip(), what
            assert "nan" not in said.out.casefold().replace("nonfinite", ""), what
        assert ("warning: left out: " in said.err) == (code == 1), what
        if form == "--json" and code < 2:
            assert isinstance(json.loads(said.out), list), what


def split(line: str) -> list[str]:
    import shlex

    return shlex.split(line)


def expected(state: Callable[[Path], None]) -> dict[str, str]:
    """Some text that each command must print in this state."""
    return {
        "empty": {"show": "a sweep is needed", "sql": "a sweep is needed", "list": "holds no"},
        "begun": {"show": "4 pending", "best": "needs a finished", "watch": "4 pending"},
        "all_failed": {"show": "3 failed, 1 pending", "best": "needs a finished"},
        "torn": {"show": "tiny", "rebuild": "rows"},
        "hostile": {"trials": "<script>", "latex": "wrote"},
        "older": {"show": "3 finished", "compare": "paired on 25"},
    }[state.__name__]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_the_word_is_the_right_one(
    tiny_results: Path,
    tmp_path: Path,
    state: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    state(tiny_results / "tiny")
    for name, word in expected(state).items():
        line = COMMANDS[name].format(out=tmp_path / name)
        arguments = [*split(line), "--results", str(tiny_results)]
        errors.run(lambda arguments=arguments: results_main.main(arguments))
        said = capsys.readouterr()
        assert word in " ".join((said.out + said.err).split()), (name, said)


@pytest.mark.parametrize("name", ["../..", "/etc", "a/b", "tiny\n", "\x1b[2J", "e" * 300, "..", ""])
def test_a_sweep_named_like_a_path_is_no_sweep(
    tiny_results: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("show", "export", "rebuild", "watch", "report", "sql"):
        words = {"export": ["--to", str(tmp_path / "out")], "sql": ["--sweep", name]}
        given = [] if command == "sql" else [name]
        arguments = [command, *given, *words.get(command, []), "--results", str(tiny_results)]
        code = errors.run(lambda arguments=arguments: results_main.main(arguments))
        said = capsys.readouterr()
        assert code == 2, (arguments, said)
        assert said.err.count("\n") == 1
        assert not CONTROL & set(said.err)
    assert not (tmp_path / "out").exists()
