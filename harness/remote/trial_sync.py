"""Results under a URI: opens their local mirror, and copies a trial between it and the store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.paths import is_uri
from harness.core.throttle import Throttle
from harness.remote.mirror import Mirror
from harness.remote.object_store import RemoteError
from harness.storage.trial_folder import TrialFolder

# The share of a trial's time for copying to the store, as for saving checkpoints.
PUSHING_SHARE = 0.02


def opened(results: Path | str) -> tuple[Path, Mirror | None]:
    """Return the local folder of results, and its mirror if they are on an object store."""
    if not is_uri(results):
        return Path(results).expanduser(), None
    mirror = Mirror(str(results))
    return mirror.path, mirror


def readable_results(results: Path | str, sweep: str | None = None) -> Path:
    """Return the local folder of results, into which small files of a store are copied first.

    sweep: of this sweep only. UserError when the store cannot be read.
    """
    path, mirror = opened(results)
    if mirror is not None:
        mirror.pull(sweep)
    return path


@contextmanager
def job(uri: str, sweep: str, id_: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Run a trial of a sweep on any machine: yields its local folder, and as `carried` does."""
    mirror = Mirror(uri)
    trial_dir = mirror.path / sweep / "trials" / id_
    with carried(mirror, trial_dir) as push:
        yield trial_dir, push


@contextmanager
def carried(mirror: Mirror, trial_dir: Path) -> Iterator[Callable[[], None]]:
    """Run a trial whose results lie on a store.

    First the trial is copied from the store, to continue from there. The yielded callable copies
    changes to the store, at most for a share of the time; a store that cannot be reached is tried
    again later. At the end everything is copied; RemoteError when that fails, and the local files
    stay.
    """
    mirror.pull_trial(trial_dir, whole=True)
    pushing = Throttle()

    def push() -> None:
        if pushing.due(PUSHING_SHARE):
            with pushing.timed(), mirror.once():
                mirror.push_trial(trial_dir)

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
