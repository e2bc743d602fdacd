"""Files that may be torn are set aside by name, and locks tell who holds them."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from harness.core import files
from harness.core.errors import UserError
from harness.storage import checkpoints
from harness.sweep.folder import SweepFolder


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


@pytest.mark.parametrize("moves", [True, False])
def test_a_locked_folder_that_is_moved_or_deleted_is_not_made_again(
    tmp_path: Path, moves: bool
) -> None:
    folder = tmp_path / "sweep"
    path, status = folder / "trials" / "a" / "status.json", {"step": 3}
    with files.lock(folder / ".lock"), files.lock(path.with_name(".lock")):
        files.write_json(status, path)
        if moves:
            folder.rename(tmp_path / "moved")
        else:
            shutil.rmtree(folder)
        for again in (False, True):
            if again:  # another folder by the same name
                with files.lock(folder / ".lock"):
                    pass
            with pytest.raises(UserError, match=f"must stay where it is .* {folder}.* was moved"):
                files.write_json({"step": 4}, path)
            with pytest.raises(UserError, match="must stay where it is"):
                checkpoints.save(path.parent, "last", None, config={}, step=4)  # type: ignore[arg-type]
            assert not path.exists()
        if moves:  # and back again
            shutil.rmtree(folder)
            (tmp_path / "moved").rename(folder)
            assert files.read_json(path) == status
            files.write_json({"step": 4}, path)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    rule = "must lie on a file system that has locks, this one does not: Operation not supported"
    with pytest.raises(UserError, match=rule), files.lock(tmp_path / ".lock"):
        pass
    with pytest.raises(UserError, match=rule), SweepFolder(tmp_path / "sweep").lock():
        pass
