"""``.npz`` archives: ``inputs`` and ``labels``, and where they are there ``test_inputs`` and ``test_labels``."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np

from landsweep.cluster.data.checks import Part, checked
from landsweep.cluster.data.source import check_size, open_source, read, refusal
from landsweep.workers.samples import Array, Samples


def load(path: str, name: str) -> Samples:
    source = open_source(path)
    arrays = _arrays(read(source), source.uri)
    parts = [_part(arrays, prefix, source.uri) for prefix in ("", "test_")]
    if parts[0] is None:
        keys = ", ".join(sorted(arrays)) or "nothing"
        raise refusal(source.uri, f"holds {keys}", "save arrays named inputs and labels")
    return checked(name, parts[0], parts[1])


def _part(arrays: dict[str, Array], prefix: str, file: str) -> Part | None:
    keys = f"{prefix}inputs", f"{prefix}labels"
    present = [key for key in keys if key in arrays]
    if not present:
        return None
    if len(present) == 1:
        raise refusal(file, f"holds {present[0]} without its pair", f"save {' and '.join(keys)}")
    return Part(arrays[keys[0]], arrays[keys[1]], f"{file} ({keys[0]})", f"{file} ({keys[1]})")


def _arrays(content: bytes, file: str) -> dict[str, Array]:
    """The arrays of an archive. Nothing is unpickled: an array of objects is refused."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise refusal(file, "is no .npz archive", "write it with numpy.savez")
    key = ""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            check_size(sum(entry.file_size for entry in archive.zip.infolist()), len(content), file)
            arrays = {}
            for key in archive.files:
                arrays[key] = np.asarray(archive[key])
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as exc:
        if "allow_pickle" in str(exc):
            message = f"{key} is an array of objects, which only unpickling could read"
            raise refusal(file, message, "save numbers of one shape") from exc
        raise refusal(file, f"{key} is damaged ({exc})", "write it again with numpy.savez") from exc
    return arrays
