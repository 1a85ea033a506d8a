"""Random-matrix views: index against objective, bulk laws of spectra with their outliers, losses against width.

These are comparisons with models, not tests of them: eigenvalues of one matrix are not independent, so the distances
to a bulk law come without p-values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.counting import check_level
from landsweep.analysis.equivalence import FloatArray
from landsweep.analysis.groups import gather, landscape_keys
from landsweep.analysis.topology import need
from landsweep.workers.errors import QueryError
from landsweep.workers.record import CRITICAL_KINDS

#: 99 % quantile of the Tracy–Widom law (β = 1): how far the largest bulk eigenvalue strays, in units of its own scale.
TRACY_WIDOM_99 = 2.0234
LAWS = ("marchenko_pastur", "shifted_marchenko_pastur", "semicircle")
_EXPONENT = 1.5
_LEAST_POINTS = 8  # for an index law
_LEAST_LEVELS = 4  # distinct objectives with a positive index
_LEAST_EIGENVALUES = 20
_GRID = 2001
_NO_BULK = "fewer than half of the eigenvalues lie within the edges: the law does not describe this spectrum"
_OUTLIERS = ("n_eigenvalues", "n_atom", "upper", "upper_limit", "n_outliers", "n_classes", "difference", "distance")
_CONCENTRATION = (
    *("width", "config", "n", "mean", "mean_low", "mean_high", "sd", "sd_low", "sd_high"),
    *("rho", "rho_low", "rho_high", "note"),
)


@dataclass(frozen=True)
class PowerFit:
    """α = c·max(ε − ε_c, 0)^exponent by least squares; intervals at ``level``, clustered by trial."""

    c: float  # per objective^exponent
    c_low: float
    c_high: float
    threshold: float  # ε_c, units of the objective
    threshold_low: float
    threshold_high: float
    exponent: float
    exponent_low: float | None  # None where it was fixed
    exponent_high: float | None
    residual: float  # Σ (α − fit)²
    at_edge: bool  # ε_c or the exponent ended at the end of what was searched: its interval means nothing then


@dataclass(frozen=True)
class IndexLaw:
    """The index fraction against the objective of one landscape's critical points."""

    landscape: str
    n_points: int
    n_trials: int
    fixed: PowerFit | None  # exponent 3/2
    free: PowerFit | None
    reason: str  # why there is no fit; empty where there is
    excluded: dict[str, int]  # points by reason
    data: pd.DataFrame  # objective, fraction, trial

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, without the data."""
        parts = {name: value for name, value in vars(self).items() if name not in ("data", "fixed", "free")}
        return parts | {
            name: asdict(fit) if fit else None for name, fit in (("fixed", self.fixed), ("free", self.free))
        }


@dataclass(frozen=True)
class Bulk:
    """A bulk law fitted to one spectrum, and what lies outside it."""

    law: str  # one of LAWS
    shift: float  # of a Marchenko–Pastur law; the centre of a semicircle
    scale: float  # σ² of a Marchenko–Pastur law; the radius of a semicircle
    ratio: float | None  # q of a Marchenko–Pastur law, in (0, 1]
    lower: float  # edges of the law
    upper: float
    upper_limit: float  # upper edge and 2.02 Tracy–Widom scales: above it an eigenvalue is an outlier
    lower_limit: float  # lower edge less the same; −inf where the law has a hard edge (q = 1)
    distance: float  # Kolmogorov–Smirnov, of the bulk eigenvalues to the law
    n_eigenvalues: int  # finite ones
    n_atom: int  # left out as equal to ``atom``
    n_bulk: int
    n_above: int
    n_below: int
    excluded: int  # eigenvalues that are not finite
    note: str = ""  # says so where the law does not describe the spectrum

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values; a limit that is infinite is None."""
        return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(self).items()}

    def cdf(self, x: FloatArray) -> FloatArray:
        """The law's distribution function at ``x``."""
        standard, cumulative = _standard(self.law, self.ratio or 1.0)
        return np.interp((np.asarray(x, dtype=np.float64) - self.shift) / self.scale, standard, cumulative)

    def density(self, x: FloatArray) -> FloatArray:
        """The law's density at ``x``, per unit of eigenvalue."""
        return _density(self.law, (np.asarray(x, dtype=np.float64) - self.shift) / self.scale, self.ratio) / self.scale


