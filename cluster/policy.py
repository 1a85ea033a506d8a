"""Decisions as pure functions: what runs next, what is tried again, when batches are gathered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from landsweep.cluster.plan import Batch, Batches, Configuration, Left, batch_id
from landsweep.cluster.spans import Spans
from landsweep.workers.record import trial_id

SEGMENT_ROWS = 50_000
#: How often a batch may lose its node before that counts as the death of a process.
EVICTIONS = 10
FailureKind = Literal["error", "lost", "memory", "node"]


@dataclass(frozen=True)
class Work:
    """A batch and how often it was tried."""

    batch: Batch
    attempt: int = 1  # of its trials, in this run and before; a row says it
    losses: int = 0  # how often the process of this very batch died, in this run
    evictions: int = 0  # how often its node went away under it, in this run


@dataclass(frozen=True)
class FailedTrial:
    """A trial that is given up."""

    work: Work
    error: str


def after_failure(work: Work, kind: FailureKind, error: str, retries: int) -> list[Work] | FailedTrial:
    """What follows a failed batch.

    A lost process is tried again, ``retries`` times; a lost node is no fault of the batch, ``EVICTIONS`` times. An
    exception is deterministic: the batch is halved until the culprit is alone, so that its mates get their results and
    it becomes a row. A batch that ran out of memory is too large: it is halved at once, though it was its process that
    died.
    """
    if kind == "node" and work.evictions < EVICTIONS:
        return [replace(work, attempt=work.attempt + 1, evictions=work.evictions + 1)]
    if kind in ("lost", "node") and work.losses < retries:
        return [replace(work, attempt=work.attempt + 1, losses=work.losses + 1)]
    seeds = work.batch.seeds
    if len(seeds) == 1:
        return FailedTrial(work, error)
    half = len(seeds) // 2
    parts = (seeds[:half], seeds[half:])
    config = work.batch.config
    return [Work(Batch(batch_id(config.id, part), config, part), work.attempt + 1) for part in parts]


def longest_first(batches: Batches, tried: Mapping[str, int]) -> Iterator[Work]:
    """Work in the order in which it is handed out: what costs most first, so that the end has no straggler.

    ``tried`` maps a trial's id to its attempts in earlier runs. Configurations are ordered, their batches made when
    asked for.
    """
    parts = [part for left in batches.parts for part in _of_one_cost(left, batches.size)]
    parts.sort(key=lambda part: _cost(part.config, next(part.seeds.cut(batches.size))), reverse=True)
    for part in parts:
        for batch in part.batches(batches.size):
            yield Work(batch, 1 + _tried(batch, tried))


def together(
    works: Iterator[Work], program: Callable[[Configuration], str | None], most: int
) -> Iterator[tuple[Work, ...]]:
    """``works`` in their order, those that follow one another and train by one ``program`` (None: by no other's) put
    together, up to ``most`` trials."""
    mates: tuple[Work, ...] = ()
    shared: str | None = None
    for work in works:
        trials = sum(len(mate.batch.seeds) for mate in (*mates, work))
        own = program(work.batch.config) if len(work.batch.seeds) <= most // 2 else None
        if mates and (own is None or own != shared or trials > most):
            yield mates
            mates = ()
        mates, shared = (*mates, work), own
    if mates:
        yield mates


def trials_together(size: int, left: int, workers: int) -> int:
    """How many trials may train as one program: as many as a batch may have, and no more than leave each of the
    ``workers`` two programs of the ``left`` trials.

    >>> trials_together(64, 128, 2), trials_together(64, 10_000, 2)
    (32, 64)
    """
    return min(size, left // in_flight(workers))


def _of_one_cost(left: Left, size: int) -> Iterator[Left]:
    """The batches of a configuration whose trials search for saddles, and those whose trials do not."""
    saddles = left.config.settings["search"]["saddles"]
    limit = 0 if saddles is None or saddles["trials"] == "all" else saddles["trials"]
    bound = Spans(((0, -(-limit // size) * size),)) if limit else Spans()
    for seeds in (left.seeds - (left.seeds - bound), left.seeds - bound):
        if seeds:
            yield replace(left, seeds=seeds)


def _tried(batch: Batch, tried: Mapping[str, int]) -> int:
    return max(tried.get(trial_id(batch.config.id, seed), 0) for seed in batch.seeds) if tried else 0


def cost(batch: Batch) -> int:
    """A rough cost, ≥ 1: searched trials weigh as ten."""
    return _cost(batch.config, batch.seeds)


def _cost(config: Configuration, seeds: Collection[int]) -> int:
    saddles = config.settings["search"]["saddles"]
    searched = 0
    if saddles:
        limit = saddles["trials"]
        searched = saddles["per_trial"] * sum(1 for seed in seeds if limit == "all" or seed < limit)
    return len(seeds) + 10 * searched


def in_flight(workers: int) -> int:
    """How many batches may be out at once: one running and one waiting for each worker."""
    return 2 * max(1, workers)


def should_gather(rows: int, oldest_age: float, sweep_age: float, ended: bool) -> bool:
    """Whether staged batches are worth a segment: enough rows, or the oldest has waited long."""
    return rows > 0 and (ended or rows >= SEGMENT_ROWS or oldest_age > max(10.0, 0.01 * sweep_age))
