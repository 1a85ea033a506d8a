"""What a worker process does with one batch: build the landscape, run, stage. Knows nothing of Ray."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from landsweep.cluster.checkpoints import BatchFiles
from landsweep.cluster.memory import exhausted
from landsweep.cluster.plan import landscape_key
from landsweep.cluster.policy import Work
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import RequestError, StoreError, UnavailableError
from landsweep.workers.samples import Samples

if TYPE_CHECKING:
    import torch

    from landsweep.workers.batch import BatchTask, TrainedBatch
    from landsweep.workers.landscape import Landscape
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
    mates: tuple[Work, ...] = ()  # batches whose trainings share the program of ``work``'s

    @property
    def works(self) -> tuple[Work, ...]:
        return (self.work, *self.mates)


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
    others: tuple[Summary, ...] = ()  # of the job's other batches; none where the program that they share failed


_landscapes: dict[str, Landscape] = {}


def execute(job: Job) -> Summary:
    """Run a job's batches and stage each. An exception comes back as a summary with its traceback."""
    from landsweep.workers import execution

    trained: list[TrainedBatch] = []

    def training() -> Summary:
        trained.extend(_trained(job, execution.prepare(job.threads, job.gpu)))
        return Summary(None)

    failed = _attempted(training)
    if not trained:
        return failed
    steps = (partial(_finished, job, *one) for one in zip(job.works, trained, strict=True))
    first, *others = (_attempted(step) for step in steps)
    if all(one.staged for one in (first, *others)):
        with contextlib.suppress(OSError, StoreError):  # the run's end removes what is left
            _checkpoints(job).delete()
    return replace(first, others=tuple(others))


def _attempted(step: Callable[[], Summary]) -> Summary:
    try:
        return step()
    except RequestError as exc:
        return Summary(None, invalid=str(exc), error=traceback.format_exc(limit=20))
    except UnavailableError as exc:
        return Summary(None, unavailable=str(exc), error=traceback.format_exc(limit=20))
    except Exception as exc:
        return Summary(None, error=traceback.format_exc(limit=20), exhausted=exhausted(exc))


def _trained(job: Job, device: torch.device) -> list[TrainedBatch]:
    """The job's batches at the end of training, as one tensor program."""
    from landsweep.workers import batch as batches
    from landsweep.workers.checkpoint import Checkpoint
    from landsweep.workers.training_starts import Checkpoints

    for folder in job.code:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    tasks = [_task(job, work) for work in job.works]
    files = _checkpoints(job)
    kept = Checkpoints(Checkpoint(files.keeper("pretraining")), Checkpoint(files.keeper("training")))
    landscape, starts = _landscape(job, job.work, device), [_start(job, device)] * len(tasks)
    return batches.train_batches(tasks, landscape, device, starts, kept)


def _task(job: Job, work: Work) -> BatchTask:
    from landsweep.workers.batch import BatchTask

    config = work.batch.config
    return BatchTask(job.sweep, work.batch.id, config.id, config.settings, config.grid, work.batch.seeds, work.attempt)


def _landscape(job: Job, work: Work, device: torch.device) -> Landscape:
    """The landscape of a batch; the last one is kept."""
    from landsweep.workers import builtin

    config = work.batch.config
    key = landscape_key(config)
    if key not in _landscapes:
        _landscapes.clear()
        _landscapes[key] = builtin.build(config.settings["landscape"], device, job.samples)
    return _landscapes[key]


def _finished(job: Job, work: Work, trained: TrainedBatch) -> Summary:
    """Search and measure from the end of a batch's training, and stage it."""
    from landsweep.cluster.commit import stage
    from landsweep.workers import batch as batches

    device, store, batch = trained.trained.initial.device, SweepStore(job.store), work.batch
    result = batches.finish_batch(trained, _landscape(job, work, device), device)
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
    points = result.tables["points"]
    seconds = sum(s for s in result.tables["trials"]["seconds"])
    return Summary(name, len(points["kind"]), seconds, dict(Counter(points["kind"])))


def _checkpoints(job: Job) -> BatchFiles:
    """The files of the program's checkpoints. A training goes on in the mode and versions that it began in only."""
    import torch

    from landsweep.workers import execution

    device = torch.device("cuda" if job.gpu else "cpu")
    mode = execution.describe(device, job.work.batch.config.settings["training"]["dtype"])
    versions = f"{mode} torch {torch.__version__} landsweep {record.VERSION}.{record.NUMERICS_VERSION}"
    ids = [work.batch.id for work in job.works]
    name = ids[0] if len(ids) == 1 else record.content_hash({"batches": ids})
    return BatchFiles(SweepStore(job.store).files, name, versions, job.checkpoint)


def _start(job: Job, device: torch.device) -> Start:
    """Where the trainings begin; those that begin in another sweep share no program."""
    from landsweep.workers import builtin
    from landsweep.workers.training_starts import Start

    settings = job.work.batch.config.settings
    start = settings["training"]["start"]
    if start["kind"] != "random_labels":
        return Start(theta=job.theta)
    relabelled = {"random_labels": True, "label_seed": start["label_seed"], "weight_decay": start["weight_decay"]}
    landscape = {**settings["landscape"], **relabelled}
    return Start(pretraining=builtin.build(landscape, device, job.samples))
