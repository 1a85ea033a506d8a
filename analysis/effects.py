"""Effect sizes beside a difference of means: Cliff's δ, the inconsistency I², and Holm's correction over metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.equivalence import Estimate, FloatArray, Interval, Sample
from landsweep.workers.errors import QueryError


@dataclass(frozen=True)
class CliffDelta:
    """δ = P(local > global) − P(local < global), in [−1, 1], with its 1−α interval."""

    value: float
    low: float
    high: float
    variance: float
    n_local: int
    n_global: int

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Inconsistency:
    """How much of the strata's scatter is more than chance."""

    q: float  # Cochran's Q
    degrees: int  # strata − 1
    p: float  # P(χ²(degrees) ≥ q)
    h: float  # max(1, √(q/degrees))
    h_low: float | None
    h_high: float | None
    i2: float  # max(0, 1 − degrees/q), a share
    low: float | None  # 1−α; None where two strata agree: the interval needs a third
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def cliff_delta(samples: Sequence[Sample], alpha: float = 0.05) -> CliffDelta:
    """Cliff's δ within strata, combined with the verdict's weights n_l·n_g/(n_l + n_g).

    In a stratum δ_i = mean of d_jk = sign(local_j − global_k), with the unbiased variance
        v_i = [n_g² Σ_j (d_j. − δ)² + n_l² Σ_k (d_.k − δ)² − Σ_jk (d_jk − δ)²] / [n_l n_g (n_l − 1)(n_g − 1)],
    at least (1 − δ²)/(n_l n_g − 1) (Cliff, Psychological Bulletin 114, 1993, 494–509, eq. 7 and 9). The interval is the
    asymmetric one of Feng & Cliff (J. Mod. Appl. Stat. Methods 3, 2004, 322–332),
        [δ − δ³ ± t √v √((1 − δ²)² + t² v)] / (1 − δ² + t² v),
    t of Student with n_l + n_g − 2·strata degrees of freedom; at δ = ±1, where v = 0, it ends at Wilson's
    ±(n − t²)/(n + t²), n the smaller group. Raises QueryError without samples.

    >>> import numpy as np
    >>> shown = cliff_delta([Sample("a", np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 4.0]))])
    >>> round(shown.value, 6)
    0.111111
    """
    from scipy.stats import t

    if not samples:
        raise QueryError("there are no two groups to compare: Cliff's delta needs 2 values in each")
    weights = np.array([sample.weight for sample in samples])
    weights = weights / weights.sum()
    parts = np.array([_dominance(sample) for sample in samples])
    value = float(np.clip(weights @ parts[:, 0], -1, 1))
    variance = float(weights**2 @ parts[:, 1])
    n_local, n_global = sum(len(s.local) for s in samples), sum(len(s.best) for s in samples)
    quantile = float(t.isf(alpha / 2, n_local + n_global - 2 * len(samples)))
    low, high = _asymmetric(value, variance, quantile, min(n_local, n_global))
    return CliffDelta(value, low, high, variance, n_local, n_global)


def _dominance(sample: Sample) -> tuple[float, float]:
    """δ and its variance, from ranks: no n_l × n_g matrix is made."""
    x, y = np.sort(sample.local), np.sort(sample.best)
    n, m = len(x), len(y)
    by_x = (np.searchsorted(y, x, "left") - (m - np.searchsorted(y, x, "right"))) / m
    by_y = ((n - np.searchsorted(x, y, "right")) - np.searchsorted(x, y, "left")) / n
    delta = float(by_x.mean())
    ties = int((np.searchsorted(y, x, "right") - np.searchsorted(y, x, "left")).sum())
    cells = n * m - ties - n * m * delta**2  # Σ_jk (d_jk − δ)²
    between = m * m * float(((by_x - delta) ** 2).sum()) + n * n * float(((by_y - delta) ** 2).sum())
    variance = (between - cells) / (n * m * (n - 1) * (m - 1))
    return delta, max(variance, (1 - delta**2) / (n * m - 1))


def _asymmetric(delta: float, variance: float, quantile: float, smaller: int) -> Interval:
    square = quantile**2
    if 1 - abs(delta) < 1e-12:
        end = (smaller - square) / (smaller + square)
        return (end, 1.0) if delta > 0 else (-1.0, -end)
    half = quantile * math.sqrt(variance) * math.sqrt((1 - delta**2) ** 2 + square * variance)
    scale = 1 - delta**2 + square * variance
    return (delta - delta**3 - half) / scale, (delta - delta**3 + half) / scale


