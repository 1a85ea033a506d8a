"""Data sets and their splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from landsweep.workers.errors import DependencyError, LandscapeError


@dataclass(frozen=True)
class Dataset:
    """A classification set, split; float64 inputs and int64 labels."""

    train_inputs: Tensor  # (N, d)
    train_labels: Tensor  # (N,)
    test_inputs: Tensor  # (M, d)
    test_labels: Tensor  # (M,)
    classes: int

    def to(self, device: torch.device) -> Dataset:
        train, test = (self.train_inputs, self.train_labels), (self.test_inputs, self.test_labels)
        x, y, x_test, y_test = (tensor.to(device) for tensor in train + test)
        return Dataset(x, y, x_test, y_test, self.classes)


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DependencyError("data 'digits' needs scikit-learn: pip install 'landsweep[run]'") from exc
    bunch = load_digits()
    return bunch.images / 16.0, bunch.target.astype(np.int64)


def mean_pool(images: np.ndarray, size: int) -> np.ndarray:
    """Means over equal blocks: (N, s, s) → (N, size, size); ``size`` divides s."""
    count, side, _ = images.shape
    if side % size:
        raise LandscapeError(f"landscape.resize: found {size}; it must divide {side}")
    block = side // size
    pooled: np.ndarray = images.reshape(count, size, block, size, block).mean(axis=(2, 4))
    return pooled


def digits(train_size: int = 1200, split_seed: int = 0, resize: int | None = None, standardise: bool = True) -> Dataset:
    """scikit-learn's 1,797 handwritten 8×8 digits (Alpaydin & Kaynak 1998), pixels in [0, 1], split by ``split_seed``.

    ``standardise`` subtracts the training mean of each pixel and divides by its standard deviation; a pixel that is
    constant on the training set becomes 0.
    """
    images, labels = _digits()
    if not 0 < train_size < len(labels):
        raise LandscapeError(f"landscape.train_size: found {train_size}; allowed is 1 … {len(labels) - 1}")
    if resize is not None:
        images = mean_pool(images, resize)
    order = np.random.default_rng(split_seed).permutation(len(labels))
    inputs = images.reshape(len(labels), -1)[order]
    labels = labels[order]
    if standardise:
        mean, deviation = inputs[:train_size].mean(0), inputs[:train_size].std(0)
        inputs = np.where(deviation > 0, (inputs - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
    x, y = torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(labels))
    return Dataset(x[:train_size], y[:train_size], x[train_size:], y[train_size:], classes=10)


DATASETS = {"digits": digits}
