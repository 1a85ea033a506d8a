"""Strata: the configurations that have trials in both groups, and those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.equivalence import Sample

#: Trials that a stratum needs in each group: below it there is no variance.
LEAST_STRATUM = 2


def stratify(chosen: pd.DataFrame, column: str) -> tuple[list[Sample], list[dict[str, Any]]]:
    """One sample a configuration, ordered by its id, and the dropped ones as {config, n_local, n_global}.

    chosen: columns ``config``, ``local`` (bool) and ``column``; rows where it is not finite are passed over.
    """
    samples, dropped = [], []
    for config, rows in chosen[np.isfinite(chosen[column])].groupby("config", sort=True, observed=True):
        values, local = rows[column].to_numpy(dtype=np.float64), rows["local"].to_numpy(dtype=bool)
        n_local = int(local.sum())
        if min(n_local, len(rows) - n_local) < LEAST_STRATUM:
            dropped.append({"config": str(config), "n_local": n_local, "n_global": len(rows) - n_local})
        else:
            samples.append(Sample(str(config), values[local], values[~local]))
    return samples, dropped
