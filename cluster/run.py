"""From a sweep to committed tables: what is left is planned, handed out, tried again, gathered."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from landsweep.cluster import checkpoints, commit, memory, plan, policy, spec, yaml_reader
from landsweep.cluster.data.library import Library
from landsweep.cluster.execute import Job
from landsweep.cluster.executors import Completion, Executor
from landsweep.cluster.files import LocalFiles
from landsweep.cluster.origins import Origins
from landsweep.cluster.store import DATA_FILE, QUESTION_FILE, SWEEP_FILE, SweepStore
from landsweep.workers import record
from landsweep.workers.errors import ConflictError, ExecutionError, LandscapeError, RequestError

_VERSION_LINE = "# landsweep "


@dataclass(frozen=True)
class Plan:
    """What a sweep asks for and what of it is left."""

    sweep: spec.Sweep
    store: SweepStore
    configurations: tuple[plan.Configuration, ...]
    data: Library
    origins: Origins
    batches: tuple[plan.Batch, ...]  # left to run
    size: int  # trials a batch
    done: int  # trials
    tried: Mapping[str, int]  # trial → its attempts so far, of those whose failure is tried again
    notes: tuple[str, ...] = ()  # what to know before it runs
    batch_bytes: int | None = None  # of the largest batch, predicted; None: nothing is left

    @property
    def total(self) -> int:
        return len(self.configurations) * len(self.sweep.seeds)

    @property
    def left(self) -> int:
        return sum(len(batch.seeds) for batch in self.batches)

    def seconds_left(self) -> float | None:
        """What the trials left will take of one batch's resources, if they are like those done; None before any is."""
        seconds = self.store.table("trials", ["seconds"]).column("seconds").drop_null()
        return round(pa.compute.mean(seconds).as_py() * self.left, 1) if len(seconds) else None

    def cost_left(self) -> float | None:
        """Their price, where ``resources.price_per_hour`` gives one."""
        price, seconds = self.sweep.resources.price_per_hour, self.seconds_left()
        return None if price is None or seconds is None else round(price * seconds / 3600, 2)


@dataclass
class Progress:
    """How far a run is; handed to the caller's callback whenever it changes."""

    total: int
    done: int
    started: float
    kinds: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)  # trial, error
    retried: int = 0


Callback = Callable[[Progress], None]


