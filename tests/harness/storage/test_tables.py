"""Tables are whole or set aside, typed, versioned, and derived from the trials' own files."""

import logging
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import store
from harness.core import files, paths
from harness.core.errors import UserError
from harness.storage import table_schemas, tables

HASHES = ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
CONFIG = {"policy": {"kind": "ibc", "energy": {"width": 64}, "channels": [32, 64]}}


def episode(env_seed: int, **changes: Any) -> dict[str, Any]:
    coverage = (env_seed % 100) / 100
    return {
        "sweep": "demo",
        "config_hash": HASHES[0],
        "train_seed": 0,
        "checkpoint_step": 500,
        "protocol_hash": "p",
        "env_seed": env_seed,
        "max_coverage": coverage,
        "final_coverage": coverage,
        "score": min(1.0, coverage / 0.95),
        "success": coverage > 0.95,
        "length": 300,
        **changes,
    }


def make_sweep(root: Path) -> Path:
    sweep = root / "demo"
    trials = [
        {"config_hash": h, "train_seed": s, "question": "q", "arm": a, "config": CONFIG}
        for h, a in zip(HASHES, ("baseline", "wide"), strict=True)
        for s in (0, 1)
    ]
    files.write_json({"sweep": "demo", "trials": trials}, sweep / "plan.json")
    for entry in trials[:3]:
        folder = sweep / "trials" / f"{entry['config_hash']}-s{entry['train_seed']}"
        files.write_json(entry, folder / "config.json")
        status = {"status": "finished", "attempts": 1, "best_step": 500, "select_score": 0.5}
        files.write_json(status, folder / "status.json")
        curve = [{"epoch": e, "step": e * 10, "train_loss": 1.0, "val_loss": e} for e in range(3)]
        named = [{**row, **{k: entry[k] for k in ("config_hash", "train_seed")}} for row in curve]
        table_schemas.write(table_schemas.table("curves", named), folder / "curves.parquet")
        same = {k: entry[k] for k in ("config_hash", "train_seed")}
        rows = [episode(200_000 + i, **same) for i in range(10)]
        table_schemas.write(
            table_schemas.table("episodes", rows), folder / "episodes" / "select-000500.parquet"
        )
        rows = [episode(300_000 + i, **same) for i in range(100)]
        table_schemas.write(
            table_schemas.table("episodes", rows), folder / "episodes" / "report.parquet"
        )
    return sweep


