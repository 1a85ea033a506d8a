"""What points of real data should hold: plain torch modules on the raw files, read here anew."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers.record import CRITICAL_KINDS

Split = tuple[Tensor, Tensor]  # inputs, float64, and labels
PART = 2000  # samples taken at once
NOT_CRITICAL = ("not_converged", "gradient_flat", "diverged")


@dataclass(frozen=True)
class Point:
    """A row of the points table, with its parameters."""

    theta: np.ndarray  # (n,)
    kind: str
    train_loss: float
    test_error: float
    grad_norm: float


@dataclass(frozen=True)
class Truth:
    """A plain module and the data that it is judged on."""

    module: Callable[[], nn.Module]
    train: Split
    test: Split
    weight_decay: float

    def difference(self, point: Point) -> float:
        """The largest relative difference of the loss, the error and the gradient's norm at a point from its own."""
        net = self.module().double()
        free = [p for p in net.parameters() if p.requires_grad]
        nn.utils.vector_to_parameters(torch.tensor(point.theta), free)
        loss, wrong = torch.zeros((), dtype=torch.float64), 0
        gradient = [self.weight_decay * p.detach() for p in free]
        for inputs, labels in parts(self.train):
            share = functional.cross_entropy(net(inputs), labels, reduction="sum") / len(self.train[1])
            loss += share.detach()
            gradient = [g + more for g, more in zip(gradient, torch.autograd.grad(share, free), strict=True)]
        with torch.no_grad():
            wrong = sum(int((net(inputs).argmax(1) != labels).sum()) for inputs, labels in parts(self.test))
        norm = float(torch.cat([g.flatten() for g in gradient]).norm())
        pairs = ((point.train_loss, float(loss)), (point.test_error, wrong / len(self.test[1])))
        return max(abs(found - true) / abs(true) for found, true in (*pairs, (point.grad_norm, norm)))


def parts(split: Split) -> zip[tuple[Tensor, Tensor]]:
    return zip(*(torch.split(tensor, PART) for tensor in split), strict=True)


def consistent(point: Point, tolerance: float) -> bool:
    """Whether the kind is one that a gradient of this size may have."""
    if not np.isfinite(point.grad_norm):
        return False
    return point.kind in NOT_CRITICAL if point.grad_norm > tolerance else point.kind in (*CRITICAL_KINDS, *NOT_CRITICAL)


def idx(folder: Path, split: str, side: int) -> Split:
    """MNIST's files: bytes behind a header of 16 and of 8, pixels / 255, means over blocks down to ``side`` pixels."""
    pixels = np.frombuffer(
        gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = torch.tensor(pixels).view(-1, 1, 28, 28).double() / 255
    return functional.avg_pool2d(images, 28 // side), torch.tensor(labels).long()


def standardised(train: Split, test: Split) -> tuple[Split, Split]:
    """Both in units of the training set: each input of mean 0 and variance 1 there."""
    mean, deviation = train[0].mean(0), train[0].std(0, correction=0)
    return ((train[0] - mean) / deviation, train[1]), ((test[0] - mean) / deviation, test[1])


class Elman(nn.Module):
    """torch's own recurrent net and a linear layer on its last state; its second bias is 0."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, hidden, batch_first=True)
        self.rnn.bias_hh_l0.requires_grad_(False).zero_()
        self.top = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.rnn(inputs.unsqueeze(2))
        outputs: Tensor = self.top(states[:, -1])
        return outputs
