"""Search-space files from strangers: what YAML, axes and settings may not be, through the door."""

import sys
import time
import tracemalloc

import pytest

import run_sweep
from harness.config import plan as space
from harness.config import strict_yaml
from harness.config.plan import plan
from harness.config.search_spec import SAMPLERS
from harness.core import errors
from harness.core.errors import UserError

DEEP = "a: " + "[" * 100_000
WIDE = "a: [" + ", ".join(["{b: 1}"] * 40_000) + "]"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 9)}]\n"
    for this, before in zip("bcdefghijk", "abcdefghij", strict=True)
)
KEYS = "a: &a {" + ", ".join(f"k{n}: v" for n in range(99)) + "}\n"


@pytest.fixture
def door(tmp_path, monkeypatch, capsys):
    """Give door 1 a file of these bytes; returns the exit code and what it said."""

    def door(raw: bytes) -> tuple[int, str]:
        path = tmp_path / "x.yaml"
        path.write_bytes(raw)
        words = ["run_sweep.py", str(path), "--results", str(tmp_path / "results"), "--dry-run"]
        monkeypatch.setattr(sys, "argv", words)
        code = errors.run(run_sweep.main)
        out, err = capsys.readouterr()
        assert out == ""
        assert not (tmp_path / "results").exists()
        return code, err

    return door


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "it is empty"),
        (b"\n\n---\n", "mapping (key: value) at its root"),
        (b"- version: 1\n", "mapping (key: value) at its root"),
        (b"version: 1\nversion: 1\n", "must be given once"),
        (b"version: 1\nquestoins: {}\n", "did you mean questions?"),
        (b"version: 1\nbase: {train: {stesp: 3}}\n", "did you mean train.steps?"),
        (b"version: 1\nbase:\n\ttrain.steps: 3\n", "indent with spaces, given a tab"),
        (b"version: 1\n\tbase: {}\n", "indent with spaces, given a tab"),
        (b"\xef\xbb\xbfversion: 1\n", "without a byte order mark"),
        ("version: 1\n".encode("utf-16"), "without a byte order mark"),
        ("version: 1\n".encode("utf-16-le"), "control character 0x0"),
        ("version: 1\nname: caf\u00e9\n".encode("latin-1"), "must be UTF-8, given byte 0xe9"),
        (b"version: 1\nname: a\x00b\n", "control character 0x0"),
        (b"version: 1\nname: a\x1b[2Jb\n", "control character 0x1b"),
        (b"version: 01\n", "no leading zero, given 01"),
        (b"version: 1\nbase: {train.steps: 017}\n", "no leading zero, given 017"),
        (b"version: 1\nbase: {train.steps: 0o17}\n", "valid integer, given '0o17'"),
        (b"version: 1\nbase: {train.steps: 0x1F}\n", "valid integer, given '0x1F'"),
        (b"version: 1\nbase: {train.steps: 1_000}\n", "valid integer, given '1_000'"),
        (b"version: 1\nbase: {train.steps: 1:30}\n", "valid integer, given '1:30'"),
        (b"version: 1\nbase: {train.steps: 1e3}\n", "valid integer, given 1000.0"),
        (b"version: 1\nbase: {train.learning_rate: .nan}\n", "must be finite, given .nan"),
        (b"version: 1\nbase: {train.learning_rate: -.inf}\n", "must be finite, given -.inf"),
        (b"version: 1\nbase: {train.learning_rate: nan}\n", "valid number, given 'nan'"),
        (b"version: 1\nbase: {policy.inference.clip: yes}\n", "valid boolean, given 'yes'"),
        (b"version: 1\nbase: {policy.inference.clip: on}\n", "valid boolean, given 'on'"),
        (b"version: 1\nbase: {policy.inference.clip: n}\n", "valid boolean, given 'n'"),
        (b"version: 1\nbase: {policy.inference.clip: 1}\n", "valid boolean, given 1"),
        (b"version: !!python/name:os.system 1\n", "tags are not read"),
        (b"version: !<tag:yaml.org,2002:python/object/apply:os.system> [x]\n", "tags are not read"),
        (b"!!python/object/new:type {version: 1}\n", "tags are not read"),
        (b"? !!python/object/apply:os.system [x]\n: 1\n", "a key must be a plain word"),
        (
            b"version: 1\ntracks: {a: &b {train.steps: 3}}\nbase: {<<: *b}\n",
            "<< must be a known setting",
        ),
        (DEEP.encode(), "nested 32 deep"),
        (WIDE.encode(), "256 KiB"),
        (LAUGHS.encode(), "100,000 values, aliases written out"),
        ((KEYS + "b: [" + "*a, " * 999 + "*a]").encode(), "100,000 values, aliases written out"),
        (b"version: 1\nname: " + b"x" * 200_000, "given 'xxx"),
        (b"version: 1\nname: <script>alert(1)</script>\n", "a letter or digit"),
    ],
)
def test_a_bad_file_is_one_line_and_code_2(door, raw, rule):
    start = time.process_time()
    code, err = door(raw)
    assert code == 2
    assert rule in err
    assert err.startswith("error: ")
    assert "x.yaml:" in err
    assert err.count("\n") == 1
    assert len(err) < 1000
    assert time.process_time() - start < 5


def test_ten_mebibytes_are_refused_without_being_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"# a comment line of a file that is far too large\n" * 220_000)
    assert path.stat().st_size > 10 * 2**20
    tracemalloc.start()
    with pytest.raises(UserError, match="at most 256 KiB"):
        strict_yaml.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20


