"""The loop that every search shares: state in, state out, rows leave when they are done.

A search is an immutable object with ``init``, ``step`` and ``terminate``; it never sees the loop. Rows are
independent: no operation mixes them, so a point does not depend on which others were searched with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.quadratic import (
    eigh,
    flatness,
    in_eigenbasis,
    newton_coefficients,
    newton_step,
    restricted,
)
from landsweep.workers.symmetry import basis, project_out

RUNNING, CONVERGED, STAGNATED, BUDGET, NON_FINITE = range(5)
STATUS = ("running", "converged", "stagnated", "budget", "non_finite")

STEP_TOLERANCE = 1e-6  # ρ ≤ 1e-6·(1+‖θ‖): a critical point
REFINED_STEP = 1e-12  # where polishing may stop
SINGULAR = 1e-7  # eigenvalues below SINGULAR·scale count as zero in least-squares solutions
STAGNATION = 30  # iterations without 1 % progress
SHRINKING = 0.9  # a Newton step that does not fall below this share of the last has stopped shrinking
PATIENCE = 6  # Newton steps of the refinement that need not be shorter
REACH = 0.1  # how far the refinement may go, relative to 1 + ‖θ‖
TRAVEL = 3.0  # Newton steps gone at a small gradient without the step shrinking: a plateau


@dataclass(frozen=True)
class State:
    """What every search knows of each of its rows. A search adds fields of its own, all with rows first."""

    theta: Tensor  # (B, n)
    value: Tensor  # (B,) L
    gradient: Tensor  # (B, n)
    best: Tensor  # (B,) lowest progress measure so far
    since: Tensor  # (B,) iterations since it fell by 1 %
    flatness: Tensor  # (B,) running maximum of r (see ``flatness``)
    scale: Tensor  # (B,) ‖H‖₂ at the trial's start
    finite: Tensor  # (B,) bool

    def take(self, rows: Tensor) -> Self:
        """Some of the rows."""
        return type(self)(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class NewtonState(State):
    """The state of a search that knows ρ = ‖H⁺g‖ where ‖g‖ is small."""

    length: Tensor  # (B,) ρ; infinite where it was not looked at
    anchor: Tensor  # (B, n) where ρ last shrank, or ‖g‖ was last above the tolerance
    shortest: Tensor  # (B,) ρ there, infinite for ‖g‖ above the tolerance


@dataclass(frozen=True)
class ControlledState(NewtonState):
    """The state of a search that bounds its steps."""

    control: Tensor  # (B,) trust radius or damping
    growth: Tensor  # (B,) factor by which a rejected step raises the damping


@dataclass(frozen=True)
class EigenState(ControlledState):
    """The state of a search that keeps the Hessian's eigensystem, on the complement of the symmetries' tangents (see
    ``quadratic.restricted``)."""

    eigenvalues: Tensor  # (B, n) ascending
    eigenvectors: Tensor  # (B, n, n) columns


AnyState = TypeVar("AnyState", bound=State)
AnyNewtonState = TypeVar("AnyNewtonState", bound=NewtonState)


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


class Search(Protocol):
    """An immutable object; its state is its own affair."""

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> Any: ...

    def step(self, landscape: Landscape, state: Any) -> Any: ...

    def terminate(self, state: Any) -> Tensor: ...


def start_state(landscape: Landscape, starts: Tensor, scale: Tensor, control: float) -> EigenState:
    """The state at the starts, for a search that keeps the eigensystem."""
    begun = newton_state(landscape, starts, scale)
    values, vectors, finite = eigh(effective_hessian(landscape, begun.theta))
    known = {"finite": begun.finite & finite, "length": newton_length(values, vectors, begun.gradient)}
    controls = {"control": torch.full_like(scale, control), "growth": torch.full_like(scale, 2.0)}
    return EigenState(**{**vars(begun), **known}, **controls, eigenvalues=values, eigenvectors=vectors)


def effective_hessian(landscape: Landscape, theta: Tensor) -> Tensor:
    """H on the complement of the symmetries' tangents. (B, n, n)."""
    return restricted(landscape.hessian(theta), basis(landscape.symmetries, theta)[0])


