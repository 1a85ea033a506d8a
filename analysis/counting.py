"""How many distinct minima there are, as far as the seeds so far can tell: species counting over ``class_id``.

One trial is one draw, the class of the minimum it reached is the species. Of a landscape with n such trials, f_k
classes were reached exactly k times; everything below is a function of these counts.

Where several configurations share a landscape their trials are pooled: "the next seed" is one more trial of the same
mixture of configurations. Trials that end at no minimum are left out and counted by reason: a draw here is a trial that
ends at a minimum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landsweep.analysis.equivalence import FloatArray
from landsweep.analysis.groups import Groups, gather, known_minima, landscape_keys
from landsweep.workers.errors import QueryError

IntArray = NDArray[np.int64]
_STEPS = 40  # sizes on a rarefaction curve, at most


@dataclass(frozen=True)
class LowerBound:
    """Chao1: an estimated LOWER BOUND of the number of classes, never an estimate of the number itself.

    It is the number only where all unseen classes are about equally likely. ``low`` and ``high`` bracket the bound, not
    the truth; ``lower_limit`` is the one figure that can be quoted alone: the truth is at least this, at ``level``.
    """

    estimate: float  # classes
    standard_error: float | None  # classes; None where no class is estimated to be unseen
    low: float  # two-sided interval of the bound at ``level``; never below the classes seen
    high: float
    lower_limit: int  # classes: one-sided limit at ``level``, rounded down
    level: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Share:
    """A probability with its interval."""

    value: float
    low: float
    high: float
    level: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class GlobalSeen:
    """What can be said about whether the global minimum has been reached.

    Counts of classes bound the chance of reaching an unseen class; they say nothing about its objective. So no
    probability that an unseen class lies lower is given: it cannot be derived from them.
    """

    status: str  # seen | not_seen: against a known minimum; unknown: none is known
    lowest: float  # objective of the lowest class reached
    lowest_class: str
    times: int  # trials that reached it
    known_minimum: float | None
    missable_share: (
        float  # a class that is reached this often or more is missed by all n trials in ≤ 1 − level of sweeps
    )
    statement: str

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class LandscapeCount:
    """The distinct minima of one landscape."""

    landscape: str
    n_configs: int
    n_trials: int  # that reached a minimum with a class
    n_degenerate: int  # of them at a degenerate minimum: one valley may have been split into several classes
    n_classes: int  # distinct classes reached
    counts: dict[str, int]  # class → trials, the most frequent first
    singletons: int  # classes reached once
    doubletons: int  # classes reached twice
    chao1: LowerBound | None  # None where no trial reached a minimum
    coverage: Share | None  # share of next draws that fall into a class already seen
    new_next: Share | None  # chance that the next seed finds a new class: 1 − coverage
    global_seen: GlobalSeen | None
    excluded: dict[str, int]  # trials by reason

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def rarefaction(self, sizes: Sequence[int] | None = None) -> pd.DataFrame:
        """Expected distinct classes among m of the n trials (``rarefaction``)."""
        return rarefaction(list(self.counts.values()), sizes)


@dataclass(frozen=True)
class Counting:
    """The distinct minima of every landscape of a sweep."""

    landscapes: tuple[LandscapeCount, ...]  # ordered by landscape key
    excluded: dict[str, int]  # trials of no known landscape, by reason

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {"landscapes": [one.as_dict() for one in self.landscapes], "excluded": dict(self.excluded)}

    def table(self) -> pd.DataFrame:
        """One row a landscape; what could not be estimated is NaN."""
        return pd.DataFrame([_row(one) for one in self.landscapes])


def count_classes(
    points: pd.DataFrame,
    trials: pd.DataFrame | None = None,
    *,
    landscape_key: pd.Series | None = None,
    known_minimum: float | Mapping[str, float | None] | None = None,
    band: float | None = None,
    level: float = 0.95,
) -> Counting:
    """Count the distinct minima that the trials of each landscape ended at, and say how many may be missing.

    points: the points table with ``class_id``; one point a trial counts, source ``training``, kind ``minimum`` or
    ``degenerate_minimum``. trials: the trials table, for those that failed. landscape_key: as in ``verdict``.
    known_minimum: the objective of the global minimum, or one per landscape key (None: what ``trials`` says). band: how
    far above it a class still is the global one, in units of the objective (None: max(1e-6, 1e-4·|known_minimum|)).
    level: of every interval, in (0, 1).

    Raises QueryError where a column is missing or ``level`` is no level.
    """
    check_level(level)
    if "class_id" not in points.columns:
        raise QueryError("the points have no column 'class_id', which says what is the same minimum: read it too")
    keys = landscape_keys(points, landscape_key)
    configs = points["config"].astype(str)
    if known_minimum is None:
        known_minimum = known_minima(points, trials, keys)
    found = []
    for key in sorted(set(keys)):
        mine = keys == key
        own = None if trials is None else trials[trials["config"].astype(str).isin(set(configs[mine]))]
        known = known_minimum.get(str(key)) if isinstance(known_minimum, Mapping) else known_minimum
        found.append(_landscape(str(key), points[mine], own, keys[mine], known, band, level))
    return Counting(tuple(found), _without_landscape(trials, set(configs)))


def rarefaction(counts: Sequence[int] | IntArray, sizes: Sequence[int] | None = None) -> pd.DataFrame:
    """Expected number of distinct classes among m trials drawn without replacement from the n there are.

    With class i reached n_i times, a_i = C(n−n_i, m)/C(n, m) and a_ij = C(n−n_i−n_j, m)/C(n, m):

        E[S_m] = Σ_i (1 − a_i),      Var[S_m] = Σ_i a_i(1 − a_i) + 2 Σ_{i<j} (a_ij − a_i a_j)

    counts: (classes,) trials per class. sizes: the m, each in 1…n (None: at most 40 of them from 1 to n).
    Returns columns ``trials`` (m), ``classes`` (E), ``standard_deviation`` (√Var; 0 at m = n: the draw is conditional
    on these n trials).

    Sources: Hurlbert, Ecology 52 (1971) 577–586; Heck, van Belle & Simberloff, Ecology 56 (1975) 1459–1461.

    >>> rarefaction([2, 1], [1, 2, 3])["classes"].round(6).tolist()
    [1.0, 1.666667, 2.0]
    """
    array = _checked(counts)
    n = int(array.sum())
    if sizes is None:
        wanted = np.unique(np.linspace(1, n, min(n, _STEPS)).round().astype(np.int64))
    else:
        wanted = np.asarray(sizes, dtype=np.int64)
        if len(wanted) == 0 or wanted.min() < 1 or wanted.max() > n:
            raise QueryError(f"sizes of a rarefaction curve must lie in 1 … {n}, the trials there are; found {sizes}")
    values, repeats = np.unique(array, return_counts=True)
    rows = [_rarefied(values, repeats.astype(np.float64), n, int(m)) for m in wanted]
    return pd.DataFrame(
        {
            "trials": wanted,
            "classes": [mean for mean, _ in rows],
            "standard_deviation": [math.sqrt(variance) for _, variance in rows],
        }
    )


def good_turing(counts: Sequence[int] | IntArray, level: float = 0.95) -> Share:
    """Coverage: the probability that the next trial falls into a class already seen.

        C = 1 − (f1/n)·[(n−1)f1 / ((n−1)f1 + 2f2)]        (f2 = 0: 1 − (f1/n)·[(n−1)(f1−1) / ((n−1)(f1−1) + 2)])

    which improves Good's 1 − f1/n (Biometrika 40 (1953) 237–264) as Chao & Jost (Ecology 93 (2012) 2533–2547, eq. 4a)
    do. The interval is C ± z·√(f1(1 − f1/n) + 2f2)/n, normal theory for the realised coverage (Esty, Ann. Stat. 11
    (1983) 905–912), within [0, 1]; its lower end is never above tail^(1/n), tail = (1 − level)/2: a class of share
    1 − tail^(1/n) is missed by n trials with that probability, so that f1 = 0 does not read as certainty. n = 1 tells
    nothing: 0 to 1.
    """
    from scipy.stats import norm

    check_level(level)
    array = _checked(counts)
    n, f1, f2 = int(array.sum()), int((array == 1).sum()), int((array == 2).sum())
    if n == 1:
        return Share(0.0, 0.0, 1.0, level)
    top, rest = ((n - 1) * f1, 2 * f2) if f2 else ((n - 1) * max(f1 - 1, 0), 2)
    value = 1 - f1 / n * top / (top + rest) if f1 else 1.0
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(f1 * (1 - f1 / n) + 2 * f2) / n
    low = min(value - half, ((1 - level) / 2) ** (1 / n))
    return Share(value, max(low, 0.0), min(value + half, 1.0), level)


def chao1(counts: Sequence[int] | IntArray, level: float = 0.95, *, bias_corrected: bool = True) -> LowerBound:
    """Chao's LOWER BOUND of the number of classes, seen and unseen together.

    With S classes seen and k = (n−1)/n, the bound on the unseen ones is

        bias-corrected:  T = k·f1(f1−1) / (2(f2+1)),
            var = k·f1(f1−1)/(2(f2+1)) + k²·f1(2f1−1)²/(4(f2+1)²) + k²·f1²f2(f1−1)²/(4(f2+1)⁴)
        else, f2 > 0:    T = k·f1²/(2f2),   var = f2·[k/2·r² + k²·r³ + k²/4·r⁴],   r = f1/f2

    (f2 = 0: var = k·f1(f1−1)/2 + k²·f1(2f1−1)²/4 − k²·f1⁴/(4(S+T))). Intervals are log-normal: S + T/K … S + T·K with
    K = exp(z·√ln(1 + var/T²)). With T = 0 nothing is estimated to be unseen: then S/(1−P) ± z·√v/(1−P), never below S,
    with P = Σ_i f_i e^(−i)/S and v = Σ f_i(e^(−i) − e^(−2i)) − (Σ i·f_i·e^(−i))²/n.

    ``lower_limit`` is the one-sided limit (z of ``level``), rounded down to a whole class and never below S. Unrounded
    it lies above S by construction wherever T > 0, also where all classes have been seen, so it would exceed the truth
    (by less than one class) far more often than it says; the same holds for ``low``, which is left as published.

    Sources: Chao, Scand. J. Stat. 11 (1984) 265–270 (the bound); Chao, Biometrics 43 (1987) 783–791 (interval); Chao in
    Encyclopedia of Statistical Sciences (2005) (bias-corrected); Colwell et al., J. Plant Ecol. 5 (2012) 3–21 (var).

    >>> round(chao1([5, 4, 2, 1, 1, 1]).estimate, 6)
    7.392857
    """
    from scipy.stats import norm

    check_level(level)
    array = _checked(counts)
    seen, unseen, variance = (float(part[0]) for part in chao1_parts(array[None, :], bias_corrected=bias_corrected))
    two, one = float(norm.ppf((1 + level) / 2)), float(norm.ppf(level))
    if unseen <= 0:
        low, high = _all_seen(array, two)
        return LowerBound(seen, None, low, high, int(max(seen, math.floor(_all_seen(array, one)[0]))), level)
    spread = math.sqrt(math.log1p(variance / unseen**2))
    low, high = seen + unseen / math.exp(two * spread), seen + unseen * math.exp(two * spread)
    limit = int(max(seen, math.floor(seen + unseen / math.exp(one * spread))))
    return LowerBound(seen + unseen, math.sqrt(variance), low, high, limit, level)


def chao1_parts(counts: IntArray, *, bias_corrected: bool = True) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(classes seen, bound on the unseen, its variance), each (draws,), of ``counts`` (draws, classes); 0 is unseen."""
    n = counts.sum(axis=1).astype(np.float64)
    seen = (counts > 0).sum(axis=1).astype(np.float64)
    f1, f2 = ((counts == times).sum(axis=1).astype(np.float64) for times in (1, 2))
    k = (n - 1) / n
    unseen = k * f1 * (f1 - 1) / (2 * (f2 + 1))
    variance = k * f1 * (f1 - 1) / (2 * (f2 + 1)) + k**2 * f1 * (2 * f1 - 1) ** 2 / (4 * (f2 + 1) ** 2)
    variance += k**2 * f1**2 * f2 * (f1 - 1) ** 2 / (4 * (f2 + 1) ** 4)
    with_none = variance - k**2 * f1**4 / (4 * (seen + unseen))
    variance = np.where(f2 == 0, with_none, variance)
    if not bias_corrected:
        ratio = f1 / np.maximum(f2, 1)
        unseen = np.where(f2 > 0, k * f1 * ratio / 2, unseen)
        classical = f2 * (k / 2 * ratio**2 + k**2 * ratio**3 + k**2 / 4 * ratio**4)
        variance = np.where(f2 > 0, classical, variance)
    return seen, unseen, np.maximum(variance, 0.0)


