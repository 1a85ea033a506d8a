"""What the models share: θ as named tensors, outputs and pre-activations as pure functions of θ and inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from landsweep.workers.activations import KINKED
from landsweep.workers.landscape import Scalar
from landsweep.workers.models.initialisation import Block, drawn

Weights = Mapping[str, Tensor]  # the name of a block → its tensor


class Network(ABC):
    """A model of fixed shape; θ (n,) holds its blocks one after the other, each row by row."""

    activation: str  # the name of φ

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """The tensors that θ holds, in its order."""

    @abstractmethod
    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(outputs (N, c), pre-activations of every layer (N, …)) on ``inputs`` (N, …)."""

    @cached_property
    def dim(self) -> int:
        """n."""
        return sum(block.size for block in self.blocks)

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """θ (…, n) → its blocks by name, each (…, *shape), as views."""
        pieces = torch.split(theta, [block.size for block in self.blocks], -1)
        front = theta.shape[:-1]
        return {block.name: piece.view(*front, *block.shape) for block, piece in zip(self.blocks, pieces, strict=True)}

    def __call__(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (N, c) of one network, θ (n,)."""
        return self.forward(self.split(theta), inputs)[0]

    def initialise(self, generator: torch.Generator, scheme: str, scale: float) -> Tensor:
        """θ₀ (n,), float64: each block drawn by ``scheme`` (see ``initialisation``) in θ's order."""
        return torch.cat([drawn(block, generator, scheme, scale) for block in self.blocks])

    def kink_distance(self, inputs: Tensor) -> Scalar | None:
        """θ ↦ the smallest |pre-activation| over all samples and units; None where φ is smooth.

        L is smooth in the ball around θ in which no pre-activation changes its sign.
        """
        if self.activation not in KINKED:
            return None

        def distance(theta: Tensor) -> Tensor:
            _, before = self.forward(self.split(theta), inputs.to(theta.dtype))
            return torch.stack([layer.abs().amin() for layer in before]).amin()

        return distance
