"""A net with multiplicative gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """z = W(tanh(Ax + a) ∘ σ(Gx + g)) + b."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        gated = torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))
        return self.out(gated)  # type: ignore[no-any-return]