def newton_state(landscape: Landscape, starts: Tensor, scale: Tensor) -> NewtonState:
    """The state at the starts, as far as it takes no Hessian; rows that are not finite there are marked."""
    starts = landscape.retracted(starts)
    value, gradient = landscape.value_and_gradient(starts)
    rows = starts.shape[0]
    finite = torch.isfinite(value) & torch.isfinite(gradient).all(1)
    none = torch.zeros(rows, dtype=torch.int64, device=starts.device)
    infinite = starts.new_full((rows,), torch.inf)
    return NewtonState(
        starts, value, gradient, infinite, none, starts.new_zeros(rows), scale, finite, infinite, starts, infinite
    )


def arrived(state: AnyState, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor) -> AnyState:
    """The state with the accepted rows at ``proposal``; what depends on the Hessian is the search's own to renew."""
    chosen = accept.unsqueeze(1)
    return dataclasses.replace(
        state,
        theta=torch.where(chosen, proposal, state.theta),
        value=torch.where(accept, value, state.value),
        gradient=torch.where(chosen, gradient, state.gradient),
    )


def moved(
    landscape: Landscape, state: EigenState, proposal: Tensor, value: Tensor, gradient: Tensor, accept: Tensor
) -> EigenState:
    """The state after the accepted rows went to ``proposal``; only they pay for a new Hessian."""
    rows = torch.nonzero(accept).flatten()
    if rows.numel() == 0:
        return state
    values, vectors, finite = eigh(effective_hessian(landscape, proposal[rows]))
    return dataclasses.replace(
        arrived(state, proposal, value, gradient, accept),
        eigenvalues=state.eigenvalues.index_copy(0, rows, values),
        eigenvectors=state.eigenvectors.index_copy(0, rows, vectors),
        finite=state.finite.index_copy(0, rows, finite),
    )


def counted(state: AnyState, measure: Tensor) -> AnyState:
    """Count iterations in which ``measure`` (B,) did not fall by 1 % below its best."""
    better = measure < 0.99 * state.best
    since = torch.where(better, torch.zeros_like(state.since), state.since + 1)
    return dataclasses.replace(state, best=torch.where(better, measure, state.best), since=since)


def inspected(state: AnyNewtonState, tolerance: float, length: Tensor, r: Tensor) -> AnyNewtonState:
    """Take notice of ρ and r (B,): keep the maximum of r, and where ρ last shrank while ‖g‖ ≤ ``tolerance``."""
    small = state.gradient.norm(dim=1) <= tolerance
    shrank = ~small | (length < SHRINKING * state.shortest)
    return dataclasses.replace(
        state,
        length=length,
        anchor=torch.where(shrank.unsqueeze(1), state.theta, state.anchor),
        shortest=torch.where(small, torch.where(shrank, length, state.shortest), torch.inf),
        flatness=torch.maximum(state.flatness, torch.nan_to_num(r)),
    )


def progressed(state: EigenState, measure: Tensor, tolerance: float) -> EigenState:
    """``counted`` and ``inspected``, by the eigensystem at hand."""
    cutoff = SINGULAR * torch.maximum(state.scale, state.eigenvalues.abs().amax(1))
    r, _ = flatness(state.eigenvalues, in_eigenbasis(state.eigenvectors, state.gradient), cutoff)
    length = newton_length(state.eigenvalues, state.eigenvectors, state.gradient)
    return inspected(counted(state, measure), tolerance, length, r)


def newton_length(eigenvalues: Tensor, eigenvectors: Tensor, gradient: Tensor) -> Tensor:
    """ρ = ‖H⁺g‖ at each row, eigenvalues at rounding level left out. (B,)."""
    cutoff = gradient.shape[1] * torch.finfo(gradient.dtype).eps * eigenvalues.abs().amax(1)
    length: Tensor = newton_coefficients(eigenvalues, in_eigenbasis(eigenvectors, gradient), cutoff).norm(dim=1)
    return length


