"""Stationary points of any index: Levenberg–Marquardt on ½‖∇L‖²."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape, padded
from landsweep.workers.quadratic import eigh, flatness, in_eigenbasis, restricted
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
    inspected,
    is_critical,
    lingers,
    newton_length,
    newton_state,
)
from landsweep.workers.symmetry import basis

LOOK = 10  # iterations without progress after which the eigensystem is looked at, and again after as many
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-12, 1e30  # of m
PROBE = 0.1  # how far along p the second derivative of g is taken
LONGEST = 0.5  # the longest step, relative to 1 + ‖θ‖
BEND = 0.75  # the most that the acceleration may be of the step


@dataclass(frozen=True)
class DampedState(ControlledState):
    """The state with the Hessian itself."""

    hessian: Tensor  # (B, n, n) symmetrised, on the complement of the symmetries' tangents but in freed rows
    freed: Tensor  # (B,) bool: steps may go along the tangents


def _factor(hessian: Tensor, damping: Tensor) -> Tensor:
    """The Cholesky factor of H² + μI, NaN where there is none. (B, n, n).

    μ is kept above n·eps·‖H‖_F², where H² + μI is positive definite whatever the rounding: five times faster than an
    eigendecomposition at n = 128.
    """
    dim, eps = hessian.shape[1], torch.finfo(hessian.dtype).eps
    square = hessian @ hessian
    floor = dim * eps * square.diagonal(dim1=1, dim2=2).sum(1)
    square.diagonal(dim1=1, dim2=2).add_(torch.maximum(damping, floor).unsqueeze(1))
    factor, failed = torch.linalg.cholesky_ex(square)
    return torch.where((failed == 0)[:, None, None], factor, torch.nan)


def _product(hessian: Tensor, vectors: Tensor) -> Tensor:
    return (hessian * vectors.unsqueeze(1)).sum(2)


def _damped_step(hessian: Tensor, factor: Tensor, residual: Tensor) -> Tensor:
    """−(H² + μI)⁻¹H·residual. (B, n)."""
    return -torch.cholesky_solve(_product(hessian, residual).unsqueeze(2), factor).squeeze(2)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """p = −(H² + μI)⁻¹Hg with μ = m‖g‖, which converges quadratically at regular points (Fan & Yuan 2005), bent along
    the valley by geodesic acceleration.

    q = −½(H² + μI)⁻¹H·∂²g(p, p) is added where 2‖½q‖ ≤ ¾‖p‖, the second derivative being a difference of gradients over
    ``PROBE``·p (Transtrum & Sethna 2012, section 3); it halves the iterations on curved valleys. m follows the ratio of
    actual to predicted decrease of ½‖g‖² by Nielsen's rule (Madsen, Nielsen & Tingleff 2004, 3.2). Blind to the sign of
    curvature, so it goes to minima, saddles and maxima alike, and to local minima of ‖g‖² that are none of these
    (gradient-flat points), which terminate as stagnated. The eigensystem is looked at only where ‖g‖ is within the
    tolerance or progress has been slow for ``LOOK`` iterations.
    """

    tolerance: float
    initial_damping: float = 1e-3  # μ at the start, relative to ‖H‖_F²/n

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> DampedState:
        begun = newton_state(landscape, starts, scale)
        freed = torch.full_like(begun.finite, not landscape.symmetries)
        hessian, finite = _symmetric(landscape, begun.theta, freed)
        damping = self.initial_damping * (hessian * hessian).sum((1, 2)) / starts.shape[1]
        control = (damping / begun.gradient.norm(dim=1)).nan_to_num(SMALLEST_DAMPING)
        controls = {
            "control": control.clamp(SMALLEST_DAMPING, LARGEST_DAMPING),
            "growth": torch.full_like(control, 2.0),
        }
        known = {**vars(begun), "finite": begun.finite & finite}
        return self._looked(landscape, DampedState(**known, **controls, hessian=hessian, freed=freed))

    def step(self, landscape: Landscape, state: DampedState) -> DampedState:
        square = (state.gradient * state.gradient).sum(1)
        factor = padded(_factor, state.hessian, state.control * square.sqrt())
        p = padded(_damped_step, state.hessian, factor, state.gradient)
        image = _product(state.hessian, p)
        predicted = 0.5 * (square - ((state.gradient + image) ** 2).sum(1))
        bend = 0.5 * padded(_damped_step, state.hessian, factor, self._second(landscape, state, p, image))
        gentle = 2 * bend.norm(dim=1) <= BEND * p.norm(dim=1)
        p = p + torch.where(gentle.unsqueeze(1), bend, 0.0)
        proposal = landscape.retracted(state.theta + torch.nan_to_num(p))
        value, gradient = landscape.value_and_gradient(proposal)
        actual = 0.5 * (square - (gradient * gradient).sum(1))
        gain = torch.nan_to_num(actual / predicted.clamp_min(torch.finfo(p.dtype).tiny), nan=-1.0, neginf=-1.0)
        accept = (gain > 1e-4) & torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept &= p.norm(dim=1) <= LONGEST * (1 + state.theta.norm(dim=1))  # False for NaN
        relief = torch.maximum(1 - (2 * gain - 1) ** 3, torch.full_like(gain, 1 / 3))
        control = torch.where(accept, state.control * relief.clamp_max(2.0), state.control * state.growth)
        growth = torch.where(accept, torch.full_like(state.growth, 2.0), 2 * state.growth)
        controlled = dataclasses.replace(
            state, control=control.clamp(SMALLEST_DAMPING, LARGEST_DAMPING), growth=growth.clamp_max(1e6)
        )
        after = _moved(landscape, controlled, proposal, value, gradient, accept)
        slope = _product(after.hessian, after.gradient).norm(dim=1)  # of ½‖g‖²: it vanishes at gradient-flat points
        return self._looked(landscape, counted(after, after.gradient.norm(dim=1) * slope))

    def _second(self, landscape: Landscape, state: DampedState, p: Tensor, image: Tensor) -> Tensor:
        """∂²g(p, p) ≈ (2/h)·((g(θ + hp) − g(θ))/h − Hp) at h = ``PROBE``. (B, n)."""
        ahead = landscape.gradient(state.theta + PROBE * torch.nan_to_num(p))
        return 2 / PROBE * ((ahead - state.gradient) / PROBE - image)

    def _looked(self, landscape: Landscape, state: DampedState) -> DampedState:
        """ρ and Frye's r, where they matter."""
        small = state.gradient.norm(dim=1) <= self.tolerance
        slow = (state.since > 0) & (state.since % LOOK == 0)
        rows = torch.nonzero((small | slow) & state.finite).flatten()
        length, r = torch.full_like(state.value, torch.inf), torch.zeros_like(state.value)
        if rows.numel():
            hessian, _ = _symmetric(landscape, state.theta[rows], torch.zeros_like(state.freed[rows]))
            values, vectors, _ = eigh(hessian)
            gradient = state.gradient[rows]
            length[rows] = newton_length(values, vectors, gradient)
            cutoff = SINGULAR * torch.maximum(state.scale[rows], values.abs().amax(1))
            r[rows] = flatness(values, in_eigenbasis(vectors, gradient), cutoff)[0]
        return _freed(landscape, inspected(state, self.tolerance, length, r), slow)

    def terminate(self, state: DampedState) -> Tensor:
        codes = torch.full_like(state.since, RUNNING)
        codes[lingers(state) | (state.since >= STAGNATION) | (state.control >= LARGEST_DAMPING)] = STAGNATED
        codes[is_critical(state, self.tolerance)] = CONVERGED
        codes[~state.finite] = NON_FINITE
        return codes


