"""What may change in a sweep file under an existing name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from landsweep.cluster.grid import identity, is_numeric

#: The sections that may change under an existing name: none of them changes a result.
FREE = ("resources", "verdict", "tracking", "code", "store")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted keys that differ between two ``canonical`` sweeps and may not under one name, sorted.

    Seeds and the values of a grid axis may be added (an axis of numbers gets numbers only: its column's type stays);
    ``FREE`` sections may change.
    """
    result = _differing(_fixed(old), _fixed(new), "")
    if new["seeds"]["start"] > old["seeds"]["start"] or new["seeds"]["stop"] < old["seeds"]["stop"]:
        result.append("seeds")
    before, after = old.get("grid", {}), new.get("grid", {})
    result += [f"grid.{key}" for key in {**before, **after} if not _extends(before.get(key), after.get(key))]
    return sorted(result)


def _fixed(sweep: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sweep.items() if key not in (*FREE, "seeds", "grid")}


def _extends(before: Sequence[Any] | None, after: Sequence[Any] | None) -> bool:
    if before is None or after is None:
        return False
    kept = {identity(value) for value in before} <= {identity(value) for value in after}
    return kept and is_numeric(before) == is_numeric(after)


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[str]:
    result = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            result += _differing(before, after, f"{prefix}{key}.")
        elif (key in old) != (key in new) or identity(before) != identity(after):
            result.append(prefix + key)
    return result
