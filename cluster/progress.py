"""How far the sweeps of a store are, and whether their files are whole."""

from __future__ import annotations

from typing import Any

from landsweep.cluster import spec, yaml_reader
from landsweep.cluster.files import checked_name, checksum, open_files
from landsweep.cluster.store import SWEEP_FILE, SweepStore


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
    expected = {name: entry for claim in snapshot.claims if claim.files for name, entry in claim.files.items()}
    for batch, _ in snapshot.pending():
        expected.update(batch.files)
    faults = []
    for name, entry in sorted(expected.items()):
        try:
            found = checksum(store.files.read(checked_name(name)))
        except FileNotFoundError:
            faults.append(f"{name}: missing; restore it from a copy")
            continue
        if found != {"bytes": entry["bytes"], "sha256": entry["sha256"]}:
            faults.append(
                f"{name}: {found['bytes']} bytes with another checksum than committed; restore it from a copy"
            )
    return len(expected), faults
