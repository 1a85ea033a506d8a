"""A batch: from seeds to the rows of its tables. The one entry that the cluster layer calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import execution, record, symmetry, training_starts, trajectories
from landsweep.workers.algebra import chosen
from landsweep.workers.landscape import Landscape
from landsweep.workers.measure import null_where_not_finite
from landsweep.workers.points import point_columns
from landsweep.workers.searched import searched
from landsweep.workers.training import Trained
from landsweep.workers.training_starts import Checkpoints, Start

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class BatchTask:
    """What a worker is asked to do: some seeds of one configuration."""

    sweep: str
    batch: str
    config: str
    settings: Mapping[str, Any]  # landscape, training, search, measure, complete
    grid: Mapping[str, Any]  # this configuration's grid values
    seeds: tuple[int, ...]
    attempt: int = 1


@dataclass(frozen=True)
class BatchResult:
    """What comes back."""

    tables: dict[str, Columns]  # points, trials, trajectories, spectra
    parameters: dict[str, np.ndarray]  # points (P, n), initial (B, n), trained (B, n), float64


def stream_key(settings: Mapping[str, Any]) -> str:
    """What a trial's random streams depend on beside its seed: landscape and training, not how points are searched."""
    return record.content_hash(
        {"landscape": settings["landscape"], "training": training_starts.plain(settings["training"])}
    )


def run_batch(
    task: BatchTask,
    landscape: Landscape,
    device: torch.device,
    hyperparameters: Mapping[str, Tensor] | None = None,
    start: Start | None = None,
    checkpoints: Checkpoints | None = None,
) -> BatchResult:
    """Train, search, classify and measure all seeds of ``task`` at once.

    ``hyperparameters`` (name → (B,)) replace the configuration's, one value a trial. Training begins at ``start`` and
    goes on from ``checkpoints``.
    """
    begun = time.monotonic()
    fields = symmetry.checked(landscape, device=device)
    landscape = dataclasses.replace(landscape, symmetries=fields)
    settings, seeds, key = task.settings["training"], list(task.seeds), stream_key(task.settings)
    trained = training_starts.trained(
        landscape, settings, key, seeds, device, hyperparameters=hyperparameters, start=start, checkpoints=checkpoints
    )
    algebra = chosen(task.settings, landscape.dim)
    scale = algebra.norm(landscape, trained.initial)
    along, objectives = trajectories.rows(task, landscape, trained)
    found, points, connections = searched(task, landscape, algebra, key, trained, objectives, scale)
    along |= trajectories.details(task, landscape, trained, objectives, scale, found, points)
    columns, spectra, parameters = point_columns(task, landscape, key, found, points, trained)
    seconds = (time.monotonic() - begun) / len(seeds)
    tables = {
        "points": columns,
        "trials": _trials(task, landscape, trained, objectives, seconds, device),
        "trajectories": along,
        "connections": connections,
        "spectra": spectra,
    }
    stored = {"points": parameters, "initial": trained.initial, "trained": trained.final}
    return BatchResult(tables, {name: value.cpu().numpy() for name, value in stored.items()})


def _trials(
    task: BatchTask, landscape: Landscape, trained: Trained, objectives: Tensor, seconds: float, device: torch.device
) -> Columns:
    rows = len(task.seeds)
    constant = {
        "sweep": task.sweep,
        "config": task.config,
        "batch": task.batch,
        "status": "done",
        "attempt": task.attempt,
        "steps": trained.steps[-1],
        "seconds": seconds,
        "device": device.type,
        "execution": execution.describe(device, task.settings["training"]["dtype"]),
        "numerics_version": record.NUMERICS_VERSION,
        "torch_version": str(torch.__version__),
        "code_version": record.VERSION,
        "error": None,
    }
    columns: Columns = {name: [value] * rows for name, value in constant.items()}
    columns["seed"] = list(task.seeds)
    columns["trial"] = [record.trial_id(task.config, seed) for seed in task.seeds]
    columns["final_objective"] = null_where_not_finite(objectives[-1])
    return columns
