"""Published or self-made experiments by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from landsweep.cluster.mistakes import nearest
from landsweep.workers.errors import QueryError

STARTS = 100


def self_check(starts: int) -> Iterator[dict[str, Any]]:
    """Searches and classification on every reference landscape, one row each as it is done (see docs/points.md)."""
    from landsweep.workers import execution, self_check

    execution.prepare()
    for case in self_check.CASES:
        yield dataclasses.asdict(self_check.check(case, starts))


STUDIES: dict[str, Callable[[int], Iterator[dict[str, Any]]]] = {"self-check": self_check}


def study(name: str, starts: int = STARTS) -> Iterator[dict[str, Any]]:
    """The rows of the study ``name``. Raises QueryError for one that there is not."""
    if name not in STUDIES:
        raise QueryError(f"study: found {name!r}; there are {', '.join(STUDIES)}{nearest(name, STUDIES)}")
    return STUDIES[name](starts)


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong in a self-check: kinds, indices, objectives that are not those of theory, and missed targets."""
    found = []
    for row in rows:
        if row["wrong"] or row["false_minima"]:
            found.append(f"{row['landscape']}: {row['wrong']} of a wrong kind, index or objective")
        if row["critical"] < 0.95 * row["searches"]:
            found.append(f"{row['landscape']}: {row['critical']} of {row['searches']} searches end at a critical point")
        if row["undetermined"] > 0.01 * row["searches"]:
            found.append(f"{row['landscape']}: {row['undetermined']} of {row['searches']} are undetermined")
    return found
