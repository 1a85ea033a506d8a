"""Checkpoints of a batch's trainings: files beside the sweep's tables, whole, and trusted only if they are its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from landsweep.cluster.files import Files
from landsweep.workers.errors import StoreError

FOLDER = "checkpoints"
#: Saving may take this share of the time.
SHARE = 0.05
#: A training that ends is kept if it has taken this share of the interval: what follows it may be long.
ENDED = 0.1


def should_save(since: float, cost: float, interval: float, ended: bool) -> bool:
    """Whether to save, ``since`` seconds after the last time, which took ``cost`` seconds.

    >>> should_save(61, 0.1, 60, False), should_save(61, 10, 60, False), should_save(7, 0.1, 60, True)
    (True, False, True)
    """
    return since >= max(interval * (ENDED if ended else 1.0), cost / SHARE)


@dataclass
class FileKeeper:
    """Keeps one training in one file. What cannot be written or read costs no result: the training starts anew."""

    files: Files
    name: str
    identity: str  # what the arrays follow from: another's are not taken
    interval: float  # seconds
    _saved: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None:
        try:
            return unpacked(self.files.read(self.name), self.identity)
        except (OSError, StoreError):
            return None

    def due(self, ended: bool) -> bool:
        return should_save(time.monotonic() - self._saved, self._cost, self.interval, ended)

    def save(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        begun = time.monotonic()
        with contextlib.suppress(OSError, StoreError):  # the next one may fit
            self.files.write(self.name, packed(step, arrays, self.identity))
        self._saved = time.monotonic()
        self._cost = self._saved - begun


def packed(step: int, arrays: Mapping[str, np.ndarray], identity: str) -> bytes:
    """A safetensors file whose metadata say whose arrays they are, after which step, and their sha256."""
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"identity": identity, "step": str(step), "sha256": _digest(held)}
    content: bytes = save_tensors(held, metadata)
    return content


def unpacked(content: bytes, identity: str) -> tuple[int, dict[str, np.ndarray]] | None:
    """Step and arrays of a file that :func:`packed` wrote for ``identity``; None for any other content."""
    try:
        arrays = {name: array.copy() for name, array in load_tensors(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
        if metadata["identity"] != identity or metadata["sha256"] != _digest(arrays):
            return None
        return int(metadata["step"]), arrays
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


@dataclass(frozen=True)
class BatchFiles:
    """The files of one batch."""

    files: Files
    batch: str  # its id: configuration, data, code and seeds are in it
    mode: str  # how it is computed: device, dtype, versions
    interval: float | None  # seconds between checkpoints; None: none are kept

    def keeper(self, training: str) -> FileKeeper | None:
        """Of the batch's ``training``, a word."""
        if self.interval is None:
            return None
        return FileKeeper(self.files, self._name(training), f"{self.batch} {training} {self.mode}", self.interval)

    def delete(self) -> None:
        """The batch is done."""
        for name in ("pretraining", "training"):
            self.files.delete(self._name(name))

    def _name(self, training: str) -> str:
        return f"{FOLDER}/{self.batch}-{training}.safetensors"
