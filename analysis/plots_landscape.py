"""Figures of the landscape: counts of minima, topology, random matrices, algorithms; each on an Axes it is given."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from landsweep.analysis.algorithms import Algorithms
from landsweep.analysis.counting import LandscapeCount
from landsweep.analysis.equivalence import FloatArray
from landsweep.analysis.random_matrix import Bulk, Concentration, IndexLaw
from landsweep.analysis.style import COLOURS, finish
from landsweep.analysis.topology import Disconnectivity, MorseAudit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe & Ito's palette, without the yellow, which is faint on white.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MOST_CLASSES = 8  # that a bar of shares names; the others are drawn together
_MOST_CONFIGS = 24
_MOST_LETTERS = 32
_MOST_LEAVES = 40  # that the tree can name


def rarefaction_curve(count: LandscapeCount, ax: Axes) -> None:
    """Expected distinct minima against trials, ± one standard deviation, with the classes that there are at least."""
    if count.chao1 is None:
        _empty(ax, "no trial reached a minimum")
    else:
        curve = count.rarefaction()
        x, y, sd = (curve[name].to_numpy(dtype=np.float64) for name in ("trials", "classes", "standard_deviation"))
        ax.fill_between(x, y - sd, y + sd, color=_LINES[0], alpha=0.2, linewidth=0, label="± 1 standard deviation")
        ax.plot(x, y, color=_LINES[0], label="distinct minima")
        limit, bound = count.chao1.lower_limit, count.chao1
        ax.axhline(bound.estimate, color=_LINES[1], linestyle="--", label=f"Chao1, a lower bound: {bound.estimate:.4g}")
        label = f"at least {limit} ({100 * bound.level:g} %)"
        ax.axhline(limit, color="#7A7A7A", linestyle=":", label=label)
        ax.set_ylim(bottom=0)
    ax.set_xlabel("trials")
    ax.set_ylabel("distinct minima")
    finish(ax, "Minima seen", count.n_trials, f" trials, {count.n_classes} classes")


def class_counts(count: LandscapeCount, ax: Axes) -> None:
    """Trials that reached each class, the most frequent first, on a logarithmic axis."""
    values = np.array(list(count.counts.values()), dtype=np.float64)
    if len(values):
        ax.plot(np.arange(1, len(values) + 1), values, "o-", markersize=4, linewidth=1, color=_LINES[0])
        ax.set_yscale("log")
    else:
        _empty(ax, "no trial reached a minimum")
    _whole_numbers(ax)
    ax.set_xlabel("minimum, by frequency")
    ax.set_ylabel("trials")
    finish(ax, "Trials by minimum", count.n_trials, f" trials, {count.n_classes} classes")


def morse_counts(audit: MorseAudit, ax: Axes) -> None:
    """Distinct stationary points by index; even indices add, odd ones subtract."""
    for index, number in audit.by_index.items():
        ax.bar(index, number, color=_LINES[0] if index % 2 == 0 else _LINES[1], hatch="" if index % 2 == 0 else "//")
    if not audit.by_index:
        _empty(ax, audit.status.replace("_", " "))
    _whole_numbers(ax)
    ax.set_xlabel("index (blue: +1 each, hatched: −1)")
    ax.set_ylabel("distinct points")
    found = "does not apply" if audit.total is None else f"Σ = {audit.total}, χ = {audit.euler_characteristic}"
    finish(ax, f"Morse audit: {found}", audit.n_classes, " classes")


def disconnectivity_graph(tree: Disconnectivity, ax: Axes) -> None:
    """The tree of superbasins: each minimum a line from its objective up to the height where it merges."""
    nodes = {node.name: node for node in tree.nodes}
    leaves = list(chain.from_iterable(nodes[root].leaves for root in tree.roots))
    place = {leaf: float(k) for k, leaf in enumerate(leaves)}
    heights = [node.height for node in tree.nodes]
    top = max(heights) + 0.08 * (max(heights) - min(heights) or 1.0)
    for node in tree.nodes:  # leaves first, merges from the lowest up
        if node.children:
            ends = [place[child] for child in node.children]
            place[node.name] = sum(ends) / len(ends)
            ax.plot([min(ends), max(ends)], [node.height] * 2, color="#000000", linewidth=1)
    for node in tree.nodes:
        for child in node.children:
            ax.plot([place[child]] * 2, [nodes[child].height, node.height], color="#000000", linewidth=1)
    for root in tree.roots:
        ax.plot([place[root]] * 2, [nodes[root].height, top], color="#7A7A7A", linewidth=1, linestyle=":")
    ax.plot([place[leaf] for leaf in leaves], [nodes[leaf].height for leaf in leaves], "o", ms=4, color=_LINES[0])
    shown = leaves if len(leaves) <= _MOST_LEAVES else []
    ax.set_xticks([place[leaf] for leaf in shown], [leaf[-_MOST_LETTERS:] for leaf in shown], rotation=90, fontsize=7)
    ax.set_ylabel("objective")
    apart = f", {len(tree.roots)} not joined" if len(tree.roots) > 1 else ""
    finish(ax, "Disconnectivity", len(leaves), f" minima, {tree.n_connections} connections{apart}")


def index_fraction(law: IndexLaw, ax: Axes) -> None:
    """Index fraction against the objective, with the 3/2 law and the law of free exponent."""
    x = law.data["objective"].to_numpy(dtype=np.float64)
    ax.scatter(x, law.data["fraction"], s=14, color=COLOURS["saddle"], marker="D", alpha=0.6, linewidths=0)
    fits = (("3/2", law.fixed, "-", _LINES[0]), ("free", law.free, "--", "#000000"))
    for name, fit, style, colour in fits:
        if fit is not None:
            grid = np.linspace(x.min(), x.max(), 400)
            label = name if name == "3/2" else f"{fit.exponent:.3g} [{fit.exponent_low:.3g}, {fit.exponent_high:.3g}]"
            values = fit.c * np.maximum(grid - fit.threshold, 0) ** fit.exponent
            ax.plot(grid, values, style, color=colour, label=f"exponent {label}")
    if not len(x):
        _empty(ax, "no critical point")
    ax.set_xlabel("objective")
    ax.set_ylabel("index / parameters")
    finish(ax, "Index fraction", law.n_points, f" critical points of {law.n_trials} trials")


def bulk_fit(eigenvalues: FloatArray, bulk: Bulk, ax: Axes) -> None:
    """The spectrum's histogram with the fitted law; what lies above the edge is counted and marked."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    values = values[np.isfinite(values)]
    inside = values[(values >= bulk.lower_limit) & (values <= bulk.upper_limit)]
    edges = np.linspace(bulk.lower, bulk.upper, min(60, max(10, bulk.n_bulk // 10)) + 1)
    width = edges[1] - edges[0]
    counts, _ = np.histogram(inside, edges)
    ax.stairs(counts / (max(bulk.n_bulk, 1) * width), edges, fill=True, color=COLOURS["degenerate_minimum"], alpha=0.6)
    grid = np.linspace(bulk.lower, bulk.upper, 800)[1:-1]
    law = bulk.law.replace("_", " ").replace("marchenko pastur", "Marchenko–Pastur")
    ax.plot(grid, bulk.density(grid), color=_LINES[1], label=f"{law}, KS distance {bulk.distance:.3f}")
    above = values[values > bulk.upper_limit]
    if len(above):
        ax.plot(above, np.zeros(len(above)), "v", color=_LINES[3], markersize=6, label=f"{len(above)} outliers")
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("density of the bulk")
    finish(ax, "Bulk", len(values), f" eigenvalues, {bulk.n_bulk} in the bulk")


def outlier_counts(table: pd.DataFrame, ax: Axes) -> None:
    """Histogram of the outliers of each spectrum (``outliers``) against the number of classes of the data."""
    found = table["n_outliers"].dropna().astype(int)
    if len(found):
        values, counts = np.unique(found.to_numpy(), return_counts=True)
        ax.bar(values, counts, color=_LINES[0])
        for number in sorted(set(table["n_classes"].dropna().astype(int))):
            ax.axvline(number, color=_LINES[1], linestyle="--", label=f"{number} classes")
    else:
        _empty(ax, "no spectrum with a bulk")
    _whole_numbers(ax)
    ax.set_xlabel("eigenvalues above the bulk")
    ax.set_ylabel("spectra")
    finish(ax, "Outliers", len(found), " spectra")


def loss_concentration_plot(found: Concentration, ax: Axes) -> None:
    """Mean of the metric ± one standard deviation against the width, a point each configuration."""
    table = found.table
    if len(table):
        # Configurations of one width side by side: 3 % of the axis apart.
        rank = table.groupby("width").cumcount().to_numpy(dtype=np.float64)
        x = table["width"].to_numpy(dtype=np.float64) * 1.03**rank
        spread = table["sd"].fillna(0.0).to_numpy(dtype=np.float64)
        ax.errorbar(x, table["mean"], yerr=spread, fmt="o", color=_LINES[0], capsize=3, label="mean ± 1 sd")
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(table["width"])), [f"{width:g}" for width in sorted(set(table["width"]))])
        ax.minorticks_off()
    else:
        _empty(ax, "no minimum")
    ax.set_xlabel("hidden units")
    ax.set_ylabel(found.metric.replace("_", " "))
    finish(ax, "Loss against width", int(table["n"].sum()) if len(table) else 0, " minima")


def train_test_correlation(found: Concentration, ax: Axes) -> None:
    """Pearson's ρ of training and test loss with Fisher's interval against the width."""
    table = found.table[found.table["rho"].notna()]
    if len(table):
        rank = table.groupby("width").cumcount().to_numpy(dtype=np.float64)
        x, rho = table["width"].to_numpy(dtype=np.float64) * 1.03**rank, table["rho"].to_numpy(dtype=np.float64)
        ends = [rho - table["rho_low"].to_numpy(np.float64), table["rho_high"].to_numpy(np.float64) - rho]
        ax.errorbar(x, rho, yerr=ends, fmt="s", color=_LINES[1], capsize=3)
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(table["width"])), [f"{width:g}" for width in sorted(set(table["width"]))])
        ax.minorticks_off()
    else:
        _empty(ax, "no correlation could be estimated")
    ax.axhline(0, color="#666666", linewidth=0.8)
    ax.set_ylim(-1.02, 1.02)
    ax.set_xlabel("hidden units")
    ax.set_ylabel(f"ρ(train loss, {found.metric.replace('_', ' ')})")
    finish(ax, "Train against test", int(table["n"].sum()) if len(table) else 0, " minima")


