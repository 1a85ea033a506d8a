"""Stationary points of any index: Newton–MR, the Newton step by MINRES and a line search on ½‖∇L‖²."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.minres import NON_FINITE, minres
from landsweep.workers.landscape import Landscape
from landsweep.workers.matrix_free import (
    ARMIJO,
    SHORTEST,
    MatrixFreeState,
    begun,
    codes,
    frobenius_norm,
    interpolated,
    measured,
    residual_share,
    went,
)
from landsweep.workers.search import SINGULAR, is_critical

LONGEST = 0.5  # steps are no longer than this share of 1 + ‖θ‖
FORCING, LEAST = 1e-2, 1e-8  # relative residual of a step far from a solution, and the least; between them ‖g‖/‖g₀‖


@dataclass(frozen=True)
class NewtonMrState(MatrixFreeState):
    """The step p is −H⁺g to the accuracy that the forcing term asks for."""

    step: Tensor  # (B, n) p
    trial: Tensor  # (B,) t: θ + t·p is tried next
    slope: Tensor  # (B,) d½‖g‖²/dt = ⟨Hp, g⟩ = −‖Hp‖²
    first: Tensor  # (B,) ‖g‖ at the start
    frobenius: Tensor  # (B,) ‖H‖_F at the start, estimated


@dataclass(frozen=True)
class NewtonMr:
    """p = −H⁺g by MINRES, then θ + t·p with ½‖g‖² falling by Armijo's rule (Roosta, Liu, Xu & Mahoney 2022).

    ‖g(θ + tp)‖ falls for small t whatever the inertia of H is, as Hp is g's projection on the range of H; so minima,
    saddles and maxima attract alike, and so do gradient-flat points (g in the kernel of H), where r, computed from each
    p, is near 1. Eigenvalues below 1e-7·‖H‖ count as zero. One evaluation of g a step; H is applied again after an
    accepted one only.
    """

    tolerance: float

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> NewtonMrState:
        base = begun(landscape, starts, scale)
        none, norm = torch.zeros_like(base.value), base.gradient.norm(dim=1)
        frobenius = frobenius_norm(landscape, base.theta)
        state = NewtonMrState(**vars(base), step=torch.zeros_like(base.theta), trial=none, slope=none, first=norm,
                              frobenius=frobenius)  # fmt: skip
        return measured(landscape, aimed(landscape, state, base.finite), norm, self.tolerance)

    def step(self, landscape: Landscape, state: NewtonMrState) -> NewtonMrState:
        proposal = landscape.retracted(state.theta + state.trial.unsqueeze(1) * state.step)
        value, gradient = landscape.value_and_gradient(proposal)
        fall = 0.5 * ((state.gradient**2).sum(1) - (gradient**2).sum(1))
        usable = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept = (fall >= -ARMIJO * state.trial * state.slope) & usable
        after = went(landscape, state, proposal, value, gradient, accept)
        trial = torch.where(accept, state.trial, interpolated(state.trial, state.slope, fall))
        short = trial * state.step.norm(dim=1) < SHORTEST * (1 + state.theta.norm(dim=1))
        after = dataclasses.replace(after, trial=trial, stuck=state.stuck | (short & ~accept))
        after = aimed(landscape, after, accept)
        return measured(landscape, after, after.gradient.norm(dim=1), self.tolerance)

    def terminate(self, state: NewtonMrState) -> Tensor:
        return codes(state, is_critical(state, self.tolerance))


def aimed(landscape: Landscape, state: NewtonMrState, which: Tensor) -> NewtonMrState:
    """With a new step in the rows ``which`` (B,) bool, and r there."""
    rows = torch.nonzero(which).flatten()
    if rows.numel() == 0:
        return state
    here, dim = state.take(rows), state.theta.shape[1]
    norm = here.gradient.norm(dim=1)
    solution = minres(
        lambda vectors: landscape.hvp(here.theta, vectors),
        -here.gradient,
        (norm / here.first.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(LEAST, FORCING),
        SINGULAR,
        min(2 * dim + 10, 500),
        here.span,
    )
    usable = solution.status != NON_FINITE
    length = solution.x.norm(dim=1).clamp_min(torch.finfo(norm.dtype).tiny)
    trial = (LONGEST * (1 + here.theta.norm(dim=1)) / length).clamp_max(1.0)
    r = torch.maximum(here.flatness, residual_share(solution, here.gradient, here.frobenius))
    return dataclasses.replace(
        state,
        step=state.step.index_copy(0, rows, torch.where(usable.unsqueeze(1), solution.x, 0.0)),
        trial=state.trial.index_copy(0, rows, trial),
        slope=state.slope.index_copy(0, rows, (solution.residual_norm**2 - norm**2).clamp_max(0.0)),
        flatness=state.flatness.index_copy(0, rows, torch.where(usable, r, here.flatness)),
        stuck=state.stuck.index_copy(0, rows, ~usable),
    )
