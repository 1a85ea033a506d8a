"""A sweep in one self-contained HTML file: the verdict, counts, figures, configurations, exclusions, the sweep file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from landsweep.analysis import plots
from landsweep.analysis.findings import findings
from landsweep.analysis.groups import MINIMA, grid_columns
from landsweep.analysis.labels import labels
from landsweep.analysis.page import document, figure, heading, paragraph, preformatted, rows_table, section
from landsweep.analysis.verdict import Verdict
from landsweep.workers.errors import RequestError
from landsweep.workers.record import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 500
_MOST_FAILURES = 50


def write_report(
    path: str | Path,
    *,
    name: str,
    points: pd.DataFrame,
    trials: pd.DataFrame | None,
    spectra: pd.DataFrame | None,
    verdict: Verdict,
    sweep_text: str,
) -> Path:
    """Write the report of one sweep to ``path`` and return it; the file appears whole or not at all.

    name: of the sweep. points, trials, spectra: its tables (without spectra, the points' extreme eigenvalues are
    drawn). verdict: of these points. sweep_text: the sweep file, shown verbatim. No script, nothing fetched.

    Raises RequestError where ``path`` cannot be written.
    """
    body = [
        heading(name),
        _verdict(verdict, labels(points) if len(points) else {}),
        _counts(points),
        _figures(points, spectra, verdict.metric),
        _configurations(points, verdict.metric),
        *findings(points, trials, verdict),
        *_saddles(verdict),
        _excluded(trials, verdict),
        section("Sweep file", preformatted(sweep_text)),
    ]
    return _write(Path(path), document(f"{name} – landsweep", body))


def _verdict(verdict: Verdict, names: Mapping[str, str]) -> str:
    call = f'landsweep.open(SWEEP).verdict(metric="{verdict.metric}")'
    count = verdict.n_local + verdict.n_global
    strata = min(len(verdict.details.get("strata") or []), 24)
    return section(
        "Verdict",
        paragraph(f"{verdict.verdict}{' (exploratory)' if verdict.exploratory else ''}", "word"),
        paragraph(verdict.reason),
        figure(
            partial(plots.verdict_interval, verdict, names=names),
            f"Interval of the difference between local and global minima: {verdict.verdict}",
            f"Difference of the means, all configurations together and each alone (n = {count} trials).",
            call,
            height=1.7 + 0.22 * strata,
        ),
        preformatted(verdict.summary(), wrap=True),
    )


def _counts(points: pd.DataFrame) -> str:
    table = pd.crosstab(points["config"].astype(str), points["kind"].astype(str))
    kinds = [kind for kind in KINDS if kind in table.columns]
    named = list(labels(points).items())[:_MOST_ROWS]
    place = {config: row for row, config in enumerate(table.index)}
    rows = [[name, config, *(int(table[kind].to_numpy()[place[config]]) for kind in kinds)] for config, name in named]
    total = ["all", "", *(int(table[kind].sum()) for kind in kinds)]
    header = ["configuration", "id", *(kind.replace("_", " ") for kind in kinds)]
    return section("Points by kind", rows_table(header, [*rows, total]), *_cut(len(table)))


def _figures(points: pd.DataFrame, spectra: pd.DataFrame | None, metric: str) -> str:
    if not len(points):
        return section("Figures", paragraph("There are no points yet."))
    bars = 1.9 + 0.18 * min(points["config"].nunique(), 24)
    drawn = [
        _shown(plots.kind_counts, points, "Points by kind and configuration", ["config", "kind"], bars),
        _shown(
            partial(plots.loss_against_objective, metric=metric),
            points,
            f"{metric} against the objective, by kind",
            ["objective", metric, "kind"],
        ),
        _shown(
            plots.index_against_objective, points, "Objective against index, by kind", ["index", "objective", "kind"]
        ),
        _spectra(points, spectra),
    ]
    return section("Figures", '<div class="figures">', *(part for part in drawn if part), "</div>")


def _shown(
    draw: Callable[[pd.DataFrame, Axes], None], table: pd.DataFrame, title: str, columns: list[str], height: float = 3.7
) -> str:
    """A figure of the points, counting those that have the numbers; nothing where none has."""
    used = table[[name for name in columns if name not in ("config", "kind")]].apply(pd.to_numeric)
    count = int(np.isfinite(used.to_numpy(dtype=np.float64, na_value=np.nan)).all(axis=1).sum())
    if not count:
        return paragraph(f"{title}: not measured.")
    names = ", ".join(f'"{name}"' for name in columns)
    call = f"landsweep.open(SWEEP).points(columns=[{names}])"
    return figure(partial(draw, table), title, f"{title} (n = {count} points).", call, height)


def _spectra(points: pd.DataFrame, spectra: pd.DataFrame | None) -> str:
    """The full spectra where there are some, else the extremes."""
    if spectra is not None and len(spectra):
        table = spectra.merge(points[["point", "kind"]].drop_duplicates("point"), on="point", how="left")
        table["kind"] = table["kind"].astype(object).where(table["kind"].notna(), "undetermined")
        call, count, what = "landsweep.open(SWEEP).spectra()", len(table), "full spectra"
    else:
        table = points[points["spectrum"].notna()] if "spectrum" in points.columns else points.iloc[:0]
        call = 'landsweep.open(SWEEP).points(columns=["spectrum", "kind"])'
        count, what = len(table), "spectra, at most 32 extremes each"
    if not count:
        return paragraph("Eigenvalues of the Hessian: not measured.")
    title = "Eigenvalues of the Hessian, by kind"
    return figure(partial(plots.spectra, table), title, f"{title} (n = {count} {what}).", call)


def _configurations(points: pd.DataFrame, metric: str) -> str:
    rows = []
    groups = dict(iter(points.groupby(points["config"].astype(str))))
    for config, name in list(labels(points).items())[:_MOST_ROWS]:
        group = groups[config]
        minima = group[group["kind"].isin(MINIMA) & (group["source"] == "training")]
        rows.append(
            [
                name,
                group["trial"].nunique(),
                minima["trial"].nunique(),
                _number(minima["objective"].min()),
                _number(minima[metric].mean()),
            ]
        )
    grid = ", ".join(grid_columns(points)) or "none"
    header = ["configuration", "trials", "at a minimum", "lowest objective", f"mean {metric}"]
    return section(
        "Configurations", paragraph(f"Grid: {grid}."), rows_table(header, rows), *_cut(points["config"].nunique())
    )


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _cut(count: int) -> list[str]:
    return [paragraph(f"The first {_MOST_ROWS} of {count}.")] if count > _MOST_ROWS else []


def _saddles(verdict: Verdict) -> list[str]:
    """The saddles by searcher, where there are any."""
    found = verdict.details.get("saddles") or {}
    rows = [
        [name, item.get("n_points"), item["n_trials"], item["mean"], item["low"], item["high"]]
        for part in ("searchers", "differences")
        for name, item in found.get(part, {}).items()
    ]
    if not rows:
        return []
    note = "A sample of their searchers, not of the landscape. The unit is the trial; differences are paired by trial."
    header = ["searcher", "saddles", "trials", f"mean {verdict.metric}", "low", "high"]
    return [section("Saddles by searcher", paragraph(note), rows_table(header, rows))]


def _excluded(trials: pd.DataFrame | None, verdict: Verdict) -> str:
    reasons = verdict.details.get("excluded_reasons") or verdict.excluded
    if not reasons:
        return section("Excluded trials", paragraph("None."))
    count, present = sum(verdict.excluded.values()), verdict.details.get("n_trials", "?")
    rows = [[reason, number] for reason, number in list(reasons.items())[:_MOST_ROWS]]
    parts = [paragraph(f"{count} of {present} trials."), rows_table(["reason", "trials"], rows)]
    failed = trials[trials["status"] == "failed"] if trials is not None and len(trials) else None
    if failed is not None and len(failed):
        shown = failed.head(_MOST_FAILURES)
        parts.append(paragraph(f"Failed attempts ({len(shown)} of {len(failed)}):"))
        columns = ["trial", "attempt", "error"]
        parts.append(rows_table(columns, [[row[name] for name in columns] for _, row in shown.iterrows()]))
    return section("Excluded trials", *parts)


def _write(path: Path, text: str) -> Path:
    """Write beside the target, then rename over it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise RequestError(f"the report cannot be written to {path}: {exc}; name a file in a writable folder") from exc
    return path
