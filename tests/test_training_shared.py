"""Sweeps whose small batches train together: the tables of a sweep whose batches train alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landsweep.cluster import plan, policy, spec
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.plan import Batch, Configuration, batch_id
from landsweep.cluster.policy import Work
from landsweep.cluster.prepare import prepare
from landsweep.workers import batch as batches
from tests.comparison import largest_difference, points_of

pytestmark = pytest.mark.usefixtures("one_thread")


# --- what is put together --------------------------------------------------------------------------------------------
def work(config: str, *seeds: int) -> Work:
    return Work(Batch(batch_id(config, seeds), Configuration(config, {}, {}), seeds))


def sizes(works: list[Work], most: int) -> list[list[str]]:
    """The configurations of each program; those of one first letter may share, those of x may not."""

    def program(config: Configuration) -> str | None:
        return None if config.id[0] == "x" else config.id[0]

    return [[one.batch.config.id for one in group] for group in policy.together(iter(works), program, most)]


def test_small_batches_of_one_program_are_put_together_up_to_a_batch() -> None:
    works = [work(f"a{number}", 0, 1, 2) for number in range(5)]
    assert sizes(works, 6) == [["a0", "a1"], ["a2", "a3"], ["a4"]]
    assert sizes(works, 11) == [["a0", "a1", "a2"], ["a3", "a4"]]
    assert sizes(works, 5) == sizes(works, 0) == [[f"a{number}"] for number in range(5)]
    mixed = [works[0], work("b0", 1), work("b1", 1), work("x0", 1), work("x1", 1), work("b2", *range(9)), works[1]]
    assert sizes(mixed, 12) == [["a0"], ["b0", "b1"], ["x0"], ["x1"], ["b2"], ["a1"]]
    assert sizes([], 8) == []


def test_every_worker_keeps_two_programs() -> None:
    assert policy.trials_together(64, 128, 2) == 32
    assert policy.trials_together(64, 10**6, 2) == 64
    assert policy.trials_together(64, 3, 2) == 0


# --- sweeps ----------------------------------------------------------------------------------------------------------
def sweep(folder: Path, **changes: Any) -> dict[str, Any]:
    landscape = {"name": "mlp", "data": "digits", "hidden": [3], "resize": 4, "train_size": 60}
    return {
        "name": "shared",
        "seeds": 2,
        "landscape": landscape,
        "training": {"momentum": 0.9, "steps": 20, "batch_size": 20},
        "search": {"minima_iterations": 3},
        "grid": {"training.lr": [0.05, 0.1, 1e6], "landscape.weight_decay": [1e-3, 1e-2]},
        "resources": {"batch": 8},
        "store": str(folder),
        **changes,
    }


def trials_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "trials").set_index("trial").sort_index()


def ran(folder: Path, patch: pytest.MonkeyPatch, together: bool, **changes: Any) -> tuple[Path, list[int]]:
    """The sweep's folder, and how many configurations each program of it held."""
    programs, usual = [], batches.train_batches

    def counted(tasks: Any, *given: Any) -> Any:
        programs.append(len(tasks))
        return usual(tasks, *given)

    with patch.context() as here:
        here.setattr(batches, "train_batches", counted)
        if not together:
            here.setattr(policy, "trials_together", lambda size, left, workers: 0)
        asked = sweep(folder, **changes)
        progress = runs.run(prepare(spec.validate(asked, "sweep.yaml")), InlineExecutor, lambda progress: None)
    assert progress.done == progress.total
    assert not progress.failed
    return folder / "shared", programs


def test_a_shared_program_gives_the_tables_of_programs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, single = ran(tmp_path / "alone", monkeypatch, together=False)
    shared, programs = ran(tmp_path / "shared", monkeypatch, together=True)
    assert single == [1] * 6
    assert programs == [3, 3]  # 12 trials, six at once, as two programs are kept for the worker
    assert largest_difference(points_of(alone), points_of(shared)) == 0.0
    trials = [trials_of(folder) for folder in (alone, shared)]
    columns = ["status", "attempt", "final_objective"]
    pd.testing.assert_frame_equal(trials[0][columns], trials[1][columns])
    assert (trials[1]["seconds"] > 0).all()
    assert not (shared / "checkpoints").exists()


def test_a_shared_program_that_fails_is_tried_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = ran(tmp_path / "alone", monkeypatch, together=False)
    usual = batches.train_batches

    def failing(tasks: Any, *given: Any) -> Any:
        if len(tasks) > 1:
            raise MemoryError
        return usual(tasks, *given)

    monkeypatch.setattr(batches, "train_batches", failing)
    shared, programs = ran(tmp_path / "shared", monkeypatch, together=True)
    assert sorted(programs) == [1] * 6 + [3] * 2
    assert largest_difference(points_of(alone), points_of(shared)) == 0.0
    trials = trials_of(shared)
    assert np.all(trials["attempt"] == 2)


def test_a_batch_that_fails_after_a_shared_training_costs_its_mates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, failed = batches.finish_batch, []

    def failing(batch: Any, *given: Any) -> Any:
        if not failed:
            failed.append(batch.task.config)
            raise ValueError("once")
        return usual(batch, *given)

    monkeypatch.setattr(batches, "finish_batch", failing)
    shared, programs = ran(tmp_path / "shared", monkeypatch, together=True)
    assert programs == [3, 3, 1, 1]  # the batch that raised is halved
    trials = trials_of(shared)
    assert set(trials.loc[trials["attempt"] == 2, "config"]) == set(failed)


def test_trainings_that_begin_in_another_sweep_share_no_program() -> None:
    settings = spec.validate(sweep(Path("runs")), "f").configurations()[0][0]
    assert plan.program_key(Configuration("c", settings, {})) is not None
    assert plan.program_key(Configuration("c", settings, {}, origin=("there",))) is None
    keys = {plan.program_key(Configuration("c", settings, {}, code=code)) for code in ("one", "other")}
    assert len(keys) == 2
