"""A batch: from seeds to the rows of its tables. The one entry that the cluster layer calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import execution, mode, record, symmetry, training_starts, trajectories
from landsweep.workers.algebra import chosen
from landsweep.workers.landscape import Landscape
from landsweep.workers.measure import null_where_not_finite
from landsweep.workers.points import point_columns
from landsweep.workers.searched import searched
from landsweep.workers.training import Trained
from landsweep.workers.training_starts import Checkpoints, Start, Trials

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


@dataclass(frozen=True)
class TrainedBatch:
    """A task whose trials are at the end of training."""

    task: BatchTask
    trained: Trained
    seconds: float  # that training took, a trial: its share of a program's


def run_batch(
    task: BatchTask,
    landscape: Landscape,
    device: torch.device,
    start: Start | None = None,
    checkpoints: Checkpoints | None = None,
) -> BatchResult:
    """Train, search, classify and measure all seeds of ``task`` at once.

    Training begins at ``start`` and goes on from ``checkpoints``.
    """
    (batch,) = train_batches([task], landscape, device, [start or Start()], checkpoints)
    return finish_batch(batch, landscape, device)


def train_batches(
    tasks: Sequence[BatchTask],
    landscape: Landscape,
    device: torch.device,
    starts: Sequence[Start],
    checkpoints: Checkpoints | None = None,
) -> list[TrainedBatch]:
    """Train the trials of all ``tasks`` as one tensor program; what each becomes is what it becomes alone.

    ``landscape`` is that of the first; the others' differ in weight decay alone (``training_starts.program``).
    ``starts`` are theirs, of one and the same pretraining.
    """
    begun = time.monotonic()
    several = [_trials_of(task, tasks[0], landscape, start) for task, start in zip(tasks, starts, strict=True)]
    ended = training_starts.together(landscape, several, device, starts[0].pretraining, checkpoints)
    seconds = (time.monotonic() - begun) / sum(len(task.seeds) for task in tasks)
    return [TrainedBatch(task, trained, seconds) for task, trained in zip(tasks, ended, strict=True)]


def _trials_of(task: BatchTask, first: BatchTask, landscape: Landscape, start: Start) -> Trials:
    mine, same = task.settings["landscape"], first.settings["landscape"]
    decay = landscape.weight_decay if mine == same else mine["weight_decay"]
    return Trials(task.settings["training"], decay, stream_key(task.settings), task.seeds, start.theta)


def finish_batch(batch: TrainedBatch, landscape: Landscape, device: torch.device) -> BatchResult:
    """Search, classify and measure from where training ended."""
    begun = time.monotonic()
    task, trained, key = batch.task, batch.trained, stream_key(batch.task.settings)
    landscape = dataclasses.replace(landscape, symmetries=symmetry.checked(landscape, device=device))
    algebra = chosen(task.settings, landscape.dim)
    nothing = torch.full_like(trained.initial[:, 0], torch.nan)
    scale = algebra.norm(landscape, trained.initial) if mode.looks_everywhere(task.settings) else nothing
    along, objectives = trajectories.rows(task, landscape, trained)
    found, points, connections = searched(task, landscape, algebra, key, trained, objectives, scale)
    along |= trajectories.details(task, landscape, trained, objectives, scale, found, points)
    columns, spectra, parameters = point_columns(task, landscape, key, found, points, trained)
    seconds = batch.seconds + (time.monotonic() - begun) / len(task.seeds)
    tables = {
        "points": columns,
        "trials": _trials_table(task, landscape, trained, objectives, seconds, device),
        "trajectories": along,
        "connections": connections,
        "spectra": spectra,
    }
    stored = {"points": parameters, "initial": trained.initial, "trained": trained.final}
    return BatchResult(tables, {name: value.cpu().numpy() for name, value in stored.items()})


def _trials_table(
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
        "known_minimum": landscape.global_minimum,
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