@dataclass(frozen=True)
class Concentration:
    """The test loss of minima by configuration, in the order of their width."""

    metric: str
    table: pd.DataFrame  # see ``loss_concentration``
    excluded: dict[str, int]  # trials by reason

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values; NaN is None."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"metric": self.metric, "rows": rows, "excluded": dict(self.excluded)}


def index_law(
    points: pd.DataFrame,
    *,
    landscape_key: pd.Series | None = None,
    largest_fraction: float = 1.0,
    level: float = 0.95,
) -> tuple[IndexLaw, ...]:
    """Fit α = c·(ε − ε_c)^{3/2} for ε > ε_c, 0 below, to the index fraction α = index/n of critical points.

    ε is the objective and n the number of parameters (index + n_positive + n_zero + n_undetermined). Beside it the same
    with a free exponent. Least squares over all critical points whose signs are all known (n_undetermined = 0), those
    of index 0 among them: scipy's ``least_squares`` from the best of a grid over ε_c (c is linear). Intervals are
    estimate ± t·s.e. with the covariance clustered by trial (CR1), since points of one trial are alike; degrees of
    freedom: trials less parameters. largest_fraction: points with a larger α are left out (the law holds for small
    index). One result a landscape.

    Source: Pennington & Bahri, ICML 2017 (α ∝ (ε − ε_c)^{3/2} near ε_c, for Wishart plus Wigner Hessians).
    Raises QueryError where a column is missing or an option means nothing.
    """
    columns = ("config", "trial", "kind", "objective", "index", "n_positive", "n_zero", "n_undetermined")
    need(points, columns, "an index law")
    if not 0 < largest_fraction <= 1:
        raise QueryError(f"largest_fraction is {largest_fraction}: it must lie in (0, 1]")
    check_level(level)
    keys = landscape_keys(points, landscape_key)
    return tuple(_law(str(key), points[keys == key], largest_fraction, level) for key in sorted(set(keys)))


def fit_bulk(
    eigenvalues: FloatArray, law: str = "marchenko_pastur", *, atom: float = 0.0, atom_width: float = 0.0
) -> Bulk:
    """Fit a bulk law to a full spectrum and count what lies outside.

    - ``marchenko_pastur``: λ = σ²·x, x with density √((x₊−x)(x−x₋))/(2πqx) between x± = (1 ± √q)²;
    - ``shifted_marchenko_pastur``: λ = shift + σ²·x (weight decay shifts a Hessian's spectrum);
    - ``semicircle``: density 2√(R²−(λ−centre)²)/(πR²).

    q in (0, 1]: for a p × p matrix from N < p vectors the continuous part is that of ratio N/p with σ²·p/N, and the
    p − N zeros are an atom. atom, atom_width: eigenvalues within ``atom_width`` of ``atom`` are left out and counted.

    Where fewer than half of the eigenvalues end up within the edges, ``note`` says that the law does not hold here.

    Quantile matching: the law's quantiles at (i − ½)/m against the sorted bulk, least squares (location and scale are
    linear, q is searched by scipy's ``minimize_scalar``), m at first without the upper tenth. What lies beyond an edge
    by more than 2.02 Tracy–Widom scales (99 %; s = (πNa)^{−2/3} where the density is a·√(edge−λ) at the edge) is no
    bulk; then again until nothing changes. distance is max |F_bulk − F_law|.

    eigenvalues: (n,), at least 20 outside the atom. Raises QueryError where they are fewer or have no spread,
    or where half of them are not positive and the law knows no others.
    Sources: Marchenko & Pastur, Math. USSR Sb. 1 (1967) 457–483; Wigner, Ann. Math. 67 (1958) 325–327; Johnstone, Ann.
    Stat. 29 (2001) 295–327 (edge).
    """
    if law not in LAWS:
        raise QueryError(f"law {law!r} is unknown: there are {', '.join(LAWS)}")
    if not (math.isfinite(atom) and 0 <= atom_width < math.inf):
        raise QueryError(f"atom is {atom}, atom_width {atom_width}: they must be finite, the width not negative")
    given = np.asarray(eigenvalues, dtype=np.float64).reshape(-1)
    finite = np.sort(given[np.isfinite(given)])
    values = finite[np.abs(finite - atom) > atom_width] if atom_width > 0 else finite
    if len(values) < _LEAST_EIGENVALUES:
        raise QueryError(
            f"{len(values)} eigenvalues are left to fit {law} to: a bulk needs at least {_LEAST_EIGENVALUES}; read the "
            "full spectra (points hold at most 32 extremes)"
        )
    if values[-1] - values[0] <= 1e-12 * max(1.0, float(np.abs(values).max())):
        raise QueryError(f"the {len(values)} eigenvalues are all equal to {values[0]:.6g}: there is no bulk to fit")
    if law == "marchenko_pastur" and np.median(values) <= 0:
        raise QueryError(
            "at least half of the eigenvalues are not positive, which marchenko_pastur cannot have: leave out the "
            "zeros (atom_width) or fit shifted_marchenko_pastur or semicircle"
        )
    kept, parameters = _settled(values, law)
    shift, scale, ratio = parameters
    bulk = values[kept]
    lower, upper, below, above = _edges(law, parameters, len(bulk))
    probe = Bulk(law, shift, scale, ratio, lower, upper, above, below, 0.0, 0, 0, 0, 0, 0, 0)
    steps = np.arange(len(bulk) + 1) / len(bulk)
    at = probe.cdf(bulk)
    distance = float(max(np.abs(steps[1:] - at).max(), np.abs(steps[:-1] - at).max()))
    return replace(
        probe,
        distance=distance,
        n_eigenvalues=len(finite),
        n_atom=len(finite) - len(values),
        n_bulk=len(bulk),
        n_above=int((values > above).sum()),
        n_below=int((values < below).sum()),
        excluded=len(given) - len(finite),
        note=_NO_BULK if len(bulk) < len(values) / 2 else "",
    )


