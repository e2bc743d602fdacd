"""A sweep's lock on an object store: one object with a holder and a heartbeat.

The common interface to object stores has no compare-and-swap: two drivers that start at the same
time both write, wait, and read which name remained. A driver without a heartbeat for longer than
STALE_SECONDS (a suspended laptop) loses its lock, and ends when it continues.
"""

import json
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.text import one_line
from harness.remote.object_store import Objects, RemoteError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
SETTLE_SECONDS = 1.0
NAME = ".lock.json"


@contextmanager
def held(
    objects: Objects,
    sweep: str,
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    stale: float = STALE_SECONDS,
    settle: float = SETTLE_SECONDS,
) -> Iterator[None]:
    """Hold a sweep's lock on the store; UserError if another driver does, RemoteError on failure.

    Ages are differences between times of the store's clock. The lock of a process of this machine
    that has ended is taken over at once.
    """
    key, token = f"{sweep}/{NAME}", secrets.token_hex(8)
    mine = {"token": token, "holder": _holder(), **_place(), "pid": os.getpid()}
    content = json.dumps(mine).encode()
    probe = f"{sweep}/.probe-{token}"
    objects.write(probe, b"")
    now = objects.written(probe)
    objects.delete(probe)
    before = _read(objects, key)
    if before is not None and not _is_dead(before):
        written = objects.written(key)
        age = 0.0 if now is None or written is None else now - written
        if age < stale:
            raise UserError(
                f"a sweep runs once at a time, {objects.uri}/{sweep} is being run by "
                f"{_shown(before)}, last heartbeat {max(0, round(age))} s ago; it may be taken "
                f"over {stale:g} s after the last heartbeat"
            )
    objects.write(key, content)
    time.sleep(settle)
    _check_mine(objects, key, token)
    over, lost = threading.Event(), list[UserError]()
    beat = threading.Thread(
        target=_beat,
        args=(objects, key, token, content, over, heartbeat, lost),
        daemon=True,
    )
    beat.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost:
            raise lost[0] from None
        raise
    finally:
        over.set()
        beat.join(timeout=5)
        _release(objects, key, token)


def _beat(
    objects: Objects,
    key: str,
    token: str,
    content: bytes,
    over: threading.Event,
    heartbeat: float,
    lost: list[UserError],
) -> None:
    while not over.wait(heartbeat):
        try:
            _check_mine(objects, key, token)
            objects.write(key, content)
        except RemoteError:
            continue  # temporary; trials report what they cannot copy
        except UserError as error:
            lost.append(error)
            # Ends the driver as a signal does: workers stop, files are whole.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            return


def _release(objects: Objects, key: str, token: str) -> None:
    try:
        if (_read(objects, key) or {}).get("token") == token:
            objects.delete(key)
    except RemoteError:
        return  # it becomes stale


def _check_mine(objects: Objects, key: str, token: str) -> None:
    now = _read(objects, key)
    if now is None or now.get("token") != token:
        whom = "another process" if now is None else _shown(now)
        raise UserError(f"a sweep runs once at a time, {objects.uri}/{key} was taken by {whom}")


def _read(objects: Objects, key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(objects.read(key, 2**16))
    except FileNotFoundError:
        return None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        return {}
    return content if isinstance(content, dict) else {}


def _shown(lock: dict[str, Any]) -> str:
    return one_line(lock.get("holder", "another process"))[:100]


def _holder() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _place() -> dict[str, str]:
    """Return what identifies this boot of this machine, and the pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return {}
    return {"machine": platform.node(), "boot": boot, "room": pids}


def _is_dead(lock: dict[str, Any]) -> bool:
    place = _place()
    same = bool(place) and all(lock.get(name) == value for name, value in place.items())
    pid = lock.get("pid")
    return same and isinstance(pid, int) and pid > 0 and not Path(f"/proc/{pid}").exists()
