"""Results under a URI: the folder that all code works on then, and a trial's way there and back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core import paths
from harness.core.paths import is_uri
from harness.remote.mirror import Mirror
from harness.remote.object_store import RemoteError as RemoteError
from harness.storage.trial_folder import TrialFolder

# Like a trial's saving of checkpoints: pushing takes at most this share of its time.
PUSHING_SHARE = 0.02


def opened(results: Path | str) -> tuple[Path, Mirror | None]:
    """Return the folder that results are read from and written to, and its store for a URI."""
    if not paths.is_uri(results):
        return Path(results).expanduser(), None
    mirror = Mirror(str(results))
    return mirror.path, mirror


def local(results: Path | str, sweep: str | None = None) -> Path:
    """Return the folder to read results from; for a URI, its small files are brought here first."""
    path, mirror = opened(results)
    if mirror is not None:
        mirror.pull(sweep)
    return path


@contextmanager
def job(uri: str, sweep: str, id_: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Work on a sweep's trial on any machine: yields its folder there, and what `carried` does."""
    mirror = Mirror(uri)
    trial_dir = mirror.path / sweep / "trials" / id_
    with carried(mirror, trial_dir) as push:
        yield trial_dir, push


@contextmanager
def carried(mirror: Mirror, trial_dir: Path) -> Iterator[Callable[[], None]]:
    """Work on a trial whose results lie on a store.

    Before: the store's state is brought here, to go on from. The callable yielded is called now
    and then, and sends what has changed when it is time; a store out of reach is tried again later.
    At the end all is sent; RemoteError when that cannot be done, and everything is still here.
    """
    mirror.pull_trial(trial_dir, whole=True)
    pushed_at, took = time.monotonic(), 0.0

    def push() -> None:
        nonlocal pushed_at, took
        began = time.monotonic()
        if (began - pushed_at) * PUSHING_SHARE < took:
            return
        with mirror.once():  # at the trial's end the store has to answer
            mirror.push_trial(trial_dir)
        pushed_at = time.monotonic()
        took = pushed_at - began

    try:
        yield push
    finally:
        try:
            mirror.push_trial(trial_dir)
        except RemoteError as error:
            folder = TrialFolder(trial_dir)
            folder.state = folder.read_status()
            folder.write_failure(error)
            raise


def readable_results(results: Path | str, sweep: str | None = None) -> Path:
    """Return the folder to read results from; a URI's small files are brought to its mirror first.

    `sweep`: of this sweep alone. UserError when the store cannot be read.
    """
    if not is_uri(results):
        return Path(results).expanduser()
    pass  # half a second of import that folders do not need

    return local(str(results), sweep)
