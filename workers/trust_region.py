"""Minima: Newton's method in a trust region, its subproblem solved exactly: by Cholesky factors where the Newton step
is the solution, else in the eigenbasis."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import convex_newton, eigh, flatness, from_eigenbasis, in_eigenbasis
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    SINGULAR,
    STAGNATED,
    STAGNATION,
    EigenState,
    arrived,
    counted,
    effective_hessian,
    inspected,
    is_critical,
    lingers,
    newton_length,
    newton_state,
)

BISECTIONS = 60


@dataclass(frozen=True)
class DescentState(EigenState):
    """The state of rows that know the eigensystem, or where the subproblem's solution is the Newton step, that step."""

    newton: Tensor  # (B, n) −H⁻¹g where ``interior``, else 0
    interior: Tensor  # (B,) bool: H is safely positive definite and the Newton step inside; no eigensystem is known


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

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> DescentState:
        begun = newton_state(landscape, starts, scale)
        radius, zeros = self.initial_radius * (1 + starts.norm(dim=1)), torch.zeros_like(begun.theta)
        matrices = zeros.new_zeros(*zeros.shape, zeros.shape[1])
        unknown = {
            "eigenvalues": zeros,
            "eigenvectors": matrices,
            "newton": zeros,
            "interior": torch.zeros_like(begun.finite),
        }
        state = DescentState(**vars(begun), control=radius, growth=torch.ones_like(radius), **unknown)
        state = _renewed(landscape, state, torch.ones_like(begun.finite))
        return dataclasses.replace(state, finite=state.finite & begun.finite, length=_curvature(state)[0])

    def step(self, landscape: Landscape, state: DescentState) -> DescentState:
        p, predicted = _steps(state)
        proposal = landscape.retracted(state.theta + p)
        value, gradient = landscape.value_and_gradient(proposal)
        resolution = 64 * torch.finfo(value.dtype).eps * (1 + state.value.abs())
        below = predicted <= resolution
        ratio = (state.value - value) / predicted.clamp_min(torch.finfo(value.dtype).tiny)
        calmer = (gradient.norm(dim=1) < state.gradient.norm(dim=1)) & (value <= state.value + resolution)
        accept = torch.where(below, calmer, ratio > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        # where L cannot judge, the radius grows towards a minimum only: on a concave tail it would leap out of sight
        trusted = torch.where(state.interior | (state.eigenvalues[:, 0] > 0), 1.0, 0.5).to(ratio.dtype)
        judged = torch.where(calmer, trusted, torch.zeros_like(ratio))
        ratio = torch.where(below, judged, torch.nan_to_num(ratio, nan=-1.0))
        length = p.norm(dim=1)
        shrunk = torch.where(ratio < 0.25, 0.25 * length, state.control)
        grown = torch.minimum(2 * state.control, self.maximum_radius * (1 + state.theta.norm(dim=1)))
        radius = torch.where((ratio > 0.75) & (length > 0.8 * state.control), grown, shrunk)
        moved = arrived(dataclasses.replace(state, control=radius), proposal, value, gradient, accept)
        after = _renewed(landscape, moved, accept | (state.interior & (state.newton.norm(dim=1) > radius)))
        after = counted(after, after.gradient.norm(dim=1) + (after.value - state.value).abs())
        return inspected(after, self.tolerance, *_curvature(after))

    def terminate(self, state: DescentState) -> Tensor:
        convex = state.interior | (state.eigenvalues[:, 0] >= -1e-9 * state.eigenvalues.abs().amax(1))
        codes = torch.full_like(state.since, RUNNING)
        stuck = lingers(state) | (state.since >= STAGNATION) | (state.control < 1e-15 * (1 + state.theta.norm(dim=1)))
        codes[stuck] = STAGNATED
        codes[is_critical(state, self.tolerance) & convex] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes


def _steps(state: DescentState) -> tuple[Tensor, Tensor]:
    """The subproblem's solution p (B, n), and the fall of L that the model predicts: −½g·p for a Newton step. (B,)."""
    p, predicted = state.newton.clone(), -0.5 * (state.gradient * state.newton).sum(1)
    rows = torch.nonzero(~state.interior).flatten()
    if rows.numel():
        values, vectors = state.eigenvalues[rows], state.eigenvectors[rows]
        coefficients = in_eigenbasis(vectors, state.gradient[rows])
        q = subproblem(values, coefficients, state.control[rows])
        p[rows], predicted[rows] = from_eigenbasis(vectors, q), -(coefficients * q + 0.5 * values * q * q).sum(1)
    return p, predicted


def _curvature(state: DescentState) -> tuple[Tensor, Tensor]:
    """ρ and Frye's r; the latter is 0 where every eigenvalue counts. (B,), (B,)."""
    length, r = state.newton.norm(dim=1), torch.zeros_like(state.value)
    rows = torch.nonzero(~state.interior).flatten()
    if rows.numel():
        values, vectors, gradient = state.eigenvalues[rows], state.eigenvectors[rows], state.gradient[rows]
        cutoff = SINGULAR * torch.maximum(state.scale[rows], values.abs().amax(1))
        r[rows] = flatness(values, in_eigenbasis(vectors, gradient), cutoff)[0]
        length[rows] = newton_length(values, vectors, gradient)
    return length, r


def _renewed(landscape: Landscape, state: DescentState, chosen: Tensor) -> DescentState:
    """The state with the curvature at the ``chosen`` rows: the Newton step where it solves the subproblem and no
    eigenvalue is near 0, by Cholesky factors, else the eigensystem."""
    rows = torch.nonzero(chosen).flatten()
    if rows.numel() == 0:
        return state
    hessian = effective_hessian(landscape, state.theta[rows])
    hessian = 0.5 * (hessian + hessian.mT)
    floor = SINGULAR * torch.maximum(state.scale[rows], hessian.flatten(1).norm(dim=1))
    newton, certain = convex_newton(hessian, state.gradient[rows], floor)
    interior = certain & (newton.norm(dim=1) <= state.control[rows])
    finite, curved = torch.ones_like(interior), torch.nonzero(~interior).flatten()
    known = {"eigenvalues": state.eigenvalues, "eigenvectors": state.eigenvectors}
    if curved.numel():
        *system, finite[curved] = eigh(hessian[curved])
        known = {name: known[name].index_copy(0, rows[curved], part) for name, part in zip(known, system, strict=True)}
    return dataclasses.replace(
        state, **known,
        newton=state.newton.index_copy(0, rows, torch.where(interior.unsqueeze(1), newton, 0.0)),
        interior=state.interior.index_copy(0, rows, interior),
        finite=state.finite.index_copy(0, rows, finite),
    )  # fmt: skip
