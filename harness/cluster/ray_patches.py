"""Every private name of Ray that this project uses, each with the public alternative it lacks.

Ray versions may rename them, so each use has no effect where its name does not exist.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# Ray binds to the loopback interface where it assumes that clusters are not supported, which it
# decides when it is imported. No public setting does so on Linux: `ray.init` binds to all
# interfaces, and `_node_ip_address` is private too.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

# The modules that idle workers import in advance. `ray.init` has no argument for them, and
# `worker_process_setup_hook` runs only when a worker gets its first task.
_PRELOAD = "RAY_preload_python_modules"
# How many idle workers are kept. By default as many as there are unreserved CPUs, which ends the
# workers whose trials have just reserved theirs. No public setting.
_KEEP_IDLE = "RAY_num_workers_soft_limit"

# Methods of ray._private.node.Node that start processes which nothing here uses: the autoscaler's
# monitor, the log monitor and the dashboard's server. Each is a Python process that a local session
# waits for; `include_dashboard=False` and `log_to_driver=False` start them all the same.
_UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")

# The function of ray._private.worker that prints long messages about failed workers to our output,
# where a trial's own line reports the failure. `log_to_driver` and `logging_level` do not stop it.
_ERROR_PRINTER = "listen_error_messages"

# The function of ray._private.utils by which `ray.init` and its nodes replace our handler of
# SIGTERM with ones that exit at once, with other codes. No argument of `ray.init` leaves it alone.
_SIGTERM_SETTER = "set_sigterm_handler"

# Where a started session keeps its node, which knows the processes that it has started. The public
# state of a cluster comes from the GCS, and cannot tell that this hangs.
_NODE = "_global_node"

# The argument of `ray.init` for the session's folder. The public `ray start --temp-dir` starts no
# local session, and all processes would inherit RAY_TMPDIR.
_FOLDER_ARGUMENT = "_temp_dir"

# The environment that ray.tune.execution.class_cache requests for each trial's worker. It disables
# PyTorch Lightning's forking, and makes Ray replace the workers that it has started already. No
# setting of Tune removes it.
_TRIAL_ENVIRONMENT = "DEFAULT_ENV_VARS"


@contextmanager
def preloading(module: str | None, workers: int) -> Iterator[None]:
    """Make a Ray started in the body keep this many idle workers that have imported a module."""
    settings = {} if module is None else {_PRELOAD: module, _KEEP_IDLE: str(workers)}
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def without_unused_processes() -> Iterator[None]:
    """Make a Ray started in the body leave out the processes that nothing here uses."""
    node = getattr(_module("ray._private.node"), "Node", None)
    kept = {name: getattr(node, name) for name in _UNUSED if hasattr(node, name)}
    try:
        for name in kept:
            setattr(node, name, lambda *_, **__: None)
        yield
    finally:
        for name, method in kept.items():
            setattr(node, name, method)


def silence_worker_errors() -> None:
    """Keep Ray's messages about failed workers off our output."""
    worker = _module("ray._private.worker")
    if hasattr(worker, _ERROR_PRINTER):
        setattr(worker, _ERROR_PRINTER, lambda *_, **__: None)


def keep_sigterm_handler() -> None:
    """Keep Ray from replacing this process's handler of SIGTERM."""
    utils = _module("ray._private.utils")
    if hasattr(utils, _SIGTERM_SETTER):
        setattr(utils, _SIGTERM_SETTER, lambda _: None)


def restore_sigterm_handler() -> None:
    """Put this process's handler of SIGTERM back in place, after `ray.init`.

    Ray's part in C++ has put one below Python's that prints its stack. No setting leaves it out.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def started_processes() -> dict[int, str]:
    """Return the pids of the processes that this local session consists of, with their names."""
    node = getattr(_module("ray._private.worker"), _NODE, None)
    groups: dict[str, list[Any]] = getattr(node, "all_processes", {})
    return {each.process.pid: name for name, group in groups.items() for each in group}


def init(folder: str, **arguments: Any) -> None:
    """Call `ray.init` with the session's files in this folder, if this Ray can do so."""
    ray = import_module("ray")
    try:
        ray.init(**arguments, **{_FOLDER_ARGUMENT: folder})
    except (TypeError, RuntimeError) as error:
        if _FOLDER_ARGUMENT not in str(error):
            raise
        ray.init(**arguments)


def reuse_started_workers() -> None:
    """Let Tune run trials in the workers that Ray has started already."""
    cache = _module("ray.tune.execution.class_cache")
    getattr(cache, _TRIAL_ENVIRONMENT, {}).pop("PL_DISABLE_FORK", None)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None
