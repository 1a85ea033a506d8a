"""A sweep's folder as readers see it: what is committed, each trial exactly once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
from safetensors import SafetensorError
from safetensors.numpy import load

from landsweep.cluster import s3
from landsweep.cluster.files import Files, checked_name, open_files
from landsweep.cluster.parameters import Tensors, unpacked
from landsweep.cluster.spans import Spans
from landsweep.cluster.tables import Tables
from landsweep.workers import record
from landsweep.workers.errors import StoreError

SWEEP_FILE = "sweep.yaml"
#: the verdict's options as they stood before the first result, and the number of planned trials
QUESTION_FILE = "verdict/question.json"
#: what each data set was when the sweep was run first: name → sha256
DATA_FILE = "data.json"
PARAMETERS = "parameters.safetensors"  # of a staged batch
#: No entry of the log and no text is larger: what is, is not read.
ENTRY_BYTES = 32 * 2**20
_CLAIM = re.compile(r"log/\d+\.json")
Trials = dict[str, Spans]  # configuration → seeds


@dataclass(frozen=True)
class Claim:
    """One entry of the log: which trials a segment holds, and where they were staged."""

    number: int
    segment: str
    staged: tuple[str, ...]
    trials: Mapping[str, Spans]
    failed: Mapping[str, Spans]  # those of the trials whose status is failed
    files: Mapping[str, Mapping[str, Any]] | None  # checksums; None until the segment is done

    @property
    def done(self) -> bool:
        return self.files is not None

    def finished(self, configurations: Iterable[str]) -> Trials:
        """Of these configurations, the trials that need no other attempt."""
        return {config: self.trials[config] - self.failed.get(config, Spans()) for config in configurations}


@dataclass(frozen=True)
class Staged:
    """A finished batch: done, but perhaps not yet in a segment."""

    name: str  # <batch>-<uuid>
    config: str
    batch: str
    seeds: Spans
    failed: Spans
    files: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """What is committed at one moment. Staged batches were listed before the log, so none falls between."""

    claims: tuple[Claim, ...]
    staged: tuple[Staged, ...]

    def trials(self) -> Trials:
        """Every trial that need not run: in a claim or in a staged batch."""
        return union([*(claim.trials for claim in self.claims), *({one.config: one.seeds} for one in self.staged)])

    def failed(self) -> Trials:
        """Trials of which every attempt failed."""
        staged = ({one.config: one.seeds - one.failed} for one in self.staged)
        finished = union([*(claim.finished(claim.trials) for claim in self.claims), *staged])
        left = {config: seeds - finished.get(config, Spans()) for config, seeds in self.trials().items()}
        return {config: seeds for config, seeds in left.items() if seeds}

    def pending(self) -> list[tuple[Staged, Spans]]:
        """Staged batches that no done segment has, each with the seeds to take from it: every trial once."""
        done = [claim for claim in self.claims if claim.done]
        gathered = {name for claim in done for name in claim.staged}
        return allot([batch for batch in self.staged if batch.name not in gathered], done)

    def needless(self) -> set[str]:
        """Names of staged batches of which done segments hold every trial.

        A copy of what is only pending is none: a driver that sees no other may be about to claim it.
        """
        done = [claim for claim in self.claims if claim.done]
        held = finished_by(done, {batch.config for batch in self.staged})
        copies = {batch.name for batch in self.staged if not batch.seeds - held.get(batch.config, Spans())}
        return copies.union(*(claim.staged for claim in done))


def union(parts: Iterable[Mapping[str, Spans]]) -> Trials:
    """The trials of all ``parts``."""
    sets: dict[str, list[Spans]] = {}
    for part in parts:
        for config, seeds in part.items():
            sets.setdefault(config, []).append(seeds)
    return {config: held[0] if len(held) == 1 else Spans.union(held) for config, held in sets.items()}


def finished_by(claims: Iterable[Claim], configurations: Set[str]) -> Trials:
    """Of these configurations, the trials that ``claims`` hold and that need no other attempt."""
    return union(claim.finished(configurations & claim.trials.keys()) for claim in claims)


def allot(staged: Iterable[Staged], claims: Iterable[Claim]) -> list[tuple[Staged, Spans]]:
    """``staged`` by name, each with the seeds that neither ``claims`` nor a batch before it finished; none is empty."""
    ordered = sorted(staged, key=lambda batch: batch.name)
    finished = finished_by(claims, {batch.config for batch in ordered})
    result = []
    for batch in ordered:
        before = finished.get(batch.config, Spans())
        seeds = batch.seeds - before
        if seeds:
            result.append((batch, seeds))
            finished[batch.config] = before | (seeds - batch.failed)
    return result


class SweepStore:
    """``<store>/<name>``: its names, its log and its tables."""

    def __init__(self, uri: str | Path) -> None:
        self.files: Files = open_files(str(uri))
        self.uri = self.files.uri
        self.tables = Tables(self.files, self.uri)
        self._done: dict[str, Claim] = {}  # claims that were read with their .done, by name: neither changes again
        self._known: dict[str, Staged] = {}  # staged batches that were read, by name: none changes

    @property
    def name(self) -> str:
        return Path(self.uri.rstrip("/")).name

    def text(self, name: str) -> str | None:
        """A small file's text, or None where there is none. Raises StoreError for one that is no text."""
        try:
            return self.files.read(name, ENTRY_BYTES).decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as exc:
            raise self._damaged(name, f"is no text ({exc})") from exc

    def exists(self) -> bool:
        """Whether there is a sweep: a sweep file or a log."""
        return self.text(SWEEP_FILE) is not None or bool(self.files.names("log"))

    def snapshot(self) -> Snapshot:
        """What is committed now. Raises StoreError."""
        before: frozenset[str] = frozenset()
        while True:
            staged, gone = self._staged()
            try:
                claims = tuple(self._claims())
            except FileNotFoundError as exc:
                claims, gone = (), {str(exc)}
            gone = gone.difference(*(claim.staged for claim in claims if claim.done))
            if not gone:
                return Snapshot(claims, staged)
            if gone == before:
                raise StoreError(f"{self.uri}: {min(gone)} is listed and not there; is something else deleting files?")
            before = frozenset(gone)  # deleted because another batch has its trials: list again

    def table(self, name: str, columns: list[str] | None = None, filter: Any = None) -> pa.Table:
        """All committed rows of a table. ``filter`` is a pyarrow expression. Raises StoreError for unreadable files."""
        return self.tables.read(self.dataset(name), columns, filter)

    def dataset(self, name: str, coded: bool = False) -> pa.dataset.Dataset:
        """All committed rows of a table as a pyarrow dataset, with what is committed now. Raises StoreError.

        ``coded``: texts that repeat are numbers into a dictionary.
        """
        before: Snapshot | None = None
        while True:
            snapshot = self.snapshot()
            done, staged = self._done_files(name, snapshot), self._staged_files(name, snapshot)
            try:
                return self.tables.dataset(name, done, staged, coded)
            except FileNotFoundError as exc:  # gathered while we read, or lost
                if snapshot == before:
                    message = f"{self.uri}: a committed file is missing: {exc}; restore it from a copy"
                    raise StoreError(message) from exc
                before = snapshot

    def table_files(self, name: str, snapshot: Snapshot) -> list[str]:
        """Names of the done segments' files of a table."""
        return list(self._done_files(name, snapshot))

    def parameters(self, batch: str) -> Tensors:
        """A batch's arrays: points (P, n), initial (B, n), trained (B, n). Raises StoreError where there is none."""
        for attempt in range(3):
            file = self._parameter_file(batch)
            try:
                if file.startswith("staged/"):
                    return dict(load(self.files.read(file)))
                return unpacked(*self.files.location(file), batch)
            except FileNotFoundError as exc:  # gathered while we looked
                if attempt == 2:
                    raise StoreError(f"{self.uri}/{file} is missing; restore it from a copy") from exc
            except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, OSError, RecursionError) as exc:
                unanswered = s3.away(f"{self.uri}/{file}", exc)
                raise unanswered or self._damaged(file, f"cannot be read ({exc})") from exc
        raise AssertionError("unreachable")

    def _parameter_file(self, batch: str) -> str:
        snapshot = self.snapshot()
        for claim in snapshot.claims:
            for file, entry in (claim.files or {}).items():
                if batch in entry.get("batches", ()):
                    return file
        for staged in snapshot.staged:
            file = f"staged/{staged.name}/{PARAMETERS}"
            if staged.batch == batch and file in staged.files:
                return file
        raise StoreError(f"{self.uri}: the parameters of batch {batch} are missing; run the sweep again")

    def _done_files(self, name: str, snapshot: Snapshot) -> dict[str, Mapping[str, Any]]:
        files = (item for claim in snapshot.claims if claim.files for item in claim.files.items())
        return {file: entry for file, entry in files if file.startswith(f"{name}/")}

    def _staged_files(self, name: str, snapshot: Snapshot) -> dict[str, Spans]:
        """Of each file of a table that is only staged, the seeds to take from it."""
        pending = ((f"staged/{batch.name}/{name}.parquet", batch, seeds) for batch, seeds in snapshot.pending())
        return {file: seeds for file, batch, seeds in pending if file in batch.files}

    def _claims(self) -> Iterable[Claim]:
        listed = self.files.names("log")
        names = set(listed)
        for name in filter(_CLAIM.fullmatch, listed):
            done = f"{name.removesuffix('.json')}.done"
            if done not in names:
                yield self._claim(name, None)
                continue
            if name not in self._done:
                self._done[name] = self._claim(name, self._json(done, "files")["files"])
            yield self._done[name]

    def _claim(self, name: str, files: Mapping[str, Mapping[str, Any]] | None) -> Claim:
        content = self._json(name, "segment", "staged", "trials")
        if not isinstance(content["segment"], str) or not _all_text(content["staged"]):
            raise self._damaged(name, "names no segment and staged batches")
        segment, staged = checked_name(content["segment"]), tuple(map(checked_name, content["staged"]))
        self._check_files(name, files or {})
        number = int(name.removeprefix("log/").removesuffix(".json"))
        trials, failed = (self._seeds(name, content.get(key, {})) for key in ("trials", "failed"))
        return Claim(number, segment, staged, trials, failed, files)

    def _staged(self) -> tuple[tuple[Staged, ...], set[str]]:
        """The staged batches, and the names of those that were deleted since they were listed."""
        known, gone = {}, set()
        for name in self.files.names("staged"):
            if name.endswith("/batch.json"):
                try:
                    known[name] = self._known.get(name) or self._read_staged(name)
                except FileNotFoundError:
                    gone.add(name.split("/")[1])
        self._known = known
        return tuple(known.values()), gone

    def _read_staged(self, name: str) -> Staged:
        content = self._json(name, "config", "batch", "seeds", "files")
        self._check_files(name, content["files"])
        config, folder = content["config"], name.split("/")[1]
        if not _all_text([config, content["batch"]]):
            raise self._damaged(name, "names no configuration and batch")
        seeds = self._seeds(name, {config: content["seeds"]})[config]
        failed = self._seeds(name, {config: content.get("failed", [])})[config]
        return Staged(folder, config, content["batch"], seeds, failed, content["files"])

    def _seeds(self, name: str, trials: Mapping[str, Any]) -> Trials:
        try:
            return {config: Spans.from_json(seeds) for config, seeds in trials.items()}
        except (ValueError, TypeError, AttributeError, OverflowError) as exc:
            raise self._damaged(name, f"has seeds that cannot be read ({exc})") from exc

    def _check_files(self, name: str, files: Any) -> None:
        """Refuse what an entry of the log says of its files, unless it is names below it, sizes and checksums."""
        if not isinstance(files, dict) or not all(map(_is_checksum, files.values())):
            raise self._damaged(name, "does not say the sizes and checksums of its files")
        for file in files:
            checked_name(file)

    def _json(self, name: str, *keys: str) -> dict[str, Any]:
        """The mapping in a file of the protocol, which must have ``keys``."""
        value: Any = self.json(name, self.files.read(name, ENTRY_BYTES))
        if isinstance(value, dict) and value.get("schema", 1) not in range(record.SCHEMA_VERSION + 1):
            raise StoreError(f"{self.uri}/{name}: schema {value['schema']!r} is newer than this landsweep; upgrade it")
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing:
            raise self._damaged(name, f"lacks {', '.join(missing)}")
        return dict(value)

    def json(self, name: str, content: str | bytes) -> Any:
        """The value of a JSON file's ``content``. Raises StoreError naming the file."""
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise self._damaged(name, f"is not JSON ({exc})") from exc

    def _damaged(self, name: str, what: str) -> StoreError:
        return StoreError(f"{self.uri}/{name} {what}; it was damaged: restore it from a copy")


def _all_text(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_checksum(entry: Any) -> bool:
    """Whether it is as :func:`checksum` gives it, with or without more."""
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
