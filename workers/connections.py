"""Connections: which two minima a saddle of index 1 lies between, and how high above them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.gradient_flow import GradientFlow
from landsweep.workers.landscape import Landscape
from landsweep.workers.trust_region import TrustRegionNewton

DISPLACEMENT = 1e-3  # of the start from the saddle, relative to 1 + ‖θ‖
HALVINGS = 6  # of it, where L does not fall as the quadratic model says
TRUSTED = 0.1  # by how much the fall's ratio to the model's may differ from 1
ACCURACY = 1e-4  # local error of the flow, relative to 1 + ‖θ‖; 1e-6 leads a small net's starts to the same minima
FLOW_STEPS = 3  # of the flow for each one of the budget: it follows every bend, a search cuts corners
POLISH_RADIUS = 1e-3, 1e-2  # first and largest trust radius, relative to 1 + ‖θ‖: not out of the basin


@dataclass(frozen=True)
class Ends:
    """Where the gradient flow from each saddle goes, along +v (side 0) and −v (side 1)."""

    theta: Tensor  # (S, 2, n)
    status: Tensor  # (S, 2) codes of search.STATUS; CONVERGED: the minimum that the flow leads to
    iterations: Tensor  # (S, 2) of the flow and the polish
    flatness: Tensor  # (S, 2) maximum of r in the polish
    barrier: Tensor  # (S, 2) L(saddle) − L(minimum); NaN where not CONVERGED

    def outcome(self) -> search.Outcome:
        """The ends as 2S rows of a search's outcome: the sides of the first saddle, of the second, …"""
        flat = (self.theta.flatten(0, 1), self.status.flatten(), self.iterations.flatten(), self.flatness.flatten())
        return search.Outcome(*flat)


def descend_both_ways(
    landscape: Landscape, saddles: Tensor, directions: Tensor, scale: Tensor, tolerance: float, budget: int
) -> Ends:
    """Follow the gradient flow from θ ± ε·v to the minima, and polish them there.

    ``saddles`` θ (S, n) are of index 1, ``directions`` v (S, n) their unit eigenvectors of negative curvature,
    ``scale`` (S,) is ‖H‖₂ at the trial's start, ``tolerance`` bounds ‖∇L‖ at a minimum, ``budget`` the steps of the
    polish, a third of the flow's. The flow (``gradient_flow``) rather than a minimiser's path decides which minimum is
    reached (Wales 2003, section 4; Page & McIver 1988): long steps jump into other basins. Where it ends at no minimum
    the status says so: STAGNATED at another saddle (a symmetry can lead there), BUDGET or NON_FINITE where L has no
    minimum on that side.
    """
    starts, side_scale = displaced(landscape, saddles, directions).flatten(0, 1), scale.repeat_interleave(2)
    flow = search.iterate(GradientFlow(ACCURACY), landscape, starts, side_scale, FLOW_STEPS * budget)
    theta, status, iterations = flow.theta.clone(), flow.status.clone(), flow.iterations.clone()
    flatness = torch.zeros_like(side_scale)
    rows = torch.nonzero(status == search.CONVERGED).flatten()
    if rows.numel():
        polish = TrustRegionNewton(tolerance, *POLISH_RADIUS)
        polished = search.iterate(polish, landscape, theta[rows], side_scale[rows], budget)
        theta[rows], status[rows], flatness[rows] = polished.theta, polished.status, polished.flatness
        iterations[rows] += polished.iterations
    fall = landscape.objective(saddles).repeat_interleave(2) - landscape.objective(theta)
    barrier = torch.where(status == search.CONVERGED, fall, torch.nan)
    return Ends(theta.view(-1, 2, saddles.shape[1]), *(x.view(-1, 2) for x in (status, iterations, flatness, barrier)))


def displaced(landscape: Landscape, saddles: Tensor, directions: Tensor) -> Tensor:
    """θ + ε·v and θ − ε·v with ε = 1e-3·(1+‖θ‖), halved while L(θ) − L(θ ± ε·v) is not ½|vᵀHv|ε² to 10 %. (S, 2, n).

    The smallest ε, 2⁻⁶ of the first, is taken where no fall fits: there the flow's own step control has to see to it.
    """
    v = torch.stack([directions, -directions], 1).flatten(0, 1)
    theta = saddles.repeat_interleave(2, 0)
    level = landscape.objective(saddles).repeat_interleave(2)
    curvature = (directions * landscape.hvp(saddles, directions.unsqueeze(2)).squeeze(2)).sum(1).repeat_interleave(2)
    distance = DISPLACEMENT * (1 + theta.norm(dim=1))
    for _ in range(HALVINGS):
        fall = level - landscape.objective(theta + distance.unsqueeze(1) * v)
        predicted = -0.5 * curvature * distance**2
        fits = (fall - predicted).abs() <= TRUSTED * predicted
        distance = torch.where(fits, distance, 0.5 * distance)
    starts: Tensor = theta + distance.unsqueeze(1) * v
    return starts.view(-1, 2, saddles.shape[1])
