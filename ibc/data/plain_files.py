"""Opens files of folders that may come from strangers.

Only regular files of a limited size are opened, and no link below the folder is followed: a link, a
device or a pipe could lead out of the folder, never end, or wait for ever.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def open_folder(path: Path, root: Path) -> Iterator[int]:
    """Open the folder `path`, which is `root` or lies below it; yields its descriptor.

    ValueError for a link or ".." below the root, OSError as of `os.open`.
    """
    inner_names = path.relative_to(root).parts
    if ".." in inner_names:
        raise ValueError(f"{path} must lie below {root}")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in inner_names:
            inner = _open(name, _FOLDER, descriptor, path)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_plain(path: Path, most: int, root: Path | None = None) -> Iterator[BufferedReader]:
    """Open a regular file of at most so many bytes, which lies in or below the folder `root`.

    root: the file's own folder where it is None. ValueError for a link, a device, a pipe or a file
    that is larger, OSError as of `open`.
    """
    with open_folder(path.parent, root or path.parent) as folder:
        descriptor = _open(path.name, _FILE, folder, path)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, status.st_mode)
        if status.st_size > most:
            raise ValueError(f"{path} must have at most {most:,} bytes, it has {status.st_size:,}")
        yield file


def read_plain(path: Path, most: int, root: Path | None = None) -> bytes:
    """Return the content of a file that `open_plain` opens."""
    with open_plain(path, most, root) as file:
        return file.read(most)


def _open(name: str, flags: int, folder: int, path: Path) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        # What a link gives (with O_DIRECTORY ENOTDIR), and a socket or a device without a driver.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode):
                raise _refused(path, mode) from None
        raise OSError(error.errno, error.strerror, str(path)) from None


def _refused(path: Path, mode: int) -> ValueError:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder"}
    kind = kinds.get(stat.S_IFMT(mode), "a device or a socket")
    where = "is reached by" if kind == "a link" else "is"
    return ValueError(f"{path} must be a regular file of its folder, it {where} {kind}")
