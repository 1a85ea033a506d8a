"""Block Lanczos, the bounds and the inertia from products, against closed forms, numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.workers import landscape as landscape_module
from landsweep.workers.krylov.bounds import bounds, bounds_in_advance, relative_gap
from landsweep.workers.krylov.decomposition import Apply
from landsweep.workers.krylov.inertia import Inertia, inertia
from landsweep.workers.krylov.lanczos import lanczos, memory_bytes, stated_errors
from landsweep.workers.landscape import Landscape, padded
from tests import evidence_spectra, surfaces

pytestmark = pytest.mark.usefixtures("one_thread")


def times(matrices: Tensor) -> Apply:
    return lambda vectors: padded(torch.matmul, matrices, vectors)


def symmetric(rows: int, dim: int, seed: int = 0) -> Tensor:
    """Wigner matrices, spectrum about [−2, 2]."""
    square = surfaces.normal(rows, dim * dim, seed).reshape(rows, dim, dim)
    return (square + square.mT) / math.sqrt(2 * dim)


def rotated(eigenvalues: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """QΛQᵀ (B, n, n) and Q, Λ (B, n)."""
    rows, dim = eigenvalues.shape
    rotation = torch.linalg.qr(surfaces.normal(rows, dim * dim, seed).reshape(rows, dim, dim))[0]
    return (rotation * eigenvalues.unsqueeze(1)) @ rotation.mT, rotation


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 17, 50])
def test_a_full_space_gives_all_eigenvalues(dim: int) -> None:
    matrices = symmetric(3, dim)
    found = lanczos(times(matrices), dim, torch.arange(3), 1000)
    assert found.exhausted.all() and found.converged.all() and (found.count == dim).all()
    exact = np.linalg.eigvalsh(matrices.numpy())
    assert np.abs(found.values[:, :dim].numpy() - exact).max() <= 20 * dim * 2.3e-16


def test_invariant_subspaces_are_left_behind() -> None:
    """Two eigenvalues with multiplicities 30 and 10: a Krylov space of four starts has dimension 8."""
    eigenvalues = torch.tensor([[-1.0] * 10 + [2.0] * 30], dtype=torch.float64)
    matrices, _ = rotated(eigenvalues)
    found = lanczos(times(matrices), 40, torch.arange(1), 10)
    assert torch.allclose(found.values[:, :40], eigenvalues, rtol=0, atol=1e-13)
    zero = lanczos(times(torch.zeros(1, 6, 6, dtype=torch.float64)), 6, torch.arange(1), 10)
    assert zero.converged.all() and (zero.norm == 0).all() and (zero.highest_error == 0).all()


def test_no_ghosts() -> None:
    """An outlier converges at once; without reorthogonalisation copies of it appear."""
    eigenvalues = torch.cat([torch.linspace(0, 1, 299), torch.tensor([100.0])]).double().unsqueeze(0)
    found = lanczos(times(torch.diag_embed(eigenvalues)), 300, torch.arange(1), 200, block=1)
    assert (found.values[0, : int(found.count[0])] > 50).sum() == 1
    assert found.steps[0] == 200


def test_residuals_and_vectors_are_the_true_ones() -> None:
    matrices = symmetric(3, 120, 1)
    found = lanczos(times(matrices), 120, torch.arange(3), 8)
    vectors = found.vectors(2, 3)
    columns = [0, 1, 29, 30, 31]
    values, residuals = found.values[:, columns], found.residuals[:, columns]
    assert torch.allclose((matrices @ vectors - vectors * values.unsqueeze(1)).norm(dim=1), residuals, atol=1e-13)
    assert torch.allclose(vectors.mT @ vectors, torch.eye(5, dtype=torch.float64).expand(3, 5, 5), atol=1e-13)
    assert (residuals > 1e-3).any()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_extremes_meet_the_tolerance_and_agree_with_scipy(tolerance: float) -> None:
    from scipy.sparse.linalg import eigsh

    matrices = symmetric(3, 200, 2)
    found = lanczos(times(matrices), 200, torch.arange(3), 50, tolerance=tolerance)
    assert found.converged.all() and not found.exhausted.any()
    for row, matrix in enumerate(matrices.numpy()):
        low, high = (eigsh(matrix, 1, which=end, tol=1e-13)[0][0] for end in ("SA", "LA"))
        assert abs(float(found.lowest[row]) - low) <= float(found.lowest_error[row]) <= tolerance * found.norm[row]
        assert abs(float(found.highest[row]) - high) <= float(found.highest_error[row]) <= tolerance * found.norm[row]


def test_kato_temple_of_two_intervals() -> None:
    """θ = 0 ± 0.1 and 1 ± 0.5: gaps 1 − 0.5 and 1 − 0.1; an overlap leaves the residual."""
    values, residuals = surfaces.points([0.0, 1.0]), surfaces.points([0.1, 0.5])
    assert torch.allclose(stated_errors(values, residuals), surfaces.points([0.01 / 0.5, 0.25 / 0.9]))
    assert torch.equal(stated_errors(values, surfaces.points([0.1, 1.5])), surfaces.points([0.1, 1.5]))
    assert torch.equal(stated_errors(values[:, :1], residuals[:, :1]), residuals[:, :1])


def test_deflated_directions_are_left_out() -> None:
    eigenvalues = torch.cat([torch.tensor([-5.0, -3.0, 0.0]), torch.linspace(1, 2, 37)]).double().repeat(2, 1)
    matrices, rotation = rotated(eigenvalues)
    span = torch.cat([rotation[:, :, :2], torch.zeros(2, 40, 1, dtype=torch.float64)], 2)
    span[1, :, 1] = 0.0  # zero-padded: only one direction in the second row
    found = lanczos(times(matrices), 40, torch.arange(2), 40, deflation=span)
    assert found.count.tolist() == [38, 39] and found.exhausted.all()
    assert torch.allclose(found.values[0, :38], eigenvalues[0, 2:], rtol=0, atol=1e-12)
    assert torch.allclose(found.values[1, :39], eigenvalues[1, 1:], rtol=0, atol=1e-12)
    assert torch.isnan(found.values[0, 38:]).all()


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    matrices = torch.stack([symmetric(1, 90, 3)[0], rotated(torch.logspace(-3, 0, 90).double()[None])[0][0]] * 2)
    keys = torch.tensor([3, 5, 7, 11])
    together = lanczos(times(matrices), 90, keys, 25, tolerance=1e-5)
    assert len(set(together.steps.tolist())) > 1
    lower, upper = bounds(together, 90)
    for row in range(4):
        alone = lanczos(times(matrices[row : row + 1]), 90, keys[row : row + 1], 25, tolerance=1e-5)
        for name in ("values", "residuals", "errors", "coefficients", "steps"):
            one, many = getattr(alone, name)[0], getattr(together, name)[row]
            assert torch.equal(torch.nan_to_num(one), torch.nan_to_num(many)), name
        assert torch.equal(alone.vectors(2, 2)[0], together.vectors(2, 2)[row])
        assert [float(part) for part in bounds(alone, 90)] == [float(lower[row]), float(upper[row])]


def test_a_row_that_is_not_finite_harms_no_other() -> None:
    matrices = symmetric(3, 30, 4)
    broken = matrices.clone()
    broken[1, 3, 4] = math.nan
    found, whole = (lanczos(times(m), 30, torch.arange(3), 4) for m in (broken, matrices))
    assert torch.isnan(found.values[1]).all() and not found.converged[1]
    assert torch.equal(found.values[[0, 2]], whole.values[[0, 2]])


def test_memory() -> None:
    found = lanczos(times(symmetric(2, 40)), 40, torch.arange(2), 5)
    assert memory_bytes(2, 40, 5) == found.basis.numel() * 8


# --- bounds --------------------------------------------------------------------------------------------------
def test_kuczynski_wozniakowski() -> None:
    """1.648·√n·exp(−√ε·(2k−1)) to the power of the number of columns is the failure probability."""
    gap = relative_gap(1000, 40, 3, 1e-6)
    assert math.isclose((1.648 * math.sqrt(1000) * math.exp(-math.sqrt(gap) * 79)) ** 3, 1e-6, rel_tol=1e-9)


@pytest.mark.parametrize("shape", evidence_spectra.SHAPES)
def test_bounds_hold_and_the_later_is_sharper(shape: evidence_spectra.Shape) -> None:
    rng = np.random.default_rng(7)
    eigenvalues = torch.tensor(np.sort(shape(20, 150, rng), 1))
    for steps in (3, 8, 20):
        found = lanczos(lambda v: eigenvalues.unsqueeze(2) * v, 150, torch.arange(20), steps)
        for lower, upper in (bounds(found, 150), bounds_in_advance(found, 150)):
            assert (lower <= eigenvalues[:, 0]).all() and (upper >= eigenvalues[:, -1]).all()
        assert (bounds(found, 150)[0] >= bounds_in_advance(found, 150)[0]).all()


def test_a_bound_fails_as_often_as_stated() -> None:
    """One eigenvalue far below a cluster after two steps: the bound, at failure ½, misses it in at most half of the
    starts."""
    eigenvalues = torch.cat([torch.tensor([-1.0]), torch.linspace(0, 1e-3, 99)]).double()
    found = lanczos(lambda v: eigenvalues[:, None] * v, 100, torch.arange(2000), 2, block=1)
    failed = float((bounds(found, 100, 0.5)[0] > -1.0).double().mean())
    assert failed <= 0.5 + 3 * math.sqrt(0.25 / 2000)


# --- inertia -------------------------------------------------------------------------------------------------
def counted(eigenvalues: Tensor, steps: int, **options: Tensor) -> Inertia:
    matrices, _ = rotated(eigenvalues.double().unsqueeze(0))
    dim = len(eigenvalues)
    return inertia(times(matrices), dim, torch.tensor([1e-7]).double(), torch.arange(1), steps, **options)


def four(found: Inertia) -> list[int]:
    return [int(part) for part in (found.index, found.n_zero, found.n_positive, found.n_undetermined)]


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        (torch.linspace(0.05, 1, 150), [0, 0, 150, 0]),
        (torch.cat([torch.tensor([-0.5, -0.1]), torch.linspace(0.05, 1, 148)]), [2, 0, 148, 0]),
        (torch.cat([torch.full((10,), -1.0), torch.linspace(0.1, 1, 140)]), [10, 0, 140, 0]),
        (torch.cat([torch.tensor([-0.5, 0, 0, 0, 0, 0, 0]), torch.linspace(0.05, 1, 143)]), [1, 6, 143, 0]),
        (torch.linspace(-1, -0.1, 60), [60, 0, 0, 0]),
        (torch.linspace(-1, 1, 60), [30, 0, 30, 0]),
    ],
    ids=["minimum", "saddle", "multiple", "zeros", "maximum", "half"],
)
def test_inertia_of_known_spectra(eigenvalues: Tensor, expected: list[int]) -> None:
    found = counted(eigenvalues, 30)
    assert four(found) == expected and int(found.highest_index) == expected[0]


def test_inertia_says_what_it_cannot_tell() -> None:
    """Few steps on a spectrum that reaches zero: lower bounds and a rest, never a false count."""
    for steps in (2, 5, 10):
        eigenvalues = torch.linspace(-1, 1, 150)
        found = counted(eigenvalues, steps)
        assert sum(four(found)) == 150
        assert int(found.index) <= 75 <= int(found.highest_index) and int(found.n_positive) <= 75
    assert int(counted(torch.linspace(-1, 1, 400), 3).n_undetermined) > 0


def test_inertia_counts_known_null_directions() -> None:
    """Three null directions given: counted as zeros; a direction that is not null is found out."""
    eigenvalues = torch.cat([torch.tensor([-0.5, 0, 0, 0]), torch.linspace(0.1, 1, 96)]).double().unsqueeze(0)
    matrices, rotation = rotated(eigenvalues)
    zero = torch.tensor([1e-7]).double()
    found = inertia(times(matrices), 100, zero, torch.arange(1), 20, rotation[:, :, 1:4].contiguous())
    assert four(found) == [1, 3, 96, 0]
    wrong = inertia(times(matrices), 100, zero, torch.arange(1), 20, rotation[:, :, :1].contiguous())
    assert int(wrong.index) == 1


# --- the landscape's products --------------------------------------------------------------------------------
def test_products_over_a_ragged_last_chunk_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """37 samples in chunks of 10 and a last one of 7, each weighted by its share."""
    inputs = surfaces.normal(37, 3, 5)
    data = (inputs, (inputs.sum(1) > 0).long())
    landscape = Landscape.from_module(
        lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)),
        data, data, weight_decay=1e-2,
    )  # fmt: skip
    theta, vectors = surfaces.normal(3, landscape.dim, 6), surfaces.normal(3, landscape.dim * 5, 7).reshape(3, -1, 5)
    whole, dense = landscape.hvp(theta, vectors), landscape.hessian(theta) @ vectors
    monkeypatch.setattr(landscape_module, "SAMPLES_BYTES", 10 * landscape.sample_bytes * 2)
    assert [round(weight * 37) for weight, _ in landscape._parts()] == [10, 10, 10, 7]
    chunked = landscape.hvp(theta, vectors)
    assert torch.allclose(whole, dense, rtol=0, atol=1e-13) and torch.allclose(chunked, whole, rtol=0, atol=1e-14)


def test_dense_spectra_agree_with_closed_forms() -> None:
    assert max(evidence_spectra.dense_differences().values()) <= 1e-10


def test_stated_errors_cover() -> None:
    """Sixty of the 500 random operators that the evidence measures."""
    for kind, (held, cases, ratio) in evidence_spectra.coverage(batches=10, rows=6, seed=1).items():
        assert cases == 60 and held >= 59, kind
        assert ratio <= 100, kind
