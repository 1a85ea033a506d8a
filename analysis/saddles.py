"""Saddles as their searchers found them: a sample of the searcher, not of the landscape; clustered by trial."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.equivalence import mean_of

_SADDLES = ("saddle", "degenerate_saddle")


def by_searcher(points: pd.DataFrame, metric: str, alpha: float) -> dict[str, Any]:
    """Mean metric at the saddles of each source, and the differences between sources where trials have both.

    The unit is a trial's mean over its saddles: saddles of one trial share their trajectory and their landscape. The
    differences are paired by trial. Intervals are Student's 1−α ones, None below two trials.
    """
    found = points[points["kind"].isin(_SADDLES)]
    values = pd.to_numeric(found[metric]).to_numpy(dtype=np.float64, na_value=np.nan)
    kept = pd.DataFrame({"source": found["source"].astype(str), "trial": found["trial"].astype(str), "value": values})
    kept = kept[np.isfinite(values)].sort_values(["source", "trial", "value"])
    means = kept.groupby(["source", "trial"])["value"].mean().unstack("source")
    counts = kept["source"].value_counts()
    searchers = {
        str(source): {"n_points": int(counts[source]), **_interval(means[source].dropna().tolist(), alpha)}
        for source in means.columns
    }
    differences = {
        f"{a} - {b}": _interval((means[a] - means[b]).dropna().tolist(), alpha)
        for a, b in combinations(means.columns, 2)
    }
    return {"searchers": searchers, "differences": differences}


def _interval(values: list[float], alpha: float) -> dict[str, Any]:
    if len(values) < 2:
        return {"n_trials": len(values), "mean": values[0] if values else None, "low": None, "high": None}
    estimate = mean_of(values)
    low, high = estimate.interval(alpha / 2)
    return {"n_trials": len(values), "mean": estimate.value, "low": low, "high": high}