def test_a_sweep_is_read_as_three_tables(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    trials = tables.read(sweep, "trials")
    assert trials["status"].to_pylist() == ["finished"] * 3 + ["pending"]
    assert trials["arm"].to_pylist() == ["baseline", "baseline", "wide", "wide"]
    first = trials.slice(0, 1).to_pylist()[0]
    assert first["policy.energy.width"] == 64
    assert first["policy.channels"] == "[32, 64]"
    assert first["select_n"] == 10
    assert first["select_score"] == pytest.approx(sum(i / 95 for i in range(10)) / 10)
    assert first["report_n"] == 100
    assert first["report_success_rate"] == 0.04  # 0.96 to 0.99 of 100
    assert first["report_score_low"] < first["report_score"] < first["report_score_high"]
    assert tables.read(sweep, "curves").num_rows == 9
    assert tables.read(sweep, "curves")["val_loss"].to_pylist()[:3] == [0.0, 1.0, 2.0]
    assert tables.read(sweep, "episodes").num_rows == 330


def test_the_schema_has_every_column_of_the_design() -> None:
    listed = """sweep, config_hash, train_seed, checkpoint_step, protocol_hash, env_seed,
    max_coverage, final_coverage, score, success, length, terminated, truncated, success_at_reset,
    action_jerk, idle_share, policy_ms, env_ms, error"""
    assert {name.strip() for name in listed.split(",")} <= set(
        table_schemas.SCHEMAS["episodes"].names
    )
    listed = """config_hash, train_seed, arm, status, attempts, best_step, select_score,
    report_score, report_success_rate, report_score_low, report_score_high, report_n, health,
    train_seconds, samples_per_second, device, git_revision, git_dirty, dataset_fingerprint,
    versions"""
    assert {name.strip() for name in listed.split(",")} <= set(
        table_schemas.SCHEMAS["trials"].names
    )


def test_derived_tables_equal_the_sources_and_follow_them(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    before = {kind: tables.read(sweep, kind) for kind in ("trials", "curves", "episodes")}
    tables.rebuild(sweep)
    for kind, table in before.items():
        assert tables.read(sweep, kind).equals(table), kind
        assert (sweep / "tables" / f"{kind}.parquet").is_file()
    # A derived table that a later episode outdates is not believed.
    folder = sweep / "trials" / f"{HASHES[0]}-s0" / "episodes"
    table_schemas.write(
        table_schemas.table("episodes", [episode(300_500)]), folder / "more.parquet"
    )
    assert tables.read(sweep, "episodes").num_rows == 331
    assert tables.read(sweep, "trials")["report_n"][0].as_py() == 101


def test_a_fresh_derived_table_is_what_is_read(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    tables.rebuild(sweep)
    derived = sweep / "tables" / "curves.parquet"
    content = table_schemas.read_file(derived, "curves")
    metadata = pq.read_schema(derived).metadata
    one = content.slice(0, 1).replace_schema_metadata(metadata)
    pq.write_table(one, derived)
    assert tables.read(sweep, "curves").num_rows == 1


def test_an_episode_counts_once_and_a_good_row_beats_an_error(tmp_path: Path) -> None:
    sweep = tmp_path / "s"
    failed = episode(300_000, score=None, success=None, error="boom")
    twice = [episode(300_001, score=0.1), failed]
    table_schemas.write(table_schemas.table("episodes", twice), sweep / "episodes" / "1.parquet")
    again = [episode(300_001, score=0.2), episode(300_000, score=0.7)]
    table_schemas.write(table_schemas.table("episodes", again), sweep / "episodes" / "2.parquet")
    table_schemas.write(table_schemas.table("episodes", [failed]), sweep / "episodes" / "3.parquet")
    rows = tables.read(sweep, "episodes").to_pylist()
    assert [(row["env_seed"], row["score"]) for row in rows] == [(300_000, 0.7), (300_001, 0.2)]


def test_scores_of_another_checkpoint_or_protocol_are_not_mixed_in(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    folder = sweep / "trials" / f"{HASHES[0]}-s0" / "episodes"
    other = [episode(300_000 + i, checkpoint_step=1000, score=0.0) for i in range(500)]
    table_schemas.write(table_schemas.table("episodes", other), folder / "other.parquet")
    short = [episode(300_000 + i, protocol_hash="q", score=0.0) for i in range(50)]
    table_schemas.write(table_schemas.table("episodes", short), folder / "short.parquet")
    first = tables.read(sweep, "trials").slice(0, 1).to_pylist()[0]
    assert (first["report_n"], first["report_protocol_hash"]) == (100, "p")


@pytest.mark.parametrize("eighth", range(8))
def test_a_truncated_table_is_set_aside(
    tmp_path: Path, eighth: int, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = make_sweep(tmp_path)
    path = sweep / "trials" / f"{HASHES[0]}-s0" / "episodes" / "report.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * eighth // 8])
    with caplog.at_level(logging.WARNING):
        assert tables.read(sweep, "episodes").num_rows == 230
    assert f"left out: {path} is not a whole Parquet file" in caplog.text
    assert path.exists()
    with files.lock(sweep / ".lock"):
        assert tables.read(sweep, "episodes").num_rows == 230
    assert "report.parquet is torn" in caplog.text
    assert path.with_name("report.parquet.torn").read_bytes() == whole[: len(whole) * eighth // 8]
    assert tables.read(sweep, "trials")["report_n"].to_pylist()[:2] == [None, 100]


def test_a_flipped_byte_in_a_page_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [episode(300_000 + i, max_coverage=i * 0.37 % 1) for i in range(400)]
    table_schemas.write(table_schemas.table("episodes", rows), path)
    column = next(
        pq.ParquetFile(path).metadata.row_group(0).column(i)
        for i in range(len(table_schemas.SCHEMAS["episodes"]))
        if table_schemas.SCHEMAS["episodes"].names[i] == "max_coverage"
    )
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(files.TornFileError, match=r"rows\.parquet is not a whole"):
        table_schemas.read_file(path, "episodes")


@pytest.mark.parametrize("name", ["config.json", "status.json"])
def test_a_truncated_trial_counts_as_not_done(tmp_path: Path, name: str) -> None:
    sweep = make_sweep(tmp_path)
    path = sweep / "trials" / f"{HASHES[0]}-s0" / name
    path.write_bytes(path.read_bytes()[:-5])
    assert tables.read(sweep, "trials")["status"].to_pylist()[0] == "pending"
    assert path.exists()
    with files.lock(sweep / ".lock"):
        assert tables.read(sweep, "trials")["status"].to_pylist()[0] == "pending"
    assert path.with_name(f"{name}.torn").exists()


def test_a_newer_schema_and_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = table_schemas.table("episodes", [episode(1)])
    metadata = {**table.schema.metadata, b"ibc_harness.version": b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match="schema version 2 and this program reads 1 to 1"):
        table_schemas.read_file(path, "episodes")
    table_schemas.write(table_schemas.table("curves", []), path)
    with pytest.raises(ValueError, match="must be a table of episodes"):
        table_schemas.read_file(path, "episodes")


def test_rows_are_checked() -> None:
    with pytest.raises(ValueError, match="given luck"):
        table_schemas.table("episodes", [episode(1, luck=1)])
    with pytest.raises(ValueError, match="column env_seed takes int64"):
        table_schemas.table("episodes", [episode(1) | {"env_seed": "one"}])
    mixed = table_schemas.table("trials", [{"a": 1, "b": True}, {"a": 2.5, "b": None}, {"a": None}])
    assert mixed.schema.field("a").type == pa.float64()
    assert mixed.schema.field("b").type == pa.bool_()
    assert table_schemas.table("trials", [{"a": 1}, {"a": "x"}])["a"].to_pylist() == ["1", "x"]


def test_a_plan_from_a_stranger_is_refused_by_name(tmp_path: Path) -> None:
    files.write_json({"trials": [{"config_hash": 3}]}, tmp_path / "plan.json")
    assert tables.read(tmp_path, "trials").num_rows == 0
    refused = pytest.raises(
        UserError, match=r"plan\.json must be .* trials\.0\.config_hash must be"
    )
    with files.lock(tmp_path / ".lock"), refused:
        tables.read(tmp_path, "trials")
    with pytest.raises(ValueError, match="is not one"):
        tables.read(tmp_path / "nothing", "trials")


def test_an_empty_sweep_has_empty_tables(tmp_path: Path) -> None:
    tables.rebuild(tmp_path)
    for kind in ("trials", "curves", "episodes"):
        table = tables.read(tmp_path, kind)
        assert table.num_rows == 0
        assert table.schema.names == table_schemas.SCHEMAS[kind].names


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from harness.core import files
with files.atomic(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    files.write_json({"n": 1}, path)
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert files.read_json(path) == {"n": 1}
    (left,) = files.remove_temporaries(tmp_path)
    assert left.name.startswith(".status.json.tmp-")
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_json_is_finite_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for value in (float("nan"), {"a": object()}, {"a": float("inf")}):
        with pytest.raises(ValueError, match=r"x\.json takes plain finite values"):
            files.write_json(value, path)
    assert list(tmp_path.iterdir()) == []
    for text in ('{"a": NaN}', '{"a": 1', "", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(files.TornFileError, match=r"x\.json is not whole JSON"):
            files.read_json(path)


ANY_TEXT = st.text(st.characters(codec=None))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=30)
@given(st.recursive(st.none() | st.booleans() | st.integers() | FINITE | ANY_TEXT, st.lists))
def test_json_keeps_what_it_is_given(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.json"
        files.write_json(value, path)
        assert files.read_json(path) == value


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", ".hidden", "a\nb", "😀", "x" * 101, "<b>", "\x1b[31m", "-flag"]
)
def test_names_that_are_paths_or_markup_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a sweep's name is 1 to 100 letters"):
        paths.check_name(name)
    assert paths.check_name("ablations-2.smoke_1") == "ablations-2.smoke_1"


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    with pytest.warns(DeprecationWarning, match=r"harness\.storage\.tables\.read"):
        assert store.read(str(tmp_path), "trials").equals(tables.read(tmp_path, "trials"))
    with pytest.raises(ValueError, match="one of episodes, curves, trials, given 'trial'"):
        tables.read(str(tmp_path), "trial")  # type: ignore[arg-type]
