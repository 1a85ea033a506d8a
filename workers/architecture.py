"""The multilayer perceptron as a function of its flat parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from torch import Tensor

from landsweep.workers.activations import activation
from landsweep.workers.landscape import Layers
from landsweep.workers.models.initialisation import Block
from landsweep.workers.models.network import Network, Weights


def dense_blocks(widths: tuple[int, ...], bias: bool = True) -> tuple[Block, ...]:
    """W_1 (out, in), b_1 (out,), W_2, … of fully connected layers."""
    blocks = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        blocks += [Block(f"W{layer}", (fan_out, fan_in))] + [Block(f"b{layer}", (fan_out,), 0.0)] * bias
    return tuple(blocks)


def dense(weights: Weights, inputs: Tensor, depth: int, name: str) -> tuple[Tensor, list[Tensor]]:
    """W_m φ(… φ(W_1 x + b_1) …) + b_m (N, c), and the pre-activations of the hidden layers, (N, width) each."""
    function = activation(name)
    outputs, before = inputs, list[Tensor]()
    for layer in range(1, depth + 1):
        outputs = outputs @ weights[f"W{layer}"].mT
        if f"b{layer}" in weights:
            outputs = outputs + weights[f"b{layer}"]
        if layer < depth:
            before.append(outputs)
            outputs = function(outputs)
    return outputs, before


def layers_of(split: Callable[[Tensor], Weights], depth: int) -> Layers:
    """The layers of a fully connected net whose tensors are W_1, b_1, …, as measures of its weights take them."""

    def layers(theta: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        weights = split(theta)
        return [(weights[f"W{layer}"], weights.get(f"b{layer}")) for layer in range(1, depth + 1)]

    return layers


@dataclass(frozen=True)
class Architecture(Network):
    """z = W_m φ(… φ(W_1 x + b_1) …) + b_m; θ holds W_1 (row by row), b_1, W_2, …, b_m, without b where ``bias`` is
    false."""

    widths: tuple[int, ...]  # inputs, hidden …, outputs
    activation: str
    bias: bool = True

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return dense_blocks(self.widths, self.bias)

    @property
    def depth(self) -> int:
        """Layers of weights."""
        return len(self.widths) - 1

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """θ (…, n) → [(W (…, out, in), b (…, out)), …] as views, of a net with biases."""
        weights = self.split(theta)
        return [(weights[f"W{layer}"], weights[f"b{layer}"]) for layer in range(1, self.depth + 1)]

    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        return dense(weights, inputs, self.depth, self.activation)
