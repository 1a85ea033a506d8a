"""Parameters of other sweeps that trainings begin at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from safetensors.numpy import load as load_tensors

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
        done = pa.compute.field("status") == "done"
        self._trials = self._store.table("trials", ["config", "seed", "batch"], done).to_pandas()
        self._tensors: tuple[str, dict[str, np.ndarray]] = "", {}  # of the batch read last

    def check(self, place: Section, seeds: Sequence[int]) -> None:
        if place["take"] not in TAKEN:
            return
        config = self.config(place)
        missing = sorted(set(seeds) - set(self._trials["seed"][self._trials["config"] == config]))
        if missing:
            raise self._error(f"of configuration {config} it lacks {len(missing)} seeds asked for, as {missing[0]}")

    def theta(self, place: Section, seeds: Sequence[int]) -> np.ndarray:
        """(B, n)."""
        take = place["take"]
        if take not in TAKEN:
            return np.repeat(self._point(pa.compute.field("point") == take, take)[None], len(seeds), axis=0)
        self.check(place, seeds)
        config = self.config(place)
        if take == "polished":
            return np.stack([self._polished(config, seed) for seed in seeds])
        return np.stack([self._end(config, seed, take) for seed in seeds])

    def config(self, place: Section) -> str:
        """The id of its configuration that is meant."""
        known = sorted(set(self._trials["config"]))
        if place["config"] in known or (place["config"] is None and len(known) == 1):
            return str(place["config"] or known[0])
        wanted = f"no configuration {place['config']}" if place["config"] else "more than one configuration"
        raise self._error(f"it has {wanted}; its configurations are {', '.join(known) or 'none'}: set config")

    def _polished(self, config: str, seed: int) -> np.ndarray:
        field = pa.compute.field
        mine = (field("config") == config) & (field("seed") == seed) & (field("source") == "training")
        return self._point(mine, f"of seed {seed}")

    def _point(self, filter: Any, what: str) -> np.ndarray:
        rows = self._store.table("points", ["batch", "parameters_row"], filter).to_pylist()
        if not rows or rows[0]["parameters_row"] is None:
            raise self._error(f"it has no parameters of the point {what}")
        point: np.ndarray = self._read(rows[0]["batch"])["points"][rows[0]["parameters_row"]]
        return point

    def _end(self, config: str, seed: int, name: str) -> np.ndarray:
        """A row of ``initial`` or ``trained``; they are in the order of the batch's seeds."""
        trials = self._trials
        (batch,) = trials["batch"][(trials["config"] == config) & (trials["seed"] == seed)].tail(1)
        seeds = sorted(trials["seed"][trials["batch"] == batch])
        ends = self._read(batch)[name]
        if len(ends) != len(seeds):
            raise self._error(f"of the batch of seed {seed} some trials are kept elsewhere; take: polished does it")
        row: np.ndarray = ends[seeds.index(seed)]
        return row

    def _read(self, batch: str) -> dict[str, np.ndarray]:
        if self._tensors[0] != batch:
            self._tensors = batch, load_tensors(self._store.files.read(self._store.parameter_file(batch)))
        return self._tensors[1]

    def _error(self, what: str) -> LandscapeError:
        return LandscapeError(f"training.start: {self._store.uri}: {what}")
