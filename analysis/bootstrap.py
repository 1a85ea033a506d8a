"""The studentised bootstrap of a stratified difference: a check on the t form that assumes no normality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landsweep.analysis.equivalence import Estimate, FloatArray, Interval, Sample, combine, mean_of

#: Resamples where nothing else is asked for.
RESAMPLES = 2000
_LEAST_RESAMPLES = 250  # for 800,000 trials and more, where t is exact to many digits and this confirms it
_DRAWS = 2 * 10**8  # in all: beyond it, resamples are saved
_CHUNK = 10**5  # drawn at once: what a core's cache holds


@dataclass(frozen=True)
class Pivot:
    """The bootstrap distribution of t* = (d* − d)/se*."""

    estimate: Estimate
    values: FloatArray  # (resamples,), sorted; ±inf where a resample had no spread

    def interval(self, tail: float) -> Interval:
        """[d − t*_{1−tail}·se, d − t*_{tail}·se] (Efron & Tibshirani 1993, eq. 12.19)."""
        if self.estimate.standard_error == 0:
            return self.estimate.value, self.estimate.value
        low, high = np.quantile(self.values, [tail, 1 - tail], method="inverted_cdf")
        scale = self.estimate.standard_error
        return self.estimate.value - float(high) * scale, self.estimate.value - float(low) * scale


def bootstrap_strata(samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = 0) -> Pivot:
    """Resample trials with replacement inside every group of every stratum; seeded, so that it can be repeated."""
    rng = np.random.default_rng(seed)
    total = sum(len(sample.local) + len(sample.best) for sample in samples)
    resamples = min(resamples, max(_LEAST_RESAMPLES, _DRAWS // total))
    weights = np.array([sample.weight for sample in samples])
    values = np.zeros(resamples)
    variance = np.zeros(resamples)
    for weight, sample in zip(weights / weights.sum(), samples, strict=True):
        for sign, group in ((1, sample.local), (-1, sample.best)):
            mean, spread = _resampled(group, resamples, rng)
            values += sign * weight * mean
            variance += weight**2 * spread / len(group)
    return _pivot(combine(samples), values, np.sqrt(variance))


def bootstrap_mean(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Pivot:
    """The same for the mean of one sample."""
    array = np.asarray(values, dtype=np.float64)
    mean, spread = _resampled(array, resamples, np.random.default_rng(seed))
    return _pivot(mean_of(values), mean, np.sqrt(spread / len(array)))


def _resampled(group: FloatArray, resamples: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Means and variances (ddof 1) of ``resamples`` resamples of ``group``, drawn in chunks that fit memory."""
    count = len(group)
    step = max(1, _CHUNK // count)
    centre = group.mean()
    centred = group - centre  # so that the variance is a plain sum of squares
    sums, squares = np.empty(resamples), np.empty(resamples)
    for start in range(0, resamples, step):
        rows = slice(start, min(start + step, resamples))
        drawn = centred.take(rng.integers(0, count, (rows.stop - start, count)))
        sums[rows] = drawn.sum(axis=1)
        squares[rows] = np.einsum("ij,ij->i", drawn, drawn)
    return centre + sums / count, np.maximum(squares - sums**2 / count, 0.0) / (count - 1)


def _pivot(estimate: Estimate, values: FloatArray, errors: FloatArray) -> Pivot:
    shift = values - estimate.value
    # A resample without spread says nothing of the scale: rounding apart it is an infinite pivot, or none at all.
    flat = errors <= 1e-12 * max(estimate.standard_error, math.ulp(0.0))
    rounding = 1e-12 * max(abs(estimate.value), estimate.standard_error)
    limit = np.where(np.abs(shift) <= rounding, 0.0, np.copysign(np.inf, shift))
    pivots = np.where(flat, limit, shift / np.where(flat, 1.0, errors))
    return Pivot(estimate, np.sort(pivots))
