"""A seeded fuzzer of results folders against the commands that read them.

Each file in turn is cut, flipped, replaced by a link, a pipe, a device or a folder, by a bomb or by
a table or JSON that lies. Every command ends with 0, 1 or 2 without a traceback, in seconds and
within 2 GiB, and nothing is changed: neither the folder nor what its links lead to.
"""

import io
import json
import os
import random
import shutil
import stat
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core import errors, files
from harness.results import __main__ as results_main
from harness.storage import table_schemas, tables
from tests.memory import peak

pytestmark = [pytest.mark.bad_input, pytest.mark.timeout(3000)]

COMMANDS = (
    ("list",),
    ("show",),
    ("answers",),
    ("trials",),
    ("episodes",),
    ("best",),
    ("compare", "regression", "baseline"),
    ("sql",),
    ("watch", "--once"),
    ("export", "--force", "--to", "OUT/tables"),
    ("report", "--out", "OUT/page.html"),
)
SECONDS, MIB = 30.0, 2 * 1024


def cut(path, chance, outside):
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def flip(path, chance, outside):
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def link(path, chance, outside):
    """To a whole file of the same kind outside the folder, to a folder, or to nothing."""
    copy = outside / path.name
    shutil.copy(path, copy)
    path.unlink()
    path.symlink_to(chance.choice((copy, outside, outside / "nothing", Path("/dev/zero"))))


def link_of_a_folder(path, chance, outside):
    """The folder that the file lies in."""
    copy = outside / "folder"
    shutil.rmtree(copy, ignore_errors=True)
    path.parent.rename(copy)
    path.parent.symlink_to(copy)


def pipe(path, chance, outside):
    path.unlink()
    os.mkfifo(path)


def device(path, chance, outside):
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        os.mkfifo(path)


def folder(path, chance, outside):
    path.unlink()
    path.mkdir()


def unreadable(path, chance, outside):
    path.chmod(0)


def bomb(path, chance, outside):
    """A few kilobytes that ask for gigabytes."""
    if path.suffix == ".json":
        text = chance.choice(("[" * 100_000, '{"a":' * 50_000, "[" + "[],[]," * 2_500_000 + "[]]"))
        path.write_text(text)
        return
    schema = table_schemas.SCHEMAS["episodes"]
    rows = 60_000_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 300_000])
    content, kind = chance.choice(
        (
            lambda: (pa.table({"score": pa.nulls(rows, pa.float64())}), True),
            lambda: (
                pa.table({"config_hash": text}),
                False,
            ),  # read as a text of its own in each row
        )
    )()
    content = content.replace_schema_metadata(schema.metadata)
    pq.write_table(content, path, compression="zstd", store_schema=kind)


def lie(path, chance, outside):
    """Whole files of the right form that hold what none of ours holds."""
    if path.suffix == ".json":
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and content:
            content[chance.choice(sorted(content))] = chance.choice((None, 3, "x", [], {"a": [1]}))
        else:
            content = chance.choice((3, {"a": 1}, [[]]))
        path.write_text(json.dumps(content))
        return
    content = pq.read_table(path)
    names = content.column_names
    index = chance.randrange(len(names))
    rows = content.num_rows
    kind = chance.choice(("text", "twice", "utf8", "lowest", "null", "list", "long"))
    values = {
        "text": pa.array(["x"] * rows),
        "twice": content.column(index),
        "utf8": pa.array([b"\xff\xfe"] * rows, pa.binary()).view(pa.string()),
        "lowest": pa.array([-(2**63)] * rows, pa.int64()),
        "null": pa.nulls(rows),
        "list": pa.array([[1]] * rows),
        "long": pa.array(["x" * 2_000_000] * min(rows, 1) + [""] * (rows - 1)),
    }[kind]
    if kind == "twice":
        content = content.append_column(names[index], values)
    else:
        content = content.set_column(index, names[index], values)
    pq.write_table(content, path, compression="zstd")


CHANGES = (cut, flip, link, link_of_a_folder, pipe, device, folder, unreadable, bomb, lie)


def state_of(root):
    """Return name, kind, size and time of everything below a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def said_by(command, results):
    """Run a command in this process; return its exit code and what it printed."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = errors.run(lambda: results_main.main([*command, "--results", str(results)]))
        out.flush()
    return code, out.buffer.getvalue().decode(), err.getvalue()


@pytest.mark.parametrize(
    ("seed", "rounds"), [(0, 10), *(pytest.param(s, 150, marks=pytest.mark.slow) for s in (1, 2))]
)
def test_no_file_of_a_results_folder_brings_a_reading_command_down(golden, tmp_path, seed, rounds):
    chance = random.Random(seed)
    tables.rebuild(golden / "golden")
    shutil.copytree(golden / "golden", golden / "whole")
    template, outside, made = (tmp_path / name for name in ("template", "outside", "made"))
    golden.rename(template)
    names = sorted(
        str(path.relative_to(template))
        for path in (template / "golden").rglob("*")
        if path.suffix in (".json", ".parquet") and path.parts[-2] != "last"
    )
    for number in range(rounds):
        results = tmp_path / f"{seed}-{number}"
        shutil.copytree(template, results)
        outside.mkdir(exist_ok=True)
        change, name = CHANGES[number % len(CHANGES)], chance.choice(names)
        change(results / name, chance, outside)
        before = state_of(results), state_of(outside)
        for command in COMMANDS if rounds > 50 else chance.sample(COMMANDS, 2):
            began = time.monotonic()
            named = [word.replace("OUT", str(made)) for word in of_sweep(command)]
            with peak() as taken:
                code, out, err = said_by(named, results)
            what = f"seed {seed}, round {number}: {change.__name__} {name}: {named}\n{out}{err}"
            assert code in (0, 1, 2), what
            assert "Traceback" not in err, what
            assert time.monotonic() - began < SECONDS, what
            assert taken[0] < MIB, what
            if command[0] == "list":
                assert "whole" in out, what  # one broken sweep hides no other
        assert (state_of(results), state_of(outside)) == before, (change.__name__, name)
        shutil.rmtree(results)
        shutil.rmtree(outside)


def of_sweep(command):
    """Return a command's words, of the sweep that was changed."""
    if command[0] == "list":
        return command
    option = ("--sweep",) if command[0] in ("sql", "compare") else ()
    return (*command, *option, "golden")


def test_only_the_owner_of_a_folder_renames_and_only_what_is_torn(golden, monkeypatch):
    """What cannot be read for another reason is not torn: it is left as it is."""
    path = golden / "golden" / "plan.json"

    def fail(*_):
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(files, "read_bytes", fail)
    code, _, err = said_by(("show", "golden"), golden)
    assert code == 1
    assert f"warning: left out: {path} cannot be read: Stale file handle" in err
    refused = pytest.raises(errors.UserError, match="cannot be read: Stale file handle")
    with files.lock(golden / "golden" / ".lock"), refused:
        tables.read(golden / "golden", "trials")
    assert not list(golden.rglob("*.torn*"))
