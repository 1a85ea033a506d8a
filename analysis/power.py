"""How many trials an equivalence needs, and how much alpha a look at a growing sweep may use."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from landsweep.analysis.equivalence import Estimate, FloatArray

#: The power that ``trials_needed`` asks for, at a true difference of 0.
POWER = 0.8
_NODES = 400
_MOST = 1e9  # times the present trials: beyond it there is no useful answer


def equivalence_power(standard_error: float, degrees: float, margin: float, alpha: float) -> float:
    """Power of the two one-sided tests at a true difference of 0, with the spread estimated.

    P = E_u [ 2·Φ(margin/se − t_{1−α,ν}·u) − 1 ]₊ ,   u² ~ χ²_ν/ν
    (Phillips, J. Pharmacokinet. Biopharm. 18, 1990, 137–144), the expectation by the midpoint rule over quantiles of u.

    >>> round(equivalence_power(1.0, math.inf, 2.9264, 0.05), 3)
    0.8
    """
    from scipy.special import ndtr
    from scipy.stats import t

    spread = _spread(degrees)
    reach = margin / standard_error - float(t.isf(alpha, degrees)) * spread
    return float(np.maximum(2 * ndtr(reach) - 1, 0).mean())


def _spread(degrees: float) -> FloatArray:
    """Midpoint quantiles of √(χ²_ν/ν); 1 where ν is so large that it does not vary."""
    from scipy.stats import chi2

    if degrees > 1e7:
        return np.ones(1)
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    return np.asarray(np.sqrt(chi2.ppf(nodes, degrees) / degrees), dtype=np.float64)


def scale_needed(estimate_at: Callable[[float], Estimate], margin: float, alpha: float, least: float) -> float | None:
    """The smallest factor f ≥ ``least`` on the number of trials at which the power reaches ``POWER``; None: none does.

    ``estimate_at(f)`` is the estimate as it would be with f times the trials. Bisection on log f: power rises with f.
    """

    def enough(factor: float) -> bool:
        estimate = estimate_at(factor)
        return (
            estimate.standard_error == 0
            or equivalence_power(estimate.standard_error, estimate.degrees, margin, alpha) >= POWER
        )

    if enough(least):
        return least
    if not enough(_MOST):
        return None
    low, high = math.log(least), math.log(_MOST)
    for _ in range(35):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(math.exp(middle)) else (middle, high)
    return math.exp(high)


def nominal_alpha(alpha: float, information_fraction: float, alpha_spent: float) -> float:
    """The level at which this look may test: what O'Brien–Fleming spending allows up to now, less what is spent.

    α*(τ) = 2 − 2Φ(z_{1−α/2}/√τ), τ the share of the planned trials that are in (Lan & DeMets, Biometrika 70, 1983,
    659–663). Each look tests at its increment α*(τ) − alpha_spent alone: by the union bound the looks together err
    with probability ≤ alpha, whatever their dependence. 0.0 means that nothing is left.

    >>> nominal_alpha(0.05, 1.0, 0.0)
    0.05
    >>> round(nominal_alpha(0.05, 0.5, 0.0), 6)
    0.005575
    """
    from scipy.stats import norm

    if information_fraction >= 1:
        return max(0.0, alpha - alpha_spent)
    if information_fraction <= 0:
        return 0.0
    allowed = 2 * float(norm.sf(float(norm.isf(alpha / 2)) / math.sqrt(information_fraction)))
    return max(0.0, allowed - alpha_spent)