def global_chance(found: Algorithms, ax: Axes) -> None:
    """The chance that a trial reaches the global band, by configuration, with Wilson's interval."""
    table = found.summary.head(_MOST_CONFIGS)
    p = table["p_global"].to_numpy(dtype=np.float64)
    ends = [p - table["p_global_low"].to_numpy(np.float64), table["p_global_high"].to_numpy(np.float64) - p]
    ax.errorbar(p, range(len(p)), xerr=np.maximum(ends, 0), fmt="o", color=_LINES[0], capsize=3)
    _rows(ax, table)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of trials at the global minimum")
    finish(ax, "Global minimum reached", int(table["n_trials"].sum()), _cut(found, table))


def basin_shares(found: Algorithms, ax: Axes) -> None:
    """Share of each configuration's trials by class, lowest objective first; rare classes together."""
    table = found.summary.head(_MOST_CONFIGS)
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#B8A800")
    for row, config in enumerate(table["config"]):
        mine = found.shares[found.shares["config"] == config]
        classes, left = mine[mine["class_id"].notna()], 0.0
        for colour, share in zip(colours, classes["share"].head(_MOST_CLASSES), strict=False):
            ax.barh(row, share, left=left, color=colour, edgecolor="white", linewidth=0.5)
            left += float(share)
        rest = float(classes["share"].iloc[_MOST_CLASSES:].sum())
        ax.barh(row, rest, left=left, color="#BBBBBB", edgecolor="white", linewidth=0.5)
        ax.barh(
            row,
            max(1 - left - rest, 0.0),
            left=left + rest,
            color="white",
            edgecolor="#000000",
            hatch="//",
            linewidth=0.5,
        )
    for place, colour in enumerate(colours):
        ax.barh(0, 0, color=colour, label=f"{place + 1}. lowest")
    ax.barh(0, 0, color="#BBBBBB", label="higher ones")
    ax.barh(0, 0, color="white", edgecolor="#000000", hatch="//", label="no minimum")
    _rows(ax, table)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of trials")
    finish(ax, "Where trials end", int(table["n_trials"].sum()), _cut(found, table))


def _rows(ax: Axes, table: pd.DataFrame) -> None:
    ax.set_yticks(range(len(table)), [str(name)[:_MOST_LETTERS] for name in table["label"]], fontsize=8)
    ax.invert_yaxis()


def _cut(found: Algorithms, table: pd.DataFrame) -> str:
    more = f", {len(table)} of {len(found.summary)} configurations" if len(found.summary) > len(table) else ""
    return f" trials{more}"


def _whole_numbers(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _empty(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")
