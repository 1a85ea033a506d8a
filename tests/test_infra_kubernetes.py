"""The cluster on Kubernetes: schemas, Ray's own reading of it, and what pods may do, know and reach."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.deployment import KUBERNETES, SECRET, document, documents, pins, values

VERSIONS = ("1.30", kubernetes_validate.latest_version())
#: Fields of KubeRay's objects that are used here, and may be: its API reference of version 1.7, ray.io/v1.
CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": {"token", "disabled"}, "secretName": str},
    "gcsFaultToleranceOptions": {"redisAddress": str, "redisPassword": {"valueFrom": dict}},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": {"v1", "v2"},
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "idleTimeoutSeconds": int,
        "resources": dict,
        "securityContext": dict,
    },
    "headGroupSpec": {"rayStartParams": dict, "template": dict},
    "workerGroupSpecs": [
        {"groupName": str, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict, "template": dict}
    ],
}
JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
    "submitterPodTemplate": dict,
    "rayClusterSpec": CLUSTER,
}
RAY_CLUSTER, RAY_JOB = document("RayCluster"), document("RayJob")
CLUSTERS = {"RayCluster": RAY_CLUSTER["spec"], "RayJob": RAY_JOB["spec"]["rayClusterSpec"]}


def _templates() -> dict[str, dict[str, Any]]:
    """Every pod template, by whose it is."""
    found = {
        "redis": document("StatefulSet")["spec"]["template"],
        "submitter": RAY_JOB["spec"]["submitterPodTemplate"],
    }
    for kind, cluster in CLUSTERS.items():
        found[f"{kind} head"] = cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            found[f"{kind} {group['groupName']}"] = group["template"]
    return found


TEMPLATES = _templates()
CONTAINERS = [
    (owner, container) for owner, template in TEMPLATES.items() for container in template["spec"]["containers"]
]


def _conform(found: Any, allowed: Any, path: str) -> None:
    """``found`` has no field that ``allowed`` lacks, and each is of the type, or one of the words, that it names."""
    if isinstance(allowed, dict):
        assert isinstance(found, dict) and set(found) <= set(allowed), f"{path}: {set(found) - set(allowed)}"
        for key, value in found.items():
            _conform(value, allowed[key], f"{path}.{key}")
    elif isinstance(allowed, list):
        for number, value in enumerate(found):
            _conform(value, allowed[0], f"{path}.{number}")
    else:
        assert found in allowed if isinstance(allowed, set) else type(found) is allowed, f"{path}: {found!r}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_objects_of_kubernetes_follow_its_schema(path: Path, version: str) -> None:
    for one in documents(path):
        assert one["metadata"].get("namespace", "landsweep") == "landsweep"
        if not one["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("owner", sorted(TEMPLATES))
def test_pod_templates_follow_the_schema(owner: str, version: str) -> None:
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": TEMPLATES[owner]}
    kubernetes_validate.validate(wrapped, version, strict=True)
    wrong = copy.deepcopy(wrapped)
    wrong["template"]["spec"]["containers"][0]["enviroment"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_objects_of_kuberay_have_known_fields() -> None:
    _conform(RAY_CLUSTER["spec"], CLUSTER, "RayCluster")
    _conform(RAY_JOB["spec"], JOB, "RayJob")
    for one in (RAY_CLUSTER, RAY_JOB):
        assert one["apiVersion"] == "ray.io/v1"
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", one["metadata"]["name"])  # a DNS-1035 label, short


@pytest.mark.parametrize("kind", sorted(CLUSTERS))
def test_rays_autoscaler_reads_the_groups(kind: str) -> None:
    """By Ray's own code: workers from none to a bound, on spot nodes, and one group with a GPU each."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.util import validate_config

    config = autoscaling_config._derive_autoscaling_config_from_ray_cr({**RAY_CLUSTER, "spec": CLUSTERS[kind]})
    validate_config(config)
    nodes = config["available_node_types"]
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    assert nodes["gpu-spot"]["resources"] == {"CPU": 3, "GPU": 1, "memory": 12 * 2**30}
    for name in ("cpu-spot", "gpu-spot"):
        assert nodes[name]["min_workers"] == 0 < nodes[name]["max_workers"]
        assert TEMPLATES[f"{kind} {name}"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}


