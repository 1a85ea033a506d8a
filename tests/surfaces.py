"""Landscapes with known stationary points, and a way to search and classify them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landsweep.workers import search, symmetry
from landsweep.workers.classify import Classified, classify
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.quadratic import eigh
from landsweep.workers.reference import autoencoder


def function(
    loss: Callable[[Tensor], Tensor], dim: int = 2, symmetries: Sequence[Field] = (), lipschitz: float | None = None
) -> Landscape:
    """A landscape whose initial parameters are standard normal."""
    return Landscape.from_function(
        loss,
        dim,
        lambda generator: torch.randn(dim, generator=generator, dtype=torch.float64),
        symmetries=symmetries,
        hessian_lipschitz=lipschitz,
    )


def normal(rows: int, dim: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def ended(theta: Tensor, status: int = search.CONVERGED, flatness: float = 0.0) -> search.Outcome:
    """The outcome of a search that ended at ``theta``."""
    codes = torch.full((len(theta),), status)
    return search.Outcome(theta, codes, torch.zeros_like(codes), torch.full((len(theta),), flatness, dtype=theta.dtype))


def scale_at(landscape: Landscape, starts: Tensor) -> Tensor:
    """‖H‖₂ at the starts."""
    return eigh(landscape.hessian(starts))[0].abs().amax(1)


def found(
    landscape: Landscape, finder: search.Search, starts: Tensor, budget: int = 200
) -> tuple[search.Outcome, Classified]:
    """Search from ``starts``, refine and classify, as a batch does."""
    fields, scale = symmetry.checked(landscape), scale_at(landscape, starts)
    landscape = dataclasses.replace(landscape, symmetries=fields)
    outcome = search.iterate(finder, landscape, starts, scale, budget)
    theta = search.polished(landscape, outcome.theta, 1e-8, fields)
    outcome = search.Outcome(theta, outcome.status, outcome.iterations, outcome.flatness)
    keys = torch.arange(len(starts))
    return outcome, classify(landscape, theta, outcome, scale, keys, 1e-8, fields)


def himmelblau(theta: Tensor) -> Tensor:
    return (theta[0] ** 2 + theta[1] - 11) ** 2 + (theta[0] + theta[1] ** 2 - 7) ** 2


def monkey(theta: Tensor) -> Tensor:
    return theta[0] ** 3 - 3 * theta[0] * theta[1] ** 2


def hat(theta: Tensor) -> Tensor:
    return ((theta**2).sum() - 1) ** 2


def rotation(theta: Tensor) -> Tensor:
    return torch.stack([-theta[1], theta[0]])


K, P = 5, 2
VARIANCES = (5.0, 4.0, 3.0, 2.0, 1.0)


def linear_autoencoder() -> Landscape:
    """The reference landscape at the size of these tests: k = 5, p = 2, covariance diag(5, 4, 3, 2, 1)."""
    return autoencoder.linear_autoencoder(K, P, VARIANCES)
