"""The gradient flow θ' = −∇L(θ), followed by an exponential integrator in the Hessian's eigenbasis."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import from_eigenbasis, in_eigenbasis
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    STAGNATED,
    STEP_TOLERANCE,
    EigenState,
    moved,
    newton_length,
    start_state,
)

LENGTH = 0.1  # the longest step relative to 1 + ‖θ‖: the error is estimated from the step's end alone
GROWTH = 2.0  # the largest h·|λ| of a negative eigenvalue, so that no mode grows by more than e² in a step
NEAR = 1e-4  # Newton step, relative to 1 + ‖θ‖, at which a minimum is reached but for polishing
CONVEX = 1e-7  # eigenvalues above −CONVEX·‖H‖₂ count as zero
STILL = 1e-9  # ‖g‖ below STILL·‖H‖₂: eigenvalues on a symmetry's tangents, which are of order ‖g‖, then count as zero
SMALLEST = 1e-10  # h·‖H‖₂ below this makes no way
TERMS = 20  # of the power series of φ for |z| < 1


@dataclass(frozen=True)
class FlowState(EigenState):
    """Where the flow is. ``control`` is the next step h, in units of the flow's time."""

    time: Tensor  # (B,) the flow's time since the start
    broken: Tensor  # (B,) bool: the last step tried left the finite numbers


@dataclass(frozen=True)
class Proposal:
    """Where a step of length h would lead."""

    theta: Tensor  # (B, n)
    value: Tensor  # (B,) L there
    gradient: Tensor  # (B, n)
    excess: Tensor  # (B,) ≤ 1 where it is accurate enough, infinite where it is not finite or L rises


def phi(z: Tensor) -> tuple[Tensor, Tensor]:
    """φ₁(z) = (eᶻ − 1)/z and φ₃(z) = (eᶻ − 1 − z − z²/2)/z³, by their power series where |z| < 1.

    >>> [round(float(x), 6) for x in phi(torch.tensor(0.0))]
    [1.0, 0.166667]
    """
    small = z.abs() < 1
    inside = torch.where(small, z, 0.0)
    first, third = torch.zeros_like(z), torch.zeros_like(z)
    for term in reversed(range(TERMS)):
        first = first * inside + 1 / math.factorial(term + 1)
        third = third * inside + 1 / math.factorial(term + 3)
    outside = torch.where(small, 1.0, z)
    rise = torch.exp(outside) - 1
    beyond = (rise - outside - 0.5 * outside**2) / outside**3
    return torch.where(small, first, rise / outside), torch.where(small, third, beyond)


@dataclass(frozen=True)
class GradientFlow:
    """exprb32 of Hochbruck, Ostermann & Schweitzer 2009, section 4.3, with a step h of each row's own.

    With z = −hΛ in the eigenbasis of H(θ), û = θ − hφ₁(z)g is exact for a quadratic L, stiff or not; the remainder
    r = g(û) − g − H(û − θ) corrects it to third order, θ⁺ = û − 2hφ₃(z)r, and ‖2hφ₃(z)r‖ estimates the error. The first
    half alone is Page & McIver 1988, who follow reaction paths by it.
    """

    accuracy: float  # local error allowed in a step, relative to 1 + ‖θ‖

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> FlowState:
        state = start_state(landscape, starts, scale, 0.0)
        zeros, unbroken = torch.zeros_like(state.value), torch.zeros_like(state.finite)
        step = 0.01 / state.eigenvalues.abs().amax(1).clamp_min(torch.finfo(starts.dtype).tiny)
        return FlowState(**{**vars(state), "control": step}, time=zeros, broken=unbroken)

    def propose(self, landscape: Landscape, state: FlowState) -> Proposal:
        """The step of length ``state.control`` from every row."""
        h, c = state.control.unsqueeze(1), in_eigenbasis(state.eigenvectors, state.gradient)
        first, third = phi(-h * state.eigenvalues)
        q = -h * first * c
        middle = landscape.retracted(state.theta + from_eigenbasis(state.eigenvectors, q))
        after = in_eigenbasis(state.eigenvectors, landscape.gradient(middle))
        correction = -2 * h * third * (after - c - state.eigenvalues * q)
        theta = landscape.retracted(middle + from_eigenbasis(state.eigenvectors, correction))
        value, gradient = landscape.value_and_gradient(theta)
        size = 1 + state.theta.norm(dim=1)
        error = correction.norm(dim=1) / (self.accuracy * size)
        excess = torch.maximum(error, ((q + correction).norm(dim=1) / (LENGTH * size)) ** 3)
        resolution = 64 * torch.finfo(value.dtype).eps * (1 + state.value.abs())
        sound = torch.isfinite(gradient).all(1) & torch.isfinite(excess) & (value <= state.value + resolution)
        return Proposal(theta, value, gradient, torch.where(sound, excess, torch.inf))

    def accept(self, landscape: Landscape, state: FlowState, to: Proposal, rows: Tensor) -> FlowState:
        """The state after ``rows`` (B,) bool went where they proposed; h follows the error, which grows as h³."""
        after = cast(FlowState, moved(landscape, state, to.theta, to.value, to.gradient, rows))
        # exp and log round alike wherever an element stands, pow does not
        factor = (0.9 * torch.exp(to.excess.clamp_min(1e-9).log() / -3)).clamp(0.2, 5.0)
        lowest = after.eigenvalues[:, 0].clamp_max(-torch.finfo(factor.dtype).tiny)
        return dataclasses.replace(
            after,
            length=newton_length(after.eigenvalues, after.eigenvectors, after.gradient),
            control=torch.minimum(state.control * factor, GROWTH / -lowest),
            time=state.time + torch.where(rows, state.control, 0.0),
            broken=~(torch.isfinite(to.value) & torch.isfinite(to.gradient).all(1)),
        )

    def step(self, landscape: Landscape, state: FlowState) -> FlowState:
        to = self.propose(landscape, state)
        return self.accept(landscape, state, to, to.excess <= 1)

    def terminate(self, state: FlowState) -> Tensor:
        """CONVERGED next to a minimum, STAGNATED at a critical point that is none, else as ``halted`` says."""
        codes, norm = halted(state), state.eigenvalues.abs().amax(1)
        size = 1 + state.theta.norm(dim=1)
        critical = (state.gradient.norm(dim=1) <= STILL * norm) & (state.length <= STEP_TOLERANCE * size)
        codes[(codes == RUNNING) & critical] = STAGNATED
        convex = state.eigenvalues[:, 0] >= -CONVEX * norm
        codes[(codes != NON_FINITE) & (state.length <= NEAR * size) & convex] = CONVERGED
        return codes


def halted(state: FlowState) -> Tensor:
    """RUNNING; STAGNATED where no step is accurate; NON_FINITE also where time stands still, the flow leaving all
    bounds or its domain at a finite time. (B,)."""
    codes = torch.full_like(state.since, RUNNING)
    stuck = state.control * state.eigenvalues.abs().amax(1) < SMALLEST
    still = (state.control <= torch.finfo(state.value.dtype).eps * state.time) & ~stuck
    codes[stuck] = STAGNATED
    codes[~state.finite | still | (stuck & state.broken)] = NON_FINITE
    return codes
