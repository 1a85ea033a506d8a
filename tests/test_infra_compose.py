"""The service on one machine: its Compose file against the schema, its secrets, and its S3 server run for real."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import BotoCoreError, ClientError

from tests.deployment import COMPOSE, INFRA, SECRET, compose, values
from tests.processes import free_ports
from tests.s3_server import binary

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
SCRIPT = INFRA / "compose/make_secrets.py"
#: Read by the entry point of the image postgres (docker-library/postgres, docker-entrypoint.sh).
POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True, capture_output=True)
    return folder


def test_the_file_follows_the_specification(tmp_path: Path) -> None:
    assert _schema(COMPOSE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchecks:"))
    assert _schema(wrong) != 0


def _schema(path: Path) -> int:
    program = str(Path(sys.executable).with_name("check-jsonschema"))
    options = ["--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run([program, *options], capture_output=True, check=False).returncode


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_have_few_rights_and_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in ("root", "0")
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and not service.get("privileged")
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert "healthcheck" in service or name == "bucket"  # which ends
    assert not [volume for volume in service.get("volumes", []) if volume.startswith((".", "/", "~"))]


def test_ports_are_on_loopback_and_workers_have_no_way_out() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for ports in published.values() for port in ports)
    assert {name for name, ports in published.items() if ports} == {"s3", "mlflow", "ray-head"}
    assert compose()["networks"]["inside"]["internal"] is True
    assert {name for name, service in SERVICES.items() if service["networks"] == ["inside"]} == {
        "bucket",
        "postgres",
        "ray-worker",
    }


def test_secrets_are_files_that_the_script_makes(secrets: Path) -> None:
    declared = compose()["secrets"]
    assert {entry["file"] for entry in declared.values()} == {f"secrets/{path.name}" for path in secrets.iterdir()}
    used = {
        one if isinstance(one, str) else one["source"]
        for service in SERVICES.values()
        for one in service.get("secrets", [])
    }
    assert used == set(declared)


def test_no_secret_stands_in_the_file() -> None:
    """A key or variable that is named like a secret names a file, or a mode."""
    found = [(path, value) for path, value in values(compose()) if SECRET.search(path.rpartition(".")[2])]
    assert found
    for path, value in found:
        assert str(value).startswith(("/run/secrets/", "secrets/")) or path.endswith("MLFLOW_TRACKING_URI"), path


def test_every_variable_is_one_that_somebody_reads() -> None:
    import mlflow.environment_variables as mlflow
    import ray
    from ray._common.usage import usage_constants

    core = (Path(ray.__file__).parent / "_raylet.so").read_bytes()
    aws = {names[1] for names in BOTOCORE_DEFAUT_SESSION_VARIABLES.values() if isinstance(names[1], str)}
    for name in {name for service in SERVICES.values() for name in service.get("environment", {})}:
        known = (
            name in aws | POSTGRES | {"AWS_ENDPOINT_URL", usage_constants.USAGE_STATS_ENABLED_ENV_VAR}
            or (name.startswith("MLFLOW_") and hasattr(mlflow, name))
            or (name.startswith("RAY_AUTH_") and name.removeprefix("RAY_").encode() in core)
        )
        assert known, name


def test_the_folder_of_secrets_is_its_owners_and_made_once(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    again = subprocess.run([sys.executable, str(SCRIPT), str(secrets)], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "already" in again.stderr
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    words = {word for text in before.values() for word in re.findall(r"[0-9a-f]{64}", text)}
    assert len(words) == 6  # the token, two passwords, a session key, two S3 keys: all different


@pytest.fixture(scope="module")
def endpoint(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 server that the Compose file starts, on free ports, keeping its files in a temporary folder."""
    program, data = binary(), tmp_path_factory.mktemp("data")
    assert program is not None
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    ports = dict(zip([*names, "s3.port", "s3.port.grpc"], free_ports(8), strict=True))
    command = [part.replace("/run/secrets", str(secrets)) for part in SERVICES["s3"]["command"]]
    command = [part.replace("-dir=/data", f"-dir={data}") for part in command]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command = [part.replace("0.0.0.0", "127.0.0.1") for part in command]
    with (data / "log").open("wb") as log:
        process = subprocess.Popen([program, "-logtostderr=true", *command], stdout=log, stderr=log, cwd=data)
        try:
            yield f"http://127.0.0.1:{ports['s3.port']}"
        finally:
            process.kill()
            process.wait()


def _client(endpoint: str, credentials: Path) -> Any:
    import boto3

    keys = ConfigParser()
    keys.read(credentials)
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **dict(keys["default"]))


def test_the_bucket_is_made_and_its_user_reaches_nothing_else(endpoint: str, secrets: Path) -> None:
    admin = secrets / "s3_admin_credentials"
    environment = {**os.environ, "AWS_SHARED_CREDENTIALS_FILE": str(admin), "AWS_ENDPOINT_URL": endpoint}
    environment = {name: value for name, value in environment.items() if not name.startswith("AWS_ACCESS")}
    environment["AWS_DEFAULT_REGION"] = "us-east-1"
    program, *arguments = SERVICES["bucket"]["command"]
    assert program == "python"
    deadline = time.monotonic() + 60
    while subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline
    subprocess.run([sys.executable, *arguments], env=environment, check=True)  # a second time does no harm

    _client(endpoint, admin).create_bucket(Bucket="another")
    user = _client(endpoint, secrets / "s3_credentials")
    while not _took(user, deadline):
        pass
    assert user.get_object(Bucket="landsweep", Key="a/b")["Body"].read() == b"content"
    with pytest.raises(ClientError, match="PreconditionFailed"):
        user.put_object(Bucket="landsweep", Key="a/b", Body=b"other", IfNoneMatch="*")
    upload = user.create_multipart_upload(Bucket="landsweep", Key="c")["UploadId"]
    user.abort_multipart_upload(Bucket="landsweep", Key="c", UploadId=upload)
    user.delete_objects(Bucket="landsweep", Delete={"Objects": [{"Key": "a/b"}]})
    assert "Contents" not in user.list_objects_v2(Bucket="landsweep", Prefix="a/")
    for refused in (
        lambda: user.put_object(Bucket="another", Key="a", Body=b""),
        lambda: user.list_objects_v2(Bucket="another"),
        lambda: user.create_bucket(Bucket="third"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()


def _took(user: Any, deadline: float) -> bool:
    """Whether an object could be written; a server that has just started has no volume for it yet."""
    try:
        user.put_object(Bucket="landsweep", Key="a/b", Body=b"content")
    except (BotoCoreError, ClientError):
        assert time.monotonic() < deadline
        return False
    return True