def outliers(
    spectra: pd.DataFrame,
    n_classes: int,
    *,
    law: str = "shifted_marchenko_pastur",
    atom: float = 0.0,
    atom_width: float = 0.0,
) -> pd.DataFrame:
    """How many eigenvalues of each full spectrum lie above its bulk, against the number of classes of the data.

    Sagun, Bottou & LeCun (2016, arXiv:1611.07476) and Sagun et al. (2017, arXiv:1706.04454) see about as many large
    eigenvalues as the data have classes, above a bulk near 0.

    spectra: columns ``point`` and ``eigenvalues`` (full spectra), others are kept where named ``config`` or ``kind``.
    n_classes: of the data set, at least 2. Returns one row a spectrum: ``n_eigenvalues n_atom upper upper_limit
    n_outliers n_classes difference distance`` (difference = outliers − classes) and ``reason``, why there is no fit
    (numbers are null then) or why it is none to trust. Raises QueryError where a column is missing or there is no
    spectrum.
    """
    need(spectra, ("point", "eigenvalues"), "a count of outliers", "spectra")
    if isinstance(n_classes, bool) or not isinstance(n_classes, (int, np.integer)) or n_classes < 2:
        raise QueryError(f"n_classes is {n_classes!r}: it must be a whole number of at least 2")
    if not len(spectra):
        raise QueryError("there is no full spectrum: run the sweep with measure.spectrum: dense")
    names = [name for name in ("point", "config", "kind") if name in spectra.columns]
    rows = [
        {**{name: row[name] for name in names}, **_counted(row["eigenvalues"], int(n_classes), law, atom, atom_width)}
        for row in spectra[[*names, "eigenvalues"]].to_dict("records")
    ]
    whole = ("n_eigenvalues", "n_atom", "n_outliers", "n_classes", "difference")
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def loss_concentration(
    points: pd.DataFrame,
    trials: pd.DataFrame | None = None,
    *,
    metric: str = "test_loss",
    width: str = "landscape.hidden",
    level: float = 0.95,
) -> Concentration:
    """Mean and spread of the metric over minima, and its correlation with the training loss, by width.

    Choromanska et al. (AISTATS 2015) see the test losses of minima concentrate, and ρ(train, test) fall, as the hidden
    layer grows. One point a trial: source training, kind minimum or degenerate_minimum; one row a configuration, so
    that optimisers are never pooled. Columns: ``width`` (sum of the hidden layers), ``config``, ``n``, ``mean
    mean_low mean_high`` (Student), ``sd sd_low sd_high`` (χ²; for normal values), ``rho rho_low rho_high`` (Pearson,
    with Fisher's interval: scipy ``pearsonr``) and ``note`` (what could not be estimated, and why). Rows by width.

    points: ``config trial point source kind objective train_loss``, the metric and ``width`` (number, or JSON list of
    numbers). trials: for those that failed. Raises QueryError where a column is missing or a width is no number.
    """
    check_level(level)
    need(points, ("train_loss", metric, width), "loss concentration")
    keys = landscape_keys(points, None)
    groups = gather(
        points,
        metric=metric,
        trials=trials,
        landscape=keys,
        known_minimum=None,
        reference=None,
        band=None,
        split_column=None,
    )
    rows = groups.chosen["row"].to_numpy(dtype=np.int64)
    train = pd.to_numeric(points["train_loss"]).to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    chosen = groups.chosen[["config", "value"]].assign(train=train)
    size = {str(config): _width(value, width) for config, value in _first(points, width).items()}
    table = [
        {"width": size[str(config)], "config": str(config), **_spread(group, level)}
        for config, group in chosen.groupby("config", sort=True)
    ]
    frame = pd.DataFrame(table, columns=list(_CONCENTRATION)).sort_values(["width", "config"], ignore_index=True)
    return Concentration(metric, frame, groups.excluded)


