"""The files of infra/, read for their tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
INFRA = ROOT / "infra"
DOCKERFILE = INFRA / "images/Dockerfile"
COMPOSE = INFRA / "compose/compose.yaml"
LAUNCHER = INFRA / "aws/cluster.yaml"
KUBERNETES = sorted((INFRA / "kubernetes").glob("*.yaml"))
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
#: Names of variables and keys whose values nobody may read in a file.
SECRET = re.compile(r"password|secret|token|access_key|credential|private", re.IGNORECASE)


def pins() -> dict[str, str]:
    """Package → version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().split()
    return {str(canonicalize_name(name)): version for name, _, version in (line.partition("==") for line in lines)}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def document(kind: str) -> dict[str, Any]:
    """The one Kubernetes object of that kind."""
    (found,) = [one for path in KUBERNETES for one in documents(path) if one["kind"] == kind]
    return found


def compose() -> dict[str, Any]:
    (found,) = documents(COMPOSE)
    return found


def launcher() -> dict[str, Any]:
    (found,) = documents(LAUNCHER)
    return found


def values(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of nested mappings and lists, with its dotted path."""
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in branches:
        yield from values(value, f"{path}.{key}" if path else str(key))
    if not isinstance(tree, dict | list):
        yield path, tree


def images() -> list[str]:
    """Every image that a container of infra/ runs."""
    trees = [compose(), launcher(), *(one for path in KUBERNETES for one in documents(path))]
    named = [value for tree in trees for path, value in values(tree) if path.endswith("image")]
    return [str(image) for image in named]
