"""Two groups in strata: the estimate, its intervals, two one-sided tests, heterogeneity. Arrays in, numbers out.

Local and global minima are compared inside each stratum (a configuration), where nothing but the minimum differs:

    d_i = mean(local_i) − mean(global_i),      v_i = s²_li/n_li + s²_gi/n_gi,      w_i = n_li·n_gi / (n_li + n_gi)
    d = Σ w_i d_i / Σ w_i,                     v = Σ w_i² v_i / (Σ w_i)²

The weights depend on the counts alone: inverse-variance weights are estimated from the same few trials and break the
level of the test. The degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946, 110–114); with one stratum
all of this is Welch's test, and the equivalence test is Schuirmann's (J. Pharmacokinet. Biopharm. 15, 1987, 657–680).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]

#: Below this p-value of Cochran's Q the strata are taken to disagree.
HETEROGENEITY_LEVEL = 0.05


@dataclass(frozen=True)
class Sample:
    """The metric of one stratum's two groups."""

    name: str
    local: FloatArray  # (n_local,), at least 2 values, finite
    best: FloatArray  # (n_global,), at least 2 values, finite: the global minima

    @property
    def weight(self) -> float:
        """n_local·n_global / (n_local + n_global)."""
        return len(self.local) * len(self.best) / (len(self.local) + len(self.best))

    @property
    def difference(self) -> float:
        """mean(local) − mean(global), in the metric's unit; 0 where it is nothing but the means' rounding."""
        value = float(self.local.mean() - self.best.mean())
        size = max(float(np.abs(self.local).max()), float(np.abs(self.best).max()))
        return value if abs(value) > 8 * np.finfo(np.float64).eps * size else 0.0

    @property
    def terms(self) -> tuple[tuple[float, int], tuple[float, int]]:
        """(s²/n, n) of the local and of the global group."""
        return tuple((float(group.var(ddof=1)) / len(group), len(group)) for group in (self.local, self.best))  # type: ignore[return-value]

    @property
    def variance(self) -> float:
        """s_l²/n_l + s_g²/n_g: the squared standard error of ``difference``."""
        return sum(term for term, _ in self.terms)


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error; the pivot (value − truth)/standard_error is taken as Student's t."""

    value: float
    standard_error: float
    degrees: float  # of freedom; may be infinite

    def interval(self, tail: float) -> Interval:
        """value ± t_{1−tail, degrees} · standard_error, ``tail`` outside on each side; a point where there is no error.

        >>> low, high = Estimate(0.0, 1.0, math.inf).interval(0.025)
        >>> round(high, 6)
        1.959964
        """
        from scipy.stats import t

        if self.standard_error == 0:
            return self.value, self.value
        half = float(t.isf(tail, self.degrees)) * self.standard_error
        return self.value - half, self.value + half

    def p_difference(self) -> float:
        """P(|T| ≥ |value|/standard_error): two-sided p-value of no difference."""
        return 2 * self._tail(abs(self.value)) if self.value else 1.0

    def p_equivalence(self, margin: float) -> float:
        """max of the two one-sided p-values of value ≤ −margin and value ≥ margin (Schuirmann 1987)."""
        return max(self._tail(self.value + margin), self._tail(margin - self.value))

    def _tail(self, distance: float) -> float:
        """P(T·standard_error ≥ distance)."""
        from scipy.stats import t

        if self.standard_error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(t.sf(distance / self.standard_error, self.degrees))


def combine(samples: Sequence[Sample], scale: float = 1.0) -> Estimate:
    """The stratified estimate with Satterthwaite's degrees of freedom.

    degrees = v² / Σ_{i, group} (w_i² s²/n)² / (n − 1).  ``scale`` answers "with ``scale`` times as many trials in every
    group?": the standard error and the degrees of freedom as they would be.

    >>> combine([Sample("a", np.array([1.0, 3.0]), np.array([0.0, 2.0]))])
    Estimate(value=1.0, standard_error=1.4142135623730951, degrees=2.0)
    """
    weights = np.array([sample.weight for sample in samples])
    weights = weights / weights.sum()
    value = math.fsum(w * sample.difference for w, sample in zip(weights, samples, strict=True))
    parts = [
        (w * w * term / scale, scale * count - 1)
        for w, sample in zip(weights, samples, strict=True)
        for term, count in sample.terms
    ]
    variance = math.fsum(part for part, _ in parts)
    # Relative to the largest part: squares of tiny variances would underflow.
    spread = math.fsum((part / variance) ** 2 / degrees for part, degrees in parts) if variance > 0 else 0.0
    return Estimate(value, math.sqrt(variance), 1 / spread if spread > 0 else math.inf)


def mean_of(values: Sequence[float] | FloatArray) -> Estimate:
    """Student's one-sample estimate: mean ± s/√k with k − 1 degrees of freedom (k ≥ 2 values)."""
    array = np.asarray(values, dtype=np.float64)
    return Estimate(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array)), float(len(array) - 1))


def cochran_q(estimates: Sequence[Estimate]) -> float | None:
    """p-value of Cochran's Q = Σ (d_i − d̄)²/v_i against χ²(k−1), d̄ the inverse-variance mean; None below two strata.

    Source: Cochran, Biometrics 10 (1954) 101–129. A variance of 0 is raised to the rounding of the differences, so that
    groups without spread neither divide by zero nor disagree over their last digit.
    """
    from scipy.stats import chi2

    if len(estimates) < 2:
        return None
    differences = np.array([estimate.value for estimate in estimates])
    floor = (1e-12 * max(float(np.abs(differences).max()), 1e-300)) ** 2
    inverse = 1 / np.maximum([estimate.standard_error**2 for estimate in estimates], max(floor, 1e-300))
    centre = float((inverse * differences).sum() / inverse.sum())
    return float(chi2.sf(float((inverse * (differences - centre) ** 2).sum()), len(estimates) - 1))


def inside(interval: Interval, margin: float) -> bool:
    """Whether the interval lies strictly within ± margin."""
    return -margin < interval[0] and interval[1] < margin


def decide(ci: Interval, diff: Interval, margin: float, *, strata_agree: bool = True) -> str:
    """``equivalent``, ``different`` or ``inconclusive`` from the 1−2α interval ``ci`` and the 1−α interval ``diff``.

    ``strata_agree`` is False where the strata's effects differ and not every stratum's interval lies inside ± margin:
    effects of opposite sign must not cancel into an equivalence.

    >>> decide((-0.01, 0.01), (-0.012, 0.012), 0.02), decide((0.03, 0.05), (0.02, 0.06), 0.02)
    ('equivalent', 'different')
    """
    if strata_agree and inside(ci, margin):
        return "equivalent"
    return "different" if diff[0] > 0 or diff[1] < 0 else "inconclusive"


def hedges_g(samples: Sequence[Sample]) -> float | None:
    """Hedges' g = J·d/s, s² the variance pooled over all groups of all strata, J = 1 − 3/(4ν − 1), ν its degrees.

    Source: Hedges, J. Educ. Stat. 6 (1981) 107–128. None where no group varies.
    """
    groups = [group for sample in samples for group in (sample.local, sample.best)]
    degrees = sum(len(group) - 1 for group in groups)
    pooled = sum(float(group.var(ddof=1)) * (len(group) - 1) for group in groups) / degrees
    if pooled == 0:
        return None
    return (1 - 3 / (4 * degrees - 1)) * combine(samples).value / math.sqrt(pooled)
