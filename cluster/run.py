"""From a plan to committed tables: batches are handed out, tried again, gathered."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from landsweep.cluster import checkpoints, commit, logs, plan, policy, yaml_reader
from landsweep.cluster.code import importable
from landsweep.cluster.control import JOB, StopFlag
from landsweep.cluster.execute import Job
from landsweep.cluster.executors import Completion, Executor
from landsweep.cluster.files import absolute
from landsweep.cluster.prepare import Plan
from landsweep.cluster.status import Work
from landsweep.cluster.store import DATA_FILE, QUESTION_FILE, SWEEP_FILE
from landsweep.workers import record
from landsweep.workers.errors import ExecutionError, RequestError, UnavailableError

_VERSION_LINE = "# landsweep "
#: Characters of a failed trial's error that the driver keeps: all of it is in the table, and there may be a million.
MOST_SAID = 300


@dataclass
class Progress:
    """How far a run is; handed to the caller's callback whenever it changes."""

    total: int
    done: int
    started: float
    kinds: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)  # trial, the last line of its error
    retried: int = 0
    running: int = 0  # batches handed out
    seconds: float = 0.0  # of the batches that are done, one after the other
    nodes: defaultdict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    stopped: bool = False  # somebody asked for it: what was running has ended, the rest is left


Callback = Callable[[Progress], None]


class Waiting:
    """Work that is to be handed out, by program: what is tried again, alone, before what is planned, of which one is
    made at a time."""

    def __init__(self, planned: Iterator[tuple[policy.Work, ...]]) -> None:
        self._planned = planned
        self._next = next(planned, None)
        self._again: deque[policy.Work] = deque()

    def __bool__(self) -> bool:
        return self._next is not None or bool(self._again)

    def take(self) -> tuple[policy.Work, ...]:
        """The next; there has to be one."""
        if self._again:
            return (self._again.popleft(),)
        assert self._next is not None
        works, self._next = self._next, next(self._planned, None)
        return works

    def again(self, works: Sequence[policy.Work]) -> None:
        self._again.extendleft(reversed(works))


def run(planned: Plan, executor: Callable[[], Executor], report: Callback) -> Progress:
    """Run what is left to completion. ``executor`` is made only when there is something to run.

    Raises RequestError where a batch asks for what no retry can give, UnavailableError where the store takes nothing;
    KeyboardInterrupt leaves what is staged gathered.
    """
    sweep, store = planned.sweep, planned.store
    progress = Progress(planned.total, planned.done, time.monotonic())
    store.files.prepare()
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
    flag = StopFlag(planned.store, os.environ.get(JOB, ""))
    executor = make()
    out, rows, oldest = 0, 0, time.monotonic()
    try:
        most = policy.trials_together(planned.batches.size, planned.left, executor.workers)
        ordered = policy.longest_first(planned.batches, planned.tried)
        waiting = Waiting(policy.together(ordered, plan.program_key, most))
        report(progress)
        while out or (waiting and not progress.stopped):
            while waiting and not progress.stopped and out < policy.in_flight(executor.workers):
                works = waiting.take()
                executor.submit(_job(planned, *works))
                for work in works:
                    logs.event("batch handed out", work)
                out += 1
            for completion in executor.wait(timeout=1.0):
                out -= 1
                oldest = time.monotonic() if rows == 0 else oldest
                rows += sum(_completed(planned, part, waiting, progress) for part in completion.parts())
            progress.running = out
            report(progress)
            now = time.monotonic()
            if not progress.stopped and flag.poll(now):
                progress.stopped = True
                out -= executor.withdraw()
            if policy.should_gather(rows, now - oldest, now - progress.started, False):
                commit.gather(planned.store)
                rows = 0
    finally:
        executor.close()


def _job(planned: Plan, work: policy.Work, *mates: policy.Work) -> Job:
    sweep = planned.sweep
    resources = sweep.resources
    return Job(
        work,
        store=absolute(planned.store.uri),  # a worker's working directory may be another
        sweep=sweep.name,
        grid=plan.grid_columns(sweep),
        code=importable(sweep),
        threads=max(1, int(resources.num_cpus)),
        gpu=resources.num_gpus > 0,
        timeout=None if resources.timeout is None else resources.timeout * (1 + len(mates)),
        samples=planned.data.samples(work.batch.config.settings["landscape"]),
        checkpoint=resources.checkpoint,
        theta=planned.origins.theta(work.batch.config.settings["training"], work.batch.seeds),
        mates=mates,
    )


def _completed(planned: Plan, completion: Completion, waiting: Waiting, progress: Progress) -> int:
    """Book a completion; the rows it staged."""
    job, summary = completion.job, completion.summary
    if summary is not None and summary.invalid is not None:
        raise RequestError(summary.invalid)
    if summary is not None and summary.unavailable is not None:
        raise UnavailableError(summary.unavailable)
    if summary is not None and summary.staged is not None:
        progress.done += len(job.work.batch.seeds)
        progress.kinds.update(summary.kinds)
        progress.seconds += summary.seconds
        node = completion.host or socket.gethostname()
        progress.nodes[node] += Work(len(job.work.batch.seeds), summary.seconds)
        logs.event("batch done", job.work, node=node, seconds=summary.seconds, rows=summary.rows)
        return summary.rows
    error = completion.lost or (summary.error if summary else None) or "unknown"
    if job.mates:  # whoever is to blame: each is tried alone
        logs.event("shared training failed", job.work, level=logging.WARNING, error=error[-logs.MOST_ERROR :])
        waiting.again([replace(work, attempt=work.attempt + 1) for work in job.works])
        progress.retried += len(job.works)
        return 0
    follow = policy.after_failure(job.work, completion.failure, error, planned.sweep.resources.retries)
    facts = {"node": completion.host, "failure": completion.failure, "error": error[-logs.MOST_ERROR :]}
    if isinstance(follow, policy.FailedTrial):
        logs.event("trial failed", job.work, level=logging.ERROR, **facts)
        _stage_failed(planned, follow)
        said = error.strip().splitlines()[-1][:MOST_SAID]
        progress.failed.append((record.trial_id(job.work.batch.config.id, job.work.batch.seeds[0]), said))
        progress.done += 1
        return 1
    logs.event("batch retried", job.work, level=logging.WARNING, **facts, batches=len(follow))
    progress.retried += 1
    waiting.again(follow)
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
        lines = [f"  {trial}: {error}" for trial, error in progress.failed[:20]]
        more = f"\n  … {len(progress.failed) - 20} more" if len(progress.failed) > 20 else ""
        message = f"{len(progress.failed)} trials failed (run again with --retry-failed once mended):\n"
        raise ExecutionError(message + "\n".join(lines) + more)
