"""Saddles of a requested index: eigenvector following, uphill along k modes and downhill along the rest."""

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
    EigenState,
    is_critical,
    lingers,
    moved,
    progressed,
    start_state,
)

BISECTIONS = 60
PATIENCE = 60  # iterations without 1 % progress; the gradient norm need not fall monotonically here


def damped(eigenvalues: Tensor, coefficients: Tensor, radius: Tensor) -> Tensor:
    """|λ| ↦ shift s ≥ 0 with ‖c/(|λ|+s)‖ ≤ radius, by bisection; returns c/(|λ|+s). (B, n)."""
    magnitude = eigenvalues.abs()
    floor = torch.finfo(eigenvalues.dtype).eps * magnitude.amax(1, keepdim=True) + torch.finfo(eigenvalues.dtype).tiny

    def step(shift: Tensor) -> Tensor:
        return coefficients / (magnitude + shift.unsqueeze(1)).clamp_min(floor)

    low, high = torch.zeros_like(radius), coefficients.norm(dim=1) / radius
    inside = step(low).norm(dim=1) <= radius
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        too_long = step(middle).norm(dim=1) > radius
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    return step(torch.where(inside, torch.zeros_like(high), high))


@dataclass(frozen=True)
class EigenvectorFollowing:
    """In the eigenbasis q_i = +c_i/(|λ_i|+s) for the k lowest modes, −c_i/(|λ_i|+s) for the others, ‖q‖ ≤ radius.

    The radius follows how well the quadratic model predicts the gradient at the end of the step (after Cerjan & Miller
    1981; Baker 1986; Wales 1994). Stationary points of index k attract; those of another index repel.
    """

    tolerance: float
    index: Tensor  # (B,) the requested index k of each start
    initial_radius: float = 0.05  # relative to 1 + ‖θ‖
    maximum_radius: float = 0.5

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> EigenState:
        state = start_state(landscape, starts, scale, self.initial_radius)
        radius = self.initial_radius * (1 + starts.norm(dim=1))
        return dataclasses.replace(state, control=radius, growth=self.index.to(starts.dtype))

    def step(self, landscape: Landscape, state: EigenState) -> EigenState:
        c = in_eigenbasis(state.eigenvectors, state.gradient)
        order = torch.arange(c.shape[1], device=c.device)
        uphill = order.unsqueeze(0) < state.growth.unsqueeze(1)
        q = torch.where(uphill, 1.0, -1.0).to(c.dtype) * damped(state.eigenvalues, c, state.control)
        proposal = landscape.retracted(state.theta + from_eigenbasis(state.eigenvectors, q))
        value, gradient = landscape.value_and_gradient(proposal)
        # ‖g(θ+q) − (g + Hq)‖ relative to what the step changes: unlike L it still resolves the last steps
        change = from_eigenbasis(state.eigenvectors, state.eigenvalues * q)
        size = change.norm(dim=1) + state.gradient.norm(dim=1) + torch.finfo(value.dtype).eps
        error = torch.nan_to_num((gradient - state.gradient - change).norm(dim=1) / size, nan=torch.inf)
        accept = (error < 0.7) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        length = q.norm(dim=1)
        limit = self.maximum_radius * (1 + state.theta.norm(dim=1))
        radius = torch.where(error > 0.5, 0.5 * length, state.control)
        radius = torch.where(
            (error < 0.25) & (length > 0.8 * state.control), torch.minimum(2 * state.control, limit), radius
        )
        after = moved(landscape, dataclasses.replace(state, control=radius), proposal, value, gradient, accept)
        return progressed(after, after.gradient.norm(dim=1), self.tolerance)

    def terminate(self, state: EigenState) -> Tensor:
        codes = torch.full_like(state.since, RUNNING)
        codes[lingers(state) | (state.since >= PATIENCE) | (state.control < 1e-15 * (1 + state.theta.norm(dim=1)))] = (
            STAGNATED
        )
        codes[is_critical(state, self.tolerance)] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes
