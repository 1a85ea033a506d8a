"""Langevin dynamics: gradient descent with noise of a given temperature."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landsweep.workers.optimizers.rule import State, Step


@dataclass(frozen=True)
class Langevin:
    """θ ← θ − η g + √(2ηT) ξ, ξ standard normal: stochastic gradient Langevin dynamics (Welling & Teh 2011, eq. 4).

    For small η its stationary density is ∝ exp(−L/T). With L a mean over N examples T = 1/N is the posterior whose
    step ε of the paper is 2η/N; on ½λθ² the variance is T/(λ(1 − ηλ/2)).
    """

    names: tuple[str, ...] = ("lr", "temperature")

    def init(self, theta: Tensor) -> State:
        return {}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        noise = (2 * at.of("lr") * at.of("temperature")).sqrt() * at.normal(theta)
        return theta - at.of("lr") * at.gradient(theta) + noise, state