@pytest.mark.parametrize("kind", sorted(CLUSTERS))
def test_what_kuberay_refuses_is_not_there(kind: str) -> None:
    """Its validation.go: autoscaler 2 restarts no pod in place, tokens need a version, Redis is named in one place."""
    cluster = CLUSTERS[kind]
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token", "secretName": "landsweep-ray-token"}
    assert cluster["rayVersion"] == pins()["ray"]
    groups = [owner for owner in TEMPLATES if owner.startswith(kind)]
    assert {TEMPLATES[owner]["spec"]["restartPolicy"] for owner in groups} == {"Never"}
    own = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_enable_autoscaler_v2", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"}
    named = {entry["name"] for owner, one in CONTAINERS if owner in groups for entry in one.get("env", [])}
    assert not named & own


def test_a_jobs_cluster_is_the_standing_one_without_redis() -> None:
    standing, job = copy.deepcopy(CLUSTERS["RayCluster"]), copy.deepcopy(CLUSTERS["RayJob"])
    assert standing.pop("gcsFaultToleranceOptions")["redisAddress"] == "landsweep-redis:6379"
    pod = job["headGroupSpec"]["template"]["spec"]
    (volume,) = pod.pop("volumes")
    (mount,) = pod["containers"][0].pop("volumeMounts")
    assert volume["name"] == mount["name"] and mount["mountPath"] in RAY_JOB["spec"]["entrypoint"]
    assert job == standing


@pytest.mark.parametrize(("owner", "container"), CONTAINERS, ids=[owner for owner, _ in CONTAINERS])
def test_containers_have_few_rights_and_bounds(owner: str, container: dict[str, Any]) -> None:
    """What the namespace's label `restricted` asks for (Pod Security Standards), and memory that is there."""
    pod = TEMPLATES[owner]["spec"]["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    rights, bounds = container["securityContext"], container["resources"]
    assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(bounds["limits"])
    assert bounds["requests"]["memory"] == bounds["limits"]["memory"]
    assert not TEMPLATES[owner]["spec"].keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert not [port for port in container.get("ports", []) if "hostPort" in port]


@pytest.mark.parametrize("kind", sorted(CLUSTERS))
def test_the_autoscaler_has_few_rights_too(kind: str) -> None:
    options = CLUSTERS[kind]["autoscalerOptions"]
    assert options["securityContext"]["allowPrivilegeEscalation"] is False
    assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert options["resources"]["limits"] == options["resources"]["requests"]


def test_secrets_are_only_referred_to() -> None:
    assert "Secret" not in {one["kind"] for path in KUBERNETES for one in documents(path)}
    secret = [
        (owner, entry) for owner, one in CONTAINERS for entry in one.get("env", []) if SECRET.search(entry["name"])
    ]
    assert secret
    for owner, entry in secret:
        assert set(entry["valueFrom"]) == {"secretKeyRef"}, (owner, entry)
    commands = [
        value for path in KUBERNETES for one in documents(path) for where, value in values(one) if "args" in where
    ]
    assert not [value for value in commands if re.search(r"requirepass (?!\$)", str(value))]


def test_nothing_is_reached_but_what_is_named() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"]
        for path in KUBERNETES
        for one in documents(path)
        if one["kind"] == "NetworkPolicy"
    }
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ours = policies["ray"]["podSelector"]["matchLabels"].items()
    redis = policies["redis"]["podSelector"]["matchLabels"].items()
    for owner, template in TEMPLATES.items():
        labels = template["metadata"]["labels"].items()
        assert (redis if owner == "redis" else ours) <= labels, owner
    ((source,),) = [rule["from"] for rule in policies["redis"]["ingress"]]
    allowed = source["podSelector"]["matchLabels"].items()
    reach = {owner for owner, template in TEMPLATES.items() if allowed <= template["metadata"]["labels"].items()}
    assert reach == {"RayCluster head", "RayJob head"}
    (world,) = [
        (rule, to["ipBlock"])
        for rule in policies["ray"]["egress"]
        for to in rule["to"]
        if to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert world[1]["except"] == ["169.254.0.0/16"] and {port["port"] for port in world[0]["ports"]} == {443, 6443}
    services = [one["spec"] for path in KUBERNETES for one in documents(path) if one["kind"] == "Service"]
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services)
    assert not any("serviceType" in cluster["headGroupSpec"] for cluster in CLUSTERS.values())
