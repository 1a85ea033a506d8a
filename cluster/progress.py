"""How far the sweeps of a store are, and whether their files are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from landsweep.cluster import s3, spec, yaml_reader
from landsweep.cluster.files import checked_name, open_files
from landsweep.cluster.store import SWEEP_FILE, SweepStore
from landsweep.workers.errors import StoreError


def sweeps(store: str) -> list[dict[str, Any]]:
    """One entry a sweep: name, configurations, trials, done, failed."""
    found = [SweepStore(f"{store.rstrip('/')}/{name}") for name in open_files(store).folders()]
    return [_progress(sweep) for sweep in found if sweep.text(SWEEP_FILE) is not None]


def _progress(store: SweepStore) -> dict[str, Any]:
    sweep = spec.validate(yaml_reader.read_text(store.text(SWEEP_FILE) or "", store.uri), store.uri)
    configurations = len(sweep.configurations())
    snapshot = store.snapshot()
    return {
        "name": sweep.name,
        "configurations": configurations,
        "trials": configurations * len(sweep.seeds),
        "done": sum(len(seeds) for seeds in snapshot.trials().values()),
        "failed": sum(len(seeds) for seeds in snapshot.failed().values()),
    }


def damaged(store: SweepStore) -> tuple[int, list[str]]:
    """The number of committed files, and for each that is not what its commit says: which, and what to do."""
    snapshot = store.snapshot()
    mends = {name: _RESTORE for claim in snapshot.claims for name in claim.files or ()}
    expected = {name: entry for claim in snapshot.claims for name, entry in (claim.files or {}).items()}
    for batch, _ in snapshot.pending():
        expected.update(batch.files)
        mend = (
            f"restore it from a copy, or delete staged/{batch.name} and run the sweep again, which repeats its trials"
        )
        mends |= dict.fromkeys(batch.files, mend)
    found = ((name, _fault(store, name, entry)) for name, entry in sorted(expected.items()))
    return len(expected), [f"{name}: {fault}; {mends[name]}" for name, fault in found if fault]


_RESTORE = "restore it from a copy"
_PIECE = 2**22  # bytes read at a time


def _fault(store: SweepStore, name: str, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a committed file. A file of another size is not read. Raises UnavailableError."""
    try:
        filesystem, path = store.files.location(checked_name(name))
        size = filesystem.get_file_info(path).size
        if size is None:
            return "missing"
        if size != entry["bytes"]:
            return f"{size} bytes where {entry['bytes']} were committed"
        same = _digest(filesystem, path) == entry["sha256"]
    except (OSError, StoreError) as exc:
        unanswered = s3.away(f"{store.uri}/{name}", exc)
        if unanswered:
            raise unanswered from exc
        return f"cannot be read ({exc})"
    return None if same else f"{size} bytes with another checksum than committed"


def _digest(filesystem: Any, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
