"""How many trials an equivalence needs, and how much alpha a look at a growing sweep may use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from landsweep.analysis.equivalence import HETEROGENEITY_LEVEL, Estimate, FloatArray, Sample
from landsweep.workers.errors import QueryError

if TYPE_CHECKING:
    from landsweep.analysis.verdict import VerdictOptions

#: The power that ``trials_needed`` asks for, at a true difference of 0.
POWER = 0.8
_NODES = 400
_LEAST_GROUP = 10  # trials that a verdict asks of each group in all
_MOST = 1e9  # times the present trials: beyond it there is no useful answer


def equivalence_power(
    standard_error: float, degrees: float, margin: float, alpha: float, difference: float = 0.0
) -> float:
    """Power of the two one-sided tests at a true ``difference``, with the spread estimated.

    P = E_u [ Φ((margin − δ)/se − t_{1−α,ν}·u) − Φ(t_{1−α,ν}·u − (margin + δ)/se) ]₊ ,   u² ~ χ²_ν/ν
    (Phillips, J. Pharmacokinet. Biopharm. 18, 1990, 137–144), the expectation by the midpoint rule over quantiles of u.

    >>> round(equivalence_power(1.0, math.inf, 2.9264, 0.05), 3)
    0.8
    """
    from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats takes a second to import

    quantile = -float(stdtrit(degrees, alpha) if degrees < math.inf else ndtri(alpha))
    threshold = quantile * _spread(degrees)
    above = ndtr((margin - difference) / standard_error - threshold)
    below = ndtr(threshold - (margin + difference) / standard_error)
    return float(np.maximum(above - below, 0).mean())


def power_of(
    margin: float,
    sigma: float,
    n_local: float,
    n_global: float,
    configurations: int = 1,
    alpha: float = 0.05,
    difference: float = 0.0,
) -> float:
    """The probability that the verdict is ``equivalent`` when the true difference is ``difference``.

    margin, difference: in the metric's unit. sigma: standard deviation of the metric within a group of a configuration,
    in the same unit. n_local, n_global: trials of each group in all, shared evenly by the ``configurations``. alpha:
    level of each one-sided test. The estimate's standard error is σ√(1/n_l + 1/n_g), its degrees of freedom are
    Satterthwaite's at equal variances; ``equivalence_power`` gives the power of the two tests. With several
    configurations Cochran's Q is significant in some sweeps though nothing differs (5 %, more where configurations are
    small: ``_q_level``), and each configuration's own interval must then lie inside the margin as well: what that costs
    is taken off. 0.0 where a configuration would have fewer than 2 trials of a group.

    Raises QueryError where a number means nothing.

    >>> round(power_of(margin=0.02, sigma=0.02, n_local=100, n_global=100), 3)
    1.0
    """
    _check(margin, sigma, configurations, alpha)
    if not abs(difference) < math.inf or not 0 <= min(n_local, n_global) <= max(n_local, n_global) < math.inf:
        raise QueryError(
            f"power of {n_local} local and {n_global} global trials at difference {difference}: not finite"
        )
    cell = _cell(sigma, n_local / configurations, n_global / configurations)
    if cell is None:
        return 0.0
    if configurations == 1:
        return equivalence_power(*cell, margin, alpha, difference)
    error, degrees = cell[0] / math.sqrt(configurations), cell[1] * configurations
    together = equivalence_power(error, degrees, margin, alpha, difference)
    each = equivalence_power(*cell, margin, alpha, difference) ** configurations
    level = _q_level(configurations, cell[1])
    return together * (1 - level) + min(together, each) * level


def trials_for(
    margin: float,
    sigma: float,
    share_local: float,
    configurations: int = 1,
    alpha: float = 0.05,
    power: float = POWER,
    difference: float = 0.0,
) -> int | None:
    """The fewest trials in all with which ``power_of`` reaches ``power``; None: no number up to 10⁹ does.

    share_local: the share of trials that end in a local minimum, in (0, 1). Each configuration gets the same whole
    number of trials, so the answer is a multiple of ``configurations``; at least as many as a verdict asks for (10 of
    each group in all, 2 in each configuration). Raises QueryError where a number means nothing.

    >>> trials_for(margin=0.02, sigma=0.02, share_local=0.5)
    36
    """
    _check(margin, sigma, configurations, alpha)
    if not 0 < share_local < 1:
        raise QueryError(f"share_local is {share_local}: a share of the trials, between 0 and 1, both excluded")
    if not 0 < power < 1:
        raise QueryError(f"power is {power}: a probability, between 0 and 1, both excluded")

    def enough(each: int) -> bool:
        count = each * configurations
        local, rest = share_local * count, (1 - share_local) * count
        return power_of(margin, sigma, local, rest, configurations, alpha, difference) >= power

    rarer = min(share_local, 1 - share_local)
    low = math.ceil(max(_LEAST_GROUP / configurations, 2) / rarer * (1 - 1e-12))
    most = int(_MOST) // configurations
    if enough(low):
        return low * configurations
    high = min(2 * low, most)
    while not enough(high):  # doubled, since few are cheaper to ask about than many
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high * configurations


def power_table(
    points: pd.DataFrame,
    margins: Sequence[float],
    options: VerdictOptions | None = None,
    *,
    trials: pd.DataFrame | None = None,
    landscape_key: pd.Series | None = None,
    known_minimum: float | Mapping[str, float | None] | None = None,
    split_column: str | None = None,
    power: float = POWER,
) -> pd.DataFrame:
    """How many trials of this sweep each margin needs, from the spread and the shares that are in.

    points, trials, landscape_key, known_minimum, split_column: as ``verdict`` takes them; options: its metric, alpha,
    band and reference. One row a margin, in the metric's unit: ``margin``; ``n_trials`` in all now, excluded ones among
    them; ``n_local``, ``n_global``, ``n_configs`` that the estimate rests on; ``standard_error`` of the estimate now;
    ``power_now`` at a true difference of 0; ``trials_needed`` in all for ``power``, in the present proportions (<NA>
    where there is no answer); ``reason`` why not, else empty.

    Raises QueryError for margins that are not positive numbers.
    """
    from landsweep.analysis.judgement import LEAST_SPLITS, judge_splits, judge_strata
    from landsweep.analysis.verdict import VerdictOptions

    if not len(margins) or not all(0 < margin < math.inf for margin in margins):
        raise QueryError(f"margins are {list(margins)}: give positive numbers, in the metric's unit")
    options = options or VerdictOptions()
    samples, splits, cells, total = _view(points, options, trials, landscape_key, known_minimum, split_column)
    counts = {
        "n_trials": total,
        "n_local": sum(len(sample.local) for sample in samples),
        "n_global": sum(len(sample.best) for sample in samples),
        "n_configs": len(samples),
    }
    rows = []
    for margin in margins:
        row: dict[str, Any] = {"margin": float(margin), **counts, "standard_error": math.nan, "power_now": math.nan}
        row |= {"trials_needed": None, "reason": "no configuration has 2 trials in each group"}
        if samples:
            if len(set(splits)) >= LEAST_SPLITS:
                judged = judge_splits(samples, splits, cells, margin=margin, alpha=options.alpha, resamples=1)
            else:
                judged = judge_strata(samples, margin=margin, alpha=options.alpha, resamples=1)
            limits = (margin, options.alpha, judged.least_scale)
            row |= _needs(judged.estimate, judged.estimate_at, limits, total, power)
        rows.append(row)
    return pd.DataFrame(rows).astype({"trials_needed": "Int64", "reason": "str"})


def _needs(
    estimate: Estimate,
    estimate_at: Callable[[float], Estimate],
    limits: tuple[float, float, float],
    total: int,
    power: float,
) -> dict[str, Any]:
    margin, alpha, least = limits
    error = estimate.standard_error
    if error == 0:
        return {"standard_error": 0.0, "reason": "nothing varies within the groups: more of the same changes nothing"}
    scale = scale_needed(estimate_at, margin, alpha, least, power)
    return {
        "standard_error": error,
        "power_now": equivalence_power(error, estimate.degrees, margin, alpha),
        "trials_needed": None if scale is None else math.ceil(scale * total * (1 - 1e-9)),
        "reason": "no number of trials reaches the power" if scale is None else "",
    }


def _view(
    points: pd.DataFrame,
    options: VerdictOptions,
    trials: pd.DataFrame | None,
    landscape_key: pd.Series | None,
    known_minimum: float | Mapping[str, float | None] | None,
    split_column: str | None,
) -> tuple[list[Sample], list[str], list[str], int]:
    """The verdict's samples, the split and the cell of each, and the number of trials."""
    from landsweep.analysis.groups import gather, landscape_keys
    from landsweep.analysis.strata import stratify
    from landsweep.analysis.verdict import SPLIT_COLUMN

    column = split_column or (SPLIT_COLUMN if SPLIT_COLUMN in points.columns else None)
    groups = gather(
        points,
        metric=options.metric,
        trials=trials,
        landscape=landscape_keys(points, landscape_key),
        known_minimum=known_minimum,
        reference=options.reference,
        band=options.band,
        split_column=column,
    )
    samples, _ = stratify(groups.chosen, "value")
    of = groups.chosen.drop_duplicates("config").set_index("config")
    splits = [str(of["split"][sample.name]) for sample in samples]
    cells = [str(of["cell"][sample.name]) for sample in samples]
    return samples, splits, cells, groups.n_trials


