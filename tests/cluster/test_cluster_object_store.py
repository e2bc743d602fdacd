"""The commands with results on an S3 server: killed, resumed from nothing, evaluated elsewhere."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from harness.core import errors
from harness.remote.mirror import Mirror
from harness.storage import tables
from tests.commands import LONG, wait_for, without_clocks

ROOT = Path(__file__).resolve().parents[2]


def rows(folder: Path, kind: str) -> list[dict]:
    return without_clocks(tables.read(folder, kind))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_killed_sweep_goes_on_from_an_empty_mirror(commands, undisturbed, bucket, tmp_path):
    uri = bucket()
    commands.space.write_text(LONG)
    process = commands.start(*commands.sweep("--name", "killed", results=uri))
    reader = Mirror(uri, path=tmp_path / "reader")

    def has_come_far() -> bool:
        statuses = [key for key in reader.objects.list() if key.endswith("status.json")]
        return any(json.loads(reader.objects.read(key)).get("step", 0) >= 2 for key in statuses)

    wait_for(has_come_far, 150)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    # Another machine: nothing is known but the store. Workers of the killed one may still write
    # to their mirror for a moment.
    commands.environment["IBC_HARNESS_CACHE"] = str(tmp_path / "second")
    code, out, err = commands.run(*commands.sweep("--name", "killed", results=uri))
    assert (code, err) == (0, ""), out + err
    assert "2/2 trials finished" in out
    reader.pull("killed")
    for kind in ("trials", "episodes"):
        assert rows(reader.path / "killed", kind) == rows(undisturbed, kind)
    assert max(tables.read(reader.path / "killed", "trials")["attempts"].to_pylist()) == 2
    objects = reader.objects.list("killed")
    assert {"killed/tables/trials.parquet", "killed/answers.md"} <= objects.keys()
    assert "killed/.lock.json" not in objects

    # And a third machine evaluates the best of it; its rows are in the store for all.
    commands.environment["IBC_HARNESS_CACHE"] = str(tmp_path / "third")
    words = (ROOT / "run_eval.py", "--ckpt", "best", "--seeds", "30", "--workers", "1")
    code, out, err = commands.run(*words, "--results", uri)
    assert code == 0, out + err
    reader.pull()
    kept = [r for r in rows(reader.path / "killed", "episodes") if r["env_seed"] >= 300_000]
    assert [row["env_seed"] for row in kept] == list(range(300_000, 300_030))
    assert not [key for key in reader.objects.list("killed") if "-part" in key]


@pytest.mark.slow
def test_a_store_that_cannot_be_used_is_one_line_and_2(commands, bucket, s3, client, capsys):
    """Before anything is trained; the server is asked to look at credentials for a part of it."""
    query = f"?endpoint_override={s3}&scheme=http"

    def refused(uri: str, message: str) -> None:
        code, out, err = commands.run(*commands.sweep(results=uri))
        assert code == 2, out + err
        assert out == ""
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1

    refused("s3://no-bucket-there/x" + query, "there is no such bucket")
    refused("s3://b/x?endpoint_override=127.0.0.1:9&scheme=http", "it cannot be reached")
    name = bucket().partition("?")[0]
    import boto3

    iam = boto3.client("iam", endpoint_url=f"http://{s3}")
    iam.create_user(UserName="reader")
    keys = iam.create_access_key(UserName="reader")["AccessKey"]
    reading = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [reading]}
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=json.dumps(policy))

    def look_at_credentials(after: str) -> None:
        request = urllib.request.Request(
            f"http://{s3}/moto-api/reset-auth",
            after.encode(),
            {"Content-Type": "application/octet-stream"},
        )
        urllib.request.urlopen(request).close()

    look_at_credentials("0")
    try:
        refused(name + query, "the store refuses it; look at the credentials")
        code, _, err = commands.run(
            *commands.sweep(results=name + query),
            AWS_ACCESS_KEY_ID=keys["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=keys["SecretAccessKey"],
        )
        assert (code, err.count("\n")) == (2, 1)
        assert "cannot be written: the store refuses it" in err
    finally:
        look_at_credentials("inf")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nonsense://x/y", "takes a folder or the URI of a store"),
        ("s3://key:secret@bucket/x", "keys are given by the environment"),
        ("s3://bucket/x?nonsense=1", "Unexpected query parameter"),
    ],
)
def test_a_uri_that_is_none_is_refused(uri, message):
    with pytest.raises(errors.UserError, match=message) as refused:
        Mirror(uri)
    assert "secret" not in str(refused.value)
