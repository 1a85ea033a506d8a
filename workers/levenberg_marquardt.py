"""Stationary points of any index: Levenberg–Marquardt on ½‖∇L‖²."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape, padded
from landsweep.workers.quadratic import eigh, flatness, in_eigenbasis
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    SINGULAR,
    STAGNATED,
    STAGNATION,
    NewtonState,
    counted,
    inspected,
    is_critical,
    lingers,
    newton_length,
    newton_state,
)
from landsweep.workers.symmetry import basis

LOOK = 10  # iterations without progress after which the eigensystem is looked at, and again after as many
LARGEST_DAMPING = 1e30


@dataclass(frozen=True)
class DampedState(NewtonState):
    """The state with the Hessian itself."""

    hessian: Tensor  # (B, n, n) symmetrised


def _damped_step(hessian: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    """p = −(H² + μI)⁻¹Hg by Cholesky's factors; NaN where they do not exist. (B, n).

    μ is kept above n·eps·‖H‖_F², where H² + μI is positive definite whatever the rounding: five times faster than an
    eigendecomposition at n = 128.
    """
    dim, eps = hessian.shape[1], torch.finfo(hessian.dtype).eps
    square = hessian @ hessian
    floor = dim * eps * square.diagonal(dim1=1, dim2=2).sum(1)
    square.diagonal(dim1=1, dim2=2).add_(torch.maximum(damping, floor).unsqueeze(1))
    factor, failed = torch.linalg.cholesky_ex(square)
    target = (hessian * gradient.unsqueeze(1)).sum(2, keepdim=True)
    step = -torch.cholesky_solve(target, factor).squeeze(2)
    return torch.where((failed == 0).unsqueeze(1), step, torch.nan)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """p = −(H² + μI)⁻¹Hg with μ = m‖g‖², which converges quadratically at regular points (Yamashita & Fukushima 2001).

    m follows the ratio of actual to predicted decrease of ½‖g‖² by Nielsen's rule (Madsen, Nielsen & Tingleff 2004,
    3.2). Blind to the sign of curvature, so it goes to minima, saddles and maxima alike, and to local minima of ‖g‖²
    that are none of these (gradient-flat points), which terminate as stagnated. The eigensystem is looked at only where
    ‖g‖ is within the tolerance or progress has been slow for ``LOOK`` iterations.
    """

    tolerance: float
    initial_damping: float = 1.0

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> DampedState:
        begun = newton_state(landscape, starts, scale, self.initial_damping)
        hessian, finite = _symmetric(landscape, begun.theta)
        fields = {f.name: getattr(begun, f.name) for f in dataclasses.fields(begun)}
        state = DampedState(**(fields | {"finite": begun.finite & finite}), hessian=hessian)
        return self._looked(landscape, state)

    def step(self, landscape: Landscape, state: DampedState) -> DampedState:
        square = (state.gradient * state.gradient).sum(1)
        p = padded(_damped_step, state.hessian, state.gradient, state.control * square)
        model = state.gradient + (state.hessian * p.unsqueeze(1)).sum(2)
        predicted = 0.5 * (square - (model * model).sum(1))
        proposal = landscape.retracted(state.theta + torch.nan_to_num(p))
        value, gradient = landscape.value_and_gradient(proposal)
        actual = 0.5 * (square - (gradient * gradient).sum(1))
        gain = torch.nan_to_num(actual / predicted.clamp_min(torch.finfo(p.dtype).tiny), nan=-1.0, neginf=-1.0)
        accept = (gain > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept &= torch.isfinite(p).all(1)
        factor = torch.maximum(1 - (2 * gain - 1) ** 3, torch.full_like(gain, 1 / 3))
        control = torch.where(accept, state.control * factor.clamp_max(2.0), state.control * state.growth)
        growth = torch.where(accept, torch.full_like(state.growth, 2.0), 2 * state.growth)
        controlled = dataclasses.replace(
            state, control=control.clamp(1e-12, LARGEST_DAMPING), growth=growth.clamp_max(1e6)
        )
        after = _moved(landscape, controlled, proposal, value, gradient, accept)
        return self._looked(landscape, counted(after, after.gradient.norm(dim=1)))

    def _looked(self, landscape: Landscape, state: DampedState) -> DampedState:
        """ρ and Frye's r, where they matter."""
        small = state.gradient.norm(dim=1) <= self.tolerance
        slow = (state.since > 0) & (state.since % LOOK == 0)
        rows = torch.nonzero((small | slow) & state.finite).flatten()
        length, r = torch.full_like(state.value, torch.inf), torch.zeros_like(state.value)
        if rows.numel():
            values, vectors, _ = eigh(state.hessian[rows])
            gradient, span = state.gradient[rows], basis(landscape.symmetries, state.theta[rows])[0]
            length[rows] = newton_length(values, vectors, gradient, span)
            cutoff = SINGULAR * torch.maximum(state.scale[rows], values.abs().amax(1))
            r[rows] = flatness(values, in_eigenbasis(vectors, gradient), cutoff)[0]
        return inspected(state, self.tolerance, length, r)

    def terminate(self, state: DampedState) -> Tensor:
        codes = torch.full_like(state.since, RUNNING)
        codes[lingers(state) | (state.since >= STAGNATION) | (state.control >= LARGEST_DAMPING)] = STAGNATED
        codes[is_critical(state, self.tolerance)] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes


def _symmetric(landscape: Landscape, theta: Tensor) -> tuple[Tensor, Tensor]:
    """H, zero where it is not finite, and whether it is."""
    hessian = landscape.hessian(theta)
    finite = torch.isfinite(hessian).flatten(1).all(1)
    return torch.where(finite[:, None, None], 0.5 * (hessian + hessian.mT), 0.0), finite


def _moved(
    landscape: Landscape, state: DampedState, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor
) -> DampedState:
    """The state after the accepted rows went to ``proposal``; only they pay for a new Hessian."""
    rows = torch.nonzero(accept).flatten()
    if rows.numel() == 0:
        return state
    hessian, finite = _symmetric(landscape, proposal[rows])
    return dataclasses.replace(
        state,
        theta=torch.where(accept.unsqueeze(1), proposal, state.theta),
        value=torch.where(accept, value, state.value),
        gradient=torch.where(accept.unsqueeze(1), gradient, state.gradient),
        hessian=state.hessian.index_copy(0, rows, hessian),
        finite=state.finite.index_copy(0, rows, finite),
    )
