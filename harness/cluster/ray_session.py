"""A quiet Ray that leaves nothing behind."""

import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cluster.resources import available_cpus, available_gpus
from harness.core import processes
from harness.core.errors import UserError
from harness.core.paths import CACHE_VARIABLE, ROOT

# Ray's object store carries our control messages only: demonstrations are memory-mapped files.
OBJECT_STORE_BYTES = 100 * 2**20
STARTS = 3  # Ray gives itself half a minute, which a busy machine may not have
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # Workers start beside each other; our searcher never asks for more than there is room for.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Threads that spin while they wait slow each other down where trials share a machine.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}


# Ray takes the loopback for its own address where it thinks that clusters are not supported; it
# looks when it is imported, which is why it is imported in functions here.
_ONLY_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


# Ray reads these when it starts its daemons: what workers import, and how many of those that have
# nothing to do are kept. By itself it keeps as many as there are CPUs that nobody has reserved, and
# so ends the workers whose trials have just reserved theirs.
_PRELOAD, _KEEP = "RAY_preload_python_modules", "RAY_num_workers_soft_limit"


# What starts those of Ray's processes that nothing here asks: they would add machines, bring the
# workers' output to the terminal, and serve the dashboard. Each is a Python that a local session
# would wait for, and `ray.init` starts them whatever it is given.
_UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
_FOLDER = "ibc-harness-ray-"


@contextmanager
def ray_session(
    *,
    cpus: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    running: str | None = None,
) -> Iterator[Path | None]:
    """Start a local Ray, or join the cluster at `address`, and leave it whatever happens.

    A local Ray has `cpus` CPUs and `gpus` GPUs (those of the machine by default), listens on the
    loopback alone and to nobody without its token, has no dashboard, sends no statistics. Its
    folder is yielded and removed at the end, or by a later session where this one was killed.
    A cluster's workers run the code of this process. UserError when there is none at the address.
    running: a module that a local Ray's workers, one a CPU, import while they wait for work.
    """
    os.environ.update({k: v for k, v in _ENVIRONMENT.items() if k not in os.environ})
    if address is None:
        os.environ.update(_ONLY_LOOPBACK)
        if not any(name in os.environ for name in _TOKEN):
            # Other users of this machine reach the loopback too. Ray reads the variables once, so
            # they stay for the life of the process; no file has them.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    in_main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    folder = None
    if address is None:
        _remove_leftovers()
        # Short: a socket's path has room for 107 bytes.
        folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own deprecations are not the user's business
            with _preloading(running if address is None else None):
                _start(cpus, gpus, address, folder)
        if in_main:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in place
        yield None if folder is None else Path(folder)
    finally:
        import ray

        ray.shutdown()
        if in_main:
            signal.signal(signal.SIGTERM, on_sigterm)
        if folder is not None:
            _kill_those_of(folder)  # an interrupted start leaves some that Ray has not noted yet
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _preloading(module: str | None) -> Iterator[None]:
    """Let a Ray that is started in the body keep one worker a CPU, which has imported a module."""
    settings = {} if module is None else {_PRELOAD: module, _KEEP: str(available_cpus())}
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def _without_unused() -> Iterator[None]:
    """Leave out those processes of a Ray that is started in the body that nothing here uses."""
    try:
        from ray._private.node import Node
    except ImportError:  # another Ray has it elsewhere, and starts them
        yield
        return
    kept = {name: getattr(Node, name) for name in _UNUSED if hasattr(Node, name)}
    try:
        for name in kept:
            setattr(Node, name, lambda *_, **__: None)
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def _kill_those_of(folder: str) -> None:
    """Kill the processes that a session in this folder consists of, but for this one."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # gone, or another user's
        if any(folder in word for word in command[1:]):
            processes.kill(int(path.name))


def _remove_leftovers() -> None:
    """Remove the folders of sessions whose driver was killed."""
    for path in Path("/tmp").glob(f"{_FOLDER}*"):
        pid = path.name.removeprefix(_FOLDER).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _keep_quiet() -> None:
    """Keep Ray's paragraphs on workers that died off our output: a trial's own line says it."""
    from ray._private import worker  # Ray prints them whatever its settings say

    if hasattr(worker, "listen_error_messages"):
        worker.listen_error_messages = lambda *_: None


def _start(cpus: int | None, gpus: float | None, address: str | None, folder: str | None) -> None:
    import ray

    _keep_quiet()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        refused = getattr(ray.exceptions, "AuthenticationError", ConnectionError)  # newer Rays'
        try:
            ray.init(address=address, runtime_env=_own_code(), **quiet)
        except (ConnectionError, ValueError, RuntimeError, refused) as error:
            rule = (
                "--address must name a running Ray cluster (whose token, if it has one, is given "
                "by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"
            )
            raise UserError(f"{rule}, given {address}: {error}") from error
        return
    assert folder is not None, "a local Ray has a folder"
    for left in reversed(range(STARTS)):
        try:
            with _without_unused():
                ray.init(
                    # Without "local" Ray would join whatever cluster RAY_ADDRESS or a file in /tmp
                    # names.
                    address="local",
                    num_cpus=available_cpus() if cpus is None else cpus,
                    num_gpus=available_gpus() if gpus is None else gpus,  # type: ignore[arg-type]
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **quiet,
                )
            return
        except Exception as error:  # Ray has no class for it
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            _kill_those_of(folder)
            if not left:
                rule = f"this machine must have the time to start Ray, which failed {STARTS} times"
                raise UserError(f"{rule}: {error}") from error


def _own_code() -> dict[str, Any]:
    """Return the environment that gives a cluster's workers the code of this process, no more."""
    environment: dict[str, Any] = {
        "py_modules": [str(ROOT / wing) for wing in ("envs", "ibc", "harness")],
        "excludes": ["__pycache__", "*.pyc"],
    }
    if CACHE_VARIABLE in os.environ:
        environment["env_vars"] = {CACHE_VARIABLE: os.environ[CACHE_VARIABLE]}
    return environment
