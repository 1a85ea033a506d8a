"""Small tables of invented trials, in the shape in which a worker stages them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landsweep.cluster import commit
from landsweep.cluster.store import SweepStore
from landsweep.workers import record

GRID = {"training.lr": True, "landscape.hidden": False}


def point_columns(config: str, seeds: Sequence[int], batch: str, **changes: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Two points a trial: a minimum, the end of training, and a saddle."""
    trials = [record.trial_id(config, seed) for seed in seeds]
    count = len(seeds)
    columns: dict[str, Sequence[Any]] = {name: [None] * (2 * count) for name in record.schema("points").names}
    columns |= {
        "sweep": ["small"] * (2 * count),
        "config": [config] * (2 * count),
        "trial": trials * 2,
        "seed": list(seeds) * 2,
        "point": [f"{t}-training-0" for t in trials] + [f"{t}-trajectory-0" for t in trials],
        "batch": [batch] * (2 * count),
        "source": ["training"] * count + ["trajectory"] * count,
        "kind": ["minimum"] * count + ["saddle"] * count,
        "index": [0] * count + [1] * count,
        "certified": [False] * count + [None] * count,
        "objective": [0.5 + seed / 64 for seed in seeds] + [1.5] * count,
        "test_loss": [0.6 + seed / 64 for seed in seeds] + [1.75] * count,
        "spectrum": [[1.0, 2.0]] * count + [[-1.0, 2.0]] * count,
        "fingerprint": [[0.5 + seed / 64, 0.0, 0.0] for seed in seeds]
        + [[1.5, 1.0, 0.0, 2.0 + seed] for seed in seeds],
        "parameters_row": list(range(2 * count)),
        "training.lr": [0.25] * (2 * count),
        "landscape.hidden": [[2]] * (2 * count),
    }
    return {**columns, **changes}


def trial_columns(
    config: str, seeds: Sequence[int], batch: str, status: str = "done", attempt: int = 1
) -> dict[str, Sequence[Any]]:
    """A row a trial."""
    columns: dict[str, Sequence[Any]] = {name: [None] * len(seeds) for name in record.schema("trials").names}
    return columns | {
        "sweep": ["small"] * len(seeds),
        "trial": [record.trial_id(config, seed) for seed in seeds],
        "config": [config] * len(seeds),
        "seed": list(seeds),
        "batch": [batch] * len(seeds),
        "status": [status] * len(seeds),
        "attempt": [attempt] * len(seeds),
        "error": ["boom" if status == "failed" else None] * len(seeds),
    }


def tables(config: str, seeds: Sequence[int], batch: str, attempt: int = 1) -> dict[str, Mapping[str, Sequence[Any]]]:
    """Everything that a finished batch brings."""
    points = point_columns(config, seeds, batch)
    spectra = {name: points[name] for name in ("point", "config", "seed")} | {"eigenvalues": points["spectrum"]}
    trajectory: dict[str, Sequence[Any]] = {name: [None] * len(seeds) for name in record.schema("trajectories").names}
    trials = trial_columns(config, seeds, batch, attempt=attempt)
    trajectory |= {name: trials[name] for name in ("trial", "config", "seed")} | {"step": [0] * len(seeds)}
    return {"points": points, "trials": trials, "trajectories": trajectory, "spectra": spectra}


def stage(store: SweepStore, config: str, seeds: Sequence[int], batch: str = "", attempt: int = 1) -> str:
    """Stage a finished batch; its name."""
    batch = batch or f"{config}-{seeds[0]}"
    count = len(seeds)
    thetas = np.array([[seed, seed + 0.5] for seed in seeds], dtype=float)
    parameters = {"points": np.concatenate([thetas, -thetas]), "initial": thetas + 100, "trained": thetas + 200}
    assert parameters["points"].shape == (2 * count, 2)
    content = tables(config, seeds, batch, attempt)
    return commit.stage(
        store, sweep="small", config=config, batch=batch, seeds=seeds, tables=content, grid=GRID, arrays=parameters
    )


def stage_failed(store: SweepStore, config: str, seed: int, attempt: int = 1) -> str:
    """Stage a trial that was given up."""
    batch = f"{config}-{seed}"
    rows = {"trials": trial_columns(config, [seed], batch, "failed", attempt)}
    return commit.stage(
        store, sweep="small", config=config, batch=batch, seeds=[seed], tables=rows, grid=GRID, failed=[seed]
    )