def _law(key: str, points: pd.DataFrame, largest: float, level: float) -> IndexLaw:
    data, excluded = _fractions(points, largest)
    law = IndexLaw(key, len(data), int(data["trial"].nunique()), None, None, "", excluded, data)
    levels = data.loc[data["fraction"] > 0, "objective"].nunique()
    if len(data) < _LEAST_POINTS or levels < _LEAST_LEVELS:
        reason = (
            f"{len(data)} critical points, {levels} distinct objectives with a positive index: a fit needs at least "
            f"{_LEAST_POINTS} and {_LEAST_LEVELS}"
        )
        return IndexLaw(**{**vars(law), "reason": reason})
    if law.n_trials < 5:
        return IndexLaw(
            **{**vars(law), "reason": f"{law.n_trials} trials: intervals clustered by trial need at least 5"}
        )
    fits = {name: _power_fit(data, free, level) for name, free in (("fixed", False), ("free", True))}
    return IndexLaw(**{**vars(law), **fits})


def _fractions(points: pd.DataFrame, largest: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """(objective, fraction, trial) of the critical points that can be used; the others by reason."""
    names = ("objective", "index", "n_positive", "n_zero", "n_undetermined")
    value = {name: pd.to_numeric(points[name]).to_numpy(dtype=np.float64, na_value=np.nan) for name in names}
    n = value["index"] + value["n_positive"] + value["n_zero"] + value["n_undetermined"]
    reason = np.full(len(points), "", dtype=object)
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = value["index"] / n
    reason[fraction > largest] = "index fraction above largest_fraction"
    reason[value["n_undetermined"] > 0] = "signs that cannot be told"
    reason[~np.isfinite(fraction)] = "no index"
    reason[~np.isfinite(value["objective"])] = "no finite objective"
    reason[~points["kind"].isin(CRITICAL_KINDS).to_numpy()] = "no critical point"
    used = reason == ""
    data = pd.DataFrame({"objective": value["objective"], "fraction": fraction, "trial": points["trial"].astype(str)})
    counts = pd.Series(reason[~used], dtype=object).value_counts()
    return data[used].reset_index(drop=True), {str(name): int(counts[name]) for name in sorted(counts.index)}


def _power_fit(data: pd.DataFrame, free: bool, level: float) -> PowerFit:
    """In units of the objective's range, so that the solver sees numbers near 1."""
    from scipy.optimize import least_squares
    from scipy.stats import t

    energy, fraction = data["objective"].to_numpy(dtype=np.float64), data["fraction"].to_numpy(dtype=np.float64)
    low, span = float(energy.min()), float(np.ptp(energy))
    x = (energy - low) / span
    thresholds, exponents = np.linspace(-1, 0.98, 199), np.linspace(0.3, 4, 38) if free else np.array([_EXPONENT])
    start = min(((_profile(x, fraction, e, b), e, b) for e in thresholds for b in exponents), key=lambda item: item[0])
    basis = _raised(x, start[1], start[2])
    first = [float(basis @ fraction / (basis @ basis)), start[1], *([start[2]] if free else [])]

    def model(p: FloatArray) -> FloatArray:
        return np.asarray(p[0] * _raised(x, p[1], p[2] if free else _EXPONENT) - fraction, dtype=np.float64)

    bounds = ([0.0, -1.0, *([0.3] if free else [])], [np.inf, 0.98, *([4.0] if free else [])])
    first = list(np.clip(first, [b + 1e-9 for b in bounds[0]], [b - 1e-9 for b in bounds[1]]))
    solved = least_squares(model, first, bounds=bounds, x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12)
    error = _clustered(np.asarray(solved.jac), solved.fun, data["trial"].to_numpy())
    half = float(t.ppf((1 + level) / 2, max(data["trial"].nunique() - len(first), 1))) * error
    c, threshold = float(solved.x[0]), float(solved.x[1])
    b = float(solved.x[2]) if free else _EXPONENT
    unit = span**-b  # with a free exponent c's interval is at the exponent found
    edge = not (-0.99 < threshold < 0.97) or (free and not 0.31 < b < 3.99)
    return PowerFit(
        c=c * unit,
        c_low=(c - float(half[0])) * unit,
        c_high=(c + float(half[0])) * unit,
        threshold=low + span * threshold,
        threshold_low=low + span * (threshold - float(half[1])),
        threshold_high=low + span * (threshold + float(half[1])),
        exponent=b,
        exponent_low=b - float(half[2]) if free else None,
        exponent_high=b + float(half[2]) if free else None,
        residual=float((solved.fun**2).sum()),
        at_edge=edge,
    )


def _raised(x: FloatArray, threshold: float, exponent: float) -> FloatArray:
    return np.asarray(np.maximum(x - threshold, 0.0) ** exponent, dtype=np.float64)


def _profile(x: FloatArray, y: FloatArray, threshold: float, exponent: float) -> float:
    """Least sum of squares over c ≥ 0."""
    basis = _raised(x, threshold, exponent)
    square, cross = float(basis @ basis), max(float(basis @ y), 0.0)
    return float(y @ y) - (cross * cross / square if square > 0 else 0.0)


def _clustered(jacobian: FloatArray, residual: FloatArray, cluster: Any) -> FloatArray:
    """Standard errors from the CR1 sandwich (JᵀJ)⁻¹ Σ_g (J_gᵀr_g)(J_gᵀr_g)ᵀ (JᵀJ)⁻¹ · G/(G−1)·(N−1)/(N−k)."""
    codes = np.unique(cluster, return_inverse=True)[1]
    groups, (count, size) = int(codes.max()) + 1, jacobian.shape
    scores = np.zeros((groups, size))
    np.add.at(scores, codes, jacobian * residual[:, None])
    bread = np.linalg.pinv(jacobian.T @ jacobian)
    factor = groups / (groups - 1) * (count - 1) / (count - size)
    return np.asarray(np.sqrt(np.maximum(np.diag(bread @ (scores.T @ scores) @ bread) * factor, 0)), dtype=np.float64)


def _settled(values: FloatArray, law: str) -> tuple[Any, tuple[float, float, float | None]]:
    """(mask of the bulk, parameters): fit and cut until the bulk no longer changes."""
    first = values[: max(int(0.9 * len(values)), 1)]
    parameters = _matched(first, law, (np.arange(len(first)) + 0.5) / len(values))
    kept = np.ones(len(values), dtype=bool)
    for _ in range(50):
        _, _, below, above = _edges(law, parameters, int(kept.sum()))
        inside = (values >= below) & (values <= above)
        if inside.sum() < len(values) / 2:  # the law does not describe this spectrum: keep the last fit
            break
        parameters = _matched(values[inside], law, (np.arange(inside.sum()) + 0.5) / inside.sum())
        if (inside == kept).all():
            break
        kept = inside
    _, _, below, above = _edges(law, parameters, int(kept.sum()))
    inside = (values >= below) & (values <= above)
    return (inside if inside.any() else kept), parameters


def _matched(values: FloatArray, law: str, probability: FloatArray) -> tuple[float, float, float | None]:
    """(shift, scale, ratio) whose quantiles at ``probability`` are nearest to the sorted ``values``."""
    from scipy.optimize import minimize_scalar

    if law == "semicircle":
        _, shift, scale = _line(values, law, 1.0, probability)
        return shift, scale, None
    # On the logarithm of q: spectra of ratio 0.01 and of 0.9 are as far apart as they look.
    grid = np.linspace(math.log(1e-3), 0.0, 25)
    errors = [_line(values, law, math.exp(u), probability)[0] for u in grid]
    best = int(np.argmin(errors))
    ends = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
    found = minimize_scalar(
        lambda u: _line(values, law, math.exp(u), probability)[0],
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-5},
    )
    ratio = math.exp(float(found.x)) if found.fun < errors[best] else math.exp(float(grid[best]))
    _, shift, scale = _line(values, law, ratio, probability)
    return shift, scale, ratio


