"""MINRES against pseudo-inverses, scipy's MINRES and the definition of everything that it reports."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import linalg
from torch import Tensor

from landsweep.workers.krylov.minres import BUDGET, LEAST_SQUARES, NON_FINITE, SOLVED, Minres, minres, newton_length
from landsweep.workers.landscape import padded
from landsweep.workers.quadratic import LocalModel
from tests.surfaces import function, linear_autoencoder, normal, points

pytestmark = pytest.mark.usefixtures("one_thread")


def products(matrices: Tensor) -> Callable[[Tensor], Tensor]:
    """A stack of matrices as an operator whose result does not depend on the number of rows."""
    return lambda vectors: padded(torch.matmul, matrices, vectors)


def symmetric(spectra: np.ndarray, seed: int = 0) -> Tensor:
    """Random symmetric matrices with the rows of ``spectra`` as eigenvalues. (B, n, n)."""
    rng = np.random.default_rng(seed)
    frames = np.linalg.qr(rng.normal(size=(*spectra.shape, spectra.shape[1])))[0]
    return torch.from_numpy((frames * spectra[:, None, :]) @ np.swapaxes(frames, 1, 2))


def spectra(rows: int, dim: int, zeros: int, condition: float = 100.0, seed: int = 0) -> np.ndarray:
    """Both signs, log-uniform sizes from 1 to ``condition``, and ``zeros`` zeros."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.uniform(0, np.log(condition), (rows, dim))) * rng.choice([-1.0, 1.0], (rows, dim))
    values[:, :zeros] = 0.0
    return values


def solved(matrices: Tensor, b: Tensor, singular: float = 1e-12) -> Minres:
    return minres(products(matrices), b, 1e-12, singular, 6 * b.shape[1] + 20)


def pseudo_inverse(matrices: Tensor, b: Tensor) -> Tensor:
    inverse = torch.from_numpy(np.linalg.pinv(matrices.numpy(), rcond=1e-10, hermitian=True))
    return (inverse * b.unsqueeze(1)).sum(2)


@pytest.mark.parametrize("zeros", [0, 3])
def test_consistent_systems_have_their_shortest_solution(zeros: int) -> None:
    matrices = symmetric(spectra(6, 20, zeros))
    b = (matrices @ normal(6, 20).unsqueeze(2)).squeeze(2)
    result = solved(matrices, b)
    assert result.status.tolist() == [SOLVED] * 6
    torch.testing.assert_close(result.x, pseudo_inverse(matrices, b), rtol=0, atol=1e-9)


@pytest.mark.parametrize("singular", [1e-7, 1e-12])
def test_inconsistent_systems_have_the_shortest_least_squares_solution(singular: float) -> None:
    matrices, b = symmetric(spectra(6, 20, 3)), normal(6, 20)
    result = solved(matrices, b, singular)
    expected = pseudo_inverse(matrices, b)
    assert result.status.tolist() == [LEAST_SQUARES] * 6
    error = (result.x - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max()) < 1e-5
    residual = b - (matrices * expected.unsqueeze(1)).sum(2)
    torch.testing.assert_close(result.residual_norm, residual.norm(dim=1), rtol=1e-9, atol=0)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 7.0]), min_size=1, max_size=9), st.integers(0, 10**6))
def test_any_inertia_against_the_pseudo_inverse(eigenvalues: list[float], seed: int) -> None:
    matrices = symmetric(np.array([eigenvalues]), seed)
    b = normal(1, len(eigenvalues), seed)
    result = solved(matrices, b)
    assert int(result.status) in (SOLVED, LEAST_SQUARES)
    torch.testing.assert_close(result.x, pseudo_inverse(matrices, b), rtol=0, atol=1e-7)


def test_the_iterates_are_those_of_scipy() -> None:
    matrices, b = symmetric(spectra(1, 40, 0)), normal(1, 40)
    theirs = [
        torch.from_numpy(linalg.minres(matrices[0].numpy(), b[0].numpy(), rtol=1e-30, maxiter=k)[0]) for k in range(18)
    ]
    for k in (1, 2, 5, 17):
        ours = minres(products(matrices), b, 0.0, 0.0, k)
        assert ours.status.tolist() == [BUDGET]
        roots = [float((matrices[0] @ (b[0] - matrices[0] @ x)).norm()) for x in theirs[: k + 1]]
        best = int(np.argmin(roots))  # of those up to now, the one with the lowest ‖Ar‖
        torch.testing.assert_close(ours.x[0], theirs[best], rtol=0, atol=1e-10)
    result = solved(matrices, b)
    final, _ = linalg.minres(matrices[0].numpy(), b[0].numpy(), rtol=1e-14, maxiter=400)
    torch.testing.assert_close(result.x[0], torch.from_numpy(final), rtol=0, atol=1e-9)


