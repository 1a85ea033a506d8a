"""A sweep's folder as readers see it: what is committed, each trial exactly once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from landsweep.cluster.files import Files, checked_name, open_files
from landsweep.cluster.tables import Tables
from landsweep.workers import record
from landsweep.workers.errors import StoreError

SWEEP_FILE = "sweep.yaml"
#: the verdict's options as they stood before the first result, and the number of planned trials
QUESTION_FILE = "verdict/question.json"
#: what each data set was when the sweep was run first: name → sha256
DATA_FILE = "data.json"
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

    def finished(self) -> Trials:
        """The trials that need no other attempt."""
        return {config: set(seeds) - set(self.failed.get(config, ())) for config, seeds in self.trials.items()}


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
            _add(found, claim.trials)
        for batch in self.staged:
            _add(found, {batch.config: batch.seeds})
        return found

    def failed(self) -> Trials:
        """Trials of which every attempt failed."""
        finished: Trials = {}
        for claim in self.claims:
            _add(finished, claim.finished())
        for batch in self.staged:
            _add(finished, {batch.config: set(batch.seeds) - set(batch.failed)})
        left = {config: seeds - finished.get(config, set()) for config, seeds in self.trials().items()}
        return {config: seeds for config, seeds in left.items() if seeds}

    def pending(self) -> list[tuple[Staged, set[int]]]:
        """Staged batches that no done segment has, each with the seeds to take from it: every trial once."""
        done = [claim for claim in self.claims if claim.done]
        gathered = {name for claim in done for name in claim.staged}
        return allot([batch for batch in self.staged if batch.name not in gathered], done)


def allot(staged: Iterable[Staged], claims: Iterable[Claim]) -> list[tuple[Staged, set[int]]]:
    """``staged`` by name, each with the seeds that neither ``claims`` nor a batch before it finished; none is empty."""
    finished: Trials = {}
    staged = list(staged)
    for claim in claims if staged else ():
        _add(finished, claim.finished())
    result = []
    for batch in sorted(staged, key=lambda b: b.name):
        seeds = set(batch.seeds) - finished.get(batch.config, set())
        if seeds:
            result.append((batch, seeds))
            _add(finished, {batch.config: seeds - set(batch.failed)})
    return result


def _add(trials: Trials, more: Mapping[str, Iterable[int]]) -> None:
    for config, seeds in more.items():
        trials.setdefault(config, set()).update(seeds)


class SweepStore:
    """``<store>/<name>``: its names, its log and its tables."""

    def __init__(self, uri: str | Path) -> None:
        self.files: Files = open_files(str(uri))
        self.uri = self.files.uri
        self.tables = Tables(self.files, self.uri)
        self._log: dict[str, tuple[bytes, Any]] = {}  # what a file of the log held, and its value

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
        return self.tables.read(self.dataset(name), columns, filter)

    def dataset(self, name: str, coded: bool = False) -> pa.dataset.Dataset:
        """All committed rows of a table as a pyarrow dataset, with what is committed now. Raises StoreError.

        ``coded``: texts that repeat are numbers into a dictionary.
        """
        for attempt in range(3):
            try:
                snapshot = self.snapshot()
                done, staged = self._done_files(name, snapshot), self._staged_files(name, snapshot)
                return self.tables.dataset(name, done, staged, coded)
            except FileNotFoundError as exc:
                if attempt == 2:
                    message = f"{self.uri}: a committed file is missing: {exc}; restore it from a copy"
                    raise StoreError(message) from exc
        raise AssertionError("unreachable")

    def table_files(self, name: str, snapshot: Snapshot) -> list[str]:
        """Names of the done segments' files of a table."""
        return list(self._done_files(name, snapshot))

    def parameter_file(self, batch: str) -> str:
        """The name of the file of a batch's parameters. Raises StoreError where there is none."""
        snapshot, name = self.snapshot(), f"parameters/{batch}.safetensors"
        if any(claim.files and name in claim.files for claim in snapshot.claims):
            return name
        for staged in snapshot.staged:
            if staged.batch == batch:
                return f"staged/{staged.name}/parameters.safetensors"
        raise StoreError(f"{self.uri}: the parameters of batch {batch} are missing; run the sweep again")

    def _done_files(self, name: str, snapshot: Snapshot) -> dict[str, Mapping[str, Any]]:
        files = (item for claim in snapshot.claims if claim.files for item in claim.files.items())
        return {file: entry for file, entry in files if file.startswith(f"{name}/")}

    def _staged_files(self, name: str, snapshot: Snapshot) -> dict[str, set[int]]:
        """Of each file of a table that is only staged, the seeds to take from it."""
        pending = ((f"staged/{batch.name}/{name}.parquet", batch, seeds) for batch, seeds in snapshot.pending())
        return {file: seeds for file, batch, seeds in pending if file in batch.files}

    def _claims(self) -> Iterable[Claim]:
        names = self.files.names("log")
        for name in names:
            match = _CLAIM.fullmatch(name)
            if match is None:
                continue
            content = self._json(name, "segment", "staged", "trials")
            done_name = f"log/{match[1]}.done"
            files = self._json(done_name, "files")["files"] if done_name in names else None
            segment, staged = checked_name(content["segment"]), tuple(map(checked_name, content["staged"]))
            for file in files or ():
                checked_name(file)
            yield Claim(int(match[1]), segment, staged, content["trials"], content.get("failed", {}), files)

    def _staged(self) -> Iterable[Staged]:
        for name in self.files.names("staged"):
            folder, _, file = name.rpartition("/")
            if file == "batch.json":
                c = self._json(name, "config", "batch", "seeds", "files")
                seeds, failed = tuple(c["seeds"]), tuple(c.get("failed", ()))
                for listed in c["files"]:
                    checked_name(listed)
                yield Staged(folder.partition("/")[2], c["config"], c["batch"], seeds, failed, c["files"])

    def _json(self, name: str, *keys: str) -> dict[str, Any]:
        """The mapping in a file of the protocol, which must have ``keys``."""
        content = self.files.read(name)
        known = self._log.get(name)
        value: Any = known[1] if known and known[0] == content else self.json(name, content)
        if name.startswith("log/"):
            self._log[name] = (content, value)
        if isinstance(value, dict) and value.get("schema", 1) not in range(record.SCHEMA_VERSION + 1):
            raise StoreError(f"{self.uri}/{name}: schema {value['schema']!r} is newer than this landsweep; upgrade it")
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing:
            raise StoreError(f"{self.uri}/{name} lacks {', '.join(missing)}; it was damaged: restore it from a copy")
        return dict(value)

    def json(self, name: str, content: str | bytes) -> Any:
        """The value of a JSON file's ``content``. Raises StoreError naming the file."""
        try:
            return json.loads(content)
        except ValueError as exc:
            raise StoreError(f"{self.uri}/{name} is not JSON ({exc}); it was damaged: restore it from a copy") from exc
