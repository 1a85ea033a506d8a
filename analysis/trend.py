"""The view without a band: does the metric rise with the objective, within a configuration? Kendall's τ and a slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landsweep.analysis.equivalence import FloatArray

#: Trials in all below which no trend is reported, and in a stratum below which it is left out.
LEAST = 10
_LEAST_STRATUM = 5
#: Objectives closer than this (relative to max(1, |objective|)) are ties: the same minimum reached twice.
_TIE = 1e-9
# Rows of a stratum at which the influence function is evaluated: at most the first, and fewer where there are many
# strata, whose errors average out.
_ROWS, _ROWS_IN_ALL, _LEAST_ROWS = 1000, 10_000, 100


@dataclass(frozen=True)
class Trend:
    """A coefficient with its 1−α interval."""

    value: float
    low: float
    high: float


def kendall(strata: Sequence[tuple[FloatArray, FloatArray]], alpha: float) -> Trend | None:
    """Kendall's τ_b of (objective, metric) within strata, averaged by trials: τ = Σ n_i τ_i / Σ n_i.

    Interval: by Fisher's z with the delta-method variance of τ_b (a ratio of U-statistics; Hoeffding, Ann. Math. Stat.
    19, 1948, 293–325), at least the 0.437/(n − 4) of Fieller, Hartley & Pearson (Biometrika 44, 1957, 470–481). None
    below ``LEAST`` trials, or where one of the two does not vary.
    """
    from scipy.stats import norm

    rows = min(_ROWS, max(_LEAST_ROWS, _ROWS_IN_ALL // max(1, len(strata))))
    parts = [(len(x), *part) for x, y in strata if len(x) >= _LEAST_STRATUM and (part := _tau(x, y, rows)) is not None]
    total = sum(count for count, _, _ in parts)
    if total < LEAST:
        return None
    tau = sum(count * value for count, value, _ in parts) / total
    shrunk = max(-1 + 1 / total, min(1 - 1 / total, tau))  # atanh(±1) is infinite
    error = math.sqrt(sum((count / total) ** 2 * variance for count, _, variance in parts)) / (1 - shrunk**2)
    half = float(norm.isf(alpha / 2)) * max(error, math.sqrt(0.437 / (total - 4)))
    return Trend(tau, math.tanh(math.atanh(shrunk) - half), math.tanh(math.atanh(shrunk) + half))


def slope(strata: Sequence[tuple[FloatArray, FloatArray]], alpha: float) -> Trend | None:
    """The common within-stratum slope of the metric on the objective, β = ΣΣ(x−x̄_i)y / ΣΣ(x−x̄_i)².

    Its interval is Student's, with White's heteroscedasticity-consistent variance (Econometrica 48, 1980, 817–838),
    scaled by N/(N − k − 1). None below ``LEAST`` trials, or where no objective varies.
    """
    from scipy.stats import t

    kept = [(x - x.mean(), y - y.mean()) for x, y in strata if len(x) >= _LEAST_STRATUM]
    if sum(len(x) for x, _ in kept) < LEAST:
        return None
    excess = np.concatenate([x for x, _ in kept])
    metric = np.concatenate([y for _, y in kept])
    size = float(excess @ excess)
    degrees = len(excess) - len(kept) - 1
    if size == 0:
        return None
    value = float(excess @ metric) / size
    residual = metric - value * excess
    variance = float((excess**2) @ (residual**2)) / size**2 * len(excess) / degrees
    half = float(t.isf(alpha / 2, degrees)) * math.sqrt(variance)
    return Trend(value, value - half, value + half)


def _tau(objective: FloatArray, metric: FloatArray, rows: int) -> tuple[float, float] | None:
    """τ_b and its variance, None where everything is tied."""
    from scipy.stats import kendalltau

    order = np.lexsort((metric, objective))
    x, y = _levels(objective[order]), _tied(metric[order])
    tau = float(kendalltau(x, y).statistic)
    return None if math.isnan(tau) else (tau, _variance(x, y, tau, rows))


def _levels(ordered: FloatArray) -> FloatArray:
    """The number of the level that each value of a sorted array is on; values within rounding share one."""
    steps = np.diff(ordered, prepend=ordered[0]) > _TIE * np.maximum(1, np.abs(ordered))
    return np.cumsum(steps).astype(np.float64)


def _tied(values: FloatArray) -> FloatArray:
    """The levels of an array in any order."""
    order = np.argsort(values, kind="stable")
    levels = np.empty(len(values))
    levels[order] = _levels(values[order])
    return levels


def _untied(levels: FloatArray) -> FloatArray:
    """How many others each value differs from; ``levels`` are 0, 1, …"""
    counts = np.bincount(levels.astype(int))
    return np.asarray(len(levels) - counts[levels.astype(int)], dtype=np.float64)


def _variance(x: FloatArray, y: FloatArray, tau: float, most: int) -> float:
    """Mean square of the influence function of τ = A/√(BC), over n: A concordance, B and C the shares untied.

    ``x`` is sorted, both are levels. A large sample is evaluated at ``most`` evenly spaced rows against all others.
    """
    count = len(x)
    rows = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    means = np.empty((3, len(rows)))
    means[1], means[2] = _untied(x)[rows], _untied(y)[rows]
    ends = zip(np.searchsorted(x, x[rows], "left"), np.searchsorted(x, x[rows], "right"), strict=True)
    for place, (row, (left, right)) in enumerate(zip(rows, ends, strict=True)):
        less, more = y < y[row], y > y[row]
        agree = np.count_nonzero(less[:left]) + np.count_nonzero(more[right:])
        means[0, place] = agree - np.count_nonzero(more[:left]) - np.count_nonzero(less[right:])
    means /= count - 1
    a, b, c = means
    scale = math.sqrt(float(b.mean() * c.mean()))
    influence = 2 * ((a - a.mean()) / scale - tau / 2 * ((b - b.mean()) / b.mean() + (c - c.mean()) / c.mean()))
    return float((influence**2).mean()) / count