def test_words_stay_words_and_numbers_numbers(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\nquestions:\n  on:\n    ask: yes\n    arms:\n"
        "      no: {train.learning_rate: 1e-4}\n      1e-3: {train.learning_rate: 1e-3}\n"
        "      null: {train.learning_rate: 2.e-3}\n"
    )
    question = plan(path).questions[0]
    assert (question.name, question.text) == ("on", "yes")
    assert [arm.name for arm in question.arms] == ["baseline", "no", "1e-3", "null"]
    rates = [trial.config.train.learning_rate for trial in plan(path).trials]
    assert rates[1:] == [1e-4, 1e-3, 2e-3]


@pytest.mark.parametrize(
    ("axis", "rule"),
    [
        ("train.steps: []", "must list different choices"),
        ("train.steps: 3", "list of choices or a range"),
        ("train.steps: [1, 2.0]", "valid integer, given 2.0"),
        ("train.steps: ['1']", "valid integer, given '1'"),
        ("train.steps: [true]", "valid integer, given True"),
        ("train.steps: [[1]]", "valid integer"),
        ("train.learning_rate: [0.1, .nan]", "must be finite, given .nan"),
        ("train.learning_rate: {low: .nan, high: 0.1}", "must be finite, given .nan"),
        ("train.learning_rate: {low: 0.1, high: .inf}", "must be finite, given .inf"),
        ("train.learning_rate: {low: 0.1, high: 0.1}", "low must be below high"),
        ("train.learning_rate: {low: 0.1, high: 0.01}", "low must be below high"),
        ("train.weight_decay: {low: 0, high: 1, log: true}", "above 0 with log, given 0"),
        ("train.weight_decay: {low: -1, high: 1, log: true}", "above 0 with log, given -1"),
        ("train.learning_rate: {low: 0.1, high: 0.2, log: yes}", "log true or false"),
        ("train.learning_rate: {low: '0.1', high: 0.2}", "must be numbers"),
        ("train.learning_rate: {low: -0.1, high: 0.2}", "train.learning_rate"),
        ("learning_rate: [0.1]", "did you mean train.learning_rate?"),
        ("train: [0.1]", "train must be a mapping of settings"),
        ("seed: [0, 1]", "must be a known setting"),
        ("train.epoch_steps: [5]", "an axis or a fixed setting, given both"),
        ("policy.obs_mode: [state]", "an axis or a fixed setting, given both"),
        ("train.batch_size: [8]", "an axis or a fixed setting, given both"),
        ("select.seeds: [8]", "an axis or a fixed setting, given both"),
    ],
)
def test_bad_axes_name_their_line(tmp_path, axis, rule):
    sampler = SAMPLERS[len(axis) % 3]  # each axis with one of them
    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\n"
        "base: {train: {epoch_steps: 3}}\n"
        "tracks: {a: {policy.obs_mode: keypoints}}\n"
        "budgets: {standard: {set: {train.batch_size: 4}, tracks: {a: {select.seeds: 3}}}}\n"
        f"search:\n  sampler: {sampler}\n  axes:\n    {axis}\n"
    )
    with pytest.raises(UserError) as caught:
        space.plan(path)
    assert str(caught.value).startswith(f"{path}:8: ")
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ("policy: {execute: 3, action_horizon: 2}", "must not exceed policy.action_horizon 2"),
        ("policy.action_horizon: 0", "policy.action_horizon must be a whole number"),
        ("policy.action_horizon: 17", "policy.action_horizon must be a whole number"),
        ("policy.obs_horizon: 0", "policy.obs_horizon must be a whole number"),
        ("policy.obs_horizon: -1", "policy.obs_horizon must be a whole number"),
        ("policy.obs_horizon: 2.0", "valid integer, given 2.0"),
        ("policy: {action_horizon: 2, inference.sampler: lattice}", 'sampler "lattice" needs'),
        ("train.batch_size: 0", "train.batch_size must be a whole number"),
        ("train.batch_size: 65537", "train.batch_size must be a whole number"),
        ("select.seeds: -1", "select.seeds must be a whole number"),
        ("select.seeds: 0", "select.seeds must be a whole number"),
        ("select.seeds: 100001", "at most 100000"),  # they would run into the report seeds
        ("split.seed: -1", "split.seed"),
    ],
)
def test_bad_settings_name_their_line(tmp_path, settings, rule):
    path = tmp_path / "x.yaml"
    path.write_text(f"version: 1\nname: x\nbase:\n  {settings}\n")
    with pytest.raises(UserError) as caught:
        space.plan(path)
    assert str(caught.value).startswith(f"{path}:4: ")
    assert rule in str(caught.value)


@pytest.mark.parametrize("seeds", ["[-1]", "[0, 0]", "[4294967296]", "[1.0]", "['1']", "[]", "0"])
def test_bad_training_seeds_name_their_line(tmp_path, seeds):
    for text in (
        f"version: 1\nname: x\ntrain_seeds: {seeds}\n",
        f"version: 1\nbudgets:\n  standard: {{train_seeds: {seeds}}}\n",
        f"version: 1\nsearch:\n  confirm: {{train_seeds: {seeds}}}\n"
        "  axes: {train.steps: [1, 2]}\n",
    ):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=r"x\.yaml:3: train_seeds must be a list of different"):
            space.plan(path)
