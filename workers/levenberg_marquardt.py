"""Stationary points of any index: Levenberg–Marquardt on ½‖∇L‖²."""

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


@dataclass(frozen=True)
class LevenbergMarquardt:
    """p = −(H² + μI)⁻¹Hg with μ = m‖g‖², which converges quadratically at regular points (Yamashita & Fukushima 2001).

    m follows the ratio of actual to predicted decrease of ½‖g‖² by Nielsen's rule (Madsen, Nielsen & Tingleff 2004,
    3.2). Blind to the sign of curvature, so it goes to minima, saddles and maxima alike, and to local minima of ‖g‖²
    that are none of these (gradient-flat points), which terminate as stagnated.
    """

    tolerance: float
    initial_damping: float = 1.0

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> EigenState:
        return start_state(landscape, starts, scale, self.initial_damping)

    def step(self, landscape: Landscape, state: EigenState) -> EigenState:
        c, curvature = in_eigenbasis(state.eigenvectors, state.gradient), state.eigenvalues
        square = (c * c).sum(1)
        damping = (state.control * square).unsqueeze(1)
        denominator = (curvature**2 + damping).clamp_min(torch.finfo(c.dtype).tiny)
        proposal = landscape.retracted(state.theta + from_eigenbasis(state.eigenvectors, -c * curvature / denominator))
        predicted = 0.5 * (square - ((c * damping / denominator) ** 2).sum(1))
        value, gradient = landscape.value_and_gradient(proposal)
        actual = 0.5 * (square - (gradient * gradient).sum(1))
        gain = torch.nan_to_num(actual / predicted.clamp_min(torch.finfo(c.dtype).tiny), nan=-1.0, neginf=-1.0)
        accept = (gain > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        factor = torch.maximum(1 - (2 * gain - 1) ** 3, torch.full_like(gain, 1 / 3))
        control = torch.where(accept, state.control * factor.clamp_max(2.0), state.control * state.growth)
        growth = torch.where(accept, torch.full_like(state.growth, 2.0), 2 * state.growth)
        controlled = dataclasses.replace(state, control=control.clamp(1e-12, 1e30), growth=growth.clamp_max(1e6))
        after = moved(landscape, controlled, proposal, value, gradient, accept)
        return progressed(after, after.gradient.norm(dim=1), self.tolerance)

    def terminate(self, state: EigenState) -> Tensor:
        codes = torch.full_like(state.since, RUNNING)
        codes[lingers(state) | (state.since >= STAGNATION) | (state.control >= 1e30)] = STAGNATED
        codes[is_critical(state, self.tolerance)] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes
