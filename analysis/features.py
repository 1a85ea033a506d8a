"""Which measures of a minimum predict how it generalises? Rank correlations, overall and with confounders held fixed.

Four coefficients for each measure, one minimum a trial:

- τ: Kendall's τ_b with the target over all trials. High too where both only follow the configuration.
- within: τ_b within configurations, averaged by trials (``trend.kendall``).
- granulated: Ψ of Jiang et al. (Fantastic Generalization Measures, ICLR 2020, eq. 5 and 6): for every grid axis the
  mean τ over the groups of trials that differ in that axis alone (the seed, like every other axis, held fixed), and Ψ
  the mean over the axes; τ = mean of sign(Δmeasure)·sign(Δtarget) over a group's pairs. A measure that follows one axis
  alone has ψ of that axis, and about 0 of the others.
- partial: Spearman's rank correlation given training loss and configuration: ranks are taken within configurations,
  those of the training loss are regressed out with one slope, the residuals correlated. Where both follow the training
  loss strongly and not linearly in ranks, a remainder of some hundredths stays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.effects import holm, plain
from landsweep.analysis.equivalence import FloatArray, mean_of
from landsweep.analysis.groups import MINIMA, grid_columns
from landsweep.analysis.trend import LEAST, Trend, kendall
from landsweep.workers.errors import QueryError

#: What may be asked for as a target.
TARGETS = ("gap", "test_loss", "test_error", "error_gap")
#: The measures that are tried where none are named.
MEASURES = (
    "eig_max",
    "eig_min",
    "trace",
    "frobenius",
    "sharpness",
    "jacobian_norm",
    "param_norm",
    "init_distance",
    "polish_distance",
    "kink_distance",
    "train_loss",
    "train_error",
    "objective",
    "n_zero",
)
CONTROL = "train_loss"
_LEAST_STRATUM = 5
_TIE = 1e-9  # differences below it, relative to max(1, |value|), are ties
_NEEDED = ("config", "trial", "seed", "point", "source", "kind", CONTROL)


@dataclass(frozen=True)
class Features:
    """The measures by how well they predict the target."""

    table: pd.DataFrame  # see ``features``
    axes: pd.DataFrame  # measure × grid axis: ψ of Jiang et al., NaN where the axis has no pair of trials
    skipped: dict[str, str]  # measure: why it is not in the table
    excluded: dict[str, int]  # trials by reason
    target: str
    alpha: float
    n: int  # trials
    n_configs: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain Python values: tables as lists of rows; numbers that are not finite are None."""
        rows = {"table": self.table.to_dict("records"), "axes": self.axes.reset_index().to_dict("records")}
        rest = {name: getattr(self, name) for name in ("skipped", "excluded", "target", "alpha", "n", "n_configs")}
        values: dict[str, Any] = plain({**rows, **rest})
        return values


def features(
    points: pd.DataFrame, target: str = "gap", *, measures: Sequence[str] | None = None, alpha: float = 0.05
) -> Features:
    """Rank the measures by their partial rank correlation with the target (largest size first).

    points: columns of the points table, and one per grid key; used are minima at the end of training with a finite
    target and training loss. target: one of ``TARGETS``. measures: numeric columns (None: those of ``MEASURES``).

    ``table``: ``rank``, ``measure``, ``n`` (trials with the measure), ``n_configs``; ``tau``, ``within``,
    ``granulated``, ``partial``, each with ``_low`` and ``_high``; ``tau_p``, ``tau_p_holm``, ``partial_p``,
    ``partial_p_holm``; ``given`` (what the partial one holds fixed). The intervals of a coefficient hold for all m
    measures at once: each is a 1 − α/m one. p_holm is corrected over the measures. NaN: too few trials (10 in all, 5 in
    a configuration), or, of Ψ's interval, fewer than 2 seeds. Intervals of τ and the partial correlation are Fisher's z
    ones with variances 0.437/(n − 4), or more (``trend.kendall``), and 1.06/(n − 3) (Fieller, Hartley & Pearson,
    Biometrika 44, 1957, 470–481), n less what was fitted; that of Ψ is Student's over the seeds, each with its own Ψ.

    Raises QueryError where a column is missing or the target means nothing.
    """
    if target not in TARGETS:
        raise QueryError(f"target {target!r} is unknown: one of {', '.join(TARGETS)}")
    if not 0 < alpha < 0.5:
        raise QueryError(f"alpha is {alpha}: it must lie between 0 and 0.5, both excluded")
    missing = [name for name in (*_NEEDED, target, *(measures or ())) if name not in points.columns]
    if missing:
        raise QueryError(f"the points lack the columns {', '.join(missing)}, which features read")
    rows, excluded = _trials(points, target)
    kept, skipped = _choose(points, rows, target, measures)
    level = alpha / max(len(kept), 1)
    groups = {name: _measured(rows, points, name) for name in kept}
    axes = {name: _granulated(part, grid_columns(points)) for name, part in groups.items()}
    table = [{"measure": name, **_coefficients(part, name, axes[name], level)} for name, part in groups.items()]
    return Features(
        table=_ranked(pd.DataFrame(table), alpha),
        axes=pd.DataFrame({name: psi.mean() for name, psi in axes.items()}).T.rename_axis("measure"),
        skipped=skipped,
        excluded=excluded,
        target=target,
        alpha=alpha,
        n=len(rows),
        n_configs=int(rows["config"].nunique()),
    )