def _line(values: FloatArray, law: str, ratio: float, probability: FloatArray) -> tuple[float, float, float]:
    """(squared error, shift, scale) of the least-squares line values ≈ shift + scale·quantile."""
    standard, cumulative = _standard(law, ratio)
    quantile = np.interp(probability, cumulative, standard)
    if law == "marchenko_pastur":
        scale = max(float(quantile @ values / (quantile @ quantile)), 1e-300)
        return float(((values - scale * quantile) ** 2).sum()), 0.0, scale
    centred = quantile - quantile.mean()
    scale = max(float(centred @ values / (centred @ centred)), 1e-300)
    shift = float(values.mean() - scale * quantile.mean())
    return float(((values - shift - scale * quantile) ** 2).sum()), shift, scale


def _standard(law: str, ratio: float) -> tuple[FloatArray, FloatArray]:
    """(x, F(x)) of the law with shift 0 and scale 1, on a cosine grid that resolves both edges."""
    if law == "semicircle":
        from scipy.stats import semicircular

        x = -np.cos(np.linspace(0, np.pi, _GRID))
        return x, np.asarray(semicircular.cdf(x), dtype=np.float64)
    angle = np.linspace(0, np.pi, _GRID)
    half = 2 * math.sqrt(ratio)
    x = 1 + ratio - half * np.cos(angle)
    # f dx = half² sin² / (2πq x) dangle, smooth at both ends; at q = 1 its limit at x = 0 is finite.
    with np.errstate(invalid="ignore", divide="ignore"):
        mass = np.where(x > 1e-14, (half * np.sin(angle)) ** 2 / (2 * np.pi * ratio * x), 2 / np.pi)
    steps = np.concatenate([[0.0], np.cumsum((mass[1:] + mass[:-1]) / 2)])
    return x, steps / steps[-1]


