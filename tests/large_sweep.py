"""A sweep of any size in the layout of done segments: tables, claims and checksums as the runner leaves them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from landsweep.cluster.files import checksum
from landsweep.cluster.spans import Spans
from landsweep.cluster.store import SweepStore
from landsweep.workers import record

POINTS_PER_TRIAL = 4  # the end of training, then three searches for saddles
SOURCES = ("training", "trajectory", "trajectory", "noise")
CLASSES = 60  # distinct minima of a landscape
GRID = {"landscape.hidden": False, "training.lr": True}
TOGETHER = 10  # configurations in one segment
NUMBERS = "grad_norm newton_step eig_min eig_max trace sharpness param_norm init_distance test_loss_trained"


@dataclass(frozen=True)
class Plan:
    """``configs`` configurations of ``trials`` trials each, in segments of ``rows`` points."""

    configs: int
    trials: int
    rows: int = 50_000

    @property
    def seeds(self) -> int:
        """Seeds of each configuration in one segment."""
        return self.rows // (POINTS_PER_TRIAL * min(TOGETHER, self.configs))

    @property
    def points(self) -> int:
        return self.configs * self.trials * POINTS_PER_TRIAL


def config_id(k: int) -> str:
    return record.content_hash({"configuration": k})


def write(folder: Path, plan: Plan, seed: int = 0) -> Path:
    """Write it to ``folder/large``."""
    rng = np.random.default_rng(seed)
    store = SweepStore(folder / "large")
    store.files.write("sweep.yaml", b"name: large\n")
    ids = sorted(config_id(k) for k in range(plan.configs))
    number = 0
    for block in range(0, plan.configs, TOGETHER):
        for start in range(0, plan.trials, plan.seeds):
            part = Part(
                ids, range(block, min(block + TOGETHER, plan.configs)), start, min(plan.seeds, plan.trials - start)
            )
            _segment(store, number, part, rng)
            number += 1
    return folder / "large"


@dataclass(frozen=True)
class Part:
    """The configurations and seeds of one segment."""

    ids: list[str]
    configs: range
    start: int
    seeds: int

    @property
    def trials(self) -> int:
        return len(self.configs) * self.seeds


def _segment(store: SweepStore, number: int, part: Part, rng: np.random.Generator) -> None:
    segment, seeds = f"segment-{number:08d}", Spans(((part.start, part.start + part.seeds),)).to_json()
    files = {}
    for name, table in {"points": _points(part, rng), "trials": _trials(part)}.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        files[f"{name}/{segment}.parquet"] = checksum(buffer.getvalue())
        store.files.write(f"{name}/{segment}.parquet", buffer.getvalue())
    claim = {"schema": 1, "segment": segment, "staged": [], "trials": {part.ids[k]: seeds for k in part.configs}}
    store.files.write(f"log/{number:08d}.json", record.canonical_json(claim).encode())
    done = {"schema": 1, "segment": segment, "files": files}
    store.files.write(f"log/{number:08d}.done", record.canonical_json(done).encode())


def _points(part: Part, rng: np.random.Generator) -> pa.Table:
    count = part.trials * POINTS_PER_TRIAL
    which = np.repeat(np.array(part.configs), part.seeds * POINTS_PER_TRIAL)
    seeds = np.tile(np.repeat(np.arange(part.start, part.start + part.seeds), POINTS_PER_TRIAL), len(part.configs))
    place = np.tile(np.arange(POINTS_PER_TRIAL), part.trials)
    training = place == 0
    config = pa.array(part.ids).take(pa.array(which))
    trial = pc.binary_join_element_wise(config, pc.cast(pa.array(seeds), pa.string()), "-")
    source = pa.array(SOURCES).take(pa.array(place))
    # A landscape's minima: the first is global; a saddle lies above all of them.
    minimum = np.where(training, (CLASSES * rng.random(count) ** 2).astype(int), CLASSES)
    objective = 0.1 + 0.01 * minimum + np.where(training, 1e-13, 0.05) * rng.standard_normal(count)
    test_loss = 0.3 + 0.001 * which + 0.01 * rng.standard_normal(count)
    kind = pa.array(["minimum", "saddle"]).take(pa.array(np.where(training, 0, 1)))
    drawn: dict[str, Callable[[], pa.Array]] = {
        "sweep": lambda: pa.array(["large"]).take(pa.array(np.zeros(count, dtype=int))),
        "config": lambda: config,
        "trial": lambda: trial,
        "seed": lambda: pa.array(seeds),
        "point": lambda: pc.binary_join_element_wise(trial, source, pc.cast(pa.array(place), pa.string()), "-"),
        "batch": lambda: pa.array([record.content_hash(k) for k in range(64)]).take(pa.array(seeds // 250 % 64)),
        "source": lambda: source,
        "step": lambda: pa.array(rng.integers(0, 4000, count)),
        "kind": lambda: kind,
        "index": lambda: pa.array(np.where(training, 0, rng.integers(1, 9, count))),
        "objective": lambda: pa.array(objective),
        "train_loss": lambda: pa.array(objective),
        "test_loss": lambda: pa.array(test_loss),
        "gap": lambda: pa.array(test_loss - objective),
        "polish_distance": lambda: pa.array(rng.random(count), mask=~training),
        "same_basin": lambda: pa.array(np.ones(count, dtype=bool), mask=~training),
        "fingerprint": lambda: _fingerprints(minimum, objective, training, rng),
        "landscape.hidden": lambda: pa.array(["[10]", "[25]", "[50]", "[100]"]).take(pa.array(which % 4)),
        "training.lr": lambda: pa.array(0.01 * (1 + which // 4)),
    }
    drawn |= {name: lambda: pa.array(rng.random(count)) for name in NUMBERS.split()}
    return _table("points", drawn, count)


def _fingerprints(
    minimum: np.ndarray, objective: np.ndarray, training: np.ndarray, rng: np.random.Generator
) -> pa.Array:
    """[objective, index, n_zero, eight projections]: the class's own, with rounding; saddles are all distinct."""
    count = len(minimum)
    centres = np.random.default_rng(5).standard_normal((CLASSES + 1, 8))
    prints = np.empty((count, 11))
    prints[:, 0], prints[:, 1], prints[:, 2] = objective, np.where(training, 0, 1), 0
    prints[:, 3:] = centres[minimum] + np.where(training, 1e-12, 1.0)[:, None] * rng.random((count, 1))
    return pa.ListArray.from_arrays(np.arange(0, 11 * count + 1, 11, dtype=np.int32), prints.reshape(-1))


def _trials(part: Part) -> pa.Table:
    config = pa.array(part.ids).take(pa.array(np.repeat(np.array(part.configs), part.seeds)))
    seeds = pa.array(np.tile(np.arange(part.start, part.start + part.seeds), len(part.configs)))
    drawn: dict[str, Callable[[], pa.Array]] = {
        "sweep": lambda: pa.array(["large"] * part.trials),
        "trial": lambda: pc.binary_join_element_wise(config, pc.cast(seeds, pa.string()), "-"),
        "config": lambda: config,
        "seed": lambda: seeds,
        "status": lambda: pa.array(["done"] * part.trials),
        "attempt": lambda: pa.array(np.ones(part.trials, dtype=np.int64)),
    }
    return _table("trials", drawn, part.trials)


def _table(name: str, columns: dict[str, Callable[[], pa.Array]], count: int) -> pa.Table:
    """What is not drawn was not measured."""
    schema = record.schema(name, GRID if name == "points" else None)
    arrays = [columns[field.name]() if field.name in columns else pa.nulls(count, field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
