"""Workers that come up beside the plan."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from landsweep.cluster import early, prepare, ray_executor, spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.workers.errors import RequestError

SWEEP = {
    "name": "soon", "seeds": 200,
    "landscape": {"name": "mlp", "data": "digits", "train_size": 100, "hidden": [2], "weight_decay": 1e-3},
    "training": {"optimizer": "sgd", "steps": 2}, "search": {"minima": False},
}  # fmt: skip


@dataclass
class Made:
    """What was asked of executors, and how many were closed."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    found = Made()

    class Executor(InlineExecutor):
        def __init__(self, *asked: Any) -> None:
            super().__init__()
            found.asked.append(asked)

        def serve(self, most: int) -> None:
            found.served.append(most)

        def close(self) -> None:
            found.closed.release()

    monkeypatch.setattr(ray_executor, "RayExecutor", Executor)
    return found


def sweep(folder: Path, **changes: Any) -> spec.Sweep:
    return spec.Sweep.model_validate({**SWEEP, "store": str(folder), **changes})


def test_an_executor_is_made_for_the_batches_that_there_are_at_least(made: Made, tmp_path: Path) -> None:
    asked = sweep(tmp_path)
    with early.workers(asked, None) as ready:
        planned = prepare.prepare(asked)
        assert ready is not None
        taken = ready.take(planned)
        assert taken is not None and ready.take(planned) is None
    assert made.asked == [(1.0, 0.0, None, None, early.DATA_BYTES, 4)]
    assert made.served == [len(planned.batches)]
    assert not made.closed.acquire(blocking=False), "whoever takes it closes it"


def test_one_that_is_not_taken_is_closed(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="refused"), early.workers(sweep(tmp_path), None):
        raise RuntimeError("the plan is refused")
    assert made.closed.acquire(timeout=10)


def test_there_is_none_for_larger_data(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = sweep(tmp_path)
    monkeypatch.setattr(early, "DATA_BYTES", 1000)
    with early.workers(asked, None) as ready:
        assert ready is not None and ready.take(prepare.prepare(asked)) is None
    assert made.closed.acquire(timeout=10)


def test_there_is_none_for_a_cluster_nor_for_what_has_begun(made: Made, tmp_path: Path) -> None:
    with early.workers(sweep(tmp_path), "127.0.0.1:6379") as ready:
        assert ready is None
    with early.workers(sweep(tmp_path).model_copy(update={"store": "s3://bucket/folder"}), None) as ready:
        assert ready is None
    (tmp_path / "soon").mkdir()
    (tmp_path / "soon/sweep.yaml").touch()
    with early.workers(sweep(tmp_path), None) as ready:
        assert ready is None
    assert made.asked == []


def test_what_making_it_raises_is_raised_where_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RequestError("resources: no room")

    monkeypatch.setattr(ray_executor, "RayExecutor", refuse)
    asked = sweep(tmp_path)
    with early.workers(asked, None) as ready, pytest.raises(RequestError, match="no room"):
        assert ready is not None
        ready.take(prepare.prepare(asked))
