"""Optimisers as pure functions on many trials at once: init → state, step → (state, parameters).

Every hyperparameter is a tensor (B,), one value a trial, so that trials with different values share one program.
The update formulas and their defaults are torch.optim's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

State = dict[str, Tensor]
Hyperparameters = Mapping[str, Tensor]  # name → (B,)


class Optimizer(Protocol):
    """One update rule."""

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters it takes."""
        ...

    def init(self, theta: Tensor) -> State: ...

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, step: int, h: Hyperparameters
    ) -> tuple[Tensor, State]: ...


@dataclass(frozen=True)
class SGD:
    """v ← μv + g (v = g at the first step); θ ← θ − η v, or θ − η (g + μv) with Nesterov's momentum."""

    nesterov: bool = False
    names: tuple[str, ...] = ("lr", "momentum")

    def init(self, theta: Tensor) -> State:
        return {"velocity": torch.zeros_like(theta)}

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, step: int, h: Hyperparameters
    ) -> tuple[Tensor, State]:
        momentum = h["momentum"].unsqueeze(1)
        velocity = momentum * state["velocity"] + gradient
        direction = gradient + momentum * velocity if self.nesterov else velocity
        return theta - h["lr"].unsqueeze(1) * direction, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba 2015, algorithm 1: θ ← θ − η m̂ / (√v̂ + ε)."""

    names: tuple[str, ...] = ("lr", "beta1", "beta2", "epsilon")

    def init(self, theta: Tensor) -> State:
        return {"first": torch.zeros_like(theta), "second": torch.zeros_like(theta)}

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, step: int, h: Hyperparameters
    ) -> tuple[Tensor, State]:
        beta1, beta2 = h["beta1"].unsqueeze(1), h["beta2"].unsqueeze(1)
        first = beta1 * state["first"] + (1 - beta1) * gradient
        second = beta2 * state["second"] + (1 - beta2) * gradient * gradient
        count = step + 1
        denominator = (second / (1 - beta2**count)).sqrt() + h["epsilon"].unsqueeze(1)
        update = first / (1 - beta1**count) / denominator
        return theta - h["lr"].unsqueeze(1) * update, {"first": first, "second": second}


@dataclass(frozen=True)
class RMSprop:
    """v ← αv + (1−α)g²; θ ← θ − η g / (√v + ε) (Tieleman & Hinton 2012)."""

    names: tuple[str, ...] = ("lr", "alpha", "epsilon")

    def init(self, theta: Tensor) -> State:
        return {"square": torch.zeros_like(theta)}

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, step: int, h: Hyperparameters
    ) -> tuple[Tensor, State]:
        alpha = h["alpha"].unsqueeze(1)
        square = alpha * state["square"] + (1 - alpha) * gradient * gradient
        update = gradient / (square.sqrt() + h["epsilon"].unsqueeze(1))
        return theta - h["lr"].unsqueeze(1) * update, {"square": square}


def build(settings: Mapping[str, Any]) -> tuple[Optimizer, dict[str, float]]:
    """The optimiser of a ``training`` section and its hyperparameters."""
    name = settings["optimizer"]
    values = {key: settings[key] for key in ("lr", "momentum", "alpha", "epsilon") if settings.get(key) is not None}
    if settings.get("betas") is not None:
        values["beta1"], values["beta2"] = settings["betas"]
    if name in ("sgd", "gd"):
        values.setdefault("momentum", 0.0)
        return SGD(nesterov=bool(settings.get("nesterov", False))), values
    return (Adam() if name == "adam" else RMSprop()), values


def per_trial(values: Mapping[str, float], trials: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Each hyperparameter repeated for ``trials`` trials."""
    return {key: torch.full((trials,), value, dtype=dtype, device=device) for key, value in values.items()}
