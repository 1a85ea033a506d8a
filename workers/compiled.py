"""C++ of this package, compiled for the machine that it runs on, once; None where there is no compiler."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared")
#: The environment variable that names the folder of compiled libraries; ``off`` forbids them.
FOLDER = "LANDSWEEP_COMPILED"
SECONDS = 300.0
_log = logging.getLogger("landsweep")


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The functions of ``native/NAME.cpp``; what is missing is said once a process."""
    if os.environ.get(FOLDER) == "off":
        return None
    compiler = found_compiler()
    if compiler is None:
        _log.warning(
            "no C++ compiler: fully connected nets train at half their speed; install one (apt-get install g++)"
        )
        return None
    try:
        return ctypes.CDLL(str(_built(SOURCES / f"{name}.cpp", compiler)))
    except (OSError, subprocess.SubprocessError) as exc:
        said = str(getattr(exc, "stderr", "") or exc).strip().splitlines()
        _log.warning(
            "%s cannot compile %s.cpp: fully connected nets train at half their speed (%s)", compiler, name, said[:1]
        )
        return None


def found_compiler() -> str | None:
    """A C++ compiler: ``$CXX``, or the usual ones."""
    named = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in named if name and (found := shutil.which(name))), None)


def _built(source: Path, compiler: str) -> Path:
    """The library; compiled where none is of this source, compiler, machine. Who else compiles it at once writes the
    same."""
    code = source.read_bytes()
    version = _output([compiler, "--version"])
    identity = "\0".join([version, *FLAGS, platform.machine(), _processor()]).encode() + code
    target = _folder() / f"{source.stem}-{hashlib.sha256(identity).hexdigest()[:24]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            part = Path(made) / target.name
            _output([compiler, *FLAGS, str(source), "-o", str(part)])
            part.replace(target)
    return target


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout  # noqa: S603


def _processor() -> str:
    """What ``-march=native`` depends on: homes are shared by machines of different processors."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model", "cpu family"))}))


def _folder() -> Path:
    """Where libraries are kept: a folder of this user's that nobody else may write to."""
    base = os.environ.get(FOLDER) or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / ("" if os.environ.get(FOLDER) else "landsweep")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        usable = found.st_uid == os.getuid() and not found.st_mode & 0o022 and os.access(folder, os.W_OK)
    except OSError:
        usable = False
    return folder if usable else _own_folder()


@functools.cache
def _own_folder() -> Path:
    """One that ends with this process, where home cannot be written."""
    made = tempfile.mkdtemp(prefix="landsweep-")
    import atexit

    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)