def lingers(state: NewtonState) -> Tensor:
    """Whether a search went several Newton steps at a small gradient and came no nearer to a critical point.

    The way to a point, even a degenerate one (k−1 Newton steps where L grows as xᵏ), shortens as it is gone; on the
    tail of a plateau the steps stay as long or grow, until everything there is lost in rounding and looks critical.
    """
    far = (state.theta - state.anchor).norm(dim=1) > TRAVEL * state.shortest
    return torch.logical_and(far, state.shortest > STEP_TOLERANCE * (1 + state.theta.norm(dim=1)))


def is_critical(state: NewtonState, tolerance: float) -> Tensor:
    """‖g‖ ≤ tolerance and ρ ≤ 1e-6·(1+‖θ‖). (B,) bool."""
    small_step = state.length <= STEP_TOLERANCE * (1 + state.theta.norm(dim=1))
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


Newton = Callable[[Landscape, Tensor], tuple[Tensor, Tensor]]  # θ (B, n) → −H⁺g (B, n), its length (B,)


def dense_newton(fields: tuple[Field, ...]) -> Newton:
    """Newton steps from whole Hessians, off the tangents of ``fields``."""

    def steps(landscape: Landscape, theta: Tensor) -> tuple[Tensor, Tensor]:
        span, _ = basis(fields, theta)
        gradient, hessian = project_out(span, landscape.gradient(theta)), restricted(landscape.hessian(theta), span)
        step = project_out(span, newton_step(0.5 * (hessian + hessian.mT), gradient, SINGULAR))
        usable = torch.isfinite(step).all(1)
        return torch.where(usable.unsqueeze(1), step, 0.0), torch.where(usable, step.norm(dim=1), torch.inf)

    return steps


def refine(
    landscape: Landscape, thetas: Tensor, fields: tuple[Field, ...] = (), max_iterations: int = 60,
    newton: Newton | None = None,
) -> Tensor:  # fmt: skip
    """Newton's method on ∇L until the step is ≤ 1e-12·(1+‖θ‖) or stops shrinking. (B, n).

    Steps leave out the symmetry directions and eigenvalues at rounding level. Returned is the place of the shortest
    step (natural monotonicity, Deuflhard 2011, 3.2); a row ends when it has not shrunk for ``PATIENCE`` steps or would
    leave the neighbourhood. So neither a degenerate Hessian nor a plateau throws a point away, while ‖g‖ may rise on
    the way along a curved valley.
    """
    newton = newton or dense_newton(fields)
    best, theta = thetas.clone(), thetas.clone()
    step, shortest = newton(landscape, theta)
    waited = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    reach = REACH * (1 + thetas.norm(dim=1))
    rows = torch.nonzero(torch.isfinite(shortest)).flatten()
    for _ in range(max_iterations):
        rows = rows[(shortest[rows] > REFINED_STEP * (1 + best[rows].norm(dim=1))) & (waited[rows] < PATIENCE)]
        rows = rows[(theta[rows] + step[rows] - thetas[rows]).norm(dim=1) <= reach[rows]]
        if rows.numel() == 0:
            break
        theta[rows] = landscape.retracted(theta[rows] + step[rows])
        step[rows], length = newton(landscape, theta[rows])
        shrank = length < SHRINKING * shortest[rows]
        waited[rows] = torch.where(shrank, 0, waited[rows] + 1)
        shorter = rows[shrank]
        best[shorter], shortest[shorter] = theta[shorter], length[shrank]
    return best


def polished(
    landscape: Landscape, thetas: Tensor, tolerance: float, fields: tuple[Field, ...] = (),
    newton: Newton | None = None,
) -> Tensor:  # fmt: skip
    """``thetas`` with those refined that have ‖g‖ ≤ ``tolerance``, however their search ended. (B, n)."""
    theta = thetas.clone()
    if len(theta) == 0:
        return theta
    rows = torch.nonzero(landscape.gradient(theta).norm(dim=1) <= tolerance).flatten()
    if rows.numel():
        theta[rows] = refine(landscape, theta[rows], fields, newton=newton)
    return theta
