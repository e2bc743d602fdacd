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
from contextlib import contextmanager, suppress
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
def held(objects: Objects, sweep: str) -> Iterator[None]:
    """Hold a sweep's lock on the store; UserError if another driver does, RemoteError on failure.

    Ages are differences between times of the store's clock. The lock of a process of this machine
    that has ended is taken over at once.
    """
    key, token, pid = f"{sweep}/{NAME}", secrets.token_hex(8), os.getpid()
    holder = f"process {pid} on {platform.node()}"
    content = json.dumps({"token": token, "holder": holder, **_place(), "pid": pid}).encode()
    over, lost = threading.Event(), list[UserError]()

    def check_mine() -> None:
        now = _read(objects, key)
        if now is None or now.get("token") != token:
            whom = "another process" if now is None else _shown(now)
            raise UserError(f"a sweep runs once at a time, {objects.uri}/{key} was taken by {whom}")

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                check_mine()
                objects.write(key, content)
            except RemoteError:
                continue  # temporary; trials report what they cannot copy
            except UserError as error:
                lost.append(error)
                # Ends the driver as a signal does: workers stop, files are whole.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    probe = f"{sweep}/.probe-{token}"
    objects.write(probe, b"")
    now = objects.written(probe)
    objects.delete(probe)
    before = _read(objects, key)
    if before is not None and not _is_dead(before):
        written = objects.written(key)
        age = 0.0 if now is None or written is None else now - written
        if age < STALE_SECONDS:
            raise UserError(
                f"a sweep runs once at a time, {objects.uri}/{sweep} is being run by "
                f"{_shown(before)}, last heartbeat {max(0, round(age))} s ago; it may be taken "
                f"over {STALE_SECONDS:g} s after the last heartbeat"
            )
    objects.write(key, content)
    time.sleep(SETTLE_SECONDS)
    check_mine()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost:
            raise lost[0] from None
        raise
    finally:
        over.set()
        thread.join(timeout=5)
        with suppress(RemoteError):  # it becomes stale
            if (_read(objects, key) or {}).get("token") == token:
                objects.delete(key)


def _read(objects: Objects, key: str) -> dict[str, Any] | None:
    """Return the lock, {} for one that cannot be read, None without one."""
    try:
        content = json.loads(objects.read(key, 2**16))
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _shown(lock: dict[str, Any]) -> str:
    return one_line(lock.get("holder", "another process"))[:100]


def _place() -> dict[str, str]:
    """Return what identifies this boot of this machine, and the pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return {}
    return {"machine": platform.node(), "boot": boot, "room": pids}


def _is_dead(lock: dict[str, Any]) -> bool:
    place, pid = _place(), lock.get("pid")
    same = bool(place) and all(lock.get(name) == value for name, value in place.items())
    return same and isinstance(pid, int) and pid > 0 and not Path(f"/proc/{pid}").exists()
