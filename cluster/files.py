"""Where bytes are kept: whole files under relative names, in one folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import psutil
import pyarrow.fs

from landsweep.workers.errors import RequestError, StoreError

TEMPORARY = "tmp"


class Files(Protocol):
    """What every kind of store does. Names are relative, with ``/``; a file appears whole or not at all."""

    @property
    def uri(self) -> str: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def create(self, name: str, content: bytes) -> bool: ...

    def names(self, folder: str) -> list[str]: ...

    def folders(self) -> list[str]: ...

    def delete(self, name: str) -> None: ...

    def location(self, name: str) -> tuple[Any, str]: ...


def open_files(uri: str) -> Files:
    """The files under ``uri``, a local folder."""
    if uri.startswith("s3://"):
        raise RequestError(f"store: found {uri!r}; this version keeps results in local or shared folders; name a path")
    return LocalFiles(Path(uri))


def checked_name(name: str) -> str:
    """``name`` if it is relative and stays below its folder; a log may have been written by anybody."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\x00" in name:
        raise StoreError(f"{name!r} is not a relative name below the sweep; the log that names it cannot be trusted")
    return str(path)


def checksum(content: bytes) -> dict[str, Any]:
    """``{"bytes", "sha256"}`` of a file's content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class LocalFiles:
    """A local or shared folder. Writes go through ``tmp/``, fsync and ``os.replace``; creations through ``os.link``."""

    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._temporary(content) as temporary:
            temporary.replace(path)
        _sync_folder(path.parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write ``name`` only if it is absent; whether it was."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._temporary(content) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        _sync_folder(path.parent)
        return True

    def names(self, folder: str) -> list[str]:
        """Names of the files below ``folder``, sorted; links are not followed."""
        top = self._path(folder)
        found = [Path(base) / file for base, _, files in os.walk(top, followlinks=False) for file in files]
        return sorted(path.relative_to(self.root).as_posix() for path in found if not path.is_symlink())

    def folders(self) -> list[str]:
        """Names of the folders right below, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.is_symlink())

    def delete(self, name: str) -> None:
        """Remove a file or a folder; absent is fine."""
        path = self._path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def location(self, name: str) -> tuple[Any, str]:
        """Where pyarrow reads a file: a filesystem and the path on it."""
        return pyarrow.fs.LocalFileSystem(), str(self._path(name).absolute())

    def remove_dead_temporaries(self) -> int:
        """Remove what writers of this machine left when they were killed; how many."""
        removed = 0
        for path in (self.root / TEMPORARY).glob("*"):
            host, _, rest = path.name.rpartition("@")[2].partition("+")
            process = rest.partition("+")[0]
            if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, name: str) -> Path:
        path = self.root
        for part in PurePosixPath(checked_name(name)).parts:
            path /= part
            if path.is_symlink():
                raise StoreError(f"{path} is a link, which a store does not follow; replace it by what it points to")
        return path

    @contextlib.contextmanager
    def _temporary(self, content: bytes) -> Iterator[Path]:
        folder = self.root / TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"@{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex}"
        try:
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
