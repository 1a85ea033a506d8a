"""A sweep's folder as readers see it: what is committed, each trial exactly once (DESIGN.md section 8)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from landsweep.cluster.files import Files, checked_name, open_files
from landsweep.workers import record
from landsweep.workers.errors import StoreError

SWEEP_FILE = "sweep.yaml"
#: the verdict's options as they stood before the first result, and the number of planned trials
QUESTION_FILE = "verdict/question.json"
_CLAIM = re.compile(r"log/(\d+)\.json")
Trials = dict[str, set[int]]  # configuration → seeds


@dataclass(frozen=True)
class Claim:
    """One entry of the log: which trials a segment holds, and where they were staged."""

    number: int
    segment: str
    staged: tuple[str, ...]
    trials: Mapping[str, tuple[int, ...]]
    failed: Mapping[str, tuple[int, ...]]  # those of the trials whose status is failed
    files: Mapping[str, Mapping[str, Any]] | None  # checksums; None until the segment is done

    @property
    def done(self) -> bool:
        return self.files is not None


@dataclass(frozen=True)
class Staged:
    """A finished batch: done, but perhaps not yet in a segment."""

    name: str  # <batch>-<uuid>
    config: str
    batch: str
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    files: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """What is committed at one moment. Staged batches were listed before the log, so none falls between."""

    claims: tuple[Claim, ...]
    staged: tuple[Staged, ...]

    def trials(self) -> Trials:
        """Every trial that need not run: in a claim or in a staged batch."""
        found: Trials = {}
        for claim in self.claims:
            for config, seeds in claim.trials.items():
                found.setdefault(config, set()).update(seeds)
        for batch in self.staged:
            found.setdefault(batch.config, set()).update(batch.seeds)
        return found

    def failed(self) -> Trials:
        """Trials whose last known attempt failed."""
        failed: Trials = {}
        attempts = [(claim.trials, claim.failed) for claim in self.claims]
        attempts += [({batch.config: batch.seeds}, {batch.config: batch.failed}) for batch in self.staged]
        for trials, bad in attempts:
            for config, tried in trials.items():
                failed.setdefault(config, set()).difference_update(tried)
                failed[config].update(bad.get(config, ()))
        return {config: bad for config, bad in failed.items() if bad}

    def pending(self) -> list[tuple[Staged, set[int]]]:
        """Staged batches that no done segment has, each with the seeds to take from it: every trial once."""
        taken: Trials = {}
        gathered: set[str] = set()
        for claim in self.claims:
            if claim.done:
                gathered.update(claim.staged)
                for config, held in claim.trials.items():
                    taken.setdefault(config, set()).update(set(held) - set(claim.failed.get(config, ())))
        result = []
        for batch in sorted(self.staged, key=lambda b: b.name):
            seeds = set(batch.seeds) - taken.setdefault(batch.config, set())
            if batch.name not in gathered and seeds:
                result.append((batch, seeds))
                taken[batch.config] |= seeds - set(batch.failed)
        return result


class SweepStore:
    """``<store>/<name>``: its names, its log and its tables."""

    def __init__(self, uri: str | Path) -> None:
        self.files: Files = open_files(str(uri))
        self.uri = self.files.uri

    @property
    def name(self) -> str:
        return Path(self.uri.rstrip("/")).name

    def text(self, name: str) -> str | None:
        """A small file's text, or None where there is none."""
        try:
            return self.files.read(name).decode()
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Whether there is a sweep: a sweep file or a log."""
        return self.text(SWEEP_FILE) is not None or bool(self.files.names("log"))

    def snapshot(self) -> Snapshot:
        """What is committed now."""
        for _ in range(3):
            try:
                staged = tuple(self._staged())
                return Snapshot(tuple(self._claims()), staged)
            except FileNotFoundError:
                continue  # gathered while we read: list again
        raise StoreError(f"{self.uri}: files keep vanishing while they are read; is something else deleting them?")

    def table(self, name: str, columns: list[str] | None = None, filter: Any = None) -> pa.Table:
        """All committed rows of a table. ``filter`` is a pyarrow expression. Raises StoreError for unreadable files."""
        for attempt in range(3):
            try:
                parts = list(self._parts(name, self.snapshot(), columns, filter))
                break
            except FileNotFoundError:
                if attempt == 2:
                    raise
        if not parts:
            empty = record.schema(name).empty_table()
            return empty.select(columns) if columns else empty
        return pa.concat_tables(parts, promote_options="default")

    def table_files(self, name: str, snapshot: Snapshot) -> list[str]:
        """Names of the done segments' files of a table."""
        prefix = f"{name}/"
        return [file for claim in snapshot.claims if claim.files for file in claim.files if file.startswith(prefix)]

    def _parts(self, name: str, snapshot: Snapshot, columns: list[str] | None, filter: Any) -> Iterable[pa.Table]:
        for file in self.table_files(name, snapshot):
            yield self._read(checked_name(file), columns, filter)
        for batch, seeds in snapshot.pending():
            staged = f"staged/{batch.name}/{name}.parquet"
            if staged in batch.files:
                rows = pa.compute.field("seed").isin(sorted(seeds))
                yield self._read(checked_name(staged), columns, rows if filter is None else rows & filter)

    def _read(self, name: str, columns: list[str] | None, filter: Any) -> pa.Table:
        filesystem, root = self.files.filesystem()
        try:
            return pq.read_table(
                f"{root}/{name}", columns=columns, filters=filter, filesystem=filesystem, partitioning=None
            )
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as exc:
            message = f"{self.uri}/{name} cannot be read ({exc}); restore it from a copy, or delete the sweep and run it again"
            raise StoreError(message) from exc

    def _claims(self) -> Iterable[Claim]:
        names = self.files.names("log")
        for name in names:
            match = _CLAIM.fullmatch(name)
            if match is None:
                continue
            content = self._json(name)
            done_name = f"log/{match[1]}.done"
            files = self._json(done_name)["files"] if done_name in names else None
            trials, failed = content["trials"], content.get("failed", {})
            yield Claim(int(match[1]), content["segment"], tuple(content["staged"]), trials, failed, files)

    def _staged(self) -> Iterable[Staged]:
        for name in self.files.names("staged"):
            folder, _, file = name.rpartition("/")
            if file == "batch.json":
                c = self._json(name)
                seeds, failed = tuple(c["seeds"]), tuple(c.get("failed", ()))
                yield Staged(folder.partition("/")[2], c["config"], c["batch"], seeds, failed, c["files"])

    def _json(self, name: str) -> dict[str, Any]:
        content = self.files.read(name)
        try:
            value = json.loads(content)
        except ValueError as exc:
            raise StoreError(f"{self.uri}/{name} is not JSON ({exc}); it was damaged: restore it from a copy") from exc
        if not isinstance(value, dict) or value.get("schema", 1) > record.SCHEMA_VERSION:
            raise StoreError(
                f"{self.uri}/{name}: schema {value.get('schema')!r} is newer than this landsweep; upgrade it"
            )
        return value
