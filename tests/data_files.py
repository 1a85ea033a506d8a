"""Data sets written as files, byte by byte where the format is ours to parse."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def pixels(rows: int, side: int = 6, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (rows, side, side), dtype=np.uint8)


def labels(rows: int, classes: int = 3) -> Array:
    return (np.arange(rows) % classes).astype(np.uint8)


def idx_bytes(array: Array, kind: int = 0x08) -> bytes:
    """The format as its description has it: 0, 0, type, dimensions, big-endian sizes, data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def idx_files(rows: int = 30, test: int = 12) -> dict[str, bytes]:
    """name → content of MNIST's four files."""
    files = {IMAGES: idx_bytes(pixels(rows)), LABELS: idx_bytes(labels(rows))}
    if test:
        files["t10k-images-idx3-ubyte"] = idx_bytes(pixels(test, seed=1))
        files["t10k-labels-idx1-ubyte"] = idx_bytes(labels(test))
    return files


def zipped(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def npz_bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npz_arrays(rows: int = 30, **changes: Any) -> dict[str, Any]:
    inputs = np.random.default_rng(0).standard_normal((rows, 4))
    return {"inputs": inputs, "labels": labels(rows).astype(np.int64), **changes}


def parquet_bytes(columns: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), stream)
    return stream.getvalue()


def image_bytes(array: Array, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def image_files(colour: bool = False, split: bool = False) -> dict[str, bytes]:
    """Three classes a, b, c of four images each, of different sizes."""
    files = {}
    for split_name, seed in (("train/", 0), ("val/", 1)) if split else (("", 0),):
        random = np.random.default_rng(seed)
        for number, folder in enumerate("abc"):
            for k in range(4):
                shape = (8 + 2 * k, 8 + number, 3) if colour else (8 + 2 * k, 8 + number)
                image = random.integers(0, 256, shape, dtype=np.uint8)
                files[f"{split_name}{folder}/{k}.png"] = image_bytes(image)
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def changed(files: Mapping[str, bytes], name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    return {**files, name: change(files[name])}
