"""Parameters of other sweeps that trainings begin at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from landsweep.cluster.start_settings import TAKEN, origins
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import LandscapeError

Section = Mapping[str, Any]


class Origins:
    """The sweeps that a run starts from; each table is read once."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def identity(self, training: Section) -> tuple[str, ...] | None:
        """What the start of a ``training`` section follows from, None where it is of no other sweep.

        A configuration's id is that of all its trials follow from, and so stands for what they found.
        """
        return tuple(self._identity(place) for place in origins(training["start"])) or None

    def _identity(self, place: Section) -> str:
        take = str(place["take"])
        return f"{place['config'] or self._source(place).config(place)} {take}" if take in TAKEN else take

    def theta(self, training: Section, seeds: Sequence[int]) -> np.ndarray | None:
        """Where training begins. (B, n), one row a seed. Raises LandscapeError for what the sweeps do not have."""
        start = training["start"]
        found = [self._source(place).theta(place, seeds) for place in origins(start)]
        if not found:
            return None
        if len({theta.shape for theta in found}) > 1:
            sizes = " and ".join(str(theta.shape[1]) for theta in found)
            raise LandscapeError(f"training.start: first and second have {sizes} parameters; give two of one landscape")
        if len(found) == 1:
            return found[0]
        fraction = start["fraction"]
        between: np.ndarray = (1 - fraction) * found[0] + fraction * found[1]
        return between

    def check(self, training: Section, seeds: Sequence[int], parameters: int) -> None:
        """Refuse a start that is not there for all ``seeds``, or has not ``parameters`` numbers."""
        for place in origins(training["start"]):
            self._source(place).check(place, seeds)
        theta = self.theta(training, seeds[:1])
        if theta is not None and theta.shape[1] != parameters:
            found = f"found {theta.shape[1]} parameters where the landscape has {parameters}"
            raise LandscapeError(f"training.start: {found}; allowed: a sweep of the same model")

    def _source(self, place: Section) -> _Source:
        path = place["path"]
        if path not in self._sources:
            self._sources[path] = _Source(path)
        return self._sources[path]


class _Source:
    """One sweep."""

    def __init__(self, path: str) -> None:
        self._store = SweepStore(path)
        if not self._store.exists():
            raise self._error("there is no sweep")
        self._batches: dict[str, dict[int, str]] = {}  # configuration → seed → batch
        self._seeds: dict[str, list[int]] = {}  # batch → its seeds
        done = pa.compute.field("status") == "done"
        for row in self._store.table("trials", ["config", "seed", "batch"], done).to_pylist():
            self._batches.setdefault(row["config"], {})[row["seed"]] = row["batch"]
            self._seeds.setdefault(row["batch"], []).append(row["seed"])
        self._polished: dict[str, dict[int, Section]] = {}  # configuration → seed → where its point is
        self._tensors: tuple[str, dict[str, np.ndarray]] = "", {}  # of the batch read last

    def check(self, place: Section, seeds: Sequence[int]) -> None:
        if place["take"] not in TAKEN:
            return
        config = self.config(place)
        missing = [seed for seed in seeds if seed not in self._batches[config]]
        if missing:
            raise self._error(f"of configuration {config} it lacks {len(missing)} seeds asked for, as {missing[0]}")
        if place["take"] == "polished":
            for seed in seeds:
                self._held(self._place(config, seed), f"of seed {seed}")

    def theta(self, place: Section, seeds: Sequence[int]) -> np.ndarray:
        """(B, n)."""
        take = place["take"]
        if take not in TAKEN:
            found = self._points(pa.compute.field("point") == take)
            return np.repeat(self._point(found[0] if found else None, take)[None], len(seeds), axis=0)
        self.check(place, seeds)
        config = self.config(place)
        if take == "polished":
            return np.stack([self._point(self._place(config, seed), f"of seed {seed}") for seed in seeds])
        return np.stack([self._end(config, seed, take) for seed in seeds])

    def config(self, place: Section) -> str:
        """The id of its configuration that is meant."""
        known = sorted(self._batches)
        if place["config"] in known or (place["config"] is None and len(known) == 1):
            return str(place["config"] or known[0])
        wanted = f"no configuration {place['config']}" if place["config"] else "more than one configuration"
        raise self._error(f"it has {wanted}; its configurations are {', '.join(known) or 'none'}: set config")

    def _place(self, config: str, seed: int) -> Section | None:
        """Where the point is that was found from the end of a trial's training."""
        if config not in self._polished:
            field = pa.compute.field
            rows = self._points((field("config") == config) & (field("source") == "training"))
            self._polished[config] = {row["seed"]: row for row in rows}
        return self._polished[config].get(seed)

    def _points(self, filter: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._store.table(
            "points", ["seed", "batch", "parameters_row"], filter
        ).to_pylist()
        return rows

    def _held(self, row: Section | None, what: str) -> Section:
        """``row``, if it names parameters; a training that diverged left none."""
        if row is None or row["parameters_row"] is None:
            raise self._error(f"it has no parameters of the point {what}")
        return row

    def _point(self, row: Section | None, what: str) -> np.ndarray:
        held = self._held(row, what)
        point: np.ndarray = self._read(held["batch"])["points"][held["parameters_row"]]
        return point

    def _end(self, config: str, seed: int, name: str) -> np.ndarray:
        """A row of ``initial`` or ``trained``; they are in the order of the batch's seeds."""
        batch = self._batches[config][seed]
        seeds = sorted(self._seeds[batch])
        ends = self._read(batch)[name]
        if len(ends) != len(seeds):
            raise self._error(f"of the batch of seed {seed} some trials are kept elsewhere; take: polished does it")
        row: np.ndarray = ends[seeds.index(seed)]
        return row

    def _read(self, batch: str) -> dict[str, np.ndarray]:
        if self._tensors[0] != batch:
            self._tensors = batch, self._store.parameters(batch)
        return self._tensors[1]

    def _error(self, what: str) -> LandscapeError:
        return LandscapeError(f"training.start: {self._store.uri}: {what}")
