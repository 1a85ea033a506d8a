"""Saddles as their searchers found them: a sample of the searcher, not of the landscape; clustered by trial."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.classes import IntArray
from landsweep.analysis.equivalence import FloatArray, mean_of
from landsweep.analysis.groups import labels

SADDLES = ("saddle", "degenerate_saddle")


def by_searcher(points: pd.DataFrame, metric: str, alpha: float) -> dict[str, Any]:
    """Mean metric at the saddles of each source, and the differences between sources where trials have both.

    The unit is a trial's mean over its saddles: saddles of one trial share their trajectory and their landscape. The
    differences are paired by trial. Intervals are Student's 1−α ones, None below two trials.
    """
    found = points.loc[points["kind"].isin(SADDLES).to_numpy(), ["source", "trial", metric]]
    values = pd.to_numeric(found[metric]).to_numpy(dtype=np.float64, na_value=np.nan)
    finite = np.isfinite(values)
    sources = labels(found["source"])
    trials, names = pd.factorize(found["trial"])
    means, counts = {}, {}
    for code, source in enumerate(sources.categories):
        rows = np.flatnonzero(finite & (sources.codes == code))
        if len(rows):
            means[source], counts[source] = _means(trials[rows], values[rows], len(names)), len(rows)
    searchers = {source: {"n_points": counts[source], **_interval(means[source], alpha)} for source in means}
    differences = {f"{a} - {b}": _interval(means[a] - means[b], alpha) for a, b in combinations(means, 2)}
    return {"searchers": searchers, "differences": differences}


def _means(trials: IntArray, values: FloatArray, count: int) -> FloatArray:
    """Each trial's mean, NaN where it has no value; summed in order of the values, whatever the order of the rows."""
    order = np.argsort(values)
    sums = np.bincount(trials[order], values[order], count)
    sizes = np.bincount(trials, minlength=count)
    means: FloatArray = np.divide(sums, sizes, out=np.full(count, np.nan), where=sizes > 0)
    return means


def _interval(means: FloatArray, alpha: float) -> dict[str, Any]:
    values = np.sort(means[np.isfinite(means)])
    if len(values) < 2:
        return {"n_trials": len(values), "mean": float(values[0]) if len(values) else None, "low": None, "high": None}
    estimate = mean_of(values)
    low, high = estimate.interval(alpha / 2)
    return {"n_trials": len(values), "mean": estimate.value, "low": low, "high": high}