def _cell(sigma: float, n_local: float, n_global: float) -> tuple[float, float] | None:
    """Standard error and degrees of freedom of one configuration's difference; None below 2 trials of a group."""
    if min(n_local, n_global) < 2 - 1e-9:
        return None
    total = 1 / n_local + 1 / n_global
    spread = 1 / (n_local**2 * (n_local - 1)) + 1 / (n_global**2 * (n_global - 1))
    return sigma * math.sqrt(total), total**2 / spread


def _q_level(strata: int, degrees: float) -> float:
    """P(Cochran's Q exceeds its χ² quantile) for equal strata that do not differ, each of ``degrees`` of freedom.

    Q/[(k − 1)(1 + 2(k − 2)A/(k² − 1))] ~ F(k − 1, (k² − 1)/(3A)), A = (k − 1)²/(kν) (Welch, Biometrika 38, 1951,
    330–336, at equal weights).
    """
    from scipy.stats import chi2, f

    shape = (strata - 1) ** 2 / (strata * degrees)
    scale = (strata - 1) * (1 + 2 * (strata - 2) * shape / (strata**2 - 1))
    limit = float(chi2.isf(HETEROGENEITY_LEVEL, strata - 1))
    return float(f.sf(limit / scale, strata - 1, (strata**2 - 1) / (3 * shape)))


