"""Short names for configurations, from their grid values."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd

from landsweep.analysis.groups import grid_columns
from landsweep.workers.record import configuration_label


def labels(points: pd.DataFrame) -> dict[str, str]:
    """Configuration → label, ordered by label; where two would share one, each gets its id added."""
    grid = grid_columns(points)
    first = points.drop_duplicates("config")
    named = {
        str(row["config"]): configuration_label({key: _value(row[key]) for key in grid})
        for row in first[["config", *grid]].to_dict("records")
    }
    shared = Counter(named.values())
    unique = {
        config: name if name and shared[name] == 1 else f"{name} {config}".strip() for config, name in named.items()
    }
    return dict(sorted(unique.items(), key=lambda item: (item[1], item[0])))


def _value(value: Any) -> Any:
    """A grid column's value: numbers as they are (whole ones without a point), JSON text parsed."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
