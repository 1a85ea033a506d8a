"""The figures, as ``landsweep.plots``: each draws on a matplotlib Axes and states its n in the title."""

from __future__ import annotations

from landsweep.analysis.plots_landscape import (
    basin_shares,
    bulk_fit,
    class_counts,
    disconnectivity_graph,
    global_chance,
    index_fraction,
    loss_concentration_plot,
    morse_counts,
    outlier_counts,
    rarefaction_curve,
    train_test_correlation,
)
from landsweep.analysis.plots_points import (
    index_against_objective,
    kind_counts,
    loss_against_objective,
    spectra,
    verdict_interval,
)
from landsweep.analysis.plots_tests import comparison_intervals, feature_ranking, sensitivity
from landsweep.analysis.style import COLOURS

__all__ = [
    "COLOURS",
    "basin_shares",
    "bulk_fit",
    "class_counts",
    "comparison_intervals",
    "disconnectivity_graph",
    "feature_ranking",
    "global_chance",
    "index_against_objective",
    "index_fraction",
    "kind_counts",
    "loss_against_objective",
    "loss_concentration_plot",
    "morse_counts",
    "outlier_counts",
    "rarefaction_curve",
    "sensitivity",
    "spectra",
    "train_test_correlation",
    "verdict_interval",
]
