"""From a sweep to configurations and batches: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from landsweep.cluster.grid import is_numeric
from landsweep.cluster.spans import Spans
from landsweep.cluster.spec import Seeds, Sweep
from landsweep.workers import record

#: Trials a batch at most, where ``resources.batch`` is auto; and where a trial is cheap and there are very many.
MAX_BATCH, MAX_CHEAP_BATCH = 64, 1024


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


@dataclass(frozen=True)
class Left:
    """What is left of one configuration."""

    config: Configuration
    seeds: Spans  # not empty

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most ``size`` trials that end at the multiples of ``size`` in the seed itself, ascending."""
        for part in self.seeds.cut(size):
            seeds = tuple(part)
            yield Batch(batch_id(self.config.id, seeds), self.config, seeds)


@dataclass(frozen=True)
class Batches:
    """The batches that are left: made one at a time when asked for, since there may be millions of trials."""

    parts: tuple[Left, ...]  # in the order of the configurations
    size: int  # trials a batch, at most

    @property
    def trials(self) -> int:
        return sum(len(part.seeds) for part in self.parts)

    def __len__(self) -> int:
        return sum(part.seeds.parts(self.size) for part in self.parts)

    def __iter__(self) -> Iterator[Batch]:
        return (batch for part in self.parts for batch in part.batches(self.size))


def program_key(configuration: Configuration) -> str | None:
    """Equal for configurations whose trials may train as one tensor program; None where training begins in another
    sweep."""
    from landsweep.workers.training_starts import program

    if configuration.origin:
        return None
    parts = program(configuration.settings)
    return record.content_hash({"program": parts, "code": configuration.code, "data": configuration.data})


def plan_batches(
    sweep_seeds: Seeds, configurations: Iterable[Configuration], done: Mapping[str, Spans], size: int
) -> Batches:
    """The trials that are left, (those of the sweep) − ``done``, in batches of at most ``size``.

    ``done`` maps a configuration's id to its seeds. Batches end at the multiples of ``size`` in the seed itself, so
    that a sweep that is resumed or extended forms the same ones.
    """
    if size < 1:
        raise ValueError(f"size is {size}; a batch holds at least one trial")
    asked = Spans(((sweep_seeds.start, sweep_seeds.stop),))
    left = (Left(config, asked - done.get(config.id, Spans())) for config in configurations)
    return Batches(tuple(part for part in left if part.seeds), size)


def batch_id(config: str, seeds: Iterable[int]) -> str:
    """The content hash of a configuration's id and seeds."""
    return record.content_hash({"config": config, "seeds": list(seeds)})


def grid_columns(sweep: Sweep) -> dict[str, bool]:
    """Dotted grid key → whether its column is float64: every value a number; the others are JSON text."""
    return {key: is_numeric(values) for key, values in sweep.grid.items()}
