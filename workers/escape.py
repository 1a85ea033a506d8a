"""How long the gradient flow stays at a saddle, measured beside the law ln(1/δ)/|λ_min|."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.gradient_flow import FlowState, GradientFlow, halted
from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import from_eigenbasis
from landsweep.workers.search import RUNNING

ACCURACY = 1e-8  # local error of the flow, relative to 1 + ‖θ‖
ARRIVED = 1e-9  # relative distance from the sphere at which it counts as crossed


@dataclass(frozen=True)
class EscapeTimes:
    """Times until the flow from S saddles, started D distances δ away, is R away. Unit: the flow's time."""

    measured: Tensor  # (S, D); NaN where the flow did not get there
    predicted: Tensor  # (S, D) ln(R/δ)/|λ_min|
    slope: Tensor  # (S,) of measured against ln(1/δ), by least squares
    expected_slope: Tensor  # (S,) 1/|λ_min|


def escape_times(
    landscape: Landscape,
    saddles: Tensor,
    directions: Tensor,
    lowest: Tensor,
    radius: float,
    distances: Sequence[float],
    budget: int = 1000,
) -> EscapeTimes:
    """Integrate θ' = −∇L from θ + δ·v until ‖θ(t) − θ‖ ≥ R.

    ``saddles`` θ (S, n), ``directions`` v (S, n) of unit length with a part in the unstable space, ``lowest`` λ_min < 0
    (S,), ``radius`` R and ``distances`` δ < R in units of θ, ``budget`` steps. Near the saddle θ(t) − θ grows as
    e^{|λ_min|t}, so t = ln(R/δ)/|λ_min| for a quadratic L along its lowest eigenvector; otherwise t = ln(1/δ)/|λ_min| +
    O(1) as δ → 0 (Kifer 1981 for noise of size δ; gradient descent: Du et al. 2017, Jin et al. 2017).
    """
    delta = torch.tensor(distances, dtype=saddles.dtype, device=saddles.device)
    origins = saddles.repeat_interleave(len(delta), 0)
    starts = origins + delta.repeat(len(saddles)).unsqueeze(1) * directions.repeat_interleave(len(delta), 0)
    measured = _crossing_times(landscape, origins, starts, radius, budget).view(len(saddles), len(delta))
    rate, x = lowest.abs().unsqueeze(1), -torch.log(delta)
    centred = x - x.mean()
    return EscapeTimes(
        measured,
        torch.log(radius / delta) / rate,
        (centred * measured).sum(1) / (centred**2).sum(),
        1 / rate.squeeze(1),
    )


def random_unstable(eigenvalues: Tensor, eigenvectors: Tensor, keys: Tensor) -> Tensor:
    """Unit vectors drawn uniformly in the span of the eigenvectors with λ < 0. (S, n).

    ``eigenvalues`` (S, n), ``eigenvectors`` (S, n, n) columns, ``keys`` (S,) of the streams.
    """
    coefficients = torch.where(eigenvalues < 0, streams.normal(keys, 0, eigenvalues.shape[1]), 0.0)
    return from_eigenbasis(eigenvectors, coefficients / coefficients.norm(dim=1, keepdim=True))


def _crossing_times(landscape: Landscape, origins: Tensor, starts: Tensor, radius: float, budget: int) -> Tensor:
    """The times at which the flows from ``starts`` (B, n) cross the spheres around ``origins``; NaN for none. (B,)."""
    times = torch.full_like(starts[:, 0], torch.nan)
    active = torch.arange(len(starts), device=starts.device)
    flow = GradientFlow(ACCURACY)
    state = flow.init(landscape, starts, torch.ones_like(times))
    for _ in range(budget):
        gone = (state.theta - origins[active]).norm(dim=1) >= radius * (1 - ARRIVED)
        times[active[gone]] = state.time[gone]
        keep = torch.nonzero(~gone & (halted(state) == RUNNING)).flatten()
        if keep.numel() == 0:
            break
        active, state = active[keep], state.take(keep)
        state = _not_beyond(flow, landscape, state, origins[active], radius)
    return times


def _not_beyond(
    flow: GradientFlow, landscape: Landscape, state: FlowState, origins: Tensor, radius: float
) -> FlowState:
    """A step of the flow; one that would end beyond the sphere is not taken but shortened, as ln‖θ − origin‖ grows
    nearly linearly in time."""
    to = flow.propose(landscape, state)
    here, there = (state.theta - origins).norm(dim=1), (to.theta - origins).norm(dim=1)
    sound = to.excess <= 1
    beyond = sound & (there > radius * (1 + ARRIVED))
    share = torch.log(radius / here) / torch.log(there / here)
    after = flow.accept(landscape, state, to, sound & ~beyond)
    return dataclasses.replace(after, control=torch.where(beyond, state.control * share, after.control))