def check_level(level: float) -> None:
    """Raises QueryError unless ``level`` is a confidence level."""
    if not 0 < level < 1:
        raise QueryError(f"level is {level}: a confidence level must lie between 0 and 1, both excluded")


def reached(points: pd.DataFrame, groups: Groups) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row for every trial of ``groups`` that ended at a minimum with a class, and the others by reason.

    points: the table that ``groups`` was gathered from. Columns: those of ``Groups.chosen``, ``class_id`` and ``kind``.
    """
    rows = groups.chosen["row"].to_numpy(dtype=np.int64)
    named = points[["class_id", "kind"]].iloc[rows].reset_index(drop=True)
    chosen = groups.chosen.drop(columns=["class_id", "kind"], errors="ignore").assign(**named)
    known = chosen["class_id"].notna()
    excluded = dict(groups.excluded)
    if not known.all():
        excluded["no class_id"] = int((~known).sum())
    return chosen[known].reset_index(drop=True), excluded


def _landscape(
    key: str,
    points: pd.DataFrame,
    trials: pd.DataFrame | None,
    keys: pd.Series,
    known: float | None,
    band: float | None,
    level: float,
) -> LandscapeCount:
    groups = gather(
        points,
        metric="objective",
        trials=trials,
        landscape=keys,
        known_minimum=None,
        reference=None,
        band=None,
        split_column=None,
    )
    chosen, excluded = reached(points, groups)
    tally = chosen["class_id"].astype(str).value_counts()
    names = sorted(tally.index, key=lambda name: (-tally[name], name))
    counts = {str(name): int(tally[name]) for name in names}
    values = list(counts.values())
    coverage = good_turing(values, level) if values else None
    return LandscapeCount(
        landscape=key,
        n_configs=int(points["config"].nunique()),
        n_trials=len(chosen),
        n_degenerate=int((chosen["kind"] == "degenerate_minimum").sum()),
        n_classes=len(counts),
        counts=counts,
        singletons=values.count(1),
        doubletons=values.count(2),
        chao1=chao1(values, level) if values else None,
        coverage=coverage,
        new_next=Share(1 - coverage.value, 1 - coverage.high, 1 - coverage.low, level) if coverage else None,
        global_seen=_global(chosen, counts, known, band, level) if values else None,
        excluded=excluded,
    )


def _global(
    chosen: pd.DataFrame, counts: Mapping[str, int], known: float | None, band: float | None, level: float
) -> GlobalSeen:
    place = int(chosen["objective"].to_numpy(dtype=np.float64).argmin())
    lowest, name = float(chosen["objective"].iloc[place]), str(chosen["class_id"].iloc[place])
    n, times = len(chosen), counts[name]
    missable = 1 - (1 - level) ** (1 / n)
    tail = (
        f"a minimum that a trial reaches with probability {missable:.3g} or more would have been missed by all "
        f"{n} trials in at most {100 * (1 - level):.3g} % of sweeps"
    )
    if known is None:
        status = "unknown"
        statement = (
            f"the lowest class was reached {times} times in {n} trials; whether an unseen class lies lower cannot be "
            f"derived from counts; {tail}"
        )
    else:
        width = max(1e-6, 1e-4 * abs(known)) if band is None else band
        times = int((chosen["objective"] <= known + width).sum())
        status = "seen" if times else "not_seen"
        found = f"was reached {times} times in {n} trials" if times else f"was reached in none of {n} trials"
        statement = f"the known global minimum {found}; {tail}"
    return GlobalSeen(status, lowest, name, times, known, missable, statement)


def _without_landscape(trials: pd.DataFrame | None, configs: set[str]) -> dict[str, int]:
    """Trials of configurations that have no point at all: nothing says which landscape is theirs."""
    if trials is None or not len(trials):
        return {}
    count = trials.loc[~trials["config"].astype(str).isin(configs), "trial"].nunique()
    return {"no point in the configuration": int(count)} if count else {}


def _row(one: LandscapeCount) -> dict[str, Any]:
    bound, coverage, new = one.chao1, one.coverage, one.new_next
    return {
        "landscape": one.landscape,
        "trials": one.n_trials,
        "classes": one.n_classes,
        "singletons": one.singletons,
        "doubletons": one.doubletons,
        "chao1_lower_bound": bound.estimate if bound else math.nan,
        "chao1_low": bound.low if bound else math.nan,
        "chao1_high": bound.high if bound else math.nan,
        "classes_at_least": float(bound.lower_limit) if bound else math.nan,
        "coverage": coverage.value if coverage else math.nan,
        "coverage_low": coverage.low if coverage else math.nan,
        "coverage_high": coverage.high if coverage else math.nan,
        "new_next": new.value if new else math.nan,
        "global_minimum": one.global_seen.status if one.global_seen else "no minimum",
        "excluded": sum(one.excluded.values()),
    }


def _checked(counts: Sequence[int] | IntArray) -> IntArray:
    array = np.asarray(counts)
    if array.ndim != 1 or len(array) == 0:
        raise QueryError("there is no class to count: no trial reached a minimum")
    if not np.issubdtype(array.dtype, np.number) or not (np.isfinite(array) & (array >= 1) & (array % 1 == 0)).all():
        raise QueryError(f"counts must be whole numbers of trials, each at least 1; found {array.tolist()[:8]}")
    return array.astype(np.int64)


def _rarefied(values: IntArray, repeats: FloatArray, n: int, m: int) -> tuple[float, float]:
    """(E, Var) of the classes among m; classes with equal counts are taken together, ``repeats`` of each."""
    absent = _absent(values, n, m)  # a_i
    mean = float((repeats * (1 - absent)).sum())
    both = _absent(values[:, None] + values[None, :], n, m) - absent[:, None] * absent[None, :]
    pairs = repeats[:, None] * repeats[None, :]
    same = float((repeats * np.diagonal(both)).sum())
    variance = float((repeats * absent * (1 - absent)).sum()) + float((pairs * both).sum()) - same
    return mean, max(variance, 0.0)


def _absent(counts: IntArray, n: int, m: int) -> FloatArray:
    """C(n−c, m)/C(n, m): the chance that m of n trials miss a class of c."""
    from scipy.special import gammaln

    left = (n - counts).astype(np.float64)
    fits = left >= m
    safe = np.where(fits, left, m)
    log = gammaln(safe + 1) - gammaln(safe - m + 1) - gammaln(n + 1.0) + gammaln(n - m + 1.0)
    return np.asarray(np.where(fits, np.exp(log), 0.0), dtype=np.float64)


def _all_seen(counts: IntArray, z: float) -> tuple[float, float]:
    """The interval where no unseen class is estimated."""
    n, seen = float(counts.sum()), float(len(counts))
    decay = np.exp(-counts.astype(np.float64))
    missed = float(decay.sum()) / seen
    variance = float((decay - decay**2).sum()) - float((counts * decay).sum()) ** 2 / n
    half = z * math.sqrt(max(variance, 0.0)) / (1 - missed)
    return max(seen, seen / (1 - missed) - half), seen / (1 - missed) + half
