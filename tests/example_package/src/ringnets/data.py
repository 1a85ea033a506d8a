"""Points on two noisy rings, kept beside this module."""

from __future__ import annotations

import csv
from importlib.resources import files

import torch
from torch import Tensor

Split = tuple[Tensor, Tensor]  # inputs (N, 2), labels (N,)
TRAINING = 100  # rows of the file; the others are the test set


def rings() -> tuple[Split, Split]:
    """The training and the test set."""
    with files("ringnets").joinpath("rings.csv").open() as lines:
        rows = [[float(row["x"]), float(row["y"]), float(row["ring"])] for row in csv.DictReader(lines)]
    table = torch.tensor(rows, dtype=torch.float64)
    inputs, labels = table[:, :2], table[:, 2].long()
    return (inputs[:TRAINING], labels[:TRAINING]), (inputs[TRAINING:], labels[TRAINING:])
