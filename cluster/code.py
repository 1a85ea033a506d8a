"""The code of landscapes of the user's own: where it is imported from, and the hash of what a landscape names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from landsweep.cluster.spec import Sweep
from landsweep.workers.errors import LandscapeError

#: What a package's sources may take, far more than is written by hand: beyond it the folder is something else.
MAX_FILES, MAX_BYTES = 10_000, 64 * 2**20
_PASSED_OVER = ("__pycache__", "node_modules", "site-packages")  # and hidden folders: not the package's own sources


def importable(sweep: Sweep) -> tuple[str, ...]:
    """Folders that user landscapes are imported from: those of ``code``, then the working directory."""
    return tuple(str(Path(folder).resolve()) for folder in (*sweep.code, "."))


def code_hashes(sweep: Sweep) -> Callable[[Mapping[str, Any]], str | None]:
    """From a ``landscape`` section of ``sweep`` to the :func:`code_hash` of what it names; None for built-in ones.

    Makes the sweep's folders importable; each package is read once. Raises LandscapeError as :func:`code_hash` does.
    """
    for folder in reversed(importable(sweep)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    importlib.invalidate_caches()
    of_module = cache(code_hash)

    def hashed(landscape: Mapping[str, Any]) -> str | None:
        module, colon, _ = landscape["name"].partition(":")
        return of_module(module) if colon else None

    return hashed


def code_hash(module: str) -> str:
    """sha256 of all Python files of the top-level package that ``module`` belongs to: names and contents, in the order
    of the names. Of a module in no package: of its one file.

    Raises LandscapeError where there is no such module, or its package holds too much to be sources.
    """
    top = module.partition(".")[0]
    found = _spec(module) and _spec(top)  # the package may be there without the module
    if found is None:
        raise LandscapeError(f"landscape.name: no module {module!r}; check the name and list its folder under `code:`")
    files = _files(top, found)
    digest = hashlib.sha256()
    for name, path in files:
        for part in (name.encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _spec(module: str) -> ModuleSpec | None:
    """Where ``module`` is; None where it is not, or is no file. Imports the packages that it lies in."""
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        return None
    except Exception as exc:
        text = f"landscape.name: the package of {module!r} cannot be imported: {type(exc).__name__}: {exc}; mend it"
        raise LandscapeError(text) from exc
    known = found is not None and (found.submodule_search_locations or (found.origin and Path(found.origin).is_file()))
    return found if known else None


def _files(top: str, found: ModuleSpec) -> list[tuple[str, Path]]:
    """Relative name and path of each Python file, by name."""
    if not found.submodule_search_locations:
        path = Path(str(found.origin))
        return [(path.name, path)]
    files, size = list[tuple[str, Path]](), 0
    for name, path in (pair for root in found.submodule_search_locations for pair in _below(Path(root))):
        files.append((name, path))
        size += path.stat().st_size
        if len(files) > MAX_FILES or size > MAX_BYTES:
            text = f"landscape.name: package {top!r} ({next(iter(found.submodule_search_locations))}) holds more than "
            text += f"{MAX_FILES:,} Python files or {MAX_BYTES >> 20} MiB of them, all part of a configuration's id"
            raise LandscapeError(f"{text}; move the landscape to a package of its own")
    return sorted(files, key=lambda pair: pair[0])


def _below(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _PASSED_OVER]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                yield path.relative_to(root).as_posix(), path
