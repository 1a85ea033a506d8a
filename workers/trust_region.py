"""Minima: Newton's method in a trust region, its subproblem solved by Cholesky factors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.boundary import boundary_step, is_positive, is_regular, solved
from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import convex_newton, eigh, flatness, in_eigenbasis
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    SINGULAR,
    STAGNATED,
    STAGNATION,
    ControlledState,
    arrived,
    counted,
    effective_hessian,
    inspected,
    is_critical,
    lingers,
    newton_length,
    newton_state,
)

LEVEL = 1e-9  # eigenvalues that are negative by less than this share of ‖H‖_F do not stand in the way of a minimum


@dataclass(frozen=True)
class DescentState(ControlledState):
    """The state of rows that know the Hessian, on the complement of the symmetries' tangents, and what matters."""

    hessian: Tensor  # (B, n, n) symmetric; the identity where it is not finite
    newton: Tensor  # (B, n) −H⁻¹g where ``convex``, else 0
    convex: Tensor  # (B,) bool: every eigenvalue exceeds SINGULAR·max(‖H‖_F, ‖H‖₂ at the start)
    level: Tensor  # (B,) bool: no eigenvalue is below −LEVEL·max(‖H‖_F, ‖H‖₂ at the start)
    residual: Tensor  # (B,) Frye's r


@dataclass(frozen=True)
class TrustRegionNewton:
    """Descends to a second-order stationary point: accepts a step when L falls as the quadratic model says.

    Steps below what L can resolve are judged by ‖∇L‖ instead. A critical point with negative curvature is left along
    it.
    """

    tolerance: float
    initial_radius: float = 0.1  # relative to 1 + ‖θ‖; small, to stay in the basin
    maximum_radius: float = 10.0

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> DescentState:
        begun = newton_state(landscape, starts, scale)
        radius, zeros = self.initial_radius * (1 + starts.norm(dim=1)), torch.zeros_like(begun.theta)
        no = torch.zeros_like(begun.finite)
        unknown = {"newton": zeros, "convex": no, "level": no, "residual": torch.zeros_like(radius)}
        matrices = zeros.new_zeros(*zeros.shape, zeros.shape[1])
        controls = {"control": radius, "growth": torch.ones_like(radius)}
        state = DescentState(**vars(begun), **controls, **unknown, hessian=matrices)
        return _renewed(landscape, state, ~no)

    def step(self, landscape: Landscape, state: DescentState) -> DescentState:
        p = _steps(state)
        predicted = -(state.gradient * p).sum(1) - 0.5 * (p * (state.hessian * p.unsqueeze(1)).sum(2)).sum(1)
        proposal = landscape.retracted(state.theta + p)
        value, gradient = landscape.value_and_gradient(proposal)
        resolution = 64 * torch.finfo(value.dtype).eps * (1 + state.value.abs())
        below = predicted <= resolution
        ratio = (state.value - value) / predicted.clamp_min(torch.finfo(value.dtype).tiny)
        calmer = (gradient.norm(dim=1) < state.gradient.norm(dim=1)) & (value <= state.value + resolution)
        accept = torch.where(below, calmer, ratio > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        # where L cannot judge, the radius grows towards a minimum only: on a concave tail it would leap out of sight
        trusted = torch.where(state.convex, 1.0, 0.5).to(ratio.dtype)
        judged = torch.where(calmer, trusted, torch.zeros_like(ratio))
        ratio = torch.where(below, judged, torch.nan_to_num(ratio, nan=-1.0))
        length = p.norm(dim=1)
        shrunk = torch.where(ratio < 0.25, 0.25 * length, state.control)
        grown = torch.minimum(2 * state.control, self.maximum_radius * (1 + state.theta.norm(dim=1)))
        radius = torch.where((ratio > 0.75) & (length > 0.8 * state.control), grown, shrunk)
        after = _renewed(
            landscape, arrived(dataclasses.replace(state, control=radius), proposal, value, gradient, accept), accept
        )
        after = counted(after, after.gradient.norm(dim=1) + (after.value - state.value).abs())
        return inspected(after, self.tolerance, after.length, after.residual)

    def terminate(self, state: DescentState) -> Tensor:
        codes = torch.full_like(state.since, RUNNING)
        stuck = lingers(state) | (state.since >= STAGNATION) | (state.control < 1e-15 * (1 + state.theta.norm(dim=1)))
        codes[stuck] = STAGNATED
        codes[is_critical(state, self.tolerance) & state.level] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes


def _steps(state: DescentState) -> Tensor:
    """The subproblem's solution. (B, n)."""
    step = state.newton.clone()
    rows = torch.nonzero(~state.convex | (state.newton.norm(dim=1) > state.control)).flatten()
    if rows.numel():
        lifted = torch.where(state.level[rows], _small(state.hessian[rows], state.scale[rows]), torch.nan)
        least = torch.where(state.convex[rows], 0.0, lifted)
        step[rows] = boundary_step(state.hessian[rows], state.gradient[rows], state.control[rows], least)
    return step


def _small(hessian: Tensor, scale: Tensor) -> Tensor:
    """What is added to eigenvalues that may be negative by rounding. (B,)."""
    return (LEVEL * torch.maximum(scale, hessian.flatten(1).norm(dim=1))).clamp_min(torch.finfo(scale.dtype).tiny)


def _renewed(landscape: Landscape, state: DescentState, chosen: Tensor) -> DescentState:
    """The state with the Hessian and what matters of it at the ``chosen`` rows."""
    rows = torch.nonzero(chosen).flatten()
    if rows.numel() == 0:
        return state
    hessian, gradient = effective_hessian(landscape, state.theta[rows]), state.gradient[rows]
    finite = torch.isfinite(hessian).flatten(1).all(1)
    hessian = torch.where(finite[:, None, None], 0.5 * (hessian + hessian.mT), torch.eye(hessian.shape[1]).to(hessian))
    norm = hessian.flatten(1).norm(dim=1)
    cutoff = SINGULAR * torch.maximum(state.scale[rows], norm)
    newton, convex = convex_newton(hessian, gradient, cutoff)
    level, length, residual = convex.clone(), newton.norm(dim=1), torch.zeros_like(norm)
    others = torch.nonzero(~convex).flatten()
    if others.numel():
        level[others] = is_positive(hessian[others], _small(hessian[others], state.scale[rows[others]]))
        length[others], residual[others] = _curvature(hessian[others], gradient[others], cutoff[others])
    found = {"hessian": hessian, "newton": newton, "convex": convex, "level": level, "length": length}
    found |= {"residual": residual, "finite": finite & state.finite[rows]}
    renewed = {name: getattr(state, name).index_copy(0, rows, part) for name, part in found.items()}
    return dataclasses.replace(state, **renewed)


def _curvature(hessian: Tensor, gradient: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """ρ and Frye's r, which is 0 where no eigenvalue lies within the cutoff; only elsewhere eigensystems are needed.
    (B,), (B,)."""
    length, r = torch.zeros_like(cutoff), torch.zeros_like(cutoff)
    regular = is_regular(hessian, cutoff)
    rows, others = torch.nonzero(regular).flatten(), torch.nonzero(~regular).flatten()
    if rows.numel():
        length[rows] = solved(hessian[rows], gradient[rows]).norm(dim=1)
    if others.numel():
        values, vectors, _ = eigh(hessian[others])
        r[others] = flatness(values, in_eigenbasis(vectors, gradient[others]), cutoff[others])[0]
        length[others] = newton_length(values, vectors, gradient[others])
    return length, r
