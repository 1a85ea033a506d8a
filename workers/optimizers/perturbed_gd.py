"""Perturbed gradient descent, which leaves strict saddles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.optimizers.rule import State, Step


@dataclass(frozen=True)
class PerturbedGD:
    """Jin et al. 2017, algorithm 2: θ ← θ + ξ, ξ uniform in the ball of ``radius``, where ‖g‖ ≤ ``gradient_threshold``
    and the last perturbation is more than ``interval`` steps ago; then θ ← θ − η g.

    The paper's test that ends the run, L having fallen by less than f_thres within t_thres = ``interval`` steps of a
    perturbation, is left out: training takes the steps it is given, and the search says what its end is.
    """

    names: tuple[str, ...] = ("lr", "gradient_threshold", "radius", "interval")

    def init(self, theta: Tensor) -> State:
        return {"since": torch.full_like(theta[:, 0], torch.inf)}  # steps since the last perturbation

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        gradient, since = at.gradient(theta), state["since"] + 1
        due = (gradient.norm(dim=1) <= at.h["gradient_threshold"]) & (since > at.h["interval"])
        if bool(due.any()):
            theta = torch.where(due.unsqueeze(1), theta + at.of("radius") * unit_ball(theta, at), theta)
            gradient = torch.where(due.unsqueeze(1), at.gradient(theta), gradient)
        return theta - at.of("lr") * gradient, {"since": torch.where(due, 0.0, since)}


def unit_ball(theta: Tensor, at: Step) -> Tensor:
    """Uniform in the unit ball: a normal vector's direction times u^{1/n}. (B, n)."""
    dim = theta.shape[1]
    first = at.number * (dim + 1)
    direction = streams.normal(at.keys, first, dim)
    length = streams.uniform(at.keys, first + dim, 1) ** (1 / dim)
    drawn: Tensor = length * direction / direction.norm(dim=1, keepdim=True)
    return drawn.to(theta)
