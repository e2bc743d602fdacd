"""Files that may be torn are set aside by name, and locks tell who holds them."""

from pathlib import Path

import pytest

from harness.core import files


def test_a_torn_file_is_the_default_and_set_aside_by_the_holder_of_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    assert files.read_json_or(path, {}) == {}
    for number in ("", "-2"):
        path.write_text('{"a": ')
        assert files.read_json_or(path, 3) == 3
        assert files.read_or(None, files.read_json, path) is None
        assert f"left out: {path} is not whole JSON" in caplog.text
        assert path.exists()
        with files.lock(tmp_path / ".lock"):
            assert files.read_or(None, files.read_json, path) is None
        assert not path.exists()
        assert (tmp_path / f"a.json.torn{number}").exists()
        assert f"a.json is torn: set aside as a.json.torn{number}" in caplog.text
    files.write_json({"a": 1}, path)
    assert files.read_json_or(path) == {"a": 1}


def test_what_is_gone_needs_no_setting_aside(tmp_path: Path) -> None:
    files.quarantine(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_once_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with files.lock(path) as first:
        with files.lock(path) as second, files.lock(path, wait=0.15) as third:
            assert (first, second, third) == (True, False, False)
        with pytest.raises(KeyError), files.lock(path):
            raise KeyError
    with files.lock(path) as again:
        assert again