def _density(law: str, x: FloatArray, ratio: float | None) -> FloatArray:
    if law == "semicircle":
        return np.asarray(2 / np.pi * np.sqrt(np.maximum(1 - x * x, 0)), dtype=np.float64)
    q = ratio or 1.0
    low, high = (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2
    inside = (x > low) & (x < high) & (x > 0)
    safe = np.where(inside, x, 1.0)
    root = np.sqrt(np.maximum((high - safe) * (safe - low), 0))
    return np.asarray(np.where(inside, root / (2 * np.pi * q * safe), 0.0), dtype=np.float64)


def _edges(law: str, parameters: tuple[float, float, float | None], n: int) -> tuple[float, float, float, float]:
    """(lower, upper, lower limit, upper limit): the law's edges, and 2.02 Tracy–Widom scales beyond them."""
    shift, scale, ratio = parameters
    if law == "semicircle":
        stray = TRACY_WIDOM_99 * (np.pi * n * 2 * math.sqrt(2) / np.pi) ** (-2 / 3) * scale
        return shift - scale, shift + scale, shift - scale - stray, shift + scale + stray
    q = ratio or 1.0
    low, high = (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2
    above, below = (
        _stray(math.sqrt(high - low) / (2 * np.pi * q * edge), n) if edge > 0 else 0 for edge in (high, low)
    )
    # Where the lower edge meets 0 it is hard: nothing of the bulk lies below it but rounding.
    limit = low - below if below < low else -1e-9 * high
    return shift + scale * low, shift + scale * high, shift + scale * limit, shift + scale * (high + above)


def _stray(coefficient: float, n: int) -> float:
    return float(TRACY_WIDOM_99 * (np.pi * n * coefficient) ** (-2 / 3))


def _counted(values: Any, n_classes: int, law: str, atom: float, atom_width: float) -> dict[str, Any]:
    empty = dict.fromkeys(_OUTLIERS)
    if values is None or (isinstance(values, float) and math.isnan(values)):
        return empty | {"n_classes": n_classes, "reason": "no spectrum"}
    try:
        bulk = fit_bulk(np.asarray(values, dtype=np.float64), law, atom=atom, atom_width=atom_width)
    except QueryError as exc:
        if law not in LAWS or atom_width < 0:
            raise
        return empty | {"n_classes": n_classes, "n_eigenvalues": len(values), "reason": str(exc)}
    return {
        "n_eigenvalues": bulk.n_eigenvalues,
        "n_atom": bulk.n_atom,
        "upper": bulk.upper,
        "upper_limit": bulk.upper_limit,
        "n_outliers": bulk.n_above,
        "n_classes": n_classes,
        "difference": bulk.n_above - n_classes,
        "distance": bulk.distance,
        "reason": bulk.note,
    }


def _first(points: pd.DataFrame, column: str) -> Mapping[str, Any]:
    first = points.drop_duplicates("config")
    return dict(zip(first["config"].astype(str), first[column].tolist(), strict=True))


def _width(value: Any, column: str) -> float:
    """Hidden units in all: a number, or the sum of a JSON list of numbers."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        total = float(sum(parsed)) if isinstance(parsed, (list, tuple)) else float(parsed)
    except (TypeError, ValueError) as exc:
        raise QueryError(f"{column} holds {value!r}, which is no width: a number or a list of numbers") from exc
    if not math.isfinite(total):
        raise QueryError(f"{column} holds {value!r}, which is no finite width")
    return total


def _spread(group: pd.DataFrame, level: float) -> dict[str, Any]:
    from scipy.stats import chi2, t

    values, train = (group[name].to_numpy(dtype=np.float64) for name in ("value", "train"))
    n, notes = len(values), []
    row: dict[str, Any] = {"n": n, "mean": float(values.mean())}
    if n >= 2:
        sd, tail = float(values.std(ddof=1)), (1 - level) / 2
        half = float(t.isf(tail, n - 1)) * sd / math.sqrt(n)
        row |= {"mean_low": row["mean"] - half, "mean_high": row["mean"] + half, "sd": sd}
        row |= {"sd_low": sd * math.sqrt((n - 1) / chi2.isf(tail, n - 1))}
        row |= {"sd_high": sd * math.sqrt((n - 1) / chi2.ppf(tail, n - 1))}
    else:
        notes.append("one trial: no spread")
    paired = np.isfinite(train)
    if not paired.all():
        notes.append(f"{int((~paired).sum())} without a finite training loss, left out of ρ")
    return row | _correlation(train[paired], values[paired], level, notes) | {"note": "; ".join(notes)}


def _correlation(train: FloatArray, values: FloatArray, level: float, notes: list[str]) -> dict[str, float]:
    from scipy.stats import pearsonr

    if len(train) < 4:
        notes.append(f"{len(train)} pairs: ρ needs at least 4")
        return {}
    sizes = [max(1e-300, float(np.abs(array).max())) for array in (train, values)]
    if any(np.ptp(array) <= 1e-12 * size for array, size in zip((train, values), sizes, strict=True)):
        notes.append("no spread in one of the two: ρ is not defined")
        return {}
    found = pearsonr(train, values)
    interval = found.confidence_interval(level)
    return {"rho": float(found.statistic), "rho_low": float(interval.low), "rho_high": float(interval.high)}
