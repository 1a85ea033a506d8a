"""Where a data set's files are: a local folder or a prefix on S3."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from landsweep.cluster.s3 import S3Folder
from landsweep.workers.errors import LandscapeError

#: What a compressed file may hold whatever its size, in bytes, and beyond that for each byte of it.
FREE_BYTES, EXPANSION = 2**28, 100


class Source(Protocol):
    """Files under a path. Names are relative to it; the empty name is the path itself."""

    @property
    def uri(self) -> str: ...

    def names(self) -> list[str]: ...

    def read(self, name: str = "") -> bytes: ...


@dataclass(frozen=True)
class LocalSource:
    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        """Names of the files below, sorted; hidden ones are left out."""
        if not self.root.is_dir():
            raise refusal(self.uri, "no such folder", "check the path after data:")
        files = (Path(base) / file for base, _, names in os.walk(self.root) for file in names)
        found = (path.relative_to(self.root) for path in files)
        return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))

    def read(self, name: str = "") -> bytes:
        path = self.root / name
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise refusal(str(path), "is a pipe or a device", "name a file")  # it may never end
        return path.read_bytes()


def open_source(path: str) -> Source:
    """The files under ``path``, local or ``s3://bucket/prefix``."""
    return S3Folder(path.rstrip("/")) if path.startswith("s3://") else LocalSource(Path(path).expanduser())


def place(source: Source, name: str) -> str:
    """A file's name as messages show it."""
    return f"{source.uri}/{name}" if name else source.uri


def read(source: Source, name: str = "") -> bytes:
    """A file's content. Raises LandscapeError for one that cannot be read."""
    try:
        return source.read(name)
    except FileNotFoundError as exc:
        raise refusal(place(source, name), "no such file", "check the path after data:") from exc
    except OSError as exc:
        raise refusal(place(source, name), f"cannot be read ({exc.strerror})", "mend its permissions") from exc


def check_size(announced: int, stored: int, file: str) -> None:
    """Refuse, before anything is unpacked, content that the ``stored`` bytes of its file do not explain."""
    if announced > max(FREE_BYTES, EXPANSION * stored):
        mend = "store it uncompressed, if it is meant to be so large"
        raise refusal(file, f"{stored:,} bytes announce {announced:,} unpacked", mend)


def refusal(file: str, wrong: str, mend: str) -> LandscapeError:
    """The one form in which a bad file is reported."""
    return LandscapeError(f"landscape.data: {file}: {wrong}; {mend}")
