"""Limited-memory BFGS: minima of L, and of ½‖∇L‖²."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.matrix_free import (
    ARMIJO,
    SHORTEST,
    MatrixFreeState,
    begun,
    codes,
    flatness,
    frobenius_norm,
    interpolated,
    measured,
    went,
)
from landsweep.workers.search import STAGNATION, is_critical

MEMORY = 10  # pairs kept
CAUTIOUS = 1e-10  # pairs with s·y below this share of ‖s‖‖y‖ are skipped
LONGEST = 0.5  # steps are no longer than this share of 1 + ‖θ‖
FIRST = 0.05  # the very first is this share at most
DOWNHILL = 1e-10  # directions whose cosine with −∇f is lower do not descend
PATIENCE = 2 * STAGNATION  # ‖∇f‖ does not fall monotonically
LOOK = 10  # r is computed when this many iterations went by without progress, and every as many after


@dataclass(frozen=True)
class LbfgsState(MatrixFreeState):
    """f is what is minimised: L or ½‖∇L‖²."""

    f: Tensor  # (B,)
    slope: Tensor  # (B, n) ∇f
    direction: Tensor  # (B, n) d
    unit: Tensor  # (B,) the inverse curvature that is assumed where there is no pair
    trial: Tensor  # (B,) t: θ + t·d is tried next
    steps: Tensor  # (B, m, n) s, the newest last
    changes: Tensor  # (B, m, n) y
    inverses: Tensor  # (B, m) 1/(s·y), 0 where there is no pair
    frobenius: Tensor  # (B,) ‖H‖_F at the start, 0 where it is not needed


def two_loop(gradient: Tensor, steps: Tensor, changes: Tensor, inverses: Tensor, first: Tensor) -> Tensor:
    """The BFGS matrix from the pairs and γ·I, times ``gradient`` (Nocedal 1980; Nocedal & Wright 2006, 7.4). (B, n).

    γ = s·y/y·y of the newest pair, ``first`` (B,) where there is none; a pair with inverse 0 changes nothing.
    """
    q = gradient
    weights = torch.zeros_like(inverses)
    for pair in range(inverses.shape[1] - 1, -1, -1):
        weights[:, pair] = inverses[:, pair] * (steps[:, pair] * q).sum(1)
        q = q - weights[:, pair].unsqueeze(1) * changes[:, pair]
    newest, square = inverses[:, -1], (changes[:, -1] ** 2).sum(1)
    gamma = torch.where(newest > 0, 1 / (newest * square), first)
    q = gamma.unsqueeze(1) * q
    for pair in range(inverses.shape[1]):
        back = inverses[:, pair] * (changes[:, pair] * q).sum(1)
        q = q + (weights[:, pair] - back).unsqueeze(1) * steps[:, pair]
    return q


def remembered(state: LbfgsState, step: Tensor, change: Tensor, accept: Tensor) -> LbfgsState:
    """With the pair (s, y) of the accepted rows where s·y is large enough (cautious update, Li & Fukushima 2001)."""
    product = (step * change).sum(1)
    size = step.norm(dim=1) * change.norm(dim=1)
    usual = accept & (product != 0)
    keep = accept & (product > CAUTIOUS * size) & torch.isfinite(1 / product)
    row, pair = keep.unsqueeze(1), keep[:, None, None]
    inverse = torch.where(keep, 1 / product, 0.0)
    return dataclasses.replace(
        state,
        unit=torch.where(usual, step.norm(dim=1) / change.norm(dim=1), state.unit),
        steps=torch.where(pair, torch.cat([state.steps[:, 1:], step.unsqueeze(1)], 1), state.steps),
        changes=torch.where(pair, torch.cat([state.changes[:, 1:], change.unsqueeze(1)], 1), state.changes),
        inverses=torch.where(row, torch.cat([state.inverses[:, 1:], inverse.unsqueeze(1)], 1), state.inverses),
    )


def aimed(state: LbfgsState, rows: Tensor) -> LbfgsState:
    """With a new direction in ``rows`` (B,) bool; one that does not descend gives way to −∇f, and the pairs go."""
    wanted = -two_loop(state.slope, state.steps, state.changes, state.inverses, state.unit)
    size = wanted.norm(dim=1)
    usable = (wanted * state.slope).sum(1) < -DOWNHILL * size * state.slope.norm(dim=1)
    wanted = torch.where(usable.unsqueeze(1), wanted, -state.unit.unsqueeze(1) * state.slope)
    size = wanted.norm(dim=1).clamp_min(torch.finfo(size.dtype).tiny)
    trial = (LONGEST * (1 + state.theta.norm(dim=1)) / size).clamp_max(1.0)
    return dataclasses.replace(
        state,
        direction=torch.where(rows.unsqueeze(1), wanted, state.direction),
        trial=torch.where(rows, trial, state.trial),
        inverses=torch.where((rows & ~usable).unsqueeze(1), 0.0, state.inverses),
    )


def shortened(state: LbfgsState, accept: Tensor, trial: Tensor) -> LbfgsState:
    """With the next trial step of the rejected rows; where it is too short, the pairs are forgotten, or the row is
    stuck that has none."""
    short = ~accept & (trial * state.direction.norm(dim=1) < SHORTEST * (1 + state.theta.norm(dim=1)))
    paired = state.inverses[:, -1] > 0
    state = dataclasses.replace(
        state,
        trial=torch.where(accept, state.trial, trial),
        inverses=torch.where(short.unsqueeze(1), 0.0, state.inverses),
        stuck=state.stuck | (short & ~paired),
    )
    return aimed(state, short & paired)


@dataclass(frozen=True)
class _QuasiNewton(ABC):
    """L-BFGS on a function f of the landscape, with one evaluation a step.

    Armijo's rule with safeguarded quadratic interpolation; a step too small for f to judge is accepted when ‖∇f‖ falls
    (approximate Wolfe conditions, Hager & Zhang 2005, 4.1). A line search that has shrunk to nothing forgets the pairs
    and starts anew along −∇f; when that shrinks to nothing too, the row is stuck.
    """

    tolerance: float

    @abstractmethod
    def function(self, landscape: Landscape, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """f and ∇f at each row, given L and ∇L there. (B,), (B, n)."""

    @abstractmethod
    def resolution(self, f: Tensor) -> Tensor:
        """Below this, differences of f are rounding. (B,)."""

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> LbfgsState:
        base = begun(landscape, starts, scale)
        f, slope = self.function(landscape, base.theta, base.value, base.gradient)
        usable = base.finite & torch.isfinite(f) & torch.isfinite(slope).all(1)
        pairs = starts.new_zeros(len(starts), MEMORY, starts.shape[1])
        size = slope.norm(dim=1).clamp_min(torch.finfo(f.dtype).tiny)
        unit = (FIRST * (1 + base.theta.norm(dim=1)) / size).clamp_max(1.0)
        state = LbfgsState(
            **vars(base), f=f, slope=slope, direction=slope, trial=unit, unit=unit, steps=pairs, changes=pairs,
            inverses=pairs[:, :, 0], frobenius=torch.zeros_like(f),
        )  # fmt: skip
        state = dataclasses.replace(aimed(state, usable), finite=usable)
        return measured(landscape, state, state.gradient.norm(dim=1), self.tolerance)

    def step(self, landscape: Landscape, state: LbfgsState) -> LbfgsState:
        proposal = landscape.retracted(state.theta + state.trial.unsqueeze(1) * state.direction)
        value, gradient = landscape.value_and_gradient(proposal)
        f, slope = self.function(landscape, proposal, value, gradient)
        expected = (state.direction * state.slope).sum(1)  # of f per unit of t
        resolution = self.resolution(state.f)
        calmer = (slope.norm(dim=1) < state.slope.norm(dim=1)) & (f <= state.f + resolution)
        falls = f <= state.f + ARMIJO * state.trial * expected
        usable = torch.isfinite(value) & torch.isfinite(f) & torch.isfinite(gradient + slope).all(1)
        accept = torch.where(-state.trial * expected <= resolution, calmer, falls) & usable
        after = went(landscape, state, proposal, value, gradient, accept)
        after = remembered(after, proposal - state.theta, slope - state.slope, accept)
        chosen = accept.unsqueeze(1)
        after = dataclasses.replace(
            after, f=torch.where(accept, f, state.f), slope=torch.where(chosen, slope, state.slope)
        )
        after = shortened(aimed(after, accept), accept, interpolated(state.trial, expected, state.f - f))
        return measured(landscape, after, self.progress(state, after), self.tolerance)

    def progress(self, before: LbfgsState, after: LbfgsState) -> Tensor:
        """What has to fall by 1 % now and then. (B,)."""
        norm: Tensor = after.gradient.norm(dim=1)
        return norm

    def terminate(self, state: LbfgsState) -> Tensor:
        return codes(state, is_critical(state, self.tolerance), PATIENCE)


@dataclass(frozen=True)
class Lbfgs(_QuasiNewton):
    """Minima of L, by L-BFGS (Nocedal 1980; Liu & Nocedal 1989). It does not look at the signs of curvature."""

    def function(self, landscape: Landscape, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return value, gradient

    def resolution(self, f: Tensor) -> Tensor:
        return 64 * torch.finfo(f.dtype).eps * (1 + f.abs())

    def progress(self, before: LbfgsState, after: LbfgsState) -> Tensor:
        fall = (after.value - before.value).abs()
        return super().progress(before, after) + fall


@dataclass(frozen=True)
class GradientNormMinimisation(_QuasiNewton):
    """Stationary points of any index: L-BFGS on φ = ½‖∇L‖², ∇φ = H∇L by one Hessian–vector product (McIver &
    Komornicki 1972). Its condition is the square of H's. It ends at gradient-flat points too, as stagnated; r, which
    tells them, is computed while it makes no progress.
    """

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> LbfgsState:
        state = super().init(landscape, starts, scale)
        return dataclasses.replace(state, frobenius=frobenius_norm(landscape, state.theta))

    def function(self, landscape: Landscape, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * (gradient * gradient).sum(1), landscape.hvp(theta, gradient.unsqueeze(2)).squeeze(2)

    def resolution(self, f: Tensor) -> Tensor:
        return 64 * torch.finfo(f.dtype).eps * f

    def step(self, landscape: Landscape, state: LbfgsState) -> LbfgsState:
        after = super().step(landscape, state)
        rows = torch.nonzero((after.since % LOOK == LOOK - 1) | after.stuck).flatten()
        if rows.numel() == 0:
            return after
        here = after.take(rows)
        worst = torch.maximum(here.flatness, flatness(landscape, here, here.frobenius))
        return dataclasses.replace(after, flatness=after.flatness.index_copy(0, rows, worst))
