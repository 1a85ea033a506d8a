"""Figures and reports as bytes, for whoever stores or sends them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from landsweep.analysis.sweep import Sweep
    from landsweep.analysis.verdict import Verdict


def report_bytes(sweep: Sweep, verdict: Verdict, points: pd.DataFrame, trials: pd.DataFrame) -> bytes:
    """The report of a sweep."""
    from landsweep.analysis.report import write_report

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        spectra, text = sweep.spectra(), sweep.text()
        write_report(
            path, name=sweep.name, points=points, trials=trials, spectra=spectra, verdict=verdict, sweep_text=text
        )
        return path.read_bytes()


def configuration_figures(points: pd.DataFrame, metric: str) -> dict[str, dict[str, bytes]]:
    """For each configuration its points as Parquet and its metric against the objective as PNG: name → content."""
    from matplotlib.figure import Figure

    from landsweep.analysis import plots

    result: dict[str, dict[str, bytes]] = {}
    for config, rows in points.groupby("config"):
        figure = Figure(figsize=(6, 4), layout="constrained")
        plots.loss_against_objective(rows, figure.add_subplot(), metric)
        image, table = io.BytesIO(), io.BytesIO()
        figure.savefig(image, format="png", dpi=100)
        rows.to_parquet(table, index=False)
        result[str(config)] = {f"{metric}.png": image.getvalue(), "points.parquet": table.getvalue()}
    return result
