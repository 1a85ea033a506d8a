"""Small seeded forms of what is claimed of stationary points; in full in ``tests.evidence_points``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from landsweep.cluster import study
from landsweep.workers import mode, search, self_check
from landsweep.workers.algebra import Dense, Krylov
from landsweep.workers.errors import LandscapeError, QueryError
from landsweep.workers.landscape import KnownClass
from landsweep.workers.self_check import CASES, Row
from landsweep.workers.trust_region import TrustRegionNewton
from tests import evidence_points
from tests.digits import built

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_searches_end_where_theory_says(case: self_check.Case) -> None:
    row = self_check.check(case, 10)
    assert row.searches == 20
    assert row.critical >= 19
    assert (row.wrong, row.false_minima, row.undetermined) == (0, 0, 0)
    assert row.classes >= 1
    if case.name in ("phase_retrieval", "ica", "tensor_decomposition"):
        assert (row.local_minima, row.degenerate) == (0, 0)


def test_a_wrong_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.name == "himmelblau")
    landscape = case.build()
    said = KnownClass("said", "minimum", 0, 0, None)
    monkeypatch.setitem(self_check.REFERENCES, "himmelblau", lambda: self_check.dataclasses.replace(
        landscape, known_class=lambda theta: said if float(theta[0]) > 0 else None))  # fmt: skip
    row = self_check.check(case, 20)
    assert row.wrong > 0
    assert row.false_minima > 0, "minima of no class are false where theory is complete"
    assert study.failures([row.__dict__])


def test_missed_targets_are_failures() -> None:
    good = Row("good", 2, searches=100, critical=95, undetermined=1)
    bad = Row("bad", 2, searches=100, critical=94, undetermined=2)
    assert study.failures([good.__dict__]) == []
    assert len(study.failures([bad.__dict__])) == 2


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(QueryError, match="'self_check'; there are self-check; did you mean self-check"):
        study.study("self_check")


def test_autoencoder_in_small() -> None:
    measured, holds = evidence_points.autoencoder(24)
    assert holds, measured


@pytest.mark.parametrize("claim", ["classes16", "exact", "plane", "separable", "kinks"])
def test_claims_in_small(claim: str) -> None:
    sizes = {"classes16": 2000, "exact": 8, "plane": 60, "separable": 4, "kinks": 4}
    measured, holds = evidence_points.CLAIMS[claim][1](sizes[claim])
    assert holds, measured


def test_trained_perceptrons_end_at_critical_points() -> None:
    points = evidence_points.trained(8, 600, weight_decay=1e-2)
    assert set(points["kind"]) == {"minimum"}


# --- sizes -------------------------------------------------------------------------------------------------------
def settings(spectrum: str, method: str = "auto", connections: object = "auto") -> dict[str, dict[str, object]]:
    saddles = {"method": method, "connections": connections}
    return {"measure": {"spectrum": spectrum, "include": [], "trajectory": []}, "search": {"saddles": saddles}}


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(LandscapeError, match=r"38\.4 GB, and 24\.0 GB are there; allowed: auto or lanczos"):
        mode.check(settings("dense"), 20_000, 24 * 10**9)
    assert mode.check(settings("dense"), 2_000, 24 * 10**9) is None
    said = mode.check(settings("auto"), 20_000, 24 * 10**9)
    assert said is not None and "Lanczos" in said
    assert not mode.is_dense(settings("auto"), 20_000)
    assert mode.is_dense(settings("auto"), 3_000) and not mode.is_dense(settings("lanczos"), 10)


@pytest.mark.parametrize("method", mode.DENSE_METHODS)
def test_searches_that_keep_hessians_are_refused_without_them(method: str) -> None:
    with pytest.raises(LandscapeError, match=r"search\.saddles\.method: .* allowed: auto, saddle_dynamics"):
        mode.check(settings("lanczos", method), 50, 10**9)
    with pytest.raises(LandscapeError, match=r"search\.saddles\.connections"):
        mode.check(settings("lanczos", connections=True), 50, 10**9)
    with pytest.raises(LandscapeError, match=r"measure\.spectrum: .*one parameter; allowed: auto or dense"):
        mode.check(settings("lanczos"), 1, 10**9)


def test_dense_spectra_of_20000_parameters_are_refused_at_plan(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_text("name: big\nseeds: 2\nlandscape: {name: mlp, hidden: [267]}\nmeasure: {spectrum: dense}\n")

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "landsweep", "plan", str(file), "--store", str(tmp_path / "runs"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    ended = cli()
    assert ended.returncode == 2
    assert "measure.spectrum: whole Hessians of n = 20,035 parameters" in ended.stderr
    routed = cli("--set", "measure.spectrum=auto")
    assert routed.returncode == 0
    assert "spectra by Lanczos" in routed.stderr


# --- by products alone -------------------------------------------------------------------------------------------
def test_lanczos_and_dense_agree_on_minima() -> None:
    landscape = built({"name": "mlp", "data": "digits", "hidden": [2], "resize": 4, "train_size": 60})
    theta = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(3)])
    scale = Dense().norm(landscape, theta)
    assert torch.allclose(Krylov(75).norm(landscape, theta), scale, rtol=0.05)
    outcome = search.iterate(TrustRegionNewton(1e-8), landscape, theta, scale, 200)
    theta = Dense().polished(landscape, outcome.theta, 1e-8)
    dense, products = (
        algebra.classify(landscape, theta, outcome, scale, torch.arange(3), 1e-8) for algebra in (Dense(), Krylov(75))
    )
    assert products.kind == dense.kind == ["minimum"] * 3
    for name in ("index", "n_positive", "n_zero", "n_undetermined"):
        assert getattr(products.signs, name).tolist() == getattr(dense.signs, name).tolist()
    ends = dense.curvature.eigenvalues[:, [0, 1, 2, 3, -4, -3, -2, -1]]
    torch.testing.assert_close(products.curvature.eigenvalues, ends, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(products.curvature.trace, dense.curvature.trace, rtol=1e-9, atol=0)
    assert products.certificates.certified == [False] * 3


def test_a_point_by_products_does_not_depend_on_its_mates() -> None:
    names = ("kind", "index", "objective", "eig_min", "eig_max", "trace", "newton_step")
    three, one = (evidence_points.trained(n, 100, "lanczos", 10, weight_decay=1e-2) for n in (3, 1))
    for name in names:
        assert repr(three[name][0]) == repr(one[name][0]), name


def test_too_few_steps_leave_signs_undetermined() -> None:
    points = evidence_points.trained(2, 600, spectrum="lanczos", lanczos_steps=3, weight_decay=1e-2)
    assert set(points["kind"]) == {"undetermined"}
    assert all("no bound separates from zero" in str(reason) for reason in points["reason"])
    assert torch.tensor(points["n_undetermined"]).min() > 0
