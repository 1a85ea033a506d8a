"""What the searches share that know the Hessian by its products alone: ρ by MINRES, progress, line searches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.krylov import minres
from landsweep.workers.krylov.minres import Minres, newton_length
from landsweep.workers.landscape import Landscape
from landsweep.workers.search import (
    CONVERGED,
    NON_FINITE,
    RUNNING,
    SINGULAR,
    STAGNATED,
    STAGNATION,
    NewtonState,
    arrived,
    counted,
    inspected,
    lingers,
    newton_state,
)
from landsweep.workers.symmetry import basis

LENGTH_TOLERANCE = 1e-10  # relative residual of the solve for ρ
FLATNESS_TOLERANCE = 1e-3  # of the solve for r: whether r > 0.9 needs no more
PROBE_ITERATIONS = 64  # Lanczos steps that look for negative curvature; n + 10 find it with certainty
CONVEX = 1e-9  # curvature above −CONVEX·‖H‖ does not count as negative
SHORTEST = 1e-13  # relative to 1 + ‖θ‖: a rejected step this short ends a line search
ARMIJO = 1e-4


@dataclass(frozen=True)
class MatrixFreeState(NewtonState):
    """The state of a search that keeps no Hessian; ``length`` is NaN where the row has moved since it was known."""

    span: Tensor  # (B, n, m) orthonormal tangents of the landscape's symmetries, zero-padded
    stuck: Tensor  # (B,) bool: no step from here is any good


S = TypeVar("S", bound=MatrixFreeState)


def begun(landscape: Landscape, starts: Tensor, scale: Tensor) -> MatrixFreeState:
    """The state at the starts; rows that are not finite there are marked."""
    state = newton_state(landscape, starts, scale)
    span = basis(landscape.symmetries, state.theta)[0]
    return MatrixFreeState(**vars(state), span=span, stuck=torch.zeros_like(state.finite))


def went(landscape: Landscape, state: S, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor) -> S:
    """The state after the accepted rows went to ``proposal``; their ρ is not known yet."""
    rows, span = torch.nonzero(accept).flatten(), state.span
    if span.shape[2] and rows.numel():
        span = span.index_copy(0, rows, basis(landscape.symmetries, proposal[rows])[0])
    unknown = torch.where(accept, torch.nan, state.length)
    return dataclasses.replace(arrived(state, proposal, value, gradient, accept), length=unknown, span=span)


def measured(landscape: Landscape, state: S, measure: Tensor, tolerance: float) -> S:
    """Solve for ρ where ‖g‖ ≤ ``tolerance`` and the row has moved; count iterations in which ``measure`` (B,) did not
    fall by 1 %."""
    small = state.finite & (state.gradient.norm(dim=1) <= tolerance)
    length = torch.where(small & ~torch.isinf(state.length), state.length, torch.inf)
    rows = torch.nonzero(small & ~torch.isfinite(state.length)).flatten()
    if rows.numel():
        solved = newton_length(landscape, state.theta[rows], state.gradient[rows], state.span[rows], LENGTH_TOLERANCE)
        length[rows] = solved
    return inspected(counted(state, measure), tolerance, length, torch.zeros_like(length))


def codes(state: MatrixFreeState, converged: Tensor, patience: int = STAGNATION) -> Tensor:
    """The codes of ``search.STATUS``, given which rows have ``converged``; a plateau's tail counts as stagnation."""
    status = torch.full_like(state.since, RUNNING)
    status[lingers(state) | state.stuck | (state.since >= patience)] = STAGNATED
    status[converged] = CONVERGED
    status[~state.finite] = NON_FINITE
    return status


def probed(landscape: Landscape, theta: Tensor, deflation: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest curvature dᵀHd that Lanczos meets from a random direction off ``deflation``, 0 where none is below
    rounding, and its unit d. (B,), (B, n). The draw is the same in every row."""
    dim = theta.shape[1]
    key = streams.keys("matrix_free", [0], "probe", theta.device)
    start = streams.normal(key, 0, dim).expand_as(theta).contiguous()
    steps = min(dim + 10, PROBE_ITERATIONS)
    met = minres.minres(lambda vectors: landscape.hvp(theta, vectors), start, 1e-12, 1e-12, steps, deflation)
    negative = met.curvature < -CONVEX * met.norm
    return torch.where(negative, met.curvature, 0.0), met.direction


def frobenius_norm(landscape: Landscape, theta: Tensor, probes: int = 8) -> Tensor:
    """‖H‖_F, estimated by the mean of ‖Hz‖² over ``probes`` random sign vectors z (Hutchinson 1990). (B,)."""
    key = streams.keys("matrix_free", [0], "frobenius", theta.device)
    sign = torch.where(streams.uniform(key, 0, theta.shape[1] * probes) < 0.5, -1.0, 1.0).to(theta.dtype)
    vectors = sign.view(1, theta.shape[1], probes).expand(len(theta), -1, -1).contiguous()
    norm: Tensor = (landscape.hvp(theta, vectors) ** 2).sum((1, 2)).div(probes).sqrt()
    return norm


def residual_share(solution: Minres, gradient: Tensor, frobenius: Tensor) -> Tensor:
    """Frye et al. 2021: r = ‖Hp+g‖/(‖H‖_F‖p‖+‖g‖) from p = −H⁺g by MINRES, 0 where it is not finite. (B,)."""
    size = frobenius * solution.x.norm(dim=1) + gradient.norm(dim=1)
    return torch.nan_to_num(solution.residual_norm / size.clamp_min(torch.finfo(size.dtype).tiny), nan=0.0, posinf=0.0)


def flatness(landscape: Landscape, state: MatrixFreeState, frobenius: Tensor) -> Tensor:
    """r at each row, eigenvalues below ``search.SINGULAR``·‖H‖ counting as zero. (B,)."""
    solution = minres.minres(
        lambda vectors: landscape.hvp(state.theta, vectors), state.gradient, FLATNESS_TOLERANCE, SINGULAR,
        min(2 * state.theta.shape[1] + 10, 500), state.span,
    )  # fmt: skip
    return residual_share(solution, state.gradient, frobenius)


def interpolated(length: Tensor, slope: Tensor, fall: Tensor) -> Tensor:
    """The minimiser of the parabola through f(0), f'(0) = ``slope`` and f(0) − f(t) = ``fall`` at t = ``length``, kept
    in [0.1 t, 0.5 t] (Nocedal & Wright 2006, 3.5); 0.1 t where f(t) is not finite. (B,)."""
    curved = -slope * length**2 / (2 * (-fall - slope * length))
    safe = torch.where(torch.isfinite(fall) & torch.isfinite(curved), curved, 0.0)
    return torch.minimum(torch.maximum(safe, 0.1 * length), 0.5 * length)