def _check(margin: float, sigma: float, configurations: int, alpha: float) -> None:
    if not 0 < margin < math.inf:
        raise QueryError(f"margin is {margin}: it must be a positive number, in the metric's unit")
    if not 0 < sigma < math.inf:
        raise QueryError(f"sigma is {sigma}: it must be a positive number, in the metric's unit")
    if configurations < 1:
        raise QueryError(f"configurations is {configurations}: there is at least one")
    if not 0 < alpha < 0.5:
        raise QueryError(f"alpha is {alpha}: it must lie between 0 and 0.5, both excluded")


def _spread(degrees: float) -> FloatArray:
    """Midpoint quantiles of √(χ²_ν/ν); 1 where ν is so large that it does not vary."""
    from scipy.special import gammaincinv

    if degrees > 1e7:
        return np.ones(1)
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    return np.asarray(np.sqrt(2 * gammaincinv(degrees / 2, nodes) / degrees), dtype=np.float64)


def scale_needed(
    estimate_at: Callable[[float], Estimate], margin: float, alpha: float, least: float, power: float = POWER
) -> float | None:
    """The smallest factor f ≥ ``least`` on the number of trials at which the power reaches ``power``; None: none does.

    ``estimate_at(f)`` is the estimate as it would be with f times the trials. Bisection on log f: power rises with f.
    """

    def enough(factor: float) -> bool:
        estimate = estimate_at(factor)
        return (
            estimate.standard_error == 0
            or equivalence_power(estimate.standard_error, estimate.degrees, margin, alpha) >= power
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
