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
#: Never shipped, beside hidden files: what often holds credentials, and what is made from source.
_LEFT_OUT = ("*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*", "credentials*", "auth_token", "__pycache__", "*.pyc")


def ship(sweep: Sweep, folder: Path) -> None:
    """Write ``sweep.yaml`` and a copy of each ``code`` folder into the empty ``folder``.

    The shipped file names the copies, and its store as this machine sees it. Raises RequestError for folders that are
    missing or too large, and for local paths that only this working directory explains.
    """
    _check_places(sweep)
    names, left = [], MAX_BYTES
    for number, source in enumerate(map(Path, sweep.code)):
        names.append(f"code/{number}-{source.resolve().name}")
        left -= _copy(source, folder / names[-1], left, absolute(sweep.store))
    plain = {**sweep.canonical(), "code": names, "store": absolute(sweep.store)}
    (folder / SWEEP_FILE).write_text(yaml_reader.to_text(plain), encoding="utf-8")


def _copy(source: Path, target: Path, limit: int, store: str) -> int:
    """Copy a folder's files; their bytes."""
    if not source.is_dir():
        raise RequestError(f"code: no folder {source}; name folders of modules")
    total = 0
    target.mkdir(parents=True)
    for path in _files(source, store):
        total += path.stat().st_size
        if total > limit:
            message = f"code: {source} and the folders before it hold more than {MAX_BYTES // 2**20} MiB"
            raise RequestError(f"{message}; name folders of source alone, and keep data in a store that nodes can read")
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return total


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
    return path.suffix != ".py" and any(fnmatch(path.name, one) for one in _LEFT_OUT)


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
