"""Figures of comparisons, sensitivity and features: each draws on a matplotlib Axes, and states its n in the title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from landsweep.analysis.comparison import Comparison
from landsweep.analysis.features import Features
from landsweep.analysis.style import COLOURS, finish
from landsweep.workers.errors import QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#000000"
_QUIET = "#7A7A7A"
_MOST_ROWS = 24
_MOST_LETTERS = 40
#: A colour and a marker for each unit, and for each coefficient.
_UNITS = {
    "trial": (COLOURS["minimum"], "o"),
    "class": (COLOURS["saddle"], "s"),
    "split": (COLOURS["undetermined"], "D"),
}
_COEFFICIENTS = {
    "tau": ("Kendall's τ", COLOURS["not_converged"], "v"),
    "granulated": ("granulated Ψ", COLOURS["degenerate_saddle"], "s"),
    "partial": ("partial ρ", COLOURS["minimum"], "o"),
}


def comparison_intervals(
    comparisons: Comparison | Sequence[Comparison], ax: Axes, names: Mapping[str, str] | None = None
) -> None:
    """One comparison with each of its strata, or several below each other: 1−2α (thick) and 1−α (thin) intervals.

    Several must share metric, margin and alpha. names: labels of configurations, as ``labels`` gives them. n counts the
    trials of both groups, one that is in both once; of several comparisons it is that of the largest. Raises QueryError
    for none, or for comparisons that do not share what they must.
    """
    from matplotlib.ticker import MaxNLocator

    found = [comparisons] if isinstance(comparisons, Comparison) else list(comparisons)
    if not found or len({(item.metric, item.margin, item.alpha) for item in found}) > 1:
        raise QueryError("draw at least one comparison, all of one metric, margin and alpha")
    rows = [(f"{item.names[0]} − {item.names[1]}", item.as_dict(), _INK) for item in found]
    if len(found) == 1:
        strata = found[0].as_dict()["details"]["strata"]
        pairs = ", pairs" if found[0].match else ", same trials"
        names = names or {}
        rows += [
            (f"{names.get(row['config'], row['config'])}{pairs if row['paired'] else ''}", row, _QUIET)
            for row in strata
        ]
    rows = [row for row in rows if row[1]["estimate"] is not None][:_MOST_ROWS]
    one = found[0]
    ax.axvspan(-one.margin, one.margin, color=COLOURS["minimum"], alpha=0.10, label="within the margin")
    ax.axvline(0, color="#666666", linewidth=0.8)
    for place, (_, row, colour) in enumerate(rows):
        ax.plot([row["diff_low"], row["diff_high"]], [place, place], color=colour, linewidth=1.2)
        ax.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        ax.plot([row["estimate"]], [place], "o", color="white", markeredgecolor=colour, markersize=7)
    if not rows:
        ax.text(0, 0, "no estimate", ha="center", va="center")
    ax.set_yticks(range(len(rows)), [name[:_MOST_LETTERS] for name, _, _ in rows], fontsize=8)
    ax.set_ylim(max(len(rows) - 0.4, 0.6), -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    matched = f", matched on {one.match}" if one.match and len(found) == 1 else ""
    ax.set_xlabel(f"difference of the mean {one.metric.replace('_', ' ')}")
    level = f"{100 * (1 - 2 * one.alpha):.4g} % thick, {100 * (1 - one.alpha):.4g} % thin"
    title = one.verdict.capitalize() if len(found) == 1 else "Differences"
    most = " at most" if len(found) > 1 else ""
    finish(ax, title, max(map(_trials, found)), f" trials{most}{matched}; {level}")


def sensitivity(table: pd.DataFrame, ax: Axes, margin: float | None = None) -> None:
    """The estimate with its 1−2α interval against the band, by unit; hollow where the verdict is inconclusive.

    table: of ``sensitivity.sensitivity``. margin: drawn as a strip where given, in the metric's unit. The verdict's own
    row has a ring. n is that of the row with the most trials. Raises QueryError where the table is another one.
    """
    missing = [
        name for name in ("band", "factor", "unit", "estimate", "verdict", "chosen") if name not in table.columns
    ]
    if missing:
        raise QueryError(f"the table lacks {', '.join(missing)}: give what sensitivity() returns")
    scaled = bool(table["band"].isna().any())
    across = table["factor" if scaled else "band"].to_numpy(dtype=np.float64)
    if margin is not None:
        ax.axhspan(-margin, margin, color=COLOURS["minimum"], alpha=0.10, label="within the margin")
    ax.axhline(0, color="#666666", linewidth=0.8)
    drawn = table["estimate"].notna().to_numpy()
    for unit, (colour, marker) in _UNITS.items():
        rows = np.flatnonzero(drawn & (table["unit"] == unit).to_numpy())
        if not len(rows):
            continue
        part = table.iloc[rows]
        ax.vlines(across[rows], part["ci_low"], part["ci_high"], color=colour, linewidth=1.5)
        ax.plot(across[rows], part["estimate"], color=colour, linewidth=0.8)
        decided = (part["verdict"] != "inconclusive").to_numpy()
        for flags, fill in ((decided, colour), (~decided, "white")):
            if flags.any():
                label = f"{unit}{'' if fill == colour else ', inconclusive'}"
                ax.scatter(
                    across[rows][flags],
                    part["estimate"][flags],
                    marker=marker,
                    c=fill,
                    edgecolors=colour,
                    s=28,
                    zorder=3,
                    label=label,
                )
    chosen = np.flatnonzero(drawn & table["chosen"].to_numpy(dtype=bool))
    ax.scatter(
        across[chosen], table["estimate"].iloc[chosen], s=130, facecolors="none", edgecolors=_INK, label="the verdict"
    )
    if not drawn.any():
        ax.text(0.5, 0.5, "no estimate", transform=ax.transAxes, ha="center", va="center")
    positive = across[across > 0]
    if len(positive):
        ax.set_xscale("symlog" if (across == 0).any() else "log", **_linear(across, positive))
    ax.set_xlabel("band, times the chosen one" if scaled else "band, in units of the objective")
    ax.set_ylabel("local − global")
    count = int((table["n_local"] + table["n_global"])[table["unit"] != "class"].max()) if len(table) else 0
    finish(ax, "Verdict by band and unit", count, " trials at most")


def feature_ranking(found: Features, ax: Axes) -> None:
    """τ, granulated Ψ and the partial rank correlation of each measure with their intervals, the best at the top.

    A filled point is one whose Holm-corrected p is ≤ alpha (Ψ has none: filled where its interval excludes 0).
    """
    table = found.table.head(_MOST_ROWS)
    ax.axvline(0, color="#666666", linewidth=0.8)
    for shift, (name, (label, colour, marker)) in zip((-0.25, 0.0, 0.25), _COEFFICIENTS.items(), strict=True):
        for place, row in enumerate(table.to_dict("records")):
            if not np.isfinite(row[name]):
                continue
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            ax.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.5)
            p = row.get(f"{name}_p_holm")
            shown = p <= found.alpha if p is not None else low > 0 or high < 0
            ax.plot([row[name]], [place + shift], marker, color=colour if shown else "white", markeredgecolor=colour)
        ax.plot([], [], marker, color=colour, label=label)
    if not len(table):
        ax.text(0.5, 0.5, "no measure", transform=ax.transAxes, ha="center", va="center")
    ax.set_yticks(range(len(table)), table["measure"].str.replace("_", " ").tolist(), fontsize=8)
    ax.set_ylim(max(len(table) - 0.4, 0.6), -0.6)
    ax.set_xlabel(f"rank correlation with {found.target.replace('_', ' ')}")
    finish(ax, "What predicts generalisation", found.n, f" trials, {found.n_configs} configurations")


def _trials(item: Comparison) -> int:
    """Trials in the estimate; without matching, a pair is one trial in both groups."""
    return item.n_a + item.n_b - (0 if item.match else item.n_pairs)


def _linear(across: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """Of an axis with a 0, the part that is linear: up to the smallest positive value."""
    return {"linthresh": float(positive.min())} if (across == 0).any() else {}
