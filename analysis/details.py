"""What is reported beside a verdict: strata, repeats, worst-case bounds, trend, polish, saddles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.classes import Fingerprints, class_codes
from landsweep.analysis.effects import cliff_delta, i_squared
from landsweep.analysis.equivalence import Sample, combine, decide
from landsweep.analysis.groups import MINIMA, Groups
from landsweep.analysis.judgement import Judgement
from landsweep.analysis.saddles import by_searcher
from landsweep.analysis.strata import stratify
from landsweep.analysis.trend import Trend, kendall, slope

#: The metric that is reported beside another: the unpolished one, and the gap (never alone: it falls mechanically).
BESIDE = {
    "test_loss": ("test_loss_trained", "gap"),
    "test_error": ("test_error_trained", "error_gap"),
    "test_loss_trained": ("test_loss", "gap"),
    "test_error_trained": ("test_error", "error_gap"),
    "gap": ("test_loss", "test_loss_trained"),
    "error_gap": ("test_error", "test_error_trained"),
}


def collect(
    points: pd.DataFrame,
    groups: Groups,
    samples: list[Sample],
    dropped: list[dict[str, Any]],
    judgement: Judgement | None,
    metric: str,
    landscape: pd.Series,
    margin: float,
    alpha: float,
) -> tuple[Trend | None, dict[str, Any]]:
    """Kendall's τ, and everything else as plain values by name."""
    pairs = [
        (rows["excess"].to_numpy(dtype=np.float64), rows["value"].to_numpy(dtype=np.float64))
        for _, rows in groups.chosen.groupby("config", sort=True, observed=True)
    ]
    tau, line = kendall(pairs, alpha), slope(pairs, alpha)
    n_local = int(groups.chosen["local"].sum())
    return tau, {
        "n_trials": groups.n_trials,
        "n_local_all": n_local,
        "n_global_all": len(groups.chosen) - n_local,
        "interval_verdict": judgement.verdict if judgement else None,
        "strata": [_stratum(sample, alpha) for sample in samples],
        "effects": _effects(samples, alpha),
        "dropped": dropped,
        "references": {
            key: {"value": item.value, "source": item.source, "band": item.band, "minima_below": item.below}
            for key, item in groups.references.items()
        },
        "bootstrap": _bootstrap(judgement),
        "slope": {"value": line.value, "low": line.low, "high": line.high} if line else None,
        "repeated": _repeats(points, groups, metric, landscape, margin, alpha),
        "polish": _polish(points, groups),
        "excluded_reasons": groups.excluded_reasons,
        "worst_case": worst_case(groups, samples, metric),
        "saddles": by_searcher(points, metric, alpha),
    }


def worst_case(groups: Groups, samples: list[Sample], metric: str) -> dict[str, float] | None:
    """Bounds of the estimate, had the excluded trials been minima of the least favourable group and value.

    Per stratum the m excluded trials are shared out, j to one group at the highest and m − j to the other at the lowest
    value, so that the difference becomes extreme; weights stay. Values are bounded by [0, 1] for errors, [−1, 1] for
    their gap, else by what was observed in the stratum's landscape (Manski, Partial Identification, 2003, chapter 1).
    Excluded trials of configurations that are no stratum cannot move the estimate.
    """
    if not samples or not groups.excluded:
        return None
    ranges = _ranges(groups, metric)
    weights = np.array([sample.weight for sample in samples])
    weights /= weights.sum()
    bounds = []
    for sample in samples:
        count = groups.excluded_by_config.get(sample.name, 0)
        low, high = ranges[sample.name]
        bounds.append(
            (
                -_extreme(sample.best, sample.local, count, low, high),
                _extreme(sample.local, sample.best, count, low, high),
            )
        )
    low_bound, high_bound = (float(part) for part in weights @ np.array(bounds))
    return {"low": low_bound, "high": high_bound}


def _ranges(groups: Groups, metric: str) -> dict[str, tuple[float, float]]:
    """The range of the metric by configuration."""
    known = {"test_error": (0.0, 1.0), "test_error_trained": (0.0, 1.0), "error_gap": (-1.0, 1.0)}
    spans = groups.chosen.groupby("landscape", observed=True)["value"].agg(["min", "max"])
    landscapes = groups.chosen.drop_duplicates("config").set_index("config")["landscape"]
    return {
        str(config): known.get(metric, (float(spans["min"][key]), float(spans["max"][key])))
        for config, key in landscapes.items()
    }


def _extreme(raised: Any, lowered: Any, count: int, low: float, high: float) -> float:
    """max over j of mean(raised + j·high) − mean(lowered + (count − j)·low)."""
    up = np.arange(count + 1)
    down = count - up
    above = (raised.sum() + up * high) / (len(raised) + up)
    below = (lowered.sum() + down * low) / (len(lowered) + down)
    return float((above - below).max())


