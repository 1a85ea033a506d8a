"""What a worker process does with one batch: build the landscape, run, stage. Knows nothing of Ray."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landsweep.cluster.checkpoints import BatchFiles
from landsweep.cluster.memory import exhausted
from landsweep.cluster.plan import landscape_key
from landsweep.cluster.policy import Work
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import RequestError, UnavailableError
from landsweep.workers.samples import Samples

if TYPE_CHECKING:
    import torch

    from landsweep.workers.training_starts import Start


@dataclass(frozen=True)
class Job:
    """Everything a worker needs; travels by value."""

    work: Work
    store: str  # the sweep's location
    sweep: str
    grid: Mapping[str, bool]  # grid key → numeric?
    code: tuple[str, ...] = ()  # folders to import the user's landscapes from
    threads: int = 1
    gpu: bool = False
    timeout: float | None = None  # seconds of wall time
    samples: Samples | None = None  # what the landscape's data set is made of
    checkpoint: float | None = None  # seconds between checkpoints; None: none are kept
    theta: np.ndarray | None = None  # (B, n) where training begins, if in another sweep


@dataclass(frozen=True)
class Summary:
    """What the driver learns of a batch; the results themselves are in the store."""

    staged: str | None  # name of the staged batch; None where it failed
    rows: int = 0
    seconds: float = 0.0
    kinds: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None  # a traceback
    exhausted: bool = False  # the error is that memory ran out
    invalid: str | None = None  # a request that no retry mends
    unavailable: str | None = None  # the store took nothing: no trial is to blame


_landscapes: dict[str, Any] = {}


def execute(job: Job) -> Summary:
    """Run one batch and stage it. An exception comes back as a summary with its traceback."""
    try:
        return _execute(job)
    except RequestError as exc:
        return Summary(None, invalid=str(exc), error=traceback.format_exc(limit=20))
    except UnavailableError as exc:
        return Summary(None, unavailable=str(exc), error=traceback.format_exc(limit=20))
    except Exception as exc:
        return Summary(None, error=traceback.format_exc(limit=20), exhausted=exhausted(exc))


def _execute(job: Job) -> Summary:
    from landsweep.cluster.commit import stage
    from landsweep.workers import batch as batches
    from landsweep.workers import builtin, execution
    from landsweep.workers.checkpoint import Checkpoint
    from landsweep.workers.training_starts import Checkpoints

    device = execution.prepare(job.threads, job.gpu)
    for folder in job.code:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    batch = job.work.batch
    settings = batch.config.settings
    key = landscape_key(batch.config)
    if key not in _landscapes:
        _landscapes.clear()
        _landscapes[key] = builtin.build(settings["landscape"], device, job.samples)
    task = batches.BatchTask(
        job.sweep, batch.id, batch.config.id, settings, batch.config.grid, batch.seeds, job.work.attempt
    )
    store = SweepStore(job.store)
    files = _checkpoints(job, store, execution.describe(device, settings["training"]["dtype"]))
    kept = Checkpoints(Checkpoint(files.keeper("pretraining")), Checkpoint(files.keeper("training")))
    result = batches.run_batch(task, _landscapes[key], device, start=_start(job, device), checkpoints=kept)
    try:
        name = stage(
            store,
            sweep=job.sweep,
            config=batch.config.id,
            batch=batch.id,
            seeds=batch.seeds,
            tables=result.tables,
            grid=job.grid,
            arrays=result.parameters,
        )
    except OSError as exc:
        mend = "mend that path or its permissions, and run the same command again"
        raise UnavailableError(f"{store.uri} cannot be written ({exc}); {mend}") from exc
    files.delete()
    points = result.tables["points"]
    seconds = sum(s for s in result.tables["trials"]["seconds"])
    return Summary(name, len(points["kind"]), seconds, dict(Counter(points["kind"])))


def _checkpoints(job: Job, store: SweepStore, mode: str) -> BatchFiles:
    """The files of the batch's checkpoints. A training goes on in the ``mode`` and versions that it began in only."""
    import torch

    versions = f"{mode} torch {torch.__version__} landsweep {record.VERSION}.{record.NUMERICS_VERSION}"
    return BatchFiles(store.files, job.work.batch.id, versions, job.checkpoint)


def _start(job: Job, device: torch.device) -> Start:
    """Where the batch's trainings begin."""
    from landsweep.workers import builtin
    from landsweep.workers.training_starts import Start

    settings = job.work.batch.config.settings
    start = settings["training"]["start"]
    if start["kind"] != "random_labels":
        return Start(theta=job.theta)
    relabelled = {"random_labels": True, "label_seed": start["label_seed"], "weight_decay": start["weight_decay"]}
    landscape = {**settings["landscape"], **relabelled}
    return Start(pretraining=builtin.build(landscape, device, job.samples))
