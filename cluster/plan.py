"""From a sweep to configurations and batches: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from landsweep.cluster.grid import is_numeric
from landsweep.cluster.spec import Seeds, Sweep
from landsweep.workers import record

MAX_BATCH = 64


@dataclass(frozen=True)
class Configuration:
    """One cell of a sweep's grid."""

    id: str  # content hash, 16 hex digits
    settings: dict[str, Any]  # landscape, training, search, measure, complete with defaults
    grid: dict[str, Any]  # dotted key → this cell's value, as validated
    code: str | None = None  # sha256 of the code that the landscape names
    data: str | None = None  # sha256 of the data set's content
    origin: tuple[str, ...] | None = None  # what of other sweeps its trainings begin at


@dataclass(frozen=True)
class Batch:
    """Trials of one configuration that run together."""

    id: str  # content hash of configuration and seeds
    config: Configuration
    seeds: tuple[int, ...]  # ascending


def expand(
    sweep: Sweep,
    code_hash: Callable[[Mapping[str, Any]], str | None] = lambda landscape: None,
    data_checksum: Callable[[Mapping[str, Any]], str | None] = lambda landscape: None,
    origin: Callable[[Mapping[str, Any]], tuple[str, ...] | None] = lambda training: None,
) -> tuple[Configuration, ...]:
    """The configurations of ``sweep`` in the order of its grid, the last axis fastest.

    A configuration's id is that of its settings, the numerics version, what ``code_hash`` and ``data_checksum`` give
    for its landscape and ``origin`` for its training, however it came about.
    """
    cells = sweep.configurations()
    found = []
    for settings, cell in cells:
        code, data = code_hash(settings["landscape"]), data_checksum(settings["landscape"])
        start = origin(settings["training"])
        name = configuration_id(settings, code, data, start)
        found.append(Configuration(name, settings, cell, code, data, start))
    return tuple(found)


def configuration_id(
    settings: Mapping[str, Any], code_hash: str | None, data: str | None, origin: tuple[str, ...] | None = None
) -> str:
    """The content hash of ``settings``, code, data and origin under this numerics version."""
    content = {"settings": settings, "numerics": record.NUMERICS_VERSION, "code": code_hash, "data": data}
    return record.content_hash(content | ({"origin": origin} if origin else {}))


def landscape_key(configuration: Configuration) -> str:
    """The content hash of the landscape alone: configurations that differ in the optimiser share it."""
    parts = {"landscape": configuration.settings["landscape"], "code": configuration.code, "data": configuration.data}
    return record.content_hash(parts)


def plan_batches(
    sweep_seeds: Seeds, configurations: Iterable[Configuration], done: Mapping[str, AbstractSet[int]], size: int
) -> list[Batch]:
    """The trials that are left, (those of the sweep) − ``done``, in batches of at most ``size``.

    ``done`` maps a configuration's id to its seeds. Batches end at the multiples of ``size`` in the seed itself, so
    that a sweep that is resumed or extended forms the same ones.
    """
    if size < 1:
        raise ValueError(f"size is {size}; a batch holds at least one trial")
    first = sweep_seeds.start // size * size
    batches = []
    for config in configurations:
        finished = done.get(config.id, frozenset())
        for low in range(first, sweep_seeds.stop, size):
            chunk = range(max(low, sweep_seeds.start), min(low + size, sweep_seeds.stop))
            seeds = tuple(seed for seed in chunk if seed not in finished)
            if seeds:
                batches.append(Batch(batch_id(config.id, seeds), config, seeds))
    return batches


def batch_id(config: str, seeds: Iterable[int]) -> str:
    """The content hash of a configuration's id and seeds."""
    return record.content_hash({"config": config, "seeds": list(seeds)})


def grid_columns(sweep: Sweep) -> dict[str, bool]:
    """Dotted grid key → whether its column is float64: every value a number; the others are JSON text."""
    return {key: is_numeric(values) for key, values in sweep.grid.items()}
