"""Quantiles of Student's t, for half widths of means over few random vectors."""

from __future__ import annotations

import math

import numpy as np

LEVEL = 1 - 1e-4  # of every half width stated here


def student_quantile(level: float, degrees: int) -> float:
    """The t with P(|T_ν| ≤ t) = ``level``: bisection on φ = arctan(t/√ν), whose density is ∝ cos^{ν−1}φ.

    >>> round(student_quantile(0.95, 10), 3), round(student_quantile(0.5, 1), 3)
    (2.228, 1.0)
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def area(angle: float) -> float:
        phi = 0.5 * angle * (nodes + 1)
        return float(0.5 * angle * (weights * np.cos(phi) ** (degrees - 1)).sum())

    total = 0.5 * math.sqrt(math.pi) * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if area(middle) < level * total else (low, middle)
    return math.sqrt(degrees) * math.tan(0.5 * (low + high))
