"""Spectral densities of symmetric operators by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import Apply, random_block
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
    the difference from half the steps. Memory: a few times 8·B·p·n bytes.
    """
    rows, steps = len(keys), min(steps, dim)
    start = random_block(keys, dim, probes, 0).mT.contiguous().view(rows * probes, dim)

    def each(vectors: Tensor) -> Tensor:
        together = vectors.view(rows, probes, dim).mT.contiguous()
        return apply(together).mT.contiguous().view(rows * probes, dim)  # last bits of sums depend on the layout

    projected, finite = tridiagonal(each, start, steps)
    nodes, weights = (part.reshape(rows, probes, -1) for part in _quadrature(projected))
    finite = finite.reshape(rows, probes).all(1)
    nodes = nodes.masked_fill(~finite[:, None, None], torch.nan)
    low, high = nodes.amin((1, 2)), nodes.amax((1, 2))
    tiny = torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs()) + torch.finfo(low.dtype).tiny
    width = relative_width * (high - low) + tiny
    ticks = torch.linspace(0.0, 1.0, points, dtype=low.dtype, device=low.device)
    grid = (low - REACH * width).unsqueeze(1) + (high - low + 2 * REACH * width).unsqueeze(1) * ticks
    samples = smoothed(nodes, weights, grid, width)
    half = -(-steps // 2)
    coarse_nodes, coarse_weights = (part.reshape(rows, probes, -1) for part in _quadrature(projected[:, :half, :half]))
    coarse_samples = smoothed(coarse_nodes, coarse_weights, grid, width)
    deviation = samples.std(1) / probes**0.5
    quadrature = (samples - coarse_samples).mean(1).abs()
    error = student_quantile(LEVEL, probes - 1) * deviation + quadrature
    return Density(grid, samples.mean(1), deviation, error, width, nodes, weights)


def tridiagonal(apply: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """T (R, k, k) of k ``steps`` of Lanczos (1950) from each of ``start`` (R, n), and which rows' products were finite
    (R,); ``apply`` (R, n) → (R, n).

    Three vectors are kept and none is orthogonalised against those before: T then has copies of eigenvalues, which
    share one's weight, and its quadrature is still that of a measure nearby (Greenbaum 1989; Chen 2024, 5.2). Where the
    space is exhausted, T goes on uncoupled, its weights 0.
    """
    vectors = start / start.norm(dim=1, keepdim=True)
    before, length = torch.zeros_like(vectors), torch.zeros_like(vectors[:, :1])
    projected = start.new_zeros(len(start), steps, steps)
    finite, scale = torch.ones_like(start[:, 0], dtype=torch.bool), torch.zeros_like(length)
    first, going = length, torch.ones_like(length, dtype=torch.bool)
    for step in range(steps):
        image = apply(vectors)
        if not bool(torch.isfinite(image.sum())):  # much sooner known than of each number
            finite = finite & torch.isfinite(image).all(1)
            image = torch.where(finite.unsqueeze(1), image, 0.0)
        image = torch.addcmul(image, length, before, value=-1)
        level = (image * vectors).sum(1, keepdim=True)
        image.addcmul_(level, vectors, value=-1)
        first = level if step == 0 else first
        level = torch.where(going, level, first)
        projected[:, step, step] = level.squeeze(1)
        length = image.norm(dim=1, keepdim=True)
        scale = torch.maximum(scale, torch.maximum(length, level.abs()))
        going = going & (length > start.shape[1] * torch.finfo(start.dtype).eps * scale)
        length = torch.where(going, length, 0.0)
        before, vectors = vectors, image.div_(torch.where(going, length, torch.inf))
        if step + 1 < steps:
            projected[:, step, step + 1] = projected[:, step + 1, step] = length.squeeze(1)
    return projected, finite


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