_ORDER = (
    "rank measure n n_configs tau tau_low tau_high tau_p tau_p_holm within within_low within_high granulated "
    "granulated_low granulated_high partial partial_low partial_high partial_p partial_p_holm given"
)


def _ranked(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    if not len(table):
        return pd.DataFrame(columns=_ORDER.split())
    for name in ("tau", "partial"):
        p = dict(zip(table["measure"], table[f"{name}_p"], strict=True))
        table[f"{name}_p_holm"] = holm(p, alpha)["p_holm"].to_numpy()
    order = (-table["partial"].abs()).argsort(kind="stable")  # NaN last
    table = table.iloc[order].reset_index(drop=True)
    return table.assign(rank=np.arange(1, len(table) + 1))[_ORDER.split()]


def _trials(points: pd.DataFrame, target: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row a usable trial (grid values, config, seed, y, control, its row of ``points``), and the rest counted."""
    training = points[(points["source"] == "training").to_numpy()]
    one = training.assign(row=np.flatnonzero((points["source"] == "training").to_numpy()))
    one = one.sort_values(["trial", "point"], kind="stable").drop_duplicates("trial")
    kind = one["kind"].astype(object).where(one["kind"].notna(), "no kind").astype(str)
    y, control = _numbers(one, target), _numbers(one, CONTROL)
    reason = pd.Series("", index=one.index, dtype=object)
    reason[~np.isfinite(control)] = f"no finite {CONTROL}"
    reason[~np.isfinite(y)] = f"no finite {target}"
    reason[~kind.isin(MINIMA)] = kind[~kind.isin(MINIMA)]
    used = (reason == "").to_numpy()
    rows = one[used][["config", "seed", "row", *grid_columns(points)]]
    rows = rows.assign(config=rows["config"].astype(str), y=y[used], control=control[used])
    counts = reason[~used].value_counts()
    without = points["trial"].nunique() - len(one)
    lost = {str(name): int(count) for name, count in counts.items()}
    return rows.reset_index(drop=True), {**lost, **({"no training point": int(without)} if without else {})}


def _choose(
    points: pd.DataFrame, rows: pd.DataFrame, target: str, measures: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    kept, skipped = [], {}
    for name in dict.fromkeys(MEASURES if measures is None else measures):
        if name not in points.columns:
            skipped[name] = "no such column"
            continue
        if name == target:
            skipped[name] = "it is the target"
            continue
        values = _numbers(points.iloc[rows["row"].to_numpy(dtype=int)], name)
        finite = values[np.isfinite(values)]
        if not len(finite):
            skipped[name] = "not measured" if len(rows) else "no trial is left"
        elif len(finite) < LEAST:
            skipped[name] = f"measured in {len(finite)} trials; {LEAST} are needed"
        elif np.ptp(finite) <= _TIE * max(1.0, float(np.abs(finite).max())):
            skipped[name] = f"the same in all {len(finite)} trials"
        else:
            kept.append(name)
    return kept, skipped


def _measured(rows: pd.DataFrame, points: pd.DataFrame, name: str) -> pd.DataFrame:
    """The trials with a finite measure, as column x."""
    x = _numbers(points.iloc[rows["row"].to_numpy(dtype=int)], name)
    return rows.assign(x=x)[np.isfinite(x)]


def _coefficients(part: pd.DataFrame, name: str, psi: pd.DataFrame, level: float) -> dict[str, Any]:
    from scipy.stats import kendalltau

    x, y = part["x"].to_numpy(dtype=np.float64), part["y"].to_numpy(dtype=np.float64)
    strata = [
        (rows["x"].to_numpy(dtype=np.float64), rows["y"].to_numpy(dtype=np.float64))
        for _, rows in part.groupby("config", sort=True)
    ]
    partial, p, given = _partial(part, name, level)
    by_seed = psi.mean(axis=1).dropna()
    whole = float(by_seed.mean()) if len(by_seed) else math.nan
    low, high = (-math.inf, math.inf)
    if len(by_seed) > 1:
        low, high = mean_of(by_seed.tolist()).interval(level / 2)
    granulated = Trend(whole, max(low, -1.0), min(high, 1.0)) if len(by_seed) > 1 else None
    return {
        "n": len(part),
        "n_configs": len(strata),
        **_interval("tau", kendall([(x, y)], level)),
        "tau_p": float(kendalltau(x, y).pvalue),
        **_interval("within", kendall(strata, level)),
        **_interval("granulated", granulated),
        "granulated": whole,
        **_interval("partial", partial),
        "partial_p": p,
        "given": given,
    }


def _interval(name: str, trend: Trend | None) -> dict[str, float]:
    values = (trend.value, trend.low, trend.high) if trend else (math.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _partial(part: pd.DataFrame, name: str, level: float) -> tuple[Trend | None, float, str]:
    """The partial rank correlation with its interval, its p-value, and what it is given."""
    from scipy.stats import norm

    given = "configuration" if name == CONTROL else f"{CONTROL}, configuration"
    kept = part.groupby("config")["x"].transform("size") >= _LEAST_STRATUM
    rows = part[kept]
    ranks = {column: _ranks(rows, column) for column in ("x", "y", "control")}
    x, y = ranks["x"], ranks["y"]
    fitted = rows["config"].nunique()
    if name != CONTROL:
        x, y = _residual(x, ranks["control"]), _residual(y, ranks["control"])
        fitted += 1
    size = math.sqrt(float(x @ x) * float(y @ y))
    freedom = len(rows) - (fitted - 1) - 3
    if len(rows) < LEAST or freedom < 1 or size <= 1e-9 * len(rows):
        return None, math.nan, given
    value = float(np.clip(x @ y / size, -1, 1))
    error = math.sqrt(1.06 / freedom)
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    half = float(norm.isf(level / 2)) * error
    return Trend(value, math.tanh(z - half), math.tanh(z + half)), float(2 * norm.sf(abs(z) / error)), given


def _ranks(rows: pd.DataFrame, column: str) -> FloatArray:
    """Average ranks within configurations, as shares centred on 0; values within rounding are ties."""
    level = rows.groupby("config")[column].transform(_levels)
    by = level.groupby(rows["config"])
    share = (by.rank(method="average") - 0.5) / by.transform("size") - 0.5
    return np.asarray(share, dtype=np.float64)


def _levels(values: pd.Series) -> pd.Series:
    """The number of the level that each value is on; neighbours within rounding share one."""
    ordered = values.sort_values(kind="stable")
    steps = ordered.diff().fillna(0.0) > _TIE * np.maximum(1.0, ordered.abs())
    return steps.cumsum().reindex(values.index).astype("float64")


def _residual(values: FloatArray, control: FloatArray) -> FloatArray:
    size = float(control @ control)
    return values - control * (float(control @ values) / size) if size > 0 else values


def _granulated(part: pd.DataFrame, grid: list[str]) -> pd.DataFrame:
    """ψ of every grid axis (columns) by seed (rows): the mean τ over the groups that differ in the axis alone."""
    columns = {}
    first = part.drop_duplicates("config").set_index("config")[grid].astype(str)
    for axis in (name for name in grid if first[name].nunique() > 1):
        others = [name for name in grid if name != axis]
        cells = {
            config: json.dumps(row) for config, row in zip(first.index, first[others].to_numpy().tolist(), strict=True)
        }
        keyed = part.assign(cell=part["config"].map(cells), value=part["config"].map(first[axis]))
        x, y = (
            keyed.pivot_table(index=["seed", "cell"], columns="value", values=name, aggfunc="mean", observed=True)
            for name in ("x", "y")
        )
        tau = pd.Series(_pairs(x.to_numpy(dtype=np.float64), y.to_numpy(dtype=np.float64)), index=x.index)
        columns[axis] = tau.groupby(level="seed").mean()
    return pd.DataFrame(columns)


def _pairs(x: FloatArray, y: FloatArray) -> FloatArray:
    """Per row the mean of sign(Δx)·sign(Δy) over its pairs of columns; NaN where a row has no pair."""
    total, count = np.zeros(len(x)), np.zeros(len(x))
    for one in range(x.shape[1]):
        for other in range(one):
            sign = _sign(x[:, one], x[:, other]) * _sign(y[:, one], y[:, other])
            there = np.isfinite(sign)
            total[there] += sign[there]
            count += there
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _sign(a: FloatArray, b: FloatArray) -> FloatArray:
    width = _TIE * np.maximum(1, np.maximum(np.abs(a), np.abs(b)))
    return np.where(np.abs(a - b) <= width, 0.0, np.sign(a - b))


def _numbers(points: pd.DataFrame, column: str) -> FloatArray:
    try:
        return np.asarray(pd.to_numeric(points[column]).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as exc:
        raise QueryError(f"the column {column!r} holds no numbers: name a numeric one") from exc
