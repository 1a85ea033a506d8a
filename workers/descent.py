"""Descent along zero curvature: tests whether a point with unexplained zero eigenvalues is left downhill."""

from __future__ import annotations

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape

DIRECTIONS = 64
DISTANCES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # relative to 1 + ‖θ‖
STEPS = 60
FALL = 1e-12  # relative to 1 + |L|: above rounding


def falls(landscape: Landscape, theta: Tensor, zero_space: Tensor, norm: float, key: int, sign: float = 1.0) -> bool:
    """Whether sign·L falls below sign·L(θ) near θ, starting from 64 random unit directions of the whole zero space.

    ``theta`` (n,), ``zero_space`` (n, m) orthonormal, ``norm`` ‖H‖₂. From θ + t·v gradient descent goes on inside the
    ball of radius 2t, since straight lines miss curved valleys (L = y² − 2x²y + x⁴/2 falls along y = x² only). The fall
    has to be seen at two distances: a lower basin further out is no descent from θ.
    """
    keys = torch.tensor([key], dtype=torch.int64, device=theta.device)
    draws = streams.normal(keys, 0, DIRECTIONS * zero_space.shape[1]).view(DIRECTIONS, -1)
    directions = (draws.unsqueeze(1) * zero_space.unsqueeze(0)).sum(2)
    directions = directions / directions.norm(dim=1, keepdim=True)
    level = sign * float(landscape.objective(theta.unsqueeze(0))[0])
    floor = level - FALL * (1 + abs(level))
    seen = 0
    for distance in DISTANCES:
        radius = distance * float(1 + theta.norm())
        lowest = _lowest(landscape, theta, theta + radius * directions, 2 * radius, norm, sign)
        seen += lowest < floor
    return seen >= 2


def _lowest(landscape: Landscape, centre: Tensor, starts: Tensor, radius: float, norm: float, sign: float) -> float:
    """The lowest value of sign·L that projected gradient descent meets from ``starts`` (m, n) within the ball."""
    x = starts
    rate = torch.full((len(x),), 1.0 / max(norm, 1e-300), dtype=x.dtype, device=x.device)
    value, gradient = landscape.value_and_gradient(x)
    value = sign * value
    for _ in range(STEPS):
        offset = x - (sign * rate).unsqueeze(1) * gradient - centre
        length = offset.norm(dim=1, keepdim=True).clamp_min(1e-300)
        proposal = centre + offset * (radius / length).clamp_max(1.0)
        new_value, new_gradient = landscape.value_and_gradient(proposal)
        better = sign * new_value <= value
        x = torch.where(better.unsqueeze(1), proposal, x)
        gradient = torch.where(better.unsqueeze(1), new_gradient, gradient)
        value = torch.where(better, sign * new_value, value)
        rate = torch.where(better, 1.5 * rate, 0.25 * rate)
    return float(torch.nan_to_num(value, nan=torch.inf).min())
