"""From a sweep to the plan of what of it is left. Reads the store and the data sets, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from landsweep.cluster import failures, memory, plan, spec, yaml_reader
from landsweep.cluster.code import code_hashes
from landsweep.cluster.data.library import Library
from landsweep.cluster.origins import Origins
from landsweep.cluster.store import DATA_FILE, SWEEP_FILE, SweepStore
from landsweep.workers import record
from landsweep.workers.errors import ConflictError


@dataclass(frozen=True)
class Plan:
    """What a sweep asks for and what of it is left."""

    sweep: spec.Sweep
    store: SweepStore
    configurations: tuple[plan.Configuration, ...]
    data: Library
    origins: Origins
    batches: plan.Batches  # left to run
    done: int  # trials
    tried: Mapping[str, int]  # trial → its attempts so far, of those whose failure is tried again
    notes: tuple[str, ...] = ()  # what to know before it runs
    batch_bytes: int | None = None  # of the largest batch, predicted; None: nothing is left

    @property
    def total(self) -> int:
        return len(self.configurations) * len(self.sweep.seeds)

    @property
    def left(self) -> int:
        return self.batches.trials

    @property
    def size(self) -> int:
        """Trials a batch."""
        return self.batches.size

    def seconds_left(self) -> float | None:
        """What the trials left will take of one batch's resources, if they are like those done; None before any is."""
        seconds = self.store.table("trials", ["seconds"]).column("seconds").drop_null()
        return round(pa.compute.mean(seconds).as_py() * self.left, 1) if len(seconds) else None

    def cost_left(self) -> float | None:
        """Their price, where ``resources.price_per_hour`` gives one."""
        price, seconds = self.sweep.resources.price_per_hour, self.seconds_left()
        return None if price is None or seconds is None else round(price * seconds / 3600, 2)


def location(sweep: spec.Sweep) -> str:
    """``<store>/<name>``."""
    return f"{sweep.store.rstrip('/')}/{sweep.name}"


def prepare(sweep: spec.Sweep, retry_failed: bool = False) -> Plan:
    """The plan of what is left. Reads the store and the data sets, writes nothing.

    Raises ConflictError where the name is taken, LandscapeError for data that cannot be used.
    """
    store, data, origins = SweepStore(location(sweep)), Library(), Origins()
    _check_name(sweep, store)
    configurations = plan.expand(sweep, code_hashes(sweep), data.checksum, origins.identity)
    _check_data(store, data)
    snapshot = store.snapshot()
    done = snapshot.trials()
    if retry_failed:
        for config, seeds in snapshot.failed().items():
            done[config] = done[config] - seeds
    left = plan.plan_batches(sweep.seeds, configurations, done, plan.MAX_BATCH)
    # a finished sweep need not build its landscapes
    notes = _notes(configurations, data) if left.parts else ()
    allotted = _allotted(sweep, configurations, data) if left.parts else memory.Allotment(left.size)
    left = replace(left, size=allotted.size)
    _check_starts(left, data, origins)
    finished = len(configurations) * len(sweep.seeds) - left.trials
    tried = {trial: row["attempt"] for trial, row in failures.last(store).items()} if retry_failed else {}
    notes += allotted.notes
    return Plan(sweep, store, configurations, data, origins, left, finished, tried, notes, allotted.peak)


def _allotted(sweep: spec.Sweep, configurations: tuple[plan.Configuration, ...], data: Library) -> memory.Allotment:
    """Trials a batch, and what they will take."""

    def predicted(settings: dict[str, Any]) -> Callable[[int], int]:
        known = memory.footprint(settings["landscape"], data.samples(settings["landscape"]))
        return lambda trials: memory.batch_bytes(settings, known, trials)

    distinct = {record.canonical_json(memory.relevant(one.settings)): one.settings for one in configurations}
    predictions = [predicted(settings) for settings in distinct.values()]
    resources, seeds = sweep.resources, len(sweep.seeds)
    return memory.allotted(predictions, resources.batch, resources.memory, seeds, len(configurations) * seeds)


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
    from landsweep.workers import builtin, suitability

    found = []
    for settings in (configuration.settings for configuration in configurations):
        facts = builtin.facts(settings["landscape"], data.samples(settings["landscape"]))
        suitability.check(settings, facts)
        found.append((facts.dim, facts.samples))
    return found


def _check_starts(left: plan.Batches, data: Library, origins: Origins) -> None:
    """Refuse starts in other sweeps that are not there or do not fit."""
    for part in left.parts:
        if part.config.origin:
            ((n, _),) = shapes((part.config,), data)
            origins.check(part.config.settings["training"], tuple(part.seeds), n)


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
