"""What is in a sweep's folder and no commit names: writes that were broken off, and what of them was left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from landsweep.cluster import checkpoints
from landsweep.cluster.files import Entry
from landsweep.cluster.store import Snapshot, SweepStore
from landsweep.workers import record

#: Seconds after its last write from which on nobody is at work on a file any more.
GRACE = 24 * 3600.0
_TABLES = (*record.TABLES, "parameters")


@dataclass(frozen=True)
class Leftover:
    """A file, a folder of ``staged/``, or an unfinished upload."""

    name: str
    bytes: int
    modified: float  # seconds since 1970, of the newest file in it
    why: str
    entry: Entry | None = None  # of an unfinished write


def leftovers(store: SweepStore, now: float, grace: float = GRACE) -> list[Leftover]:
    """What may be removed. Nothing that a claim or a staged batch names, and nothing that is younger than ``grace``.

    Files are listed before the log is read, and a claim is made before the files of its segment: what was listed and is
    still in no claim never will be. Raises StoreError for a log that cannot be trusted.
    """
    entries, unfinished = store.files.entries(), store.files.unfinished()
    found = [*_unnamed(entries, store.snapshot()), *map(_broken_off, unfinished)]
    return sorted((left for left in found if now - left.modified > grace), key=lambda left: left.name)


def remove(store: SweepStore, found: Sequence[Leftover]) -> list[Leftover]:
    """Remove leftovers; those that were."""
    removed = []
    for left in found:
        if left.entry is not None:
            store.files.abort(left.entry)
        elif f"{left.name}/batch.json" in (store.files.names(left.name) if left.name.startswith("staged/") else ()):
            continue  # a writer that slept for longer than the grace has finished it now
        else:
            store.files.delete(left.name)
        removed.append(left)
    return removed


def _broken_off(entry: Entry) -> Leftover:
    return Leftover(entry.name, entry.bytes, entry.modified, "a write that was broken off", entry)


def _unnamed(entries: Sequence[Entry], snapshot: Snapshot) -> Iterator[Leftover]:
    segments = {claim.segment for claim in snapshot.claims}
    named = {name for claim in snapshot.claims for name in claim.files or ()}
    gathered = {name for claim in snapshot.claims for name in claim.staged}
    kept = gathered | {batch.name for batch in snapshot.staged}
    done = {name.rpartition("-")[0] for name in kept}  # their batches
    staged: dict[str, list[Entry]] = {}
    for entry in entries:
        top, _, rest = entry.name.partition("/")
        if top == "staged":
            staged.setdefault(rest.partition("/")[0], []).append(entry)
        elif top in _TABLES and rest and entry.name not in named and not _of_segment(rest, segments):
            yield Leftover(entry.name, entry.bytes, entry.modified, "in no commit")
        elif top == checkpoints.FOLDER and rest.rpartition("-")[0] in done:
            yield Leftover(entry.name, entry.bytes, entry.modified, "its batch is done")
    for name, files in staged.items():
        if name not in kept:
            size, newest = sum(file.bytes for file in files), max(file.modified for file in files)
            yield Leftover(f"staged/{name}", size, newest, "a batch that was never finished")


def _of_segment(name: str, segments: set[str]) -> bool:
    """Whether a claim's segment has a file of that ``name``: the segment's, or one of its numbered parts."""
    stem = PurePosixPath(name).stem
    return stem in segments or stem.rpartition("-")[0] in segments
