"""The multilayer perceptron as a function of its flat parameters, and its initialisations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from landsweep.workers.activations import ACTIVATIONS

#: name → (uniform?, standard deviation from fan-in and fan-out)
INITIALISATIONS: dict[str, tuple[bool, Callable[[int, int], float]]] = {
    "xavier_normal": (False, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "xavier_uniform": (True, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "he_normal": (False, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    "he_uniform": (True, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
}


@dataclass(frozen=True)
class Architecture:
    """z = W_m φ(… φ(W_1 x + b_1) …) + b_m; θ holds W_1 (row by row), b_1, W_2, …, b_m."""

    widths: tuple[int, ...]  # inputs, hidden …, outputs
    activation: str

    @property
    def dim(self) -> int:
        return sum(fan_out * (fan_in + 1) for fan_in, fan_out in pairwise(self.widths))

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """θ (…, n) → [(W (…, out, in), b (…, out)), …] as views."""
        result, start = [], 0
        for fan_in, fan_out in pairwise(self.widths):
            weight = torch.unflatten(theta[..., start : start + fan_out * fan_in], -1, (fan_out, fan_in))
            start += fan_out * fan_in
            result.append((weight, theta[..., start : start + fan_out]))
            start += fan_out
        return result

    def __call__(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (N, c) of one network on ``inputs`` (N, d)."""
        function, _ = ACTIVATIONS[self.activation]
        hidden = inputs
        *inner, (last_weight, last_bias) = self.layers(theta)
        for weight, bias in inner:
            hidden = function(hidden @ weight.mT + bias)
        return hidden @ last_weight.mT + last_bias

    def initialise(self, generator: torch.Generator, scheme: str, scale: float) -> Tensor:
        """Weights drawn by ``scheme`` times ``scale``, biases 0 (Glorot & Bengio 2010; He et al. 2015). float64."""
        uniform, deviation = INITIALISATIONS[scheme]
        pieces = []
        for fan_in, fan_out in pairwise(self.widths):
            shape = (fan_out * fan_in,)
            if uniform:
                draw = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * math.sqrt(3)
            else:
                draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            pieces += [scale * deviation(fan_in, fan_out) * draw, torch.zeros(fan_out, dtype=torch.float64)]
        return torch.cat(pieces)
