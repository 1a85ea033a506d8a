"""Raw samples: what a loader makes of a data set's name. Nothing here reads a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled examples as they are stored, with the set's own test set where it has one."""

    name: str  # as messages show it
    inputs: Array  # (N, *shape); uint8 are pixels 0 … 255, float32 or float64 are taken as they are
    labels: Array  # (N,) int64 in 0 … classes − 1
    classes: int
    test_inputs: Array | None = None  # (M, *shape)
    test_labels: Array | None = None  # (M,)
    default_train_size: int | None = None  # where it has no test set; None: two thirds

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def nbytes(self) -> int:
        arrays = (self.inputs, self.labels, self.test_inputs, self.test_labels)
        return sum(array.nbytes for array in arrays if array is not None)

    @cached_property
    def checksum(self) -> str:
        """sha256 of the content: dtypes, shapes and bytes of the arrays."""
        digest = hashlib.sha256(f"{self.classes}".encode())
        for array in (self.inputs, self.labels, self.test_inputs, self.test_labels):
            digest.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
