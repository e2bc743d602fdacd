"""Starts or joins a Ray session, and removes its processes and files at the end."""

import logging
import os
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.cluster import ray_patches
from harness.cluster.resources import available_cpus, available_gpus
from harness.cluster.session_watch import watched
from harness.core import processes
from harness.core.errors import UserError, signals_held_back
from harness.core.paths import CACHE_VARIABLE, INSTALLED, ROOT

# The object store carries control messages only: demonstrations are memory-mapped files.
OBJECT_STORE_BYTES = 100 * 2**20
STARTS = 3  # attempts: on a busy machine Ray may exceed its limit of half a minute
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # Workers start in parallel; our searcher never requests more trials than fit.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Waiting threads that spin slow down the other trials on a machine.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
_FOLDER, _RAYS = "ibc-harness-ray-", "r"  # short: the path of a socket has at most 107 bytes


@contextmanager
def ray_session(
    *,
    cpus: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    preload: str | None = None,
) -> Iterator[Path | None]:
    """Start a local Ray or join the cluster at `address`; stop or leave it at the end of the body.

    A local Ray has `cpus` CPUs and `gpus` GPUs (those of the machine by default), listens on the
    loopback interface only, requires a token, has no dashboard and sends no statistics. Its folder
    is yielded and removed at the end, or by a later session if this process was killed. It belongs
    to this user alone, as Ray makes its own folders writable for everybody. If one of the session's
    processes dies or hangs, this process ends with one line and exit code 1. Workers of a cluster
    run the code of this process. UserError when there is no cluster at the address.
    preload: a module that the idle workers of a local Ray, one per CPU, import in advance.
    """
    os.environ.update({k: v for k, v in _ENVIRONMENT.items() if k not in os.environ})
    if address is None:
        _lead_workers_here()
        os.environ.update(ray_patches.LOOPBACK_ONLY)
        if not any(name in os.environ for name in _TOKEN):
            if "ray" in sys.modules:
                raise RuntimeError("a Ray session must start before the first import of ray")
            # Other users of this machine can connect to the loopback interface too. Ray reads the
            # variables once, so they stay until this process ends; no file contains them.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    folder = None
    if address is None:
        _remove_leftovers()
        folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp")
    try:
        with warnings.catch_warnings(), signals_held_back():
            warnings.simplefilter("ignore")  # Ray's deprecations do not concern the user
            ray_patches.silence_worker_errors()
            ray_patches.keep_sigterm_handler()
            if folder is None:
                _join(str(address))
            else:
                with ray_patches.preloading(preload, available_cpus()):
                    _start(cpus, gpus, folder)
            ray_patches.restore_sigterm_handler()
        if folder is None:
            yield None
        else:
            with watched(ray_patches.started_processes(), lambda: _remove(folder)):
                yield Path(folder)
    finally:
        import ray

        ray.shutdown()
        if folder is not None:
            _remove(folder)


def _remove(folder: str) -> None:
    """Kill the processes of a session, also those that Ray did not record, and remove its folder.

    Such a process has an argument that names the folder, or holds a file in it open (agents change
    the first, all of them write logs).
    """
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
            words += [str(file.readlink()) for file in (path / "fd").iterdir()]
        except OSError:
            continue  # ended, or another user's
        if any(folder in word for word in words) and path.name != str(os.getpid()):
            processes.kill(int(path.name))
    shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove the folders of this user's sessions whose process was killed."""
    for path in Path("/tmp").glob(f"{_FOLDER}*"):
        pid = path.name.removeprefix(_FOLDER).partition("-")[0]
        with suppress(FileNotFoundError):  # another session removes it too
            if path.lstat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                _remove(str(path))


def _lead_workers_here() -> None:
    """Let the workers of a local Ray import the code of this process.

    They import the project before Ray tells them this process's paths. So of two checkouts with one
    environment they would take the one that is installed, whichever was started.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not INSTALLED and str(ROOT) not in given:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*given, str(ROOT)]))


def _join(address: str) -> None:
    import ray

    # Newer versions of Ray have a class for a wrong token.
    refused = getattr(ray.exceptions, "AuthenticationError", ConnectionError)
    try:
        ray.init(address=address, runtime_env=_own_code(), **_QUIET)
    except (ConnectionError, ValueError, RuntimeError, refused) as error:
        rule = (
            "--address must name a running Ray cluster (whose token, if it has one, is given by "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"
        )
        raise UserError(f"{rule}, given {address}: {error}") from error


def _start(cpus: int | None, gpus: float | None, folder: str) -> None:
    import ray

    for left in reversed(range(STARTS)):
        try:
            with ray_patches.without_unused_processes():
                ray_patches.init(
                    f"{folder}/{_RAYS}",
                    # Otherwise Ray would join a cluster named by RAY_ADDRESS or a file in /tmp.
                    address="local",
                    num_cpus=available_cpus() if cpus is None else cpus,
                    num_gpus=available_gpus() if gpus is None else gpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **_QUIET,
                )
            return
        except Exception as error:  # Ray has no class for a slow start
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            _remove(f"{folder}/{_RAYS}")
            if not left:
                rule = "Ray must start within its time limit (a machine that is less busy helps)"
                raise UserError(f"{rule}, it failed {STARTS} times: {error}") from error


def _own_code() -> dict[str, Any]:
    """Return the runtime environment that sends this project's code to a cluster's workers."""
    environment: dict[str, Any] = {
        "py_modules": [str(ROOT / package) for package in ("envs", "ibc", "harness")],
        "excludes": ["__pycache__", "*.pyc"],
    }
    if CACHE_VARIABLE in os.environ:
        environment["env_vars"] = {CACHE_VARIABLE: os.environ[CACHE_VARIABLE]}
    return environment