def cochran_statistic(estimates: Sequence[Estimate]) -> float | None:
    """Cochran's Q = Σ (d_i − d̄)²/v_i, d̄ the inverse-variance mean (``equivalence.cochran_q`` gives its p-value).

    None below two strata, or where a stratum has no spread: the weights would be infinite.
    """
    if len(estimates) < 2 or min(estimate.standard_error for estimate in estimates) == 0:
        return None
    values = np.array([estimate.value for estimate in estimates])
    inverse = np.array([estimate.standard_error**-2.0 for estimate in estimates])
    centre = float(inverse @ values / inverse.sum())
    return float(inverse @ (values - centre) ** 2)


def inconsistency(q: float, strata: int, alpha: float = 0.05) -> Inconsistency:
    """I² = max(0, (Q − k + 1)/Q) and H = max(1, √(Q/(k − 1))) of k strata, with their test-based 1−α intervals.

    exp(ln H ± z·s), s = ½(ln Q − ln(k − 1))/(√(2Q) − √(2k − 3)) for Q > k, else √[(1 − 1/(3(k − 2)²))/(2(k − 2))];
    I² = 1 − 1/H² at both ends (Higgins & Thompson, Statistics in Medicine 21, 2002, 1539–1558, section 3 and
    appendix A2). Raises QueryError for fewer than two strata or a Q that is no number ≥ 0.

    >>> round(inconsistency(152.57, 13).i2, 3)
    0.921
    """
    from scipy.stats import chi2, norm

    if strata < 2 or not 0 <= q < math.inf:
        raise QueryError(f"Q = {q} of {strata} strata has no I²: a Q ≥ 0 of at least 2 strata is needed")
    degrees = strata - 1
    h = max(1.0, math.sqrt(q / degrees))
    error = _log_h_error(q, strata)
    h_low = h_high = low = high = None
    if error is not None:
        half = float(norm.isf(alpha / 2)) * error
        h_low, h_high = max(1.0, h * math.exp(-half)), h * math.exp(half)
        low, high = 1 - h_low**-2, 1 - h_high**-2
    return Inconsistency(q, degrees, float(chi2.sf(q, degrees)), h, h_low, h_high, 1 - h**-2, low, high)


def _log_h_error(q: float, strata: int) -> float | None:
    if q > strata:
        return 0.5 * (math.log(q) - math.log(strata - 1)) / (math.sqrt(2 * q) - math.sqrt(2 * strata - 3))
    return math.sqrt((1 - 1 / (3 * (strata - 2) ** 2)) / (2 * (strata - 2))) if strata > 2 else None


def i_squared(estimates: Sequence[Estimate], alpha: float = 0.05) -> Inconsistency | None:
    """``inconsistency`` of the strata's estimates; None below two strata, or where one has no spread."""
    q = cochran_statistic(estimates)
    return None if q is None else inconsistency(q, len(estimates), alpha)


def holm(p_values: Mapping[str, float | None], alpha: float = 0.05) -> pd.DataFrame:
    """Holm's step-down correction (Scand. J. Stat. 6, 1979, 65–70) of a family of tests, by statsmodels.

    Index: the names, in order. Columns: ``p``; ``p_holm``, comparable with alpha; ``rejected``. What has no p-value
    (None or NaN) is no member of the family: it is kept as NaN and False. Raises QueryError for a p outside [0, 1].

    >>> holm({"a": 0.01, "b": 0.04, "c": None})["p_holm"].tolist()
    [0.02, 0.04, nan]
    """
    from statsmodels.stats.multitest import multipletests

    p = np.array([math.nan if value is None else float(value) for value in p_values.values()], dtype=np.float64)
    tested = ~np.isnan(p)
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise QueryError(f"p-values lie in [0, 1]; found {p[tested].min():g} to {p[tested].max():g}")
    corrected: FloatArray = np.full(len(p), math.nan)
    if tested.any():
        corrected[tested] = multipletests(p[tested], alpha=alpha, method="holm")[1]
    table = {"p": p, "p_holm": corrected, "rejected": corrected <= alpha}
    return pd.DataFrame(table, index=pd.Index(list(p_values), name="name", dtype="str"))


def plain(value: Any) -> Any:
    """Mappings, sequences and numpy scalars as plain Python values; numbers that are not finite are None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
