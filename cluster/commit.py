"""The commit protocol's writing side: stage a batch, claim a segment, write it.

A batch is done once ``staged/<batch>-<uuid>/batch.json`` exists, and is never computed again. Claims are numbered and
created exclusively; what a claim's segment holds follows from the claim and the log before it, so anyone may finish
it, and finishing it twice writes the same bytes.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from safetensors.numpy import save as save_tensors

from landsweep.cluster import parameters
from landsweep.cluster.files import checksum, is_remote
from landsweep.cluster.spans import Spans
from landsweep.cluster.store import PARAMETERS, Claim, Snapshot, Staged, SweepStore, allot, union
from landsweep.cluster.tables import of_seeds
from landsweep.workers import record
from landsweep.workers.errors import StoreError

_STAGED_TABLES = record.TABLES
#: Requests to a remote store at a time: a segment is made of thousands of small files, and nothing is handed out
#: meanwhile.
AT_ONCE = 10
T = TypeVar("T")
R = TypeVar("R")


def to_table(name: str, columns: Mapping[str, Sequence[Any]], grid: Mapping[str, bool]) -> pa.Table:
    """Columns as a table with its schema; grid values that are no numbers become JSON text."""
    schema = record.schema(name, dict(grid))
    texts = {key for key, numeric in grid.items() if not numeric}
    arrays = []
    for field in schema:
        values = list(columns[field.name])
        if field.name in texts:
            values = [record.canonical_json(value) for value in values]
        arrays.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def stage(
    store: SweepStore,
    *,
    sweep: str,
    config: str,
    batch: str,
    seeds: Sequence[int],
    tables: Mapping[str, Mapping[str, Sequence[Any]]],
    grid: Mapping[str, bool],
    arrays: Mapping[str, np.ndarray] | None = None,
    failed: Sequence[int] = (),
) -> str:
    """Write a finished batch; its name. From the return on its trials are done."""
    name = f"{batch}-{uuid.uuid4().hex[:12]}"
    folder = f"staged/{name}"
    contents: dict[str, bytes] = {}
    for table, columns in tables.items():
        rows = to_table(table, columns, grid)
        if rows.num_rows:
            contents[f"{folder}/{table}.parquet"] = _parquet(rows)
    if arrays:
        contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        contents[f"{folder}/{PARAMETERS}"] = save_tensors(contiguous)
    for file, content in contents.items():
        store.files.write(file, content)
    entry = {
        "schema": record.SCHEMA_VERSION,
        "sweep": sweep,
        "config": config,
        "batch": batch,
        "seeds": Spans.of(seeds).to_json(),
        "failed": Spans.of(failed).to_json(),
        "files": {file: checksum(content) for file, content in contents.items()},
    }
    store.files.write(f"{folder}/batch.json", record.canonical_json(entry).encode())
    return name


def gather(store: SweepStore) -> int:
    """Finish open claims, then move every staged batch into one new segment. The number of segments written.

    A claim is made only where every earlier one is done, so that what is pending is nobody else's.
    """
    written, claimed = 0, False
    while True:
        snapshot = store.snapshot()
        claim = next((claim for claim in snapshot.claims if not claim.done), None)
        if claim is None:
            _discard(store, snapshot)
            pending = snapshot.pending()
            if claimed or not pending:
                return written
            claim = _claim(store, snapshot, pending)
            claimed = claim is not None
        if claim is not None:
            written += _finish(store, claim)


def _claim(store: SweepStore, snapshot: Snapshot, pending: list[tuple[Staged, Spans]]) -> Claim | None:
    """Claim the next number for the pending batches; None where somebody else was first."""
    number = max((claim.number for claim in snapshot.claims), default=-1) + 1
    trials = union({batch.config: seeds} for batch, seeds in pending)
    finished = union({batch.config: seeds - batch.failed} for batch, seeds in pending)
    bad = {config: seeds - finished[config] for config, seeds in trials.items()}
    failed = {config: seeds for config, seeds in bad.items() if seeds}
    names = tuple(batch.name for batch, _ in pending)
    segment = f"segment-{number:08d}"
    content = {
        "schema": record.SCHEMA_VERSION,
        "segment": segment,
        "staged": list(names),
        "trials": {config: seeds.to_json() for config, seeds in trials.items()},
        "failed": {config: seeds.to_json() for config, seeds in failed.items()},
    }
    if not store.files.create(f"log/{number:08d}.json", record.canonical_json(content).encode()):
        return None
    return Claim(number, segment, names, trials, failed, None)


def _finish(store: SweepStore, claim: Claim) -> int:
    """Write a claim's segment and its ``.done``, then delete what was staged; 0 where somebody else did."""
    try:
        files = _write_segment(store, claim)
    except FileNotFoundError as exc:
        if any(other.number == claim.number and other.done for other in store.snapshot().claims):
            return 0
        what = f"{store.uri}: what log/{claim.number:08d}.json claims is missing ({exc})"
        raise StoreError(f"{what}; restore it from a copy, or delete that claim to run its trials again") from exc
    done = {"schema": record.SCHEMA_VERSION, "segment": claim.segment, "files": files}
    store.files.write(f"log/{claim.number:08d}.done", record.canonical_json(done).encode())
    _delete_staged(store, claim.staged)
    return 1