def test_what_is_reported_is_what_is() -> None:
    matrices, b = symmetric(spectra(5, 30, 0)), normal(5, 30)
    result = minres(products(matrices), b, 1e-2, 0.0, 200)
    residual = b - (matrices * result.x.unsqueeze(1)).sum(2)
    torch.testing.assert_close(result.residual, residual, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.residual_norm, residual.norm(dim=1), rtol=1e-9, atol=0)
    image = (matrices * residual.unsqueeze(1)).sum(2).norm(dim=1)
    torch.testing.assert_close(result.normal_residual_norm, image, rtol=1e-6, atol=0)
    assert bool((result.residual_norm <= 1e-2 * b.norm(dim=1)).all())
    largest = torch.linalg.eigvalsh(matrices).abs().amax(1)
    assert bool((result.norm <= largest * (1 + 1e-12)).all())
    assert bool((result.norm > 0.5 * largest).all())


def test_curvature_is_that_of_the_direction_and_negative_iff_some_is() -> None:
    values = spectra(6, 12, 0, seed=3)
    values[:3] = np.abs(values[:3])
    matrices, b = symmetric(values), normal(6, 12)
    result = solved(matrices, b)
    quotient = ((matrices @ result.direction.unsqueeze(2)).squeeze(2) * result.direction).sum(1)
    torch.testing.assert_close(result.curvature, quotient, rtol=1e-6, atol=1e-9)
    assert (result.curvature < 0).tolist() == (values.min(1) < 0).tolist()
    assert bool((result.curvature >= torch.from_numpy(values.min(1)) - 1e-9).all())


def test_deflated_directions_stay_out() -> None:
    matrices, b = symmetric(spectra(4, 15, 0)), normal(4, 15)
    frame = torch.linalg.qr(normal(4 * 15, 3, seed=5).view(4, 15, 3))[0]
    frame[:2, :, 2] = 0.0  # fewer directions in some rows
    result = minres(products(matrices), b, 1e-12, 1e-12, 200, frame)
    for row in range(4):
        projector = torch.eye(15, dtype=torch.float64) - frame[row] @ frame[row].mT
        restricted = projector @ matrices[row] @ projector
        expected = pseudo_inverse(restricted[None], (projector @ b[row])[None])[0]
        torch.testing.assert_close(result.x[row], expected, rtol=0, atol=1e-8)
    everything = minres(products(matrices), b, 1e-12, 1e-12, 200, torch.eye(15, dtype=torch.float64).expand(4, -1, -1))
    assert torch.equal(everything.x, torch.zeros_like(b))
    assert bool((everything.curvature == torch.inf).all()), "nothing is left to look at"


def test_a_right_hand_side_of_zero_in_the_kernel_or_not_finite() -> None:
    matrices = symmetric(np.array([[0.0, 2.0, -3.0]] * 3))
    values, frame = torch.linalg.eigh(matrices[1])
    kernel = frame[:, values.abs().argmin()]
    b = torch.stack([torch.zeros(3, dtype=torch.float64), kernel, torch.full((3,), torch.nan, dtype=torch.float64)])
    result = solved(matrices, b, 1e-9)
    assert result.status.tolist() == [SOLVED, LEAST_SQUARES, NON_FINITE]
    assert torch.equal(result.x[0], torch.zeros(3, dtype=torch.float64))
    assert float(result.x[1].norm()) < 1e-9


def test_a_row_is_the_same_in_any_company() -> None:
    matrices, b = symmetric(spectra(7, 25, 2, seed=8)), normal(7, 25)
    b[3] = torch.nan
    together = solved(matrices, b, 1e-8)
    for rows in (slice(4, 5), slice(4, 6), slice(2, 7)):
        apart = solved(matrices[rows], b[rows], 1e-8)
        keep = [row for row in range(7)[rows] if row != 3]
        for row in keep:
            assert torch.equal(apart.x[row - rows.start], together.x[row])
            assert int(apart.iterations[row - rows.start]) == int(together.iterations[row])


def test_newton_length_is_that_of_the_eigensystem() -> None:
    landscape = linear_autoencoder()
    theta = normal(5, landscape.dim, scale=0.7)
    model = LocalModel.at(landscape, theta, landscape.symmetries)
    exact = [
        pseudo_inverse(p @ h @ p, (p @ g)[:, None].mT)
        for h, g, p in (
            (h, g, torch.eye(landscape.dim, dtype=torch.float64) - q @ q.mT)
            for h, g, q in zip(landscape.hessian(theta), model.gradient, model.span, strict=True)
        )
    ]
    length = newton_length(landscape, theta, model.gradient, model.span, 1e-12)
    torch.testing.assert_close(length, torch.cat(exact).norm(dim=1), rtol=1e-6, atol=0)


def test_newton_length_sees_a_flat_direction() -> None:
    landscape = function(lambda t: t[0] ** 2 + 1e-9 * t[1] ** 2)
    theta = points([1e-9, 1e-2], [1e-9, 0.0], [0.0, 1e-2])
    length = newton_length(landscape, theta, landscape.gradient(theta), theta.new_zeros(3, 2, 0), 1e-10)
    torch.testing.assert_close(length, theta.norm(dim=1), rtol=1e-6, atol=0)
