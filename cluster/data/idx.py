"""IDX files in MNIST's layout, gz or not (LeCun, Cortes & Burges, "The MNIST database", section on file formats)."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib

import numpy as np

from landsweep.cluster.data.checks import Part, checked
from landsweep.cluster.data.source import Source, check_size, open_source, place, read, refusal
from landsweep.workers.samples import Array, Samples

_UNSIGNED_BYTES = 0x08


def load(path: str, name: str) -> Samples:
    """``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and, where they are there, ``t10k-…``, each also .gz."""
    source = open_source(path)
    names = source.names()
    train = _part(source, names, "train")
    if train is None:
        raise refusal(source.uri, "no train-images-idx3-ubyte[.gz]", "name the folder that holds MNIST's four files")
    return checked(name, train, _part(source, names, "t10k"))


def _part(source: Source, names: list[str], split: str) -> Part | None:
    """The images and labels of a split; None where there is neither."""
    images, labels = _find(names, f"{split}-images", 3), _find(names, f"{split}-labels", 1)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        missing = f"{split}-{'images-idx3' if images is None else 'labels-idx1'}-ubyte[.gz]"
        raise refusal(source.uri, f"no {missing}", f"add it beside {images or labels}")
    pixels, numbers = (parse(read(source, file), place(source, file), dim) for file, dim in ((images, 3), (labels, 1)))
    return Part(pixels, numbers, place(source, images), place(source, labels))


def _find(names: list[str], stem: str, dimensions: int) -> str | None:
    """The first of the files that may hold it: as MNIST spells it, or with a dot; plain before gz."""
    pattern = re.compile(rf"{stem}[-.]idx{dimensions}-ubyte(\.gz)?")
    return min((name for name in names if pattern.fullmatch(name)), key=len, default=None)


def parse(content: bytes, file: str, dimensions: int) -> Array:
    """The uint8 array of an IDX file: two zero bytes, a type, the number of dimensions, their sizes, then the bytes."""
    stream: io.BufferedIOBase = io.BytesIO(content)
    if content[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=stream)
    expected = (_UNSIGNED_BYTES << 8) + dimensions
    try:
        magic = stream.read(4)
        if magic != expected.to_bytes(4, "big"):
            found = f"the magic number is 0x{magic.hex()}"
            raise refusal(file, found, f"unsigned bytes in {dimensions} dimensions start with 0x{expected:08x}")
        header = stream.read(4 * dimensions)
        shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(dimensions))
        count = int(np.prod(shape, dtype=object))
        if isinstance(stream, gzip.GzipFile):
            check_size(count, len(content), file)
        body = stream.read(min(count + 1, sys.maxsize))  # a byte more than announced tells a longer file, however long
    except (EOFError, OSError, zlib.error) as exc:
        raise refusal(file, f"truncated or damaged gzip ({exc})", "fetch it again") from exc
    if len(header) < 4 * dimensions or len(body) < count:
        found = f"truncated: {len(body):,} bytes of the {count:,} that its header announces"
        raise refusal(file, found, "fetch it again")
    if len(body) > count:
        raise refusal(file, f"holds more than the {count:,} bytes that its header announces", "fetch it again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
