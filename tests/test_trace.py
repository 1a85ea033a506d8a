"""Traces from products, against closed forms and scipy's Student distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.workers.krylov.student import LEVEL, student_quantile
from landsweep.workers.krylov.trace import trace
from landsweep.workers.landscape import padded
from tests import evidence_spectra, surfaces

pytestmark = pytest.mark.usefixtures("one_thread")


def matrices(rows: int, dim: int, seed: int) -> Tensor:
    square = surfaces.normal(rows, dim * dim, seed).reshape(rows, dim, dim)
    return square + square.mT


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 30, 99])
@pytest.mark.parametrize("level", [0.5, 0.95, LEVEL])
def test_quantiles_of_student(degrees: int, level: float) -> None:
    from scipy.stats import t

    assert student_quantile(level, degrees) == pytest.approx(t.ppf(0.5 + 0.5 * level, degrees), rel=1e-6)


def test_a_budget_of_n_is_exact() -> None:
    square = matrices(3, 30, 1)
    found = trace(lambda v: square @ v, 30, torch.arange(3), 30)
    exact = np.trace(square.numpy(), axis1=1, axis2=2)
    assert np.abs(found.value.numpy() - exact).max() <= float(found.error.min()) <= 1e-11
    assert (found.standard_error == 0).all()


def test_low_rank_is_exact() -> None:
    """Rank 5 within a sketch of 8: nothing is left to estimate."""
    factor = surfaces.normal(2, 60 * 5, 2).reshape(2, 60, 5)
    square = factor @ factor.mT
    found = trace(lambda v: square @ v, 60, torch.arange(2), 24)
    assert torch.allclose(found.value, (factor**2).sum((1, 2)), rtol=1e-12) and (found.error < 1e-10).all()


def test_the_standard_error_is_that_of_the_estimate() -> None:
    """Over 400 independent starts the mean is unbiased and the spread as stated."""
    square = matrices(1, 40, 3).expand(400, 40, 40)
    found = trace(lambda v: square @ v, 40, torch.arange(400), 24)
    exact = float(torch.diagonal(square[0]).sum())
    off = found.value - exact
    assert abs(float(off.mean())) <= 4 * float(off.std()) / 20
    assert float((off**2).mean().sqrt() / (found.standard_error**2).mean().sqrt()) == pytest.approx(1.0, abs=0.2)
    assert (off.abs() > found.standard_error).any() and (off.abs() <= found.error).all()


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    square = matrices(3, 50, 4)
    many = trace(lambda v: square @ v, 50, torch.arange(3), 18)
    for row in range(3):
        one = square[row : row + 1]
        alone = trace(lambda v, m=one: padded(torch.matmul, m, v), 50, torch.arange(3)[row : row + 1], 18)
        assert float(alone.value) == float(many.value[row]) and float(alone.error) == float(many.error[row])


def test_the_trace_by_layers_is_that_of_the_dense_hessian() -> None:
    """The reference that the large perceptron's trace is held against."""
    theta, data, landscape = evidence_spectra.problem((64, 4, 3, 10), 20)
    dense = float(torch.diagonal(landscape.hessian(theta)[0]).sum())
    assert evidence_spectra.exact_trace(theta[0], data, (64, 4, 3, 10)) == pytest.approx(dense, rel=1e-12)
