"""What landscapes of real data hold at a place is what plain torch modules find on the raw files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landsweep.cluster.data import library, mnist1d
from landsweep.workers import builtin
from tests.memory_probe import sweep_of
from tests.recomputed import Elman, Point, Truth, consistent, idx

pytestmark = pytest.mark.usefixtures("one_thread")

DECAY = 1e-2


def difference(landscape: dict[str, Any], truth: Truth) -> float:
    """The largest relative difference at random parameters."""
    section = {**landscape, "weight_decay": DECAY, "standardise": False}
    (one, _), *_ = sweep_of(1, {"landscape": section}).configurations()
    built = builtin.build(one["landscape"], torch.device("cpu"), library.load(one["landscape"]))
    theta = built.init(torch.Generator().manual_seed(1)).unsqueeze(0)
    assert built.train_loss is not None and built.test_error is not None
    numbers = built.map(built.train_loss, theta), built.map(built.test_error, theta), built.gradient(theta).norm(dim=1)
    return truth.difference(Point(theta[0].numpy(), "not_converged", *(float(value) for value in numbers)))


def written(folder: Path) -> Path:
    """Random images of 28×28 pixels with labels in turn, as MNIST's files."""
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("t10k", 30)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            pixels = len(shape) == 3
            values = (random.integers(0, 256, shape) if pixels else np.arange(count) % 10).astype(np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    return folder


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_images(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    options: dict[str, Any]
    if name == "mlp":
        side, options = 28, {"hidden": [3]}
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.Tanh(), nn.Linear(3, 10))
    else:
        side, options = 14, {"channels": [8], "stride": 2, "pool": 1}
        net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(392, 10))
    truth = Truth(lambda: net, idx(folder, "train", side), idx(folder, "t10k", side), DECAY)
    assert difference({"name": name, "data": f"idx:{folder}", "resize": side, **options}, truth) < 1e-12


def test_sequences() -> None:
    raw = mnist1d.generate(100, 42)
    pairs = ((raw.inputs, raw.labels), (raw.test_inputs, raw.test_labels))
    train, test = ((torch.as_tensor(inputs), torch.as_tensor(labels)) for inputs, labels in pairs)
    data = {"name": "mnist1d", "samples": 100, "seed": 42}
    truth = Truth(lambda: Elman(4, 10), train, test, DECAY)
    assert difference({"name": "rnn", "data": data, "hidden": 4}, truth) < 1e-12


@pytest.mark.parametrize(
    ("kind", "norm", "fits"),
    [
        ("minimum", 1e-9, True), ("not_converged", 1e-9, True), ("not_converged", 1e-2, True),
        ("minimum", 1e-2, False), ("not_converged", float("nan"), False),
    ],
)  # fmt: skip
def test_kinds_that_a_gradient_may_have(kind: str, norm: float, fits: bool) -> None:
    assert consistent(Point(np.zeros(1), kind, 0.0, 0.0, norm), 1e-8) is fits
