"""The commit protocol's writing side: stage a batch, claim a segment, write it.

A batch is done once ``staged/<batch>-<uuid>/batch.json`` exists, and is never computed again. Claims are numbered and
created exclusively; what a claim's segment holds follows from the claim and the log before it, so anyone may finish
it, and finishing it twice writes the same bytes.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from safetensors.numpy import save as save_tensors

from landsweep.cluster.files import checksum
from landsweep.cluster.store import Claim, Snapshot, Staged, SweepStore, allot
from landsweep.workers import record
from landsweep.workers.errors import StoreError

_STAGED_TABLES = record.TABLES


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
    parameters: Mapping[str, np.ndarray] | None = None,
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
    if parameters:
        contiguous = {key: np.ascontiguousarray(value) for key, value in parameters.items()}
        contents[f"{folder}/parameters.safetensors"] = save_tensors(contiguous)
    for file, content in contents.items():
        store.files.write(file, content)
    entry = {
        "schema": record.SCHEMA_VERSION,
        "sweep": sweep,
        "config": config,
        "batch": batch,
        "seeds": list(seeds),
        "failed": list(failed),
        "files": {file: checksum(content) for file, content in contents.items()},
    }
    store.files.write(f"{folder}/batch.json", record.canonical_json(entry).encode())
    return name


def gather(store: SweepStore) -> int:
    """Finish open claims, then move every staged batch into one new segment. The number of segments written.

    A claim is made only where every earlier one is done, so that what is pending is nobody else's.
    """
    written = 0
    while True:
        snapshot = store.snapshot()
        claim = next((claim for claim in snapshot.claims if not claim.done), None)
        if claim is not None:
            written += _finish(store, claim)
            continue
        pending = snapshot.pending()
        _discard(store, snapshot, {batch.name for batch, _ in pending})
        if not pending:
            return written
        claim = _claim(store, snapshot, pending)
        if claim is not None:
            return written + _finish(store, claim)


def _claim(store: SweepStore, snapshot: Snapshot, pending: list[tuple[Staged, set[int]]]) -> Claim | None:
    """Claim the next number for the pending batches; None where somebody else was first."""
    number = max((claim.number for claim in snapshot.claims), default=-1) + 1
    trials: dict[str, list[int]] = {}
    failed: dict[str, list[int]] = {}
    finished: dict[str, set[int]] = {}
    for batch, seeds in pending:
        trials[batch.config] = sorted({*trials.get(batch.config, []), *seeds})
        finished.setdefault(batch.config, set()).update(seeds - set(batch.failed))
    for config, held in trials.items():
        bad = [seed for seed in held if seed not in finished[config]]
        failed |= {config: bad} if bad else {}
    names = tuple(batch.name for batch, _ in pending)
    segment = f"segment-{number:08d}"
    content = {
        "schema": record.SCHEMA_VERSION,
        "segment": segment,
        "staged": list(names),
        "trials": trials,
        "failed": failed,
    }
    if not store.files.create(f"log/{number:08d}.json", record.canonical_json(content).encode()):
        return None
    frozen = {config: tuple(seeds) for config, seeds in trials.items()}
    return Claim(number, segment, names, frozen, {c: tuple(s) for c, s in failed.items()}, None)


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
    for name in claim.staged:
        store.files.delete(f"staged/{name}")
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
    for batch, _ in taken:
        source = f"staged/{batch.name}/parameters.safetensors"
        if source in batch.files:
            target = f"parameters/{batch.batch}.safetensors"
            files[target] = _put(store, target, _staged_content(store, batch, source))
    return files


def _segment_table(store: SweepStore, table: str, taken: Sequence[tuple[Staged, set[int]]]) -> bytes | None:
    parts = []
    for batch, seeds in taken:
        file = f"staged/{batch.name}/{table}.parquet"
        if file in batch.files:
            rows = pq.read_table(io.BytesIO(_staged_content(store, batch, file)))
            parts.append(rows.filter(pa.compute.field("seed").isin(sorted(seeds))))
    if not parts:
        return None
    merged = pa.concat_tables(parts, promote_options="default")
    order = [("config", "ascending"), ("seed", "ascending")]
    ranked = merged.append_column("_row", pa.array(np.arange(merged.num_rows)))
    return _parquet(ranked.sort_by([*order, ("_row", "ascending")]).drop_columns("_row"))


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


def _discard(store: SweepStore, snapshot: Snapshot, keep: Set[str]) -> None:
    """Delete staged batches that done segments hold already (their deleter was killed, or another run was first)."""
    gathered = {name for claim in snapshot.claims for name in claim.staged}
    unneeded = gathered.union(batch.name for batch in snapshot.staged) - keep
    present = {name.split("/")[1] for name in store.files.names("staged")}
    for name in sorted(present & unneeded):
        store.files.delete(f"staged/{name}")
