"""Print what some extras of landsweep need, one requirement a line: python requirements.py pyproject.toml run datasets.

An image installs this list in a layer of its own, so that a new landsweep is a layer of a few megabytes.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OWN = re.compile(r"landsweep\[(.+)\]")  # an extra that names others


def requirements(project: dict[str, Any], extras: Sequence[str]) -> list[str]:
    """The requirements of ``extras`` (and of those that they name) and, if there are none, of the base install."""
    found = set() if extras else set(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            own = _OWN.fullmatch(requirement)
            found |= set(requirements(project, own[1].split(",")) if own else [requirement])
    return sorted(found)


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    lines = requirements(project, []) + requirements(project, sys.argv[2:])
    sys.stdout.write("\n".join(lines) + "\n")
