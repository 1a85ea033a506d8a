"""The loop that every search shares: state in, state out, rows leave when they are done.

A search is an immutable object with ``init``, ``step`` and ``terminate``; it never sees the loop. Rows are
independent: no operation mixes them, so a point does not depend on which others were searched with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.quadratic import LocalModel, eigh, flatness, in_eigenbasis, newton_coefficients

RUNNING, CONVERGED, STAGNATED, BUDGET, NON_FINITE = range(5)
STATUS = ("running", "converged", "stagnated", "budget", "non_finite")

STEP_TOLERANCE = 1e-6  # ρ ≤ 1e-6·(1+‖θ‖): a critical point (DESIGN.md section 7)
REFINED_STEP = 1e-12  # where polishing may stop
SINGULAR = 1e-7  # eigenvalues below SINGULAR·scale count as zero in least-squares solutions
STAGNATION = 30  # iterations without 1 % progress


@dataclass(frozen=True)
class State:
    """What a search knows of each of its rows."""

    theta: Tensor  # (B, n)
    value: Tensor  # (B,) L
    gradient: Tensor  # (B, n)
    eigenvalues: Tensor  # (B, n) ascending
    eigenvectors: Tensor  # (B, n, n) columns
    control: Tensor  # (B,) trust radius or damping
    growth: Tensor  # (B,) factor by which a rejected step raises the damping
    best: Tensor  # (B,) lowest progress measure so far
    since: Tensor  # (B,) iterations since it fell by 1 %
    flatness: Tensor  # (B,) running maximum of r (see ``flatness``)
    scale: Tensor  # (B,) ‖H‖₂ at the trial's start
    finite: Tensor  # (B,) bool

    def take(self, rows: Tensor) -> State:
        """Some of the rows."""
        return State(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class Outcome:
    """Where each start went."""

    theta: Tensor  # (B, n)
    status: Tensor  # (B,) codes of STATUS
    iterations: Tensor  # (B,)
    flatness: Tensor  # (B,) the run's maximum of r

    @staticmethod
    def empty(theta: Tensor) -> Outcome:
        """Of no starts."""
        none = torch.zeros(0, dtype=torch.int64, device=theta.device)
        return Outcome(theta, none, none, theta.new_zeros(0))

    def joined(self, other: Outcome) -> Outcome:
        """Both, one after the other."""
        return Outcome(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in dataclasses.fields(self)))


class Search(Protocol):
    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> State: ...

    def step(self, landscape: Landscape, state: State) -> State: ...

    def terminate(self, state: State) -> Tensor: ...


def start_state(landscape: Landscape, starts: Tensor, scale: Tensor, control: float) -> State:
    """The state at the starts, for any search."""
    value, gradient = landscape.value_and_gradient(starts)
    values, vectors, finite = eigh(landscape.hessian(starts))
    rows = starts.shape[0]
    fill = starts.new_full
    finite = finite & torch.isfinite(value) & torch.isfinite(gradient).all(1)
    zeros = torch.zeros(rows, dtype=torch.int64, device=starts.device)
    return State(
        starts, value, gradient, values, vectors, fill((rows,), control), fill((rows,), 2.0),
        fill((rows,), torch.inf), zeros, fill((rows,), 0.0), scale, finite,
    )  # fmt: skip


def moved(
    landscape: Landscape, state: State, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor
) -> State:
    """The state after the accepted rows went to ``proposal``; only they pay for a new Hessian."""
    rows = torch.nonzero(accept).flatten()
    if rows.numel() == 0:
        return state
    values, vectors, finite = eigh(landscape.hessian(proposal[rows]))
    chosen = accept.unsqueeze(1)
    return dataclasses.replace(
        state,
        theta=torch.where(chosen, proposal, state.theta),
        value=torch.where(accept, value, state.value),
        gradient=torch.where(chosen, gradient, state.gradient),
        eigenvalues=state.eigenvalues.index_copy(0, rows, values),
        eigenvectors=state.eigenvectors.index_copy(0, rows, vectors),
        finite=state.finite.index_copy(0, rows, finite),
    )


def progressed(state: State, measure: Tensor) -> State:
    """Count iterations in which ``measure`` (B,) did not fall by 1 % below its best, and keep the maximum of r."""
    better = measure < 0.99 * state.best
    cutoff = SINGULAR * torch.maximum(state.scale, state.eigenvalues.abs().amax(1))
    r, _ = flatness(state.eigenvalues, in_eigenbasis(state.eigenvectors, state.gradient), cutoff)
    return dataclasses.replace(
        state,
        best=torch.where(better, measure, state.best),
        since=torch.where(better, torch.zeros_like(state.since), state.since + 1),
        flatness=torch.maximum(state.flatness, torch.nan_to_num(r)),
    )


def newton_length(state: State) -> Tensor:
    """ρ = ‖H⁺g‖ at each row, eigenvalues at rounding level left out. (B,)."""
    coefficients = in_eigenbasis(state.eigenvectors, state.gradient)
    dim = state.theta.shape[1]
    cutoff = dim * torch.finfo(state.theta.dtype).eps * state.eigenvalues.abs().amax(1)
    length: Tensor = newton_coefficients(state.eigenvalues, coefficients, cutoff).norm(dim=1)
    return length


def is_critical(state: State, tolerance: float) -> Tensor:
    """‖g‖ ≤ tolerance and ρ ≤ 1e-6·(1+‖θ‖). (B,) bool."""
    small_step = newton_length(state) <= STEP_TOLERANCE * (1 + state.theta.norm(dim=1))
    return torch.logical_and(state.gradient.norm(dim=1) <= tolerance, small_step)


def iterate(search: Search, landscape: Landscape, starts: Tensor, scale: Tensor, max_iterations: int) -> Outcome:
    """Run ``search`` from every row of ``starts`` (B, n) until each has terminated or the budget is spent."""
    rows = starts.shape[0]
    theta, status = starts.clone(), torch.full((rows,), BUDGET, dtype=torch.int64, device=starts.device)
    iterations = torch.full_like(status, max_iterations)
    flat = starts.new_zeros(rows)
    active = torch.arange(rows, device=starts.device)
    state = search.init(landscape, starts, scale)
    for iteration in range(max_iterations + 1):
        codes = search.terminate(state)
        done = codes != RUNNING
        theta[active], flat[active] = state.theta, state.flatness
        status[active[done]], iterations[active[done]] = codes[done], iteration
        keep = torch.nonzero(~done).flatten()
        if keep.numel() == 0 or iteration == max_iterations:
            break
        active, state = active[keep], state.take(keep) if bool(done.any()) else state
        state = search.step(landscape, state)
    return Outcome(theta, status, iterations, flat)


def refine(landscape: Landscape, thetas: Tensor, fields: tuple[Field, ...] = (), max_iterations: int = 12) -> Tensor:
    """Newton's method on ∇L from critical points, until the step is ≤ 1e-12·(1+‖θ‖) or stops shrinking. (B, n).

    Steps leave out the symmetry directions and eigenvalues at rounding level; a step is only taken when the one after
    it would be shorter, so a degenerate Hessian never throws a point away.
    """
    theta = thetas
    here = LocalModel.at(landscape, theta, fields)
    step, length = here.newton_step, here.newton_length
    for _ in range(max_iterations):
        proposal = theta + step
        there = LocalModel.at(landscape, proposal, fields)
        accept = (length > REFINED_STEP * (1 + theta.norm(dim=1))) & (there.newton_length < 0.9 * length)
        if not bool(accept.any()):
            break
        chosen = accept.unsqueeze(1)
        theta, step = torch.where(chosen, proposal, theta), torch.where(chosen, there.newton_step, 0.0)
        length = torch.where(accept, there.newton_length, 0.0)
    return theta
