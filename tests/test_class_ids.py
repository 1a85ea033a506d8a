"""Class ids at real stationary points: one for what is equal up to symmetry, several for what only costs the same.

In full: ``python -m tests.evidence_classes``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landsweep.analysis import classes
from landsweep.workers.landscape import Landscape
from tests import evidence_classes
from tests.surfaces import normal

pytestmark = pytest.mark.usefixtures("one_thread")


def test_points_equal_up_to_order_and_sign_of_hidden_units_share_a_class() -> None:
    measured, holds = evidence_classes.permuted(starts=20, copies=30)
    assert holds, measured


def test_distinct_minima_of_nearly_equal_objective_do_not() -> None:
    measured, holds = evidence_classes.distinct(hidden=3, samples=20, starts=60, within=3e-3, least=20)
    assert holds, measured


def test_a_point_met_all_over_its_orbit_stays_one_class() -> None:
    measured, holds = evidence_classes.orbit(places=20)
    assert holds, measured


def test_a_tolerance_too_wide_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ten subsets of two of five variances, three pairs have equal objectives, some with equal indices."""
    monkeypatch.setattr(classes, "TOLERANCE", 10.0)
    measured, holds = evidence_classes.orbit(places=2)
    assert not holds, measured


def test_the_network_is_unchanged_by_images_and_the_distance_sees_through_them() -> None:
    hidden = 4
    landscape: Landscape = evidence_classes.regression(hidden, 10)
    theta = normal(50, landscape.dim, seed=5)
    image = evidence_classes.images(theta, hidden, seed=6)
    assert float((image - theta).norm(dim=1).min()) > 0.1
    outputs = landscape.outputs
    assert outputs is not None
    torch.testing.assert_close(landscape.map(outputs, image), landscape.map(outputs, theta), rtol=0, atol=1e-13)
    np.testing.assert_allclose(evidence_classes.orbit_distance(theta, image, hidden), 0, atol=1e-14)
    moved = image.clone()
    moved[:, 3] += 1e-3
    np.testing.assert_allclose(evidence_classes.orbit_distance(theta, moved, hidden), 1e-3, rtol=1e-9)


def test_pairs_are_all_that_agree() -> None:
    values = normal(1, 60, seed=9)[0].numpy()
    i, j = evidence_classes._pairs(values, 0.05)
    every = np.abs(values[:, None] - values) <= 0.05
    wanted = {(a, b) for a, b in np.argwhere(every).tolist() if a < b}
    assert {tuple(sorted(pair)) for pair in zip(i.tolist(), j.tolist(), strict=True)} == wanted
    assert len(i) == len(wanted)
