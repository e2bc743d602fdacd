"""An S3 server of our own on the loopback, and the two doors with made-up demonstrations."""

import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SPACE = (ROOT / "tests" / "tiny.yaml").read_text()

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address HOST:PORT of a running server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def client(s3: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of another maker, to look at what lies in the store."""
    import boto3

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3", endpoint_url=f"http://{s3}")


@pytest.fixture
def bucket(s3: str, client: Any) -> Callable[..., str]:
    """Makes a new bucket and returns the URI of a prefix in it."""

    def make(prefix: str = "results") -> str:
        name = f"bucket-{secrets.token_hex(4)}"
        client.create_bucket(Bucket=name)
        return f"s3://{name}/{prefix}?endpoint_override={s3}&scheme=http"

    return make


class Doors:
    """run_sweep.py and run_eval.py as a user starts them, on demonstrations of 60 rows."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.space = folder / "tiny.yaml"
        self.space.write_text(SPACE)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: object, **environment: str) -> "subprocess.Popen[str]":
        """Start a command of the project: `run_eval.py ...` or `-m harness.results ...`."""
        command = [sys.executable, *map(str, words)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **CREDENTIALS,
                "IBC_HARNESS_CACHE": str(self.cache),
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            cwd=self.folder,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: object, **environment: str) -> tuple[int, str, str]:
        """Run a command and return its exit code and what it printed."""
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    def sweep(self, results: object, *options: object) -> tuple[object, ...]:
        """The words of a sweep's command."""
        given = (self.space, "--data", self.folder / "demos.zarr", "--results", results)
        return (ROOT / "run_sweep.py", *given, *options)


@pytest.fixture
def doors(tmp_path: Path, write_demos: Callable[..., Any]) -> Iterator[Doors]:
    """The doors, with an empty cache; what a failed test leaves running is killed."""
    write_demos(tmp_path / "demos.zarr", lengths=(20, 15, 25))
    made = Doors(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Wait until a condition holds: (condition, seconds)."""

    def wait(condition: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "waited too long"
            time.sleep(0.05)

    return wait
