"""Figures of points, spectra and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from landsweep.analysis.equivalence import FloatArray
from landsweep.analysis.labels import labels
from landsweep.analysis.style import COLOURS, finish
from landsweep.analysis.verdict import Verdict
from landsweep.workers.errors import QueryError
from landsweep.workers.record import CRITICAL_KINDS, KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = dict(zip(KINDS, "osDv^PX+x", strict=True))
_MOST_CONFIGS = 24  # that a bar chart or an interval plot can hold
_MOST_LETTERS = 32  # of a configuration's label
_MOST_DOTS = 5000  # a kind; a sample of them beyond it


def kind_counts(points: pd.DataFrame, ax: Axes) -> None:
    """Points by kind, a stacked bar for each configuration (the first 24)."""
    named = labels(points)
    configs = list(named)
    shown = configs[:_MOST_CONFIGS]
    table = pd.crosstab(points["config"].astype(str), _kind_of(points)).reindex(shown, fill_value=0)
    left = np.zeros(len(shown))
    for kind in _kinds(points):
        counts = table[kind].to_numpy(dtype=np.float64) if kind in table else np.zeros(len(shown))
        ax.barh(range(len(shown)), counts, left=left, color=COLOURS.get(kind, "#7A7A7A"), label=_words(kind))
        left = left + counts
    ax.set_yticks(range(len(shown)), [named[config][:_MOST_LETTERS] for config in shown], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("points")
    more = f", {len(shown)} of {len(configs)} configurations" if len(configs) > len(shown) else ""
    finish(ax, "Points by kind", len(points), more)


def loss_against_objective(points: pd.DataFrame, ax: Axes, metric: str = "test_loss") -> None:
    """The metric against the objective, coloured by kind.

    The axes span the critical points; what searches left further out is counted in the title, not drawn.
    """
    inside = _within(points, "objective", metric)
    _scatter(points[inside], ax, "objective", metric, int((~inside).sum()))
    ax.set_xlabel("objective")
    ax.set_ylabel(metric.replace("_", " "))


def index_against_objective(points: pd.DataFrame, ax: Axes) -> None:
    """The objective against the index (number of negative eigenvalues), coloured by kind."""
    from matplotlib.ticker import MaxNLocator

    _scatter(points, ax, "index", "objective")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("index (negative eigenvalues)")
    ax.set_ylabel("objective")


def spectra(table: pd.DataFrame, ax: Axes) -> None:
    """The distribution of Hessian eigenvalues by kind, on a symmetric logarithmic axis.

    table: the points (their ``spectrum`` column, at most 32 extremes each) or the full spectra (``eigenvalues``, with
    ``kind`` where it has been joined). Each kind's histogram is a share of that kind's eigenvalues.
    Raises QueryError where there is neither column.
    """
    column = next((name for name in ("eigenvalues", "spectrum") if name in table.columns), None)
    if column is None:
        raise QueryError("there is no column 'eigenvalues' or 'spectrum' to draw: read one of them")
    rows = table[table[column].notna()]
    kinds = _kind_of(rows) if "kind" in rows.columns else pd.Series("all", index=rows.index)
    values = {kind: _joined(rows.loc[kinds == kind, column]) for kind in sorted(set(kinds), key=_rank)}
    linear, edges = _edges(np.concatenate([*values.values(), np.zeros(1)]))
    for kind, sample in values.items():
        if len(sample):
            counts, _ = np.histogram(sample, edges)
            ax.stairs(
                counts / len(sample), edges, color=COLOURS.get(kind, "#0072B2"), label=_words(kind), linewidth=1.5
            )
    ax.set_xscale("symlog", linthresh=linear)
    ax.axvline(0, color="#999999", linewidth=0.8)
    _sparse_ticks(ax, linear, float(np.abs(edges).max()))
    ax.set_xlabel("eigenvalue of the Hessian")
    ax.set_ylabel("share")
    finish(ax, "Eigenvalues", len(rows), f" spectra, {sum(map(len, values.values()))} values")


def verdict_interval(verdict: Verdict, ax: Axes, names: Mapping[str, str] | None = None) -> None:
    """The estimate with its 1−2α (thick) and 1−α (thin) intervals against ± margin and 0, and each configuration's.

    names: labels of configurations, as ``labels`` gives them; their order is that of the rows.
    """
    from matplotlib.ticker import MaxNLocator

    plain = verdict.as_dict()
    names = names or {}
    order = {config: place for place, config in enumerate(names)}
    strata = sorted(plain["details"].get("strata") or [], key=lambda row: order.get(row["config"], len(order)))
    named = [(names.get(row["config"], row["config"]), row) for row in strata[:_MOST_CONFIGS]]
    rows = [*([("all", plain)] if plain["estimate"] is not None else []), *named]
    ax.axvspan(-verdict.margin, verdict.margin, color="#0072B2", alpha=0.10, label="within the margin")
    ax.axvline(0, color="#666666", linewidth=0.8)
    for place, (_, row) in enumerate(rows):
        colour = "#000000" if place == 0 else "#7A7A7A"
        ax.plot([row["diff_low"], row["diff_high"]], [place, place], color=colour, linewidth=1.2)
        ax.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        ax.plot([row["estimate"]], [place], "o", color="white", markeredgecolor=colour, markersize=7)
    if not rows:
        ax.text(0, 0, "no estimate", ha="center", va="center")
    ax.set_yticks(range(len(rows)), [name[:_MOST_LETTERS] for name, _ in rows], fontsize=8)
    ax.set_ylim(max(len(rows) - 0.4, 0.6), -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"mean {verdict.metric.replace('_', ' ')}: local − global")
    level = f"{100 * (1 - 2 * verdict.alpha):.4g} % thick, {100 * (1 - verdict.alpha):.4g} % thin"
    finish(ax, verdict.verdict.capitalize(), verdict.n_local + verdict.n_global, f" trials; {level}")


def _within(points: pd.DataFrame, *columns: str) -> pd.Series:
    """Rows inside the range that the critical points span, widened by a tenth; all where there are none."""
    inside = pd.Series(True, index=points.index)
    critical = points[_kind_of(points).isin(CRITICAL_KINDS)]
    for name in columns:
        known = pd.to_numeric(critical[name]).astype("float64").dropna()
        if len(known):
            slack = 0.1 * (known.max() - known.min()) + 1e-12
            values = pd.to_numeric(points[name]).astype("float64")
            inside &= values.isna() | values.between(known.min() - slack, known.max() + slack)
    return inside


def _scatter(points: pd.DataFrame, ax: Axes, across: str, up: str, outside: int = 0) -> None:
    x, y = (pd.to_numeric(points[name]).to_numpy(dtype=np.float64, na_value=np.nan) for name in (across, up))
    kinds = _kind_of(points).to_numpy()
    finite = np.isfinite(x) & np.isfinite(y)
    thinned = ""
    for kind in reversed(_kinds(points)):  # minima last, on top
        rows = np.flatnonzero(finite & (kinds == kind))
        if len(rows) > _MOST_DOTS:
            rows, thinned = rows[:: -(-len(rows) // _MOST_DOTS)], ", thinned"
        colour, marker = COLOURS.get(kind, "#7A7A7A"), _MARKERS.get(kind, ".")
        if len(rows):
            ax.scatter(x[rows], y[rows], s=18, c=colour, marker=marker, alpha=0.7, linewidths=0.8, label=_words(kind))
    if not finite.any():
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center")
    title = "Index against objective" if across == "index" else f"{up.replace('_', ' ').capitalize()} against objective"
    finish(ax, title, int(finite.sum()), thinned + (f", {outside} further out" if outside else ""))


def _kinds(points: pd.DataFrame) -> list[str]:
    return sorted(_kind_of(points).unique(), key=_rank)


def _kind_of(points: pd.DataFrame) -> pd.Series:
    return points["kind"].astype(object).where(points["kind"].notna(), "no kind").astype(str)


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _joined(lists: pd.Series) -> FloatArray:
    parts = [np.asarray(value, dtype=np.float64) for value in lists]
    joined = np.concatenate(parts) if parts else np.zeros(0)
    return joined[np.isfinite(joined)]


def _edges(values: FloatArray) -> tuple[float, FloatArray]:
    """The width of the linear part (1e-6 of the largest size) and 61 bin edges, even on the axis' scale."""
    largest = float(np.abs(values).max()) or 1.0
    linear = 1e-6 * largest
    low, high = (float(np.arcsinh(end / linear)) for end in (values.min(), values.max()))
    pad = 0.02 * max(high - low, 1.0)
    return linear, np.asarray(linear * np.sinh(np.linspace(low - pad, high + pad, 61)), dtype=np.float64)


def _sparse_ticks(ax: Axes, linear: float, largest: float) -> None:
    """0 and every other decade on both sides: all decades would overlap."""
    decades = np.arange(int(np.ceil(np.log10(linear))) + 1, int(np.floor(np.log10(largest))) + 1)[::-1][::2][::-1]
    sizes = 10.0**decades
    low, high = ax.get_xlim()
    ticks = [tick for tick in (*(-sizes[::-1]), 0.0, *sizes) if low <= tick <= high]
    ax.set_xticks(ticks)
    ax.minorticks_off()
