"""Spectral densities by stochastic Lanczos quadrature, against closed forms and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.krylov.decomposition import random_block
from landsweep.workers.krylov.density import Density, smoothed, spectral_density, tridiagonal
from landsweep.workers.landscape import padded
from tests import surfaces

pytestmark = pytest.mark.usefixtures("one_thread")


def matrices(rows: int, dim: int, seed: int) -> Tensor:
    square = surfaces.normal(rows, dim * dim, seed).reshape(rows, dim, dim)
    return (square + square.mT) / (2 * dim) ** 0.5


def density_of(square: Tensor, keys: Tensor, probes: int = 12, steps: int = 30) -> Density:
    return spectral_density(
        lambda v: padded(torch.matmul, square, v), square.shape[1], keys, probes=probes, steps=steps
    )


def test_it_is_normalised_and_has_the_mean_of_the_trace() -> None:
    square = matrices(4, 150, 1)
    found = density_of(square, torch.arange(4))
    assert torch.allclose(found.weights.sum(2), torch.ones(4, 12, dtype=torch.float64), rtol=0, atol=1e-13)
    assert torch.allclose(torch.trapezoid(found.density, found.grid), torch.ones(4, dtype=torch.float64), atol=1e-6)
    mean, deviation = found.mean()
    exact = torch.diagonal(square, dim1=1, dim2=2).mean(1)
    assert ((mean - exact).abs() <= 5 * deviation).all()


def test_moments_of_one_probe_are_those_of_its_measure() -> None:
    """Σ w θ^p = vᵀA^p v for p < 2k: a node's weight is the square of one component, not of a whole eigenvector."""
    square = matrices(1, 40, 2)
    found = density_of(square, torch.arange(1), probes=2, steps=4)
    vectors = functional.normalize(random_block(torch.arange(1), 40, 2, 0), dim=1)
    for power in range(8):
        image = torch.linalg.matrix_power(square[0], power) @ vectors[0]
        moments = (found.weights * found.nodes**power).sum(2)[0]
        assert torch.allclose(moments, (vectors[0] * image).sum(0), rtol=0, atol=1e-12)


def test_a_multiple_of_the_identity_is_one_line() -> None:
    found = density_of(3 * torch.eye(20, dtype=torch.float64).expand(2, 20, 20), torch.arange(2), steps=5)
    assert torch.allclose((found.nodes * found.weights).sum(2), torch.full((2, 12), 3.0).double())


def test_two_lines_have_their_shares() -> None:
    """Eigenvalues 0 (three quarters) and 1: the mass below ½ is ¾ within its error."""
    diagonal = torch.tensor([0.0] * 150 + [1.0] * 50, dtype=torch.float64).expand(3, 200)
    found = density_of(torch.diag_embed(diagonal), torch.arange(3), probes=30, steps=10)
    share = (found.weights * (found.nodes < 0.5)).sum(2)
    assert ((share.mean(1) - 0.75).abs() <= 4 * share.std(1) / 30**0.5).all()
    assert (share.std(1) > 0).all()


def test_the_semicircle() -> None:
    """A Wigner matrix of n = 400 against √(4 − x²)/2π, away from the edges."""
    found = density_of(matrices(1, 400, 3), torch.arange(1), probes=40, steps=40)
    inner = found.grid[0].abs() < 1.8
    exact = torch.sqrt((4 - found.grid[0] ** 2).clamp_min(0)) / (2 * torch.pi)
    assert float((found.density[0] - exact)[inner].abs().max()) < 0.04


def test_smoothing_is_a_sum_of_normal_densities() -> None:
    from scipy.stats import norm

    nodes, weights = surfaces.points([0.1, 0.5]).unsqueeze(0), surfaces.points([0.25, 0.75]).unsqueeze(0)
    grid = torch.linspace(-1, 1, 9).double().unsqueeze(0)
    found = smoothed(nodes, weights, grid, torch.tensor([0.2]).double())[0, 0].numpy()
    exact = 0.25 * norm.pdf(grid[0].numpy(), 0.1, 0.2) + 0.75 * norm.pdf(grid[0].numpy(), 0.5, 0.2)
    assert np.allclose(found, exact, rtol=1e-7)


def test_rows_do_not_depend_on_their_batch_mates_nor_suffer_from_them() -> None:
    square = matrices(3, 50, 4)
    broken = square.clone()
    broken[1, 0, 0] = torch.nan
    many = density_of(broken, torch.arange(3))
    assert torch.isnan(many.density[1]).all()
    for row in (0, 2):
        alone = density_of(square[row : row + 1], torch.arange(3)[row : row + 1])
        assert torch.equal(alone.density[0], many.density[row]) and torch.equal(alone.error[0], many.error[row])


def test_lanczos_without_orthogonalisation_is_that_of_exact_arithmetic_at_first_and_ends_with_the_space() -> None:
    """A few steps: QᵀAQ of an orthonormal basis of the Krylov space, by numpy. Four eigenvalues: T goes uncoupled."""
    square, start = matrices(1, 30, 6)[0], torch.ones(2, 30, dtype=torch.float64)
    found, finite = tridiagonal(lambda v: v @ square, start, 5)
    columns = np.stack([np.linalg.matrix_power(square.numpy(), k) @ np.ones(30) for k in range(5)], 1)
    basis, signs = np.linalg.qr(columns)
    basis *= np.sign(np.diag(signs))
    assert finite.all() and np.allclose(found[0], basis.T @ square.numpy() @ basis, rtol=0, atol=1e-9)
    few = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64).repeat(8)
    found, _ = tridiagonal(lambda v: v * few, torch.ones(1, 32, dtype=torch.float64), 7)
    values, vectors = torch.linalg.eigh(found[0])
    used = vectors[0] ** 2 > 1e-12
    assert torch.allclose(values[used], torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64), rtol=1e-12)
    assert float(values.amin()) > 0.999 and float(values.amax()) < 8.001
