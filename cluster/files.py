"""Where bytes are kept: whole files under relative names, in one folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import psutil
import pyarrow.fs

from landsweep.workers.errors import StoreError, UnavailableError

TEMPORARY = "tmp"
#: The request was right and the machine failed: no space or quota left, or a broken disk.
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@dataclass(frozen=True)
class Entry:
    """A file as a listing shows it."""

    name: str
    bytes: int
    modified: float  # seconds since 1970, by the clock of the store
    upload: str = ""  # id of an unfinished upload, where it is one


class Files(Protocol):
    """What every kind of store does. Names are relative, with ``/``; a file appears whole or not at all.

    Raises FileNotFoundError for what is absent, StoreError for names and files that cannot be trusted,
    UnavailableError where there is no room or no answer.
    """

    @property
    def uri(self) -> str: ...

    def prepare(self) -> None: ...

    def read(self, name: str, limit: int | None = None) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def create(self, name: str, content: bytes) -> bool: ...

    def names(self, folder: str) -> list[str]: ...

    def entries(self) -> list[Entry]: ...

    def folders(self) -> list[str]: ...

    def delete(self, name: str) -> None: ...

    def location(self, name: str) -> tuple[Any, str]: ...

    def unfinished(self) -> list[Entry]: ...

    def abort(self, entry: Entry) -> None: ...


def open_files(uri: str) -> Files:
    """The files under ``uri``: a local folder or ``s3://bucket/prefix``."""
    if is_remote(uri):
        from landsweep.cluster.s3_files import S3Files

        return S3Files(uri)
    return LocalFiles(Path(uri))


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names no folder of this machine."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """``uri`` as a process in another working directory has to name it."""
    return uri if is_remote(uri) else str(Path(uri).resolve())


def checked_name(name: str) -> str:
    """``name`` if it is relative and stays below its folder; a log may have been written by anybody."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\x00" in name:
        raise StoreError(f"{name!r} is not a relative name below the sweep; the log that names it cannot be trusted")
    return str(path)


def checksum(content: bytes) -> dict[str, Any]:
    """``{"bytes", "sha256"}`` of a file's content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def oversized(where: str, found: int, limit: int) -> StoreError:
    """The refusal of a file that is larger than anything landsweep writes there."""
    what = f"{where} holds {found:,} bytes where at most {limit:,} are written"
    return StoreError(f"{what}; it was damaged: restore it from a copy")


@dataclass(frozen=True)
class LocalFiles:
    """A local or shared folder. Writes go through ``tmp/``, fsync and ``os.replace``; creations through ``os.link``."""

    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def prepare(self) -> None:
        """Remove what writers of this machine left when they were killed."""
        self.remove_dead_temporaries()

    def read(self, name: str, limit: int | None = None) -> bytes:
        path = self._path(name)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not keep us waiting
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{path} is no regular file; restore it from a copy")
            if limit is not None and found.st_size > limit:
                raise oversized(str(path), found.st_size, limit)
            return stream.read()

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        with _named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary(content) as temporary:
                temporary.replace(path)
            _sync_folder(path.parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write ``name`` only if it is absent; whether it was."""
        path = self._path(name)
        with _named(path):
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
        found = _walk(self._path(folder))
        return sorted(path.relative_to(self.root).as_posix() for path in found if not path.is_symlink())

    def entries(self) -> list[Entry]:
        """All files but the unfinished ones, sorted by name; links are listed and not followed."""
        tops = (path for path in self.root.iterdir() if path.name != TEMPORARY) if self.root.is_dir() else ()
        found = [file for top in tops for file in ([top] if not top.is_dir() or top.is_symlink() else _walk(top))]
        return self._entries(found)

    def _entries(self, paths: Iterable[Path]) -> list[Entry]:
        found = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                status = path.lstat()
                found.append(Entry(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.name)

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

    def unfinished(self) -> list[Entry]:
        """What writers have not finished, or never will."""
        return self._entries((self.root / TEMPORARY).glob("*"))

    def abort(self, entry: Entry) -> None:
        """Remove an unfinished file."""
        self.delete(entry.name)

    def remove_dead_temporaries(self) -> int:
        """Remove what writers of this machine left when they were killed; how many."""
        removed = 0
        for path in (self.root / TEMPORARY).glob("*"):
            host, _, rest = path.name.rpartition("@")[2].partition("+")
            process = rest.partition("+")[0]
            if process.isdigit() and not may_live(host, int(process)):
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
        path = folder / temporary_name()
        try:
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def temporary_name(prefix: str = "") -> str:
    """A new name below TEMPORARY that says which process uses it, so that others know when nobody does."""
    return f"{prefix}@{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex}"


def may_live(host: str, process: int) -> bool:
    """Whether a process may still run, as far as can be told from here."""
    return host != socket.gethostname() or psutil.pid_exists(process)


def _walk(top: Path) -> list[Path]:
    return [Path(base) / file for base, _, files in os.walk(top, followlinks=False) for file in files]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file there was no room for."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in EXHAUSTED:
            raise
        mend = "free some space there, and run the same command again: nothing that was committed is lost"
        raise UnavailableError(f"{path} cannot be written ({exc.strerror}); {mend}") from exc


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
