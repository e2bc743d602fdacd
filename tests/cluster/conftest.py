"""An S3 server of our own on the loopback, and commands that know it."""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.commands import Commands

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


@pytest.fixture
def commands(commands: Commands) -> Commands:
    """The project's commands, with the server's credentials and with the token of this process.

    The clusters of these tests are started by this process, whose Ray has a token.
    """
    ray = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    commands.environment |= CREDENTIALS | ray
    return commands