def _write_segment(store: SweepStore, claim: Claim) -> dict[str, dict[str, Any]]:
    """Write the segment's tables and parameters; their checksums by name."""
    now = store.snapshot()
    staged = {batch.name: batch for batch in now.staged}
    for name in claim.staged:
        if name not in staged:
            raise FileNotFoundError(f"staged/{name}")
    taken = allot([staged[name] for name in claim.staged], [c for c in now.claims if c.number < claim.number])
    files: dict[str, dict[str, Any]] = {}
    for table in _STAGED_TABLES:
        content = _segment_table(store, table, taken)
        if content is not None:
            files[f"{table}/{claim.segment}.parquet"] = _put(store, f"{table}/{claim.segment}.parquet", content)
    return files | _segment_parameters(store, claim.segment, [batch for batch, _ in taken])


def _segment_parameters(store: SweepStore, segment: str, taken: Sequence[Staged]) -> dict[str, dict[str, Any]]:
    """Write the parameters of the batches, few files of many; their checksums, and which batches are in them."""
    named = ((batch, f"staged/{batch.name}/{PARAMETERS}") for batch in taken)
    sources = {batch.batch: (batch, file) for batch, file in named if file in batch.files}
    sizes = [(name, batch.files[file]["bytes"]) for name, (batch, file) in sources.items()]
    files: dict[str, dict[str, Any]] = {}
    for number, group in enumerate(parameters.groups(sizes)):
        contents = _staged_contents(store, [sources[name] for name in group])
        content = parameters.packed(dict(zip(group, contents, strict=True)))
        target = f"parameters/{segment}-{number:04d}.safetensors"
        files[target] = {**_put(store, target, content), "batches": group}
    return files


def _segment_table(store: SweepStore, table: str, taken: Sequence[tuple[Staged, Spans]]) -> bytes | None:
    named = [(batch, f"staged/{batch.name}/{table}.parquet", seeds) for batch, seeds in taken]
    there = [(batch, file, seeds) for batch, file, seeds in named if file in batch.files]
    if not there:
        return None
    contents = _staged_contents(store, [(batch, file) for batch, file, _ in there])
    parts = [
        of_seeds(pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False), seeds)  # small files: no pool
        for content, (_, _, seeds) in zip(contents, there, strict=True)
    ]
    merged = pa.concat_tables(parts, promote_options="default")
    order = [("config", "ascending"), ("seed", "ascending")]
    ranked = merged.append_column("_row", pa.array(np.arange(merged.num_rows)))
    return _parquet(ranked.sort_by([*order, ("_row", "ascending")]).drop_columns("_row"))


def _staged_contents(store: SweepStore, files: Iterable[tuple[Staged, str]]) -> list[bytes]:
    """Staged files, in their order."""
    return _each(store, lambda file: _staged_content(store, *file), files)


def _staged_content(store: SweepStore, batch: Staged, name: str) -> bytes:
    """A staged file, if it is what its batch says: nothing damaged enters a segment under a new checksum."""
    content = store.files.read(name)
    if checksum(content) != batch.files[name]:
        message = f"{store.uri}/{name} is not what was staged (its checksum differs)"
        raise StoreError(f"{message}; restore it, or delete its folder and the log's claim of it to run it again")
    return content


def _put(store: SweepStore, name: str, content: bytes) -> dict[str, Any]:
    store.files.write(name, content)
    return checksum(content)


def _discard(store: SweepStore, snapshot: Snapshot) -> None:
    """Delete staged batches that done segments hold already (their deleter was killed, or another run was first)."""
    present = {name.split("/")[1] for name in store.files.names("staged")}
    _delete_staged(store, sorted(present & snapshot.needless()))


def _delete_staged(store: SweepStore, names: Iterable[str]) -> None:
    _each(store, store.files.delete, [f"staged/{name}" for name in names])


def _each(store: SweepStore, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of every item, in their order. A folder answers at once: no thread there takes memory."""
    if not is_remote(store.uri):
        return list(map(function, items))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(function, items))
