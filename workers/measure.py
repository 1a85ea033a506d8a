"""What is measured at a point beyond its curvature: losses, errors, distances, a fingerprint."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape, Scalar

PROJECTIONS = 8
SEGMENT = 16  # evaluations on the straight line that judges whether the polish stayed in its basin


def optional(landscape: Landscape, function: Scalar | None, thetas: Tensor) -> Tensor:
    """``function`` at each row, NaN where the landscape has none. (P,) float64."""
    if function is None:
        return torch.full_like(thetas[:, 0], torch.nan)
    return landscape.map(function, thetas).to(torch.float64)


def fingerprints(landscape: Landscape, thetas: Tensor, index: Tensor, n_zero: Tensor) -> Tensor:
    """[objective, index, n_zero, eight fixed random projections of the training outputs] of each row. (P, 3 + q).

    Outputs are invariant under the symmetries of the parameters, so equal points share a fingerprint up to rounding.
    A landscape without outputs contributes θ itself, where it declares no symmetry.
    """
    invariant = landscape.outputs
    if invariant is None:
        invariant = (lambda theta: theta) if not landscape.symmetries else (lambda theta: theta[:0])
    with torch.no_grad():
        size = invariant(thetas[0]).numel()
    key = torch.arange(PROJECTIONS, dtype=torch.int64, device=thetas.device)
    projection = streams.normal(key, 0, size) / max(1, size) ** 0.5

    def project(theta: Tensor) -> Tensor:
        return torch.sum(projection * invariant(theta), 1)

    head = torch.stack([landscape.objective(thetas), index.to(thetas.dtype), n_zero.to(thetas.dtype)], 1)
    return torch.cat([head, landscape.map(project, thetas)], 1)


def same_basin(landscape: Landscape, start: Tensor, end: Tensor) -> Tensor:
    """Whether L never rises above L(start) on the straight line to ``end``: no barrier was crossed. (P,) bool.

    True proves that the sublevel set {L ≤ L(start)} joins them; false says only that the line leaves it. Where a
    point did not move there is no line.
    """
    moved = torch.nonzero(start.ne(end).any(1)).flatten()
    same = ~torch.isnan(landscape.objective(start))
    same[moved] = _below(landscape, start[moved], end[moved]) if len(moved) else same[moved]
    return same


def _below(landscape: Landscape, start: Tensor, end: Tensor) -> Tensor:
    """Whether L(start) is the highest value on the line. (P,) bool."""
    t = torch.linspace(0, 1, SEGMENT + 1, dtype=start.dtype, device=start.device)
    line = start.unsqueeze(1) + t[None, :, None] * (end - start).unsqueeze(1)
    values = landscape.objective(line.flatten(0, 1)).view(len(start), -1)
    first = values[:, :1]
    return (values <= first + 1e-12 * (1 + first.abs())).all(1)


def null_where_not_finite(tensor: Tensor) -> list[float | None]:
    """A column: null = not measured or not finite."""
    return [value if np.isfinite(value) else None for value in tensor.to(torch.float64).tolist()]
