"""Spectral densities of symmetric operators by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import Apply, decompositions, random_block
from landsweep.workers.krylov.student import LEVEL, student_quantile

REACH = 6.0  # the grid goes this many widths beyond the outermost nodes


@dataclass(frozen=True)
class Density:
    """φ(x) = 1/n Σ_i N(x; λ_i, σ²) on a grid, and the measures Σ_j w_j δ(x − θ_j) behind it, whose weights sum to 1."""

    grid: Tensor  # (B, g)
    density: Tensor  # (B, g)
    standard_error: Tensor  # (B, g) over the probes
    error: Tensor  # (B, g) half width at LEVEL, and quadrature
    width: Tensor  # (B,) σ
    nodes: Tensor  # (B, p, k) θ; NaN where fewer exist
    weights: Tensor  # (B, p, k)

    def mean(self) -> tuple[Tensor, Tensor]:
        """The estimate of tr A/n, and its standard error. (B,), (B,)."""
        first = (torch.nan_to_num(self.nodes) * self.weights).sum(2)
        return first.mean(1), first.std(1) / first.shape[1] ** 0.5


def spectral_density(
    apply: Apply, dim: int, keys: Tensor, *, probes: int, steps: int, points: int = 256, relative_width: float = 0.02
) -> Density:
    """Smoothed density from ``steps`` of Lanczos from each of ``probes`` ≥ 2 random unit vectors, with σ =
    ``relative_width`` of the Ritz values' range.

    vᵀf(A)v ≈ Σ_j w_j f(θ_j), w_j the squared first components of T's eigenvectors (Golub & Welsch 1969; Lin, Saad &
    Yang 2016; Ubaru, Chen & Saad 2017). The error is Student's half width over the probes and, for the quadrature's,
    the difference from half the steps. Basis: 8·B·p·n·k bytes.
    """
    rows, steps = len(keys), min(steps, dim)
    start = random_block(keys, dim, probes, 0).mT.reshape(rows * probes, dim, 1)

    def each(vectors: Tensor) -> Tensor:
        together = vectors.reshape(rows, probes, dim).mT.contiguous()
        return apply(together).mT.reshape(rows * probes, dim, 1)

    *_, last = decompositions(each, start, keys.repeat_interleave(probes), steps)
    nodes, weights = (part.reshape(rows, probes, -1) for part in _quadrature(last.projected))
    finite = last.finite.reshape(rows, probes).all(1)
    nodes = nodes.masked_fill(~finite[:, None, None], torch.nan)
    low, high = nodes.amin((1, 2)), nodes.amax((1, 2))
    tiny = torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs()) + torch.finfo(low.dtype).tiny
    width = relative_width * (high - low) + tiny
    ticks = torch.linspace(0.0, 1.0, points, dtype=low.dtype, device=low.device)
    grid = (low - REACH * width).unsqueeze(1) + (high - low + 2 * REACH * width).unsqueeze(1) * ticks
    samples = smoothed(nodes, weights, grid, width)
    half = -(-steps // 2)
    coarse_nodes, coarse_weights = (
        part.reshape(rows, probes, -1) for part in _quadrature(last.projected[:, :half, :half])
    )
    coarse_samples = smoothed(coarse_nodes, coarse_weights, grid, width)
    deviation = samples.std(1) / probes**0.5
    quadrature = (samples - coarse_samples).mean(1).abs()
    error = student_quantile(LEVEL, probes - 1) * deviation + quadrature
    return Density(grid, samples.mean(1), deviation, error, width, nodes, weights)


def smoothed(nodes: Tensor, weights: Tensor, grid: Tensor, width: Tensor) -> Tensor:
    """Σ_j w_j N(x; θ_j, σ²) of each measure (B, p, k) on the grid (B, g), σ (B,). (B, p, g)."""
    sigma = width[:, None, None]
    total = torch.zeros(*nodes.shape[:2], grid.shape[1], dtype=nodes.dtype, device=nodes.device)
    for node, weight in zip(nodes.unbind(2), weights.unbind(2), strict=True):
        distance = (grid.unsqueeze(1) - node.unsqueeze(2)) / sigma
        total += weight.unsqueeze(2) * torch.exp(-0.5 * distance**2)
    return total / (math.sqrt(2 * math.pi) * sigma)


def _quadrature(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss nodes and weights (R, k) of T (R, k, k): eigenvalues, and squares of the eigenvectors' FIRST components."""
    values, vectors = torch.linalg.eigh(0.5 * (projected + projected.mT))
    return values, vectors[:, 0] ** 2
