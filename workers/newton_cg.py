"""Minima: Newton's method in a trust region, its subproblem solved by truncated conjugate gradients."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.matrix_free import MatrixFreeState, begun, codes, measured, probed, went
from landsweep.workers.search import is_critical

ITERATIONS = 500  # of conjugate gradients a step, at most
NEAR = 1e-4  # ‖g‖ below which the forcing term is ‖g‖ instead of √‖g‖


@dataclass(frozen=True)
class NewtonCgState(MatrixFreeState):
    """At a critical point ``escape`` says whether it is a minimum."""

    radius: Tensor  # (B,)
    escape: Tensor  # (B, n) unit direction of negative curvature at a critical point, 0 where none is known
    curvature: Tensor  # (B,) there, < 0; 0 where none is known


@dataclass(frozen=True)
class Truncated:
    """A step of the trust region's subproblem."""

    step: Tensor  # (B, n) z
    predicted: Tensor  # (B,) −(g·z + ½zᵀHz)
    convex: Tensor  # (B,) bool: no negative curvature was met


@dataclass(frozen=True)
class _Conjugate:
    """Conjugate gradients between two iterations."""

    step: Tensor  # (B, n) z
    residual: Tensor  # (B, n) r = g + Hz
    direction: Tensor  # (B, n) d
    convex: Tensor  # (B,) bool
    running: Tensor  # (B,) bool

    def take(self, rows: Tensor) -> _Conjugate:
        return _Conjugate(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def put(self, rows: Tensor, other: _Conjugate) -> _Conjugate:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return _Conjugate(*(mine.index_copy(0, rows, theirs) for mine, theirs in pairs))

    def advanced(self, product: Tensor, radius: Tensor, target: Tensor) -> _Conjugate:
        """One iteration, given Hd; to the boundary along d where dᵀHd ≤ 0 or the step would leave the region."""
        curvature, square = (self.direction * product).sum(1), (self.residual**2).sum(1)
        convex = curvature > 0
        alpha = torch.where(convex, square / torch.where(convex, curvature, 1.0), torch.inf)
        edge = to_boundary(self.step, self.direction, radius)
        inside = alpha < edge
        alpha = torch.minimum(alpha, edge).unsqueeze(1)
        residual = self.residual + alpha * product
        after = (residual**2).sum(1)
        direction = (after / square).unsqueeze(1) * self.direction - residual
        running = inside & (after.sqrt() > target)
        return _Conjugate(self.step + alpha * self.direction, residual, direction, self.convex & convex, running)


def to_boundary(step: Tensor, direction: Tensor, radius: Tensor) -> Tensor:
    """τ ≥ 0 with ‖z + τd‖ = Δ, without cancellation. (B,)."""
    a, b = (direction**2).sum(1), (step * direction).sum(1)
    c = ((radius - step.norm(dim=1)) * (radius + step.norm(dim=1))).clamp_min(0.0)
    root = (b * b + a * c).sqrt()
    tiny = torch.finfo(step.dtype).tiny
    return torch.where(b > 0, c / (b + root).clamp_min(tiny), (root - b) / a.clamp_min(tiny))


def truncated(landscape: Landscape, theta: Tensor, gradient: Tensor, radius: Tensor) -> Truncated:
    """Steihaug–Toint's conjugate gradients (Conn, Gould & Toint 2000, algorithm 7.5.1): to ‖g + Hz‖ ≤ η‖g‖ inside the
    region, η = min(½, √‖g‖), or ‖g‖ for small ‖g‖. The rows that are done wait for the others at no cost."""
    norm = gradient.norm(dim=1)
    share = torch.where(norm > NEAR, norm.sqrt().clamp_max(0.5), norm)
    state = _Conjugate(torch.zeros_like(theta), gradient, -gradient, torch.ones_like(norm, dtype=torch.bool), norm > 0)
    for _ in range(min(2 * theta.shape[1] + 10, ITERATIONS)):
        rows = torch.nonzero(state.running).flatten()
        if rows.numel() == 0:
            break
        here = state.take(rows)
        product = landscape.hvp(theta[rows], here.direction.unsqueeze(2)).squeeze(2)
        state = state.put(rows, here.advanced(product, radius[rows], (share * norm)[rows]))
    predicted = -0.5 * (state.step * (gradient + state.residual)).sum(1)  # as Hz = r − g
    return Truncated(state.step, predicted, state.convex)


@dataclass(frozen=True)
class TrustRegionNewtonCG:
    """Descends to a second-order stationary point, as ``TrustRegionNewton`` does, with products of H alone.

    Negative curvature, once met, is followed to the boundary. A critical point is probed by Lanczos from a random
    direction, and left along what negative curvature that meets.
    """

    tolerance: float
    initial_radius: float = 0.1  # relative to 1 + ‖θ‖; small, to stay in the basin
    maximum_radius: float = 10.0

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> NewtonCgState:
        base = begun(landscape, starts, scale)
        radius = self.initial_radius * (1 + base.theta.norm(dim=1))
        none, curvature = torch.zeros_like(base.theta), torch.zeros_like(radius)
        state = NewtonCgState(**vars(base), radius=radius, escape=none, curvature=curvature)
        state = measured(landscape, state, state.gradient.norm(dim=1), self.tolerance)
        return self._probed(landscape, state, is_critical(state, self.tolerance))

    def step(self, landscape: Landscape, state: NewtonCgState) -> NewtonCgState:
        solution = self._solution(landscape, state)
        proposal = landscape.retracted(state.theta + solution.step)
        value, gradient = landscape.value_and_gradient(proposal)
        resolution = 64 * torch.finfo(value.dtype).eps * (1 + state.value.abs())
        below = solution.predicted <= resolution
        ratio = (state.value - value) / solution.predicted.clamp_min(torch.finfo(value.dtype).tiny)
        calmer = (gradient.norm(dim=1) < state.gradient.norm(dim=1)) & (value <= state.value + resolution)
        usable = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept = torch.where(below, calmer, ratio > 1e-4) & usable
        # where L cannot judge, the radius grows towards a minimum only: on a concave tail it would leap out of sight
        trusted = torch.where(solution.convex, 1.0, 0.5).to(ratio.dtype)
        judged = torch.where(calmer, trusted, torch.zeros_like(ratio))
        ratio = torch.where(below, judged, torch.nan_to_num(ratio, nan=-1.0))
        after = went(landscape, state, proposal, value, gradient, accept)
        after = dataclasses.replace(after, radius=self._radius(state, solution.step.norm(dim=1), ratio))
        after = dataclasses.replace(after, stuck=~(after.radius >= 1e-15 * (1 + after.theta.norm(dim=1))))
        progress = after.gradient.norm(dim=1) + (after.value - state.value).abs()
        after = measured(landscape, after, progress, self.tolerance)
        left = accept.unsqueeze(1)
        after = dataclasses.replace(
            after,
            escape=torch.where(left, 0.0, after.escape),
            curvature=torch.where(accept, 0.0, after.curvature),
        )
        return self._probed(landscape, after, is_critical(after, self.tolerance) & accept)

    def terminate(self, state: NewtonCgState) -> Tensor:
        return codes(state, is_critical(state, self.tolerance) & (state.curvature == 0))

    def _solution(self, landscape: Landscape, state: NewtonCgState) -> Truncated:
        """The step: to the boundary along ``escape``, downhill, where that is known."""
        solution = truncated(landscape, state.theta, state.gradient, state.radius)
        slope = (state.escape * state.gradient).sum(1)
        away = torch.where(slope > 0, -state.radius, state.radius)
        leaves = state.curvature < 0
        predicted = -(away * slope + 0.5 * state.curvature * state.radius**2)
        return Truncated(
            torch.where(leaves.unsqueeze(1), away.unsqueeze(1) * state.escape, solution.step),
            torch.where(leaves, predicted, solution.predicted),
            solution.convex & ~leaves,
        )

    def _radius(self, state: NewtonCgState, length: Tensor, ratio: Tensor) -> Tensor:
        shrunk = torch.where(ratio < 0.25, 0.25 * length, state.radius)
        grown = torch.minimum(2 * state.radius, self.maximum_radius * (1 + state.theta.norm(dim=1)))
        return torch.where((ratio > 0.75) & (length > 0.8 * state.radius), grown, shrunk)

    def _probed(self, landscape: Landscape, state: NewtonCgState, which: Tensor) -> NewtonCgState:
        """With what negative curvature there is at the rows ``which``; those that have some get a radius to leave with,
        and count their progress anew."""
        rows = torch.nonzero(which).flatten()
        if rows.numel() == 0:
            return state
        curvature, direction = probed(landscape, state.theta[rows], state.span[rows])
        leaves = torch.zeros_like(which).index_copy(0, rows, curvature < 0)
        fresh = self.initial_radius * (1 + state.theta.norm(dim=1))
        return dataclasses.replace(
            state,
            curvature=state.curvature.index_copy(0, rows, curvature),
            escape=state.escape.index_copy(0, rows, direction),
            radius=torch.where(leaves, torch.maximum(fresh, state.radius), state.radius),
            best=torch.where(leaves, torch.inf, state.best),
            since=torch.where(leaves, 0, state.since),
        )