def _effects(samples: list[Sample], alpha: float) -> dict[str, Any] | None:
    """Effect sizes beside Hedges' g: Cliff's δ, and I² of the strata's estimates."""
    if not samples:
        return None
    spread = i_squared([combine([sample]) for sample in samples], alpha)
    return {"cliff_delta": cliff_delta(samples, alpha).as_dict(), "i_squared": spread.as_dict() if spread else None}


def _stratum(sample: Sample, alpha: float) -> dict[str, Any]:
    numbers = _intervals([sample], alpha)
    return {"config": sample.name, "n_local": len(sample.local), "n_global": len(sample.best), **numbers}


def _intervals(samples: list[Sample], alpha: float) -> dict[str, float]:
    estimate = combine(samples)
    ci, diff = estimate.interval(alpha), estimate.interval(alpha / 2)
    return {
        "estimate": estimate.value,
        "ci_low": ci[0],
        "ci_high": ci[1],
        "diff_low": diff[0],
        "diff_high": diff[1],
    }


def _bootstrap(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None or judgement.bootstrap_ci is None or judgement.bootstrap_diff is None:
        return None
    (ci_low, ci_high), (diff_low, diff_high) = judgement.bootstrap_ci, judgement.bootstrap_diff
    numbers = {"ci_low": ci_low, "ci_high": ci_high, "diff_low": diff_low, "diff_high": diff_high}
    return {**numbers, "interval_verdict": judgement.bootstrap_verdict}


def _repeats(
    points: pd.DataFrame, groups: Groups, metric: str, landscape: pd.Series, margin: float, alpha: float
) -> dict[str, Any]:
    """The same comparison with another metric, and with distinct classes as the unit."""
    chosen = groups.chosen
    repeats = {}
    for name in BESIDE[metric]:
        if name in points.columns:
            values = points[name].to_numpy(dtype=np.float64, na_value=np.nan)[chosen["row"].to_numpy(dtype=int)]
            repeats[name] = _repeat(chosen.assign(other=values), margin, alpha)
    classes = _classes(points, landscape)
    if classes is not None:
        named = chosen.assign(class_id=classes.iloc[chosen["row"].to_numpy(dtype=int)].to_numpy())
        means = named.dropna(subset="class_id").groupby(["config", "class_id"], as_index=False, observed=True)
        table = means.agg(other=("value", "mean"), local=("local", "min"))
        repeats["class_id"] = _repeat(table, margin, alpha)
    return repeats


def _classes(points: pd.DataFrame, landscape: pd.Series) -> pd.Series | None:
    """The class of every minimum: as given, else over the minima alone, since no other point is of their class."""
    if "class_id" in points.columns:
        return points["class_id"]
    if "fingerprint" not in points.columns:
        return None
    prints = points["fingerprint"].astype(object).where(points["kind"].isin(MINIMA).to_numpy(), None)
    codes, names = class_codes(Fingerprints.of(prints), landscape)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype=object)), index=points.index)


def _repeat(table: pd.DataFrame, margin: float, alpha: float) -> dict[str, Any]:
    """The t form alone, on the column ``other``: intervals and what they would say; without strata, the counts."""
    samples, dropped = stratify(table, "other")
    counts = {
        "n_local": sum(len(sample.local) for sample in samples) or sum(item["n_local"] for item in dropped),
        "n_global": sum(len(sample.best) for sample in samples) or sum(item["n_global"] for item in dropped),
        "n_configs": len(samples),
        "n_dropped": len(dropped),
    }
    if not samples:
        names = ("estimate", "ci_low", "ci_high", "diff_low", "diff_high")
        return {**counts, **dict.fromkeys(names), "interval_verdict": "inconclusive"}
    numbers = _intervals(samples, alpha)
    word = decide((numbers["ci_low"], numbers["ci_high"]), (numbers["diff_low"], numbers["diff_high"]), margin)
    return {**counts, **numbers, "interval_verdict": word}


def _polish(points: pd.DataFrame, groups: Groups) -> dict[str, float | None]:
    """How far the polish moved the parameters (median), and the share that stayed in its basin; None: not measured."""
    rows = groups.chosen["row"].to_numpy(dtype=int)
    measured: dict[str, float | None] = {"median_distance": None, "share_same_basin": None}
    if "polish_distance" in points.columns and (values := points["polish_distance"].iloc[rows].dropna()).size:
        measured["median_distance"] = float(values.median())
    if "same_basin" in points.columns and (stayed := points["same_basin"].iloc[rows].dropna()).size:
        measured["share_same_basin"] = float(stayed.astype(bool).mean())
    return measured
