"""What travels to a cluster with a job: the sweep file and the folders of ``code``, as source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from landsweep.cluster import yaml_reader
from landsweep.cluster.data_settings import FILE_KINDS
from landsweep.cluster.files import absolute, is_remote
from landsweep.cluster.spec import Sweep
from landsweep.cluster.start_settings import origins
from landsweep.workers.errors import RequestError

SWEEP_FILE = "sweep.yaml"
MAX_BYTES = 50 * 2**20  # of all folders together
MAX_FILES = 10_000  # likewise
#: Files that are never shipped, in any case of letters, beside hidden ones and links: what often holds credentials,
#: what is made from source. Modules (``*.py``) always are.
_LEFT_OUT = (
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.gpg", "*.asc", "*.env"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*credentials*", "*secret*", "*password*", "auth_token*"),
    *(
        "token",
        "token.*",
        "*.token",
        "service-account*.json",
        "service_account*.json",
        "kubeconfig*",
        "_netrc",
        "*.pyc",
    ),
)
_FOLDERS_LEFT_OUT = ("__pycache__", "credentials", "secrets")


def ship(sweep: Sweep, folder: Path, job: str) -> None:
    """Write ``sweep.yaml`` and a copy of each ``code`` folder into the empty ``folder``, for the job of that id.

    The shipped file names the copies, and its store as this machine sees it. Raises RequestError for folders that are
    missing or too large, and for local paths that only this working directory explains.
    """
    _check_places(sweep)
    names, left, files = [], MAX_BYTES, MAX_FILES
    for number, source in enumerate(map(Path, sweep.code)):
        names.append(f"code/{number}-{source.resolve().name}")
        size, count = _copy(source, folder / names[-1], left, files, absolute(sweep.store))
        left, files = left - size, files - count
    plain = {**sweep.canonical(), "code": names, "store": absolute(sweep.store)}
    # Ray keeps equal folders once, and deletes it with the job before although this one was promised it: none is equal.
    text = f"# shipped for {job}\n{yaml_reader.to_text(plain)}"
    (folder / SWEEP_FILE).write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path, limit: int, most: int, store: str) -> tuple[int, int]:
    """Copy a folder's files; their bytes, and how many they are."""
    if not source.is_dir():
        raise RequestError(f"code: no folder {source}; name folders of modules")
    total = count = 0
    target.mkdir(parents=True)
    for path in _files(source, store):
        total, count = total + path.stat().st_size, count + 1
        if total > limit or count > most:
            message = f"code: {source} and the folders before it hold more than {MAX_BYTES // 2**20} MiB"
            message += f" or {MAX_FILES:,} files"
            raise RequestError(f"{message}; name folders of source alone, and keep data in a store that nodes can read")
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return total, count


def _files(folder: Path, store: str) -> Iterator[Path]:
    """The files below ``folder``; no links, nothing hidden, no environment, no results."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith(".") or _left_out(path):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and str(path.resolve()) != store and not (path / "pyvenv.cfg").exists():
            yield from _files(path, store)


def _left_out(path: Path) -> bool:
    name = path.name.lower()
    if path.is_dir():
        return name in _FOLDERS_LEFT_OUT
    return path.suffix != ".py" and any(fnmatch(name, one) for one in _LEFT_OUT)


def _check_places(sweep: Sweep) -> None:
    """Refuse data and sweeps named relative to this working directory: the job runs in another."""
    for settings, _ in sweep.configurations():
        data = settings["landscape"].get("data")
        kind, colon, path = data.partition(":") if isinstance(data, str) else ("", "", "")
        local = [("landscape.data", path)] if colon and kind in FILE_KINDS else []
        local += [("training.start.path", str(place["path"])) for place in origins(settings["training"]["start"])]
        for key, place in local:
            if not is_remote(place) and not Path(place).expanduser().is_absolute():
                raise RequestError(f"{key}: found {place!r}; a job runs elsewhere: give s3://… or an absolute path")