def code_hash(sweep: spec.Sweep) -> str | None:
    """sha256 of the module that the landscape names, or None for built-in ones."""
    name = sweep.landscape.name
    if ":" not in name:
        return None
    for folder in reversed(importable(sweep)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module = name.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise LandscapeError(f"landscape.name: no module {module!r}; check the name and list its folder under `code:`")
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()


def importable(sweep: spec.Sweep) -> tuple[str, ...]:
    """Folders that user landscapes are imported from: those of ``code``, then the working directory."""
    return tuple(str(Path(folder).resolve()) for folder in (*sweep.code, "."))


def location(sweep: spec.Sweep) -> str:
    """``<store>/<name>``."""
    return f"{sweep.store.rstrip('/')}/{sweep.name}"


def prepare(sweep: spec.Sweep, retry_failed: bool = False) -> Plan:
    """The plan of what is left. Reads the store and the data sets, writes nothing.

    Raises ConflictError where the name is taken, LandscapeError for data that cannot be used.
    """
    store, data, origins = SweepStore(location(sweep)), Library(), Origins()
    _check_name(sweep, store)
    configurations = plan.expand(sweep, code_hash(sweep), data.checksum, origins.identity)
    _check_data(store, data)
    snapshot = store.snapshot()
    done = snapshot.trials()
    if retry_failed:
        for config, seeds in snapshot.failed().items():
            done[config] = done[config] - seeds
    left = plan.plan_batches(sweep.seeds, configurations, done, plan.MAX_BATCH)
    # a finished sweep need not build its landscapes
    notes = _notes(configurations, data) if left else ()
    allotted = _allotted(sweep, configurations, data) if left else memory.Allotment(plan.MAX_BATCH)
    batches = tuple(plan.plan_batches(sweep.seeds, configurations, done, allotted.size))
    _check_starts(batches, data, origins)
    total = len(configurations) * len(sweep.seeds)
    finished = total - sum(len(batch.seeds) for batch in batches)
    tried = _tried(store) if retry_failed else {}
    said = (*notes, *allotted.notes)
    return Plan(
        sweep, store, configurations, data, origins, batches, allotted.size, finished, tried, said, allotted.peak
    )


def _tried(store: SweepStore) -> dict[str, int]:
    """The attempts of the trials that failed, as their rows say."""
    rows = store.table("trials", ["trial", "attempt"], pa.compute.field("status") == "failed").to_pylist()
    return {row["trial"]: row["attempt"] for row in sorted(rows, key=lambda row: int(row["attempt"]))}


def _allotted(sweep: spec.Sweep, configurations: tuple[plan.Configuration, ...], data: Library) -> memory.Allotment:
    """Trials a batch, and what they will take."""

    def predicted(settings: dict[str, Any]) -> Callable[[int], int]:
        known = memory.footprint(settings["landscape"], data.samples(settings["landscape"]))
        return lambda trials: memory.batch_bytes(settings, known, trials)

    resources, predictions = sweep.resources, [predicted(one.settings) for one in configurations]
    return memory.allotted(predictions, resources.batch, resources.memory, len(sweep.seeds))


def _notes(configurations: tuple[plan.Configuration, ...], data: Library) -> tuple[str, ...]:
    """What the sizes of the landscapes mean for how their points are found, each said once.

    Builds every landscape: its options may not fit its data, or its size the search.
    """
    from landsweep.workers import mode

    sizes = zip(configurations, shapes(configurations, data), strict=True)
    available = mode.available_bytes()
    said = (mode.check(configuration.settings, n, available) for configuration, (n, _) in sizes)
    return tuple(dict.fromkeys(note for note in said if note))


def shapes(configurations: tuple[plan.Configuration, ...], data: Library) -> list[tuple[int, int]]:
    """(parameters, training samples) of each configuration; builds the landscapes, so a wrong one is refused."""
    from landsweep.workers import builtin

    found = []
    for settings in (configuration.settings for configuration in configurations):
        n, samples = builtin.size(settings["landscape"], data.samples(settings["landscape"]))
        batch = settings["training"]["batch_size"]
        if isinstance(batch, int) and 0 < samples < batch:
            message = f"training.batch_size: found {batch}; allowed: at most the {samples} training examples"
            raise LandscapeError(message)
        found.append((n, samples))
    return found


def _check_starts(batches: tuple[plan.Batch, ...], data: Library, origins: Origins) -> None:
    """Refuse starts in other sweeps that are not there or do not fit."""
    for batch in batches:
        if batch.config.origin:
            ((n, _),) = shapes((batch.config,), data)
            origins.check(batch.config.settings["training"], batch.seeds, n)


def _check_data(store: SweepStore, data: Library) -> None:
    """Refuse a data set that is not what the sweep was run on: its results would be mixed with others."""
    text = store.text(DATA_FILE)
    before = store.json(DATA_FILE, text) if text else {}
    changed = [name for name, checksum in data.checksums().items() if before.get(name, checksum) != checksum]
    if changed:
        message = f"{store.uri} was run on other data: the content of {', '.join(changed)} has changed since: "
        raise ConflictError(message + "choose another name, or restore the files")


def _check_name(sweep: spec.Sweep, store: SweepStore) -> None:
    text = store.text(SWEEP_FILE)
    if text is None:
        return
    old = yaml_reader.read_text(text, f"{store.uri}/{SWEEP_FILE}")
    differing = spec.difference(old, sweep.canonical())
    if differing:
        keys = ", ".join(differing)
        message = (
            f"{store.uri} holds another sweep of this name: {keys} differ; seeds and grid axes may only be extended: "
        )
        raise ConflictError(message + "choose another name, or go back to the old values")


def run(planned: Plan, executor: Callable[[], Executor], report: Callback) -> Progress:
    """Run what is left to completion. ``executor`` is made only when there is something to run.

    Raises RequestError where a batch asks for what no retry can give; KeyboardInterrupt leaves what is staged
    gathered.
    """
    sweep, store = planned.sweep, planned.store
    progress = Progress(planned.total, planned.done, time.monotonic())
    if isinstance(store.files, LocalFiles):
        store.files.remove_dead_temporaries()
    if planned.batches or store.text(SWEEP_FILE) is None:
        text = f"{_VERSION_LINE}{record.VERSION}\n{yaml_reader.to_text(sweep.canonical())}"
        store.files.write(SWEEP_FILE, text.encode())
        if planned.data.checksums():
            store.files.write(DATA_FILE, record.canonical_json(planned.data.checksums()).encode())
        _register(planned)
    try:
        if planned.batches:
            _drive(planned, executor, progress, report)
    finally:
        commit.gather(store)
    if progress.done == progress.total:
        store.files.delete(checkpoints.FOLDER)
    return progress


def _register(planned: Plan) -> None:
    """Write down what is asked, as long as there is no result, and how many trials are planned."""
    store = planned.store
    text = store.text(QUESTION_FILE)
    options = planned.sweep.verdict.model_dump(mode="json")
    if text and planned.done:
        options = store.json(QUESTION_FILE, text)["options"]
    store.files.write(QUESTION_FILE, record.canonical_json({"options": options, "planned": planned.total}).encode())


def _drive(planned: Plan, make: Callable[[], Executor], progress: Progress, report: Callback) -> None:
    waiting = deque(policy.longest_first(planned.batches, planned.tried))
    executor = make()
    limit, out, rows, oldest = policy.in_flight(executor.workers), 0, 0, time.monotonic()
    try:
        report(progress)
        while waiting or out:
            while waiting and out < limit:
                executor.submit(_job(planned, waiting.popleft()))
                out += 1
            for completion in executor.wait(timeout=1.0):
                out -= 1
                oldest = time.monotonic() if rows == 0 else oldest
                rows += _completed(planned, completion, waiting, progress)
            report(progress)
            now = time.monotonic()
            if policy.should_gather(rows, now - oldest, now - progress.started, False):
                commit.gather(planned.store)
                rows = 0
    finally:
        executor.close()


def _job(planned: Plan, work: policy.Work) -> Job:
    sweep = planned.sweep
    resources = sweep.resources
    return Job(
        work,
        store=str(Path(planned.store.uri).resolve()),  # a worker's working directory may be another
        sweep=sweep.name,
        grid=plan.grid_columns(sweep),
        code=importable(sweep),
        threads=max(1, int(resources.num_cpus)),
        gpu=resources.num_gpus > 0,
        timeout=resources.timeout,
        samples=planned.data.samples(work.batch.config.settings["landscape"]),
        checkpoint=resources.checkpoint,
        theta=planned.origins.theta(work.batch.config.settings["training"], work.batch.seeds),
    )


def _completed(planned: Plan, completion: Completion, waiting: deque[policy.Work], progress: Progress) -> int:
    """Book a completion; the rows it staged."""
    job, summary = completion.job, completion.summary
    if summary is not None and summary.invalid is not None:
        raise RequestError(summary.invalid)
    if summary is not None and summary.staged is not None:
        progress.done += len(job.work.batch.seeds)
        progress.kinds.update(summary.kinds)
        return summary.rows
    error = completion.lost or (summary.error if summary else None) or "unknown"
    follow = policy.after_failure(job.work, completion.failure, error, planned.sweep.resources.retries)
    if isinstance(follow, policy.FailedTrial):
        _stage_failed(planned, follow)
        progress.failed.append((record.trial_id(job.work.batch.config.id, job.work.batch.seeds[0]), error))
        progress.done += 1
        return 1
    progress.retried += 1
    waiting.extendleft(reversed(follow))
    return 0


def _stage_failed(planned: Plan, failed: policy.FailedTrial) -> None:
    """A trial that was given up is a row: status failed, with its attempt and error."""
    batch = failed.work.batch
    row: dict[str, Any] = dict.fromkeys(record.schema("trials").names)
    row |= {"sweep": planned.sweep.name, "trial": record.trial_id(batch.config.id, batch.seeds[0])}
    row |= {"config": batch.config.id, "seed": batch.seeds[0], "batch": batch.id, "status": "failed"}
    row |= {"attempt": failed.work.attempt, "numerics_version": record.NUMERICS_VERSION}
    row |= {"code_version": record.VERSION, "error": failed.error}
    commit.stage(
        planned.store,
        sweep=planned.sweep.name,
        config=batch.config.id,
        batch=batch.id,
        seeds=batch.seeds,
        tables={"trials": {name: [value] for name, value in row.items()}},
        grid=plan.grid_columns(planned.sweep),
        failed=batch.seeds,
    )


def require_success(progress: Progress) -> None:
    """Raise ExecutionError naming the failed trials, if there are any."""
    if progress.failed:
        lines = [f"  {trial}: {error.strip().splitlines()[-1]}" for trial, error in progress.failed[:20]]
        more = f"\n  … {len(progress.failed) - 20} more" if len(progress.failed) > 20 else ""
        message = f"{len(progress.failed)} trials failed (run again with --retry-failed once mended):\n"
        raise ExecutionError(message + "\n".join(lines) + more)
