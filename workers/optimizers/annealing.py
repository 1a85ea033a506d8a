"""Simulated annealing with Langevin proposals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.optimizers.rule import State, Step

_ACCEPTANCE = 1 << 62  # counters of the acceptance draws: the proposals' never come so far


@dataclass(frozen=True)
class Annealing:
    """Simulated annealing (Kirkpatrick, Gelatt & Vecchi 1983) by Metropolis-adjusted Langevin steps (Roberts & Tweedie
    1996): θ' = θ − η g + √(2ηT) ξ takes the place of θ with probability
    min(1, exp(−(L(θ') − L(θ))/T) q(θ|θ')/q(θ'|θ)), −log q(b|a) = ‖b − a + η g(a)‖²/(4ηT).

    At a constant T the stationary density is ∝ exp(−L/T) exactly, for any η (on a manifold up to the retraction of the
    accepted steps). T falls geometrically over the ``steps``,
    T(t) = T₀ (T₁/T₀)^{t/(steps−1)}, from ``temperature`` T₀ to ``final_temperature`` T₁.
    """

    steps: int
    names: tuple[str, ...] = ("lr", "temperature", "final_temperature")

    def init(self, theta: Tensor) -> State:
        nothing = torch.full_like(theta[:, 0], torch.nan)
        return {"value": nothing, "gradient": torch.zeros_like(theta)}  # L and g at θ, from the first step on

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        evaluate = at.landscape.value_and_gradient
        value, gradient = state["value"], state["gradient"]
        if at.number == 0 or at.landscape.retraction is not None:
            value, gradient = evaluate(theta)
        lr, temperature = at.of("lr"), self.temperature(at).unsqueeze(1)
        proposal = theta - lr * gradient + (2 * lr * temperature).sqrt() * at.normal(theta)
        new_value, new_gradient = evaluate(proposal)
        forth = ((proposal - theta + lr * gradient) ** 2).sum(1)
        back = ((theta - proposal + lr * new_gradient) ** 2).sum(1)
        temperature, lr = temperature.squeeze(1), at.h["lr"]
        ratio = (value - new_value) / temperature + (forth - back) / (4 * lr * temperature)
        draw = streams.uniform(at.keys, _ACCEPTANCE + at.number, 1)[:, 0].log().to(theta)
        accept = draw <= ratio  # a proposal that is not finite is refused; a start that is not stays
        row = accept.unsqueeze(1)
        after = {"value": torch.where(accept, new_value, value), "gradient": torch.where(row, new_gradient, gradient)}
        return torch.where(row, proposal, theta), after

    def temperature(self, at: Step) -> Tensor:
        """T of the step. (B,)."""
        first, last = at.h["temperature"], at.h["final_temperature"]
        return first * (last / first) ** (at.number / max(1, self.steps - 1))