def _symmetric(landscape: Landscape, theta: Tensor, freed: Tensor) -> tuple[Tensor, Tensor]:
    """H, off the symmetries' tangents but for ``freed`` rows; zero where it is not finite, and whether it is."""
    hessian = landscape.hessian(theta)
    finite = torch.isfinite(hessian).flatten(1).all(1)
    hessian = torch.where(finite[:, None, None], 0.5 * (hessian + hessian.mT), 0.0)
    if landscape.symmetries:
        inside = restricted(hessian, basis(landscape.symmetries, theta)[0])
        hessian = torch.where(freed[:, None, None], hessian, inside)
    return hessian, finite


def _freed(landscape: Landscape, state: DampedState, slow: Tensor) -> DampedState:
    """Rows that make no progress off the tangents may go along them from now on.

    Off the tangents no step drifts along an orbit, where ½‖g‖² may fall for ever and the Hessian's condition grows if
    the symmetry is no isometry. But a rank-deficient point at the end of orbits is not reached so: |W₁|² − |W₂|² stays.
    """
    rows = torch.nonzero(slow & ~state.freed).flatten()
    if rows.numel() == 0:
        return state
    freed = state.freed.index_fill(0, rows, True)
    hessian, _ = _symmetric(landscape, state.theta[rows], freed[rows])
    since = state.since.index_fill(0, rows, 0)
    return dataclasses.replace(state, freed=freed, hessian=state.hessian.index_copy(0, rows, hessian), since=since)


def _moved(
    landscape: Landscape, state: DampedState, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor
) -> DampedState:
    """The state after the accepted rows went to ``proposal``; only they pay for a new Hessian."""
    rows = torch.nonzero(accept).flatten()
    if rows.numel() == 0:
        return state
    hessian, finite = _symmetric(landscape, proposal[rows], state.freed[rows])
    return dataclasses.replace(
        arrived(state, proposal, value, gradient, accept),
        hessian=state.hessian.index_copy(0, rows, hessian),
        finite=state.finite.index_copy(0, rows, finite),
    )
