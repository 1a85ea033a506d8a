"""Minima: Newton's method in a trust region, its subproblem solved exactly in the eigenbasis."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import from_eigenbasis, in_eigenbasis
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    STAGNATED,
    STAGNATION,
    EigenState,
    is_critical,
    lingers,
    moved,
    progressed,
    start_state,
)

BISECTIONS = 60


def subproblem(eigenvalues: Tensor, coefficients: Tensor, radius: Tensor) -> Tensor:
    """argmin c·q + ½Σλq² over ‖q‖ ≤ radius, in the eigenbasis (Moré & Sorensen 1983; Conn, Gould & Toint 2000, 7.3).

    ``eigenvalues`` (B, n) ascending, ``coefficients`` c (B, n), ``radius`` (B,) → q (B, n). The hard case (c orthogonal
    to the lowest eigenvector, λ_min < 0) goes to the boundary along that eigenvector, away from c.
    """
    convex = eigenvalues - eigenvalues[:, :1].clamp_max(0.0)  # λ + s at the least shift s that makes all ≥ 0

    def solution(shift: Tensor) -> Tensor:
        return -coefficients / (convex + shift.unsqueeze(1)).clamp_min(torch.finfo(eigenvalues.dtype).tiny)

    low = torch.zeros_like(radius)
    high = coefficients.norm(dim=1) / radius
    inside = (eigenvalues[:, 0] > 0) & (solution(low).norm(dim=1) <= radius)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        too_long = solution(middle).norm(dim=1) > radius
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    q = solution(torch.where(inside, torch.zeros_like(high), high))
    slack = (radius**2 - (q * q).sum(1)).clamp_min(0.0).sqrt()
    hard = (eigenvalues[:, 0] < 0) & (slack > 1e-3 * radius)
    sign = torch.where(coefficients[:, 0] > 0, -1.0, 1.0).to(q.dtype)
    first = torch.where(hard, sign * (q[:, 0] ** 2 + slack**2).sqrt(), q[:, 0])  # onto the boundary, not beyond
    return torch.cat([first.unsqueeze(1), q[:, 1:]], 1)


@dataclass(frozen=True)
class TrustRegionNewton:
    """Descends to a second-order stationary point: accepts a step when L falls as the quadratic model says.

    Steps below what L can resolve are judged by ‖∇L‖ instead. A critical point with negative curvature is left along
    it.
    """

    tolerance: float
    initial_radius: float = 0.1  # relative to 1 + ‖θ‖; small, to stay in the basin
    maximum_radius: float = 10.0

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> EigenState:
        state = start_state(landscape, starts, scale, self.initial_radius)
        return dataclasses.replace(state, control=self.initial_radius * (1 + starts.norm(dim=1)))

    def step(self, landscape: Landscape, state: EigenState) -> EigenState:
        coefficients = in_eigenbasis(state.eigenvectors, state.gradient)
        q = subproblem(state.eigenvalues, coefficients, state.control)
        predicted = -(coefficients * q + 0.5 * state.eigenvalues * q * q).sum(1)
        proposal = landscape.retracted(state.theta + from_eigenbasis(state.eigenvectors, q))
        value, gradient = landscape.value_and_gradient(proposal)
        resolution = 64 * torch.finfo(value.dtype).eps * (1 + state.value.abs())
        below = predicted <= resolution
        ratio = (state.value - value) / predicted.clamp_min(torch.finfo(value.dtype).tiny)
        calmer = (gradient.norm(dim=1) < state.gradient.norm(dim=1)) & (value <= state.value + resolution)
        accept = torch.where(below, calmer, ratio > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        # where L cannot judge, the radius grows towards a minimum only: on a concave tail it would leap out of sight
        trusted = torch.where(state.eigenvalues[:, 0] > 0, 1.0, 0.5).to(ratio.dtype)
        judged = torch.where(calmer, trusted, torch.zeros_like(ratio))
        ratio = torch.where(below, judged, torch.nan_to_num(ratio, nan=-1.0))
        length = q.norm(dim=1)
        shrunk = torch.where(ratio < 0.25, 0.25 * length, state.control)
        grown = torch.minimum(2 * state.control, self.maximum_radius * (1 + state.theta.norm(dim=1)))
        radius = torch.where((ratio > 0.75) & (length > 0.8 * state.control), grown, shrunk)
        after = moved(landscape, dataclasses.replace(state, control=radius), proposal, value, gradient, accept)
        return progressed(after, after.gradient.norm(dim=1) + (after.value - state.value).abs(), self.tolerance)

    def terminate(self, state: EigenState) -> Tensor:
        lowest = state.eigenvalues[:, 0]
        convex = lowest >= -1e-9 * state.eigenvalues.abs().amax(1)
        codes = torch.full_like(state.since, RUNNING)
        stuck = lingers(state) | (state.since >= STAGNATION) | (state.control < 1e-15 * (1 + state.theta.norm(dim=1)))
        codes[stuck] = STAGNATED
        codes[is_critical(state, self.tolerance) & convex] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes
