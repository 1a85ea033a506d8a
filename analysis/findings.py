"""The report's findings beyond the verdict: sensitivity, comparisons, features, counted minima, optimisers, laws.

Each section stands alone: where the tables cannot answer, it says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from landsweep.analysis import plots
from landsweep.analysis.algorithms import compare_algorithms
from landsweep.analysis.comparison import Comparison, saddles_against_minima, sharp_against_flat
from landsweep.analysis.counting import LandscapeCount, count_classes
from landsweep.analysis.features import features
from landsweep.analysis.page import figure, paragraph, rows_table, section
from landsweep.analysis.power import power_table
from landsweep.analysis.random_matrix import index_law, loss_concentration
from landsweep.analysis.sensitivity import sensitivity
from landsweep.analysis.verdict import Verdict, VerdictOptions
from landsweep.workers.errors import QueryError

_MOST_LANDSCAPES = 4  # with a figure each
_MOST_ROWS = 40
_SWEEP = "landsweep.open(SWEEP)"
Parts = list[str]


def findings(points: pd.DataFrame, trials: pd.DataFrame | None, verdict: Verdict) -> list[str]:
    """The sections, in the order in which a reader asks."""
    sections: list[tuple[str, Callable[[], Parts]]] = [
        ("Does the verdict depend on the band or the unit?", lambda: _sensitivity(points, trials, verdict)),
        ("How many trials does a margin need?", lambda: _power(points, trials, verdict)),
        ("Saddles against minima, sharp against flat", lambda: _comparisons(points, verdict)),
        ("What predicts generalisation?", lambda: _features(points, verdict)),
        ("How many minima are there?", lambda: _classes(points, trials)),
        ("Which optimiser reaches what?", lambda: _algorithms(points, trials)),
        ("Index against loss", lambda: _index(points)),
        ("Loss and width", lambda: _width(points, trials)),
    ]
    return [section(title, *_answered(build)) for title, build in sections if len(points)]


def _answered(build: Callable[[], Parts]) -> Parts:
    try:
        return build()
    except QueryError as error:
        return [paragraph(f"No answer: {error}.")]


def _options(verdict: Verdict) -> VerdictOptions:
    one = verdict.band if isinstance(verdict.band, float) else None
    alpha = float(verdict.details.get("alpha_requested", verdict.alpha))
    return VerdictOptions(metric=verdict.metric, alpha=alpha, margin=verdict.margin, band=one)


def _sensitivity(points: pd.DataFrame, trials: pd.DataFrame | None, verdict: Verdict) -> Parts:
    table = sensitivity(points, _options(verdict), trials=trials)
    shown = table[table["estimate"].notna()]
    n = int((table["n_local"] + table["n_global"]).max())
    caption = f"The estimate and its interval by band, for each unit (n = {n} trials at most)."
    drawn = partial(plots.sensitivity, table, margin=verdict.margin)
    columns = ["band", "factor", "unit", "n_local", "n_global", "estimate", "ci_low", "ci_high", "verdict"]
    return [
        figure(drawn, "The verdict by band and unit", caption, f"{_SWEEP}.sensitivity()"),
        _table(shown, columns),
        *_unanswered(table),
    ]


def _unanswered(table: pd.DataFrame) -> Parts:
    rows = table[table["estimate"].isna()]
    return [paragraph(f"Unit {unit}: {part['reason'].iloc[0]}.") for unit, part in rows.groupby("unit", sort=False)]


def _power(points: pd.DataFrame, trials: pd.DataFrame | None, verdict: Verdict) -> Parts:
    margins = [verdict.margin / 2, verdict.margin, 2 * verdict.margin]
    table = power_table(points, margins, _options(verdict), trials=trials)
    columns = ["margin", "n_trials", "n_local", "n_global", "standard_error", "power_now", "trials_needed", "reason"]
    return [paragraph(f"80 % power at a true difference of 0; {_SWEEP}.power({margins})."), _table(table, columns)]


def _comparisons(points: pd.DataFrame, verdict: Verdict) -> Parts:
    options: dict[str, Any] = {"metric": verdict.metric, "margin": verdict.margin, "alpha": verdict.alpha}
    asked: dict[str, Callable[[], Comparison]] = {
        "saddles − minima": lambda: saddles_against_minima(points, **options),
        "at equal training loss": lambda: replace(
            saddles_against_minima(points, match="train_loss", **options),
            names=("saddles", "minima, equal training loss"),
        ),
        "sharp − flat minima": lambda: sharp_against_flat(points, **options),
    }
    made = {name: compare() for name, compare in asked.items()}
    known = [item for item in made.values() if item.estimate is not None]
    call = f"{_SWEEP}.saddles_against_minima(match=None), .sharp_against_flat()"
    n = sum(item.n_a + item.n_b for item in known)
    caption = f"Differences in {verdict.metric} with their intervals, within configurations (n = {n} trials in all)."
    drawn = [figure(partial(plots.comparison_intervals, known), "Groups compared", caption, call)] if known else []
    rows = [_compared(name, item) for name, item in made.items()]
    header = ["compared", "n", "n", "estimate", "low", "high", "Cliff's δ", "I²", "verdict", "why"]
    return [
        *drawn,
        rows_table(header, rows),
        paragraph("Saddles are a sample of their searcher, not of the landscape."),
    ]


def _compared(name: str, item: Comparison) -> Sequence[Any]:
    interval = (item.estimate, item.ci_low, item.ci_high)
    return [name, item.n_a, item.n_b, *interval, item.cliff_delta, item.i_squared, item.verdict, item.reason]


def _features(points: pd.DataFrame, verdict: Verdict) -> Parts:
    target = verdict.metric if verdict.metric in ("gap", "test_loss", "error_gap") else "gap"
    found = features(points, target)
    caption = f"Rank correlations with {target} (n = {found.n} minima in {found.n_configs} configurations)."
    columns = [
        "measure",
        "n",
        "tau",
        "within",
        "granulated",
        "partial",
        "partial_low",
        "partial_high",
        "partial_p_holm",
    ]
    skipped = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
    drawn = figure(
        partial(plots.feature_ranking, found), "Measures ranked", caption, f'{_SWEEP}.features("{target}")', height=4.2
    )
    return [drawn, _table(found.table, columns), paragraph(f"Left out: {skipped or 'none'}.")]


def _classes(points: pd.DataFrame, trials: pd.DataFrame | None) -> Parts:
    found = count_classes(points, trials)
    columns = [
        "landscape", "trials", "classes", "singletons", "classes_at_least", "coverage", "coverage_low",
        "coverage_high", "new_next", "global_minimum",
    ]  # fmt: skip
    drawn = [_rarefaction(item) for item in found.landscapes[:_MOST_LANDSCAPES]]
    note = "classes_at_least is the lower 95 % limit of Chao1, a lower bound; new_next the chance that the next trial "
    return [
        '<div class="figures">', *drawn, "</div>", _table(found.table(), columns),
        paragraph(f"{note}ends at a minimum not seen before."),
    ]  # fmt: skip


def _rarefaction(item: LandscapeCount) -> str:
    caption = f"Distinct minima by trials, landscape {item.landscape[:8]} (n = {item.n_trials} trials)."
    return figure(partial(plots.rarefaction_curve, item), "Rarefaction", caption, f"{_SWEEP}.classes()")


def _algorithms(points: pd.DataFrame, trials: pd.DataFrame | None) -> Parts:
    found = compare_algorithms(points, trials)
    call, n = f"{_SWEEP}.algorithms()", int(found.summary["n_trials"].sum())
    drawn = [
        figure(partial(draw, found), alt, f"{alt} (n = {n} trials).", call)
        for draw, alt in (
            (plots.global_chance, "How often the lowest minimum is reached, with 95 % intervals"),
            (plots.basin_shares, "The share of trials that ends at each minimum"),
        )
    ]
    columns = ["label", "n_trials", "n_classes", "n_global", "p_global", "p_global_low", "p_global_high", "seconds"]
    pairs = ["label_a", "label_b", "question", "difference", "p", "p_holm", "note"]
    return ['<div class="figures">', *drawn, "</div>", _table(found.summary, columns), _table(found.pairs, pairs)]


def _index(points: pd.DataFrame) -> Parts:
    laws = index_law(points)
    drawn = [
        figure(
            partial(plots.index_fraction, law),
            "Index fraction against objective",
            f"Index fraction, landscape {law.landscape[:8]} (n = {law.n_points} critical points), with the 3/2 law.",
            f"{_SWEEP}.index_law()",
        )
        for law in laws[:_MOST_LANDSCAPES]
        if law.fixed is not None
    ]
    texts = [
        paragraph(
            f"Landscape {law.landscape[:8]}: free exponent {law.free.exponent:.2f} "
            f"[{law.free.exponent_low:.2f}, {law.free.exponent_high:.2f}] against 3/2 (Pennington & Bahri 2017)."
        )
        for law in laws
        if law.free is not None and law.free.exponent_low is not None and law.free.exponent_high is not None
    ]
    reasons = [paragraph(f"Landscape {law.landscape[:8]}: {law.reason}.") for law in laws if law.reason]
    return ['<div class="figures">', *drawn, "</div>", *texts, *reasons]


def _width(points: pd.DataFrame, trials: pd.DataFrame | None) -> Parts:
    found = loss_concentration(points, trials)
    call, n = f"{_SWEEP}.loss_concentration()", int(found.table["n"].sum())
    drawn = [
        figure(partial(draw, found), alt, f"{alt} (n = {n} minima).", call)
        for draw, alt in (
            (plots.loss_concentration_plot, "The metric's mean and spread by width"),
            (plots.train_test_correlation, "Pearson's correlation of training and test loss by width"),
        )
    ]
    return ['<div class="figures">', *drawn, "</div>"]


def _table(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    shown = frame.head(_MOST_ROWS)
    rows = [[None if pd.isna(value) else value for value in row] for row in shown[list(columns)].to_numpy(dtype=object)]
    return rows_table([name.replace("_", " ") for name in columns], rows)
