"""Parameters of many batches in one safetensors file, and one batch's read out of it without the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

#: What a file holds at least, unless there is no more: few large ones instead of one a batch.
FILE_BYTES = 64 * 2**20
_HEADER_BYTES = 100 * 10**6  # safetensors' own limit

Tensors = dict[str, np.ndarray]


def packed(batches: Mapping[str, bytes]) -> bytes:
    """One file of the files of ``batches`` (by their ids): the tensor ``points`` of batch b is called ``b.points``."""
    tensors = {f"{batch}.{name}": array for batch, content in batches.items() for name, array in load(content).items()}
    content: bytes = save(tensors)
    return content


def groups(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Names with their bytes, in order, in groups of at least FILE_BYTES each but for the last.

    >>> list(groups([("a", 2**26), ("b", 1), ("c", 1)]))
    [['a'], ['b', 'c']]
    """
    group: list[str] = []
    held = 0
    for name, size in sizes:
        group.append(name)
        held += size
        if held >= FILE_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def unpacked(filesystem: Any, path: str, batch: str) -> Tensors:
    """One batch's tensors in a file that :func:`packed` wrote; reads those bytes and the file's header alone.

    Raises ValueError for a file that is not what it should be, KeyError where the batch is not in it.
    """
    with filesystem.open_input_file(path) as file:
        length = int.from_bytes(file.read_at(8, 0), "little")
        if length > min(_HEADER_BYTES, file.size()):
            raise ValueError(f"a header of {length} bytes")
        entries = json.loads(file.read_at(length, 8))
        prefix = f"{batch}."
        wanted = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
        if not wanted:
            raise KeyError(batch)
        return _part(file, 8 + length, wanted)


def _part(file: Any, base: int, entries: Mapping[str, Any]) -> Tensors:
    """The tensors of ``entries`` of the header, as the library reads and checks a file of theirs alone."""
    pieces, header, held = [], {}, 0
    for name, entry in entries.items():
        start, stop = entry["data_offsets"]
        if not 0 <= start <= stop <= file.size():
            raise ValueError(f"{name!r} lies outside of the file")
        pieces.append(file.read_at(stop - start, base + start))
        header[name] = {**entry, "data_offsets": [held, held + stop - start]}
        held += stop - start
    text = json.dumps(header).encode()
    try:
        tensors: Tensors = load(b"".join([len(text).to_bytes(8, "little"), text, *pieces]))
    except SafetensorError as exc:
        raise ValueError(str(exc)) from exc
    return tensors
