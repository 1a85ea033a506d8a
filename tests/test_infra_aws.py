"""The launcher's file for AWS by Ray's own validation; its policies by cfn-lint and by the requests of the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name

from tests.deployment import INFRA, ROOT, SECRET, launcher, values

POLICIES = {path.stem: json.loads(path.read_text()) for path in sorted((INFRA / "aws").glob("*-policy.json"))}
BUCKET = "arn:aws:s3:::landsweep-results"
#: Requests whose permission has another name (S3 user guide, "Required permissions for Amazon S3 API operations").
ACTIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjectsV2": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListParts": "ListMultipartUploadParts",
    "DeleteObjects": "DeleteObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}


def _lint(tmp_path: Path, bucket: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """cfn-lint on a template that holds the policies: their grammar, and that each action exists."""
    managed = {"bucket": bucket, "head": POLICIES["head-policy"]}
    resources: dict[str, Any] = {
        name: {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
        for name, policy in managed.items()
    }
    trust = {"AssumeRolePolicyDocument": POLICIES["trust-policy"]}
    resources["role"] = {"Type": "AWS::IAM::Role", "Properties": trust}
    path = tmp_path / "template.json"
    path.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}))
    program = str(Path(sys.executable).with_name("cfn-lint"))
    return subprocess.run([program, str(path)], capture_output=True, text=True, check=False)


def test_cfn_lint_finds_nothing(tmp_path: Path) -> None:
    done = _lint(tmp_path, POLICIES["bucket-policy"])
    assert done.returncode == 0, done.stdout
    wrong = json.loads(json.dumps(POLICIES["bucket-policy"]).replace("s3:GetObject", "s3:GetObjekt"))
    assert _lint(tmp_path, wrong).returncode != 0


def _allowed(action: str, resource: str, prefix: str | None = None) -> bool:
    """Whether the bucket's policy allows a request over TLS: some statement does, none that applies denies."""
    verdicts = []
    for statement in POLICIES["bucket-policy"]["Statement"]:
        actions, resources = (
            [value] if isinstance(value, str) else value for value in (statement["Action"], statement["Resource"])
        )
        condition = statement.get("Condition", {})
        asked = condition.get("StringLike", {}).get("s3:prefix")
        applies = (
            any(fnmatchcase(f"s3:{action}", pattern) for pattern in actions)
            and any(fnmatchcase(resource, pattern) for pattern in resources)
            and (asked is None or (prefix is not None and any(fnmatchcase(prefix, pattern) for pattern in asked)))
            and "Bool" not in condition
        )
        verdicts += [statement["Effect"]] if applies else []
    return "Allow" in verdicts and "Deny" not in verdicts


def test_every_request_of_the_code_is_allowed_below_the_prefix() -> None:
    operations = boto3.client("s3", region_name="us-east-1").meta.service_model.operation_names
    source = "\n".join(path.read_text() for path in sorted((ROOT / "cluster").rglob("*.py")))
    used = [one for one in operations if re.search(rf"\b{xform_name(one)}\b", source)]
    assert {"GetObject", "ListObjectsV2"} <= set(used)
    for operation in used:
        action = ACTIONS.get(operation, operation)
        resource = BUCKET if "Bucket" in action else f"{BUCKET}/sweeps/digits/log/1.json"
        assert _allowed(action, resource, prefix="sweeps/digits/"), operation


@pytest.mark.parametrize(
    ("action", "resource", "prefix"),
    [
        ("GetObject", f"{BUCKET}/other/secret", None),
        ("PutObject", f"{BUCKET}/sweeps", None),
        ("DeleteObject", f"{BUCKET}-too/sweeps/a", None),
        ("ListBucket", BUCKET, ""),
        ("ListBucket", BUCKET, "other/"),
        ("ListBucket", BUCKET, "sweeps-of-others/"),
        ("DeleteBucket", BUCKET, None),
        ("PutBucketPolicy", BUCKET, None),
        ("PutObjectAcl", f"{BUCKET}/sweeps/a", None),
        ("ListAllMyBuckets", "*", None),
    ],
)
def test_nothing_else_is_allowed(action: str, resource: str, prefix: str | None) -> None:
    assert not _allowed(action, resource, prefix)


def test_the_head_launches_and_ends_its_own_workers_only() -> None:
    """Whatever changes anything names a tag of this cluster, or is bound to a launch that does."""
    for statement in POLICIES["head-policy"]["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert not [action for action in actions if "*" in action]
        if statement["Sid"] not in ("SeeInstances", "LaunchThemFrom"):  # reading; parts of a launch
            assert "StringEquals" in statement["Condition"], statement["Sid"]
    (role,) = [one for one in POLICIES["head-policy"]["Statement"] if one["Action"] == "iam:PassRole"]
    workers = [node["node_config"] for name, node in launcher()["available_node_types"].items() if name != "head"]
    assert {role["Resource"].rpartition("/")[2]} == {node["IamInstanceProfile"]["Name"] for node in workers}


def test_ray_accepts_the_launchers_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(launcher())
    validate_config(config)
    assert config["available_node_types"]["gpu_spot"]["resources"] == {"CPU": 4, "GPU": 1}
    with pytest.raises(Exception, match="clustername"):
        validate_config({**config, "clustername": "x"})


def test_workers_are_spot_and_every_node_takes_its_rights_from_a_profile() -> None:
    nodes = launcher()["available_node_types"]
    spot = {name for name, node in nodes.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == set(nodes) - {"head"}
    for node in (one["node_config"] for one in nodes.values()):
        assert node["IamInstanceProfile"]["Name"].startswith("landsweep-")
        assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        assert node["SecurityGroupIds"] and "KeyName" not in node
        assert all(
            disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in node["BlockDeviceMappings"]
        )


def test_no_key_is_in_the_file_and_the_dashboard_is_not_public() -> None:
    config = launcher()
    named = [(path, value) for path, value in values(config) if SECRET.search(path) and "HttpTokens" not in path]
    assert named == [("file_mounts.~/.ray/auth_token", "~/.ray/auth_token")]
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", (INFRA / "aws/cluster.yaml").read_text())
