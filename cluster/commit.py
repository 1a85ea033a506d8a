"""The commit protocol's writing side: stage a batch, claim a segment, write it (DESIGN.md section 8).

A batch is done once ``staged/<batch>-<uuid>/batch.json`` exists, and is never computed again. Claims are numbered and
created exclusively; what a claim's segment holds follows from the claim and the log before it, so anyone may finish
it, and finishing it twice writes the same bytes.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from safetensors.numpy import save as save_tensors

from landsweep.cluster.files import checked_name, checksum
from landsweep.cluster.store import Claim, Snapshot, Staged, SweepStore
from landsweep.workers import record

_STAGED_TABLES = ("points", "trials", "trajectories", "spectra")


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
    """Finish open claims, then move every staged batch into one new segment. The number of segments written."""
    written = sum(_finish(store, claim, _earlier(snapshot, claim)) for snapshot, claim in _open_claims(store))
    while True:
        snapshot = store.snapshot()
        pending = snapshot.pending()
        _discard(store, [b.name for b in snapshot.staged], {b.name for b, _ in pending}, snapshot)
        if not pending:
            return written
        claim = _claim(store, snapshot, pending)
        if claim is not None:
            return written + _finish(store, claim, snapshot)


def _open_claims(store: SweepStore) -> list[tuple[Snapshot, Claim]]:
    snapshot = store.snapshot()
    return [(snapshot, claim) for claim in snapshot.claims if not claim.done]


def _earlier(snapshot: Snapshot, claim: Claim) -> Snapshot:
    return Snapshot(tuple(c for c in snapshot.claims if c.number < claim.number), snapshot.staged)


def _claim(store: SweepStore, snapshot: Snapshot, pending: list[tuple[Staged, set[int]]]) -> Claim | None:
    """Claim the next number for the pending batches; None where somebody else was first."""
    number = max((claim.number for claim in snapshot.claims), default=-1) + 1
    trials: dict[str, list[int]] = {}
    failed: dict[str, list[int]] = {}
    for batch, seeds in pending:
        trials[batch.config] = sorted({*trials.get(batch.config, []), *seeds})
        bad = seeds & set(batch.failed)
        if bad:
            failed[batch.config] = sorted({*failed.get(batch.config, []), *bad})
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


def _finish(store: SweepStore, claim: Claim, before: Snapshot) -> int:
    """Write a claim's segment and its ``.done``, then delete what was staged."""
    by_name = {batch.name: batch for batch in store.snapshot().staged}
    batches = [by_name[name] for name in claim.staged if name in by_name]
    if len(batches) < len(claim.staged):
        return 0  # somebody finished it and deleted the staged files meanwhile
    taken = _taken(before, claim)
    files: dict[str, dict[str, Any]] = {}
    for table in _STAGED_TABLES:
        content = _segment_table(store, batches, table, taken)
        if content is not None:
            files[f"{table}/{claim.segment}.parquet"] = _put(store, f"{table}/{claim.segment}.parquet", content)
    for batch in batches:
        source = f"staged/{batch.name}/parameters.safetensors"
        if source in batch.files and taken[batch.name]:
            target = f"parameters/{batch.batch}.safetensors"
            files[target] = _put(store, target, store.files.read(checked_name(source)))
    done = {"schema": record.SCHEMA_VERSION, "segment": claim.segment, "files": files}
    store.files.write(f"log/{claim.number:08d}.done", record.canonical_json(done).encode())
    for batch in batches:
        store.files.delete(f"staged/{batch.name}")
    return 1


def _taken(before: Snapshot, claim: Claim) -> dict[str, set[int]]:
    """Which seeds the claim takes from each of its staged batches: those of no earlier claim, each once."""
    earlier: dict[str, set[int]] = {}
    for other in before.claims:
        for config, seeds in other.trials.items():
            earlier.setdefault(config, set()).update(set(seeds) - set(other.failed.get(config, ())))
    taken: dict[str, set[int]] = {}
    for batch in sorted((b for b in before.staged if b.name in claim.staged), key=lambda b: b.name):
        seen = earlier.setdefault(batch.config, set())
        taken[batch.name] = (set(batch.seeds) - seen) & set(claim.trials.get(batch.config, ()))
        seen |= taken[batch.name] - set(batch.failed)
    return taken


def _segment_table(store: SweepStore, batches: list[Staged], table: str, taken: Mapping[str, set[int]]) -> bytes | None:
    parts = []
    for batch in batches:
        file = f"staged/{batch.name}/{table}.parquet"
        if file in batch.files and taken.get(batch.name):
            rows = pq.read_table(io.BytesIO(store.files.read(checked_name(file))))
            parts.append(rows.filter(pa.compute.field("seed").isin(sorted(taken[batch.name]))))
    if not parts:
        return None
    merged = pa.concat_tables(parts, promote_options="default")
    order = [("config", "ascending"), ("seed", "ascending")]
    ranked = merged.append_column("_row", pa.array(np.arange(merged.num_rows)))
    return _parquet(ranked.sort_by([*order, ("_row", "ascending")]).drop_columns("_row"))


def _put(store: SweepStore, name: str, content: bytes) -> dict[str, Any]:
    store.files.write(name, content)
    return checksum(content)


def _discard(store: SweepStore, staged: list[str], keep: set[str], snapshot: Snapshot) -> None:
    """Delete staged batches that done segments hold already (their deleter was killed, or another run was first)."""
    claimed = {name for claim in snapshot.claims if not claim.done for name in claim.staged}
    for name in staged:
        if name not in keep and name not in claimed:
            store.files.delete(f"staged/{name}")
