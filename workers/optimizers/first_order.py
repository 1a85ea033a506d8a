"""Gradient descent, momentum, Adam and RMSprop: the update formulas and their defaults are torch.optim's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from landsweep.workers.optimizers.rule import State, Step

#: Parameters from which on a step on the CPU is bound by memory, and one call a trial costs less than more passes.
FUSED = 16_384


@dataclass(frozen=True)
class SGD:
    """v ← μv + g (v = g at the first step); θ ← θ − η v, or θ − η (g + μv) with Nesterov's momentum (Polyak 1964;
    Sutskever et al. 2013, whose η is inside v)."""

    nesterov: bool = False
    names: tuple[str, ...] = ("lr", "momentum")

    def init(self, theta: Tensor) -> State:
        return {"velocity": torch.zeros_like(theta)}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        gradient, velocity = at.gradient(theta), state["velocity"]
        if theta.device.type == "cpu" and theta.shape[1] >= FUSED:
            self._fused(theta, gradient, velocity, at)
            return theta, state
        momentum = at.of("momentum")
        torch.addcmul(gradient, momentum, velocity, out=velocity)
        direction = torch.addcmul(gradient, momentum, velocity) if self.nesterov else velocity
        return theta.addcmul_(at.of("lr"), direction, value=-1), state

    def _fused(self, theta: Tensor, gradient: Tensor, velocity: Tensor, at: Step) -> None:
        """In one pass over memory, as torch.optim.SGD(fused=True). Each trial is a tensor of its own: the kernel rounds
        the last elements of a tensor, which fill no whole vector register, differently."""
        for rows, lr, momentum in _alike(at):
            kept = list(velocity[rows]) if momentum else []
            torch._fused_sgd_(
                list(theta[rows]), list(gradient[rows]), kept, lr=lr, momentum=momentum, nesterov=self.nesterov,
                weight_decay=0.0, dampening=0.0, maximize=False, is_first_step=False,
            )  # fmt: skip


def _alike(at: Step) -> Iterator[tuple[slice, float, float]]:
    """Neighbouring rows of the same learning rate and momentum."""
    first = 0
    for (lr, momentum), some in groupby(zip(at.h["lr"].tolist(), at.h["momentum"].tolist(), strict=True)):
        count = len(list(some))
        yield slice(first, first + count), lr, momentum
        first += count


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba 2015, algorithm 1: θ ← θ − η m̂ / (√v̂ + ε)."""

    names: tuple[str, ...] = ("lr", "beta1", "beta2", "epsilon")

    def init(self, theta: Tensor) -> State:
        return {"first": torch.zeros_like(theta), "second": torch.zeros_like(theta)}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        gradient, beta1, beta2 = at.gradient(theta), at.of("beta1"), at.of("beta2")
        first = beta1 * state["first"] + (1 - beta1) * gradient
        second = beta2 * state["second"] + (1 - beta2) * gradient * gradient
        count = at.number + 1
        denominator = (second / (1 - beta2**count)).sqrt() + at.of("epsilon")
        update = first / (1 - beta1**count) / denominator
        return theta - at.of("lr") * update, {"first": first, "second": second}


@dataclass(frozen=True)
class RMSprop:
    """v ← αv + (1−α)g²; θ ← θ − η g / (√v + ε) (Tieleman & Hinton 2012)."""

    names: tuple[str, ...] = ("lr", "alpha", "epsilon")

    def init(self, theta: Tensor) -> State:
        return {"square": torch.zeros_like(theta)}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        gradient, alpha = at.gradient(theta), at.of("alpha")
        square = alpha * state["square"] + (1 - alpha) * gradient * gradient
        update = gradient / (square.sqrt() + at.of("epsilon"))
        return theta - at.of("lr") * update, {"square": square}
