"""How a sweep stands: the pure function, the file, what the driver tells, and what others read."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from landsweep.cluster import display, logs, prepare, spec, status
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.observe import Observer
from landsweep.cluster.status import RATE_SECONDS, STALE_SECONDS, Facts, Mark, Status, Work
from landsweep.cluster.store import SweepStore
from tests.toy import small_sweep, spoil

pytestmark = pytest.mark.usefixtures("one_thread")


def facts(**changes: Any) -> Facts:
    known: dict[str, Any] = {"sweep": "toy", "state": "running", "total": 100, "done": 40, "started": 1000.0}
    return Facts(**{**known, **changes})


def test_rates_time_left_and_cost() -> None:
    """Ten trials before the run, thirty in its first minute: 0.5 a second, sixty left take two minutes."""
    found = status.status(
        facts(
            marks=[Mark(1000.0, 10), Mark(1030.0, 25), Mark(1060.0, 40)],
            failures={"ValueError": 2, "timeout": 1},
            work_seconds=7200.0,
            price_per_hour=1.5,
            nodes={"b": Work(20, 50.0), "a": Work(10, 55.0)},
        ),
        1060.0,
    )
    assert (found.trials_per_second, found.eta_seconds, found.cost) == (0.5, 120.0, 3.0)
    assert (found.left, found.failed, found.elapsed_seconds) == (60, 3, 60.0)
    assert found.nodes == {"a": 10 / 60, "b": 20 / 60}


def test_the_rate_is_that_of_the_last_two_minutes() -> None:
    marks = [Mark(0.0, 0), Mark(100.0, 1000), Mark(1000.0, 1010), Mark(1060.0, 1040), Mark(1120.0, 1070)]
    assert status.status(facts(total=2000, marks=marks), 1120.0).trials_per_second == 0.5


def test_a_sweep_that_stands_still_slows_down() -> None:
    marks = [Mark(0.0, 0), Mark(100.0, 100)]
    rates = [status.status(facts(marks=marks), now).trials_per_second for now in (100.0, 200.0, 1000.0, 10000.0)]
    assert rates == [1.0, 0.5, 0.1, 0.01]


def test_nothing_is_said_of_what_is_not_known() -> None:
    found = status.status(facts(marks=[Mark(1000.0, 40)]), 1010.0)
    assert (found.trials_per_second, found.eta_seconds, found.cost) == (None, None, None)
    names = {sample.name for sample in found.samples()}
    assert names == {"total", "done", "left", "failed", "retried", "running", "elapsed_seconds", "work_seconds"}
    idle = status.status(facts(state="idle", marks=[Mark(0.0, 0), Mark(1.0, 40)]), 1010.0)
    assert idle.trials_per_second is None


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 5)), min_size=1, max_size=30), st.integers(0, 500))
def test_forgotten_marks_change_no_rate(steps: list[tuple[int, int]], wait: int) -> None:
    marks = [Mark(0.0, 0)]
    forgetful = list(marks)
    for pause, done in steps:
        marks.append(Mark(marks[-1].time + pause, marks[-1].done + done))
        forgetful = status.kept([*forgetful, marks[-1]], marks[-1].time)
        rates = [status.status(facts(marks=m), marks[-1].time + wait).trials_per_second for m in (marks, forgetful)]
        assert rates[0] == rates[1]
    assert sum(mark.time <= marks[-1].time - RATE_SECONDS for mark in forgetful) <= 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ('Traceback\n  File "x.py", line 1\nValueError: boom\n', "ValueError"),
        ("torch.cuda.OutOfMemoryError: 2 GiB", "OutOfMemoryError"),
        ("ValueError: first line\nsecond line", "ValueError"),
        ("KeyError: 'x'\n\nDuring handling …\n\nRuntimeError", "RuntimeError"),
        ("ActorDiedError: The actor died", "ActorDiedError"),
        ("took longer than resources.timeout, 5 s", "timeout"),
        ("", "other"),
    ],
)
def test_errors_are_counted_by_class(error: str, name: str) -> None:
    assert status.error_class(error) == name


def observed(content: dict[str, Any], times: list[float]) -> tuple[list[Status], Observer]:
    """Run the sweep; every state that was shown. Every look at the clock is a second later."""
    seen: list[Status] = []

    def clock() -> float:
        times[0] += 1.0
        return times[0]

    planned = prepare.prepare(spec.validate(content, "x"))
    observer = Observer(planned, seen.append, clock)
    runs.run(planned, InlineExecutor, observer)
    observer.end()
    return seen, observer


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_driver_says_what_the_tables_say(tmp_path: Path) -> None:
    """During a run with failures, from its file, and from the tables once it is over or gone."""
    content = small_sweep(tmp_path, resources={"batch": 2, "price_per_hour": 3600.0})
    spoil(content, seed=1)
    seen, _ = observed(content, [1000.0])
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert {one.state for one in seen[:-1]} == {"running"}
    last = seen[-1]
    assert (last.state, last.done, last.total, last.failed, last.failures) == ("done", 8, 8, 2, {"ValueError": 2})
    assert last.retried > 0
    assert sum(last.nodes.values()) == pytest.approx(6 / last.elapsed_seconds)  # type: ignore[operator]
    assert last.cost == pytest.approx(last.work_seconds)
    store = SweepStore(tmp_path / "runs/toy")
    assert status.written(store) == last
    read = status.current(store, 5000.0)
    for name in ("state", "done", "total", "failed", "failures", "retried", "nodes"):
        assert getattr(read, name) == getattr(last, name)
    assert read.work_seconds == pytest.approx(last.work_seconds)
    assert read.cost == pytest.approx(last.cost)
    # a run that goes on counts what was there before
    more, _ = observed({**content, "seeds": 5}, [6000.0])
    assert (more[0].done, more[0].failures, more[0].trials_per_second) == (8, {"ValueError": 2}, None)
    assert (more[-1].done, more[-1].total) == (10, 10)
    assert more[-1].work_seconds > last.work_seconds


def test_a_reader_knows_a_driver_that_is_gone(tmp_path: Path) -> None:
    content = small_sweep(tmp_path)
    seen, _ = observed(content, [1000.0])
    store = SweepStore(tmp_path / "runs/toy")
    running = next(one for one in seen if one.done == 4)
    status.write(store, running)
    assert status.current(store, running.time + STALE_SECONDS) == running
    store.files.write("verdict/question.json", b'{"options": {}, "planned": 9}')
    lost = status.current(store, running.time + STALE_SECONDS + 1)
    assert (lost.state, lost.done, lost.trials_per_second) == ("lost", 8, None)
    store.files.delete(status.STATUS_FILE)
    assert status.current(store, 0.0).state == "idle"


def test_a_run_with_nothing_to_do_corrects_a_killed_driver(tmp_path: Path) -> None:
    """Killed when all was done, before it said so: its last word is that it runs."""
    content = small_sweep(tmp_path)
    seen, _ = observed(content, [1000.0])
    store = SweepStore(tmp_path / "runs/toy")
    observed(content, [2000.0])
    assert status.written(store) == seen[-1]  # nothing to correct
    status.write(store, next(one for one in seen if one.done == 4))
    observed(content, [3000.0])
    found = status.current(store, 3001.0)
    assert (found.state, found.done, found.left, found.failed) == ("done", 8, 0, 0)
    assert found.work_seconds == pytest.approx(seen[-1].work_seconds)


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    content = small_sweep(tmp_path)
    planned = prepare.prepare(spec.validate(content, "x"))
    observer = Observer(planned, lambda found: None)

    def interrupted(progress: runs.Progress) -> None:
        observer(progress)
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(planned, InlineExecutor, interrupted)
    observer.end()
    assert status.current(SweepStore(tmp_path / "runs/toy"), 0.0).state == "interrupted"


def test_a_store_that_takes_no_status_stops_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(status, "write", refuse)
    seen, _ = observed(small_sweep(tmp_path), [0.0])
    assert seen[-1].done == 8


def test_events_are_lines_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is handed out, then done, retried or failed; ids, node, seconds and errors are told."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    content = small_sweep(tmp_path)
    spoil(content, seed=1)
    logger = logging.getLogger("landsweep.events")
    before = logger.handlers, logger.level
    try:
        logs.to_json()
        observed(content, [1000.0])
    finally:
        logger.handlers, logger.level = before
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    kinds = [event["event"] for event in events]
    assert set(kinds) == {"batch handed out", "batch done", "batch retried", "trial failed", "progress"}
    assert kinds.count("trial failed") == 2
    handed = kinds.count("batch handed out")
    assert handed == sum(kinds.count(kind) for kind in ("batch done", "batch retried", "trial failed"))
    failed = next(event for event in events if event["event"] == "trial failed")
    assert failed["level"] == "error"
    assert failed["first_trial"] == failed["last_trial"] == f"{failed['config']}-1"
    assert failed["error"].endswith("ValueError: boom\n")
    done = next(event for event in events if event["event"] == "batch done")
    assert done.keys() >= {"time", "batch", "config", "attempt", "trials", "node", "seconds", "rows"}
    assert events[-1]["state"] == "done"


def test_lines_for_people() -> None:
    found = status.status(facts(marks=[Mark(1000.0, 10), Mark(1060.0, 40)], failures={"ValueError": 2}), 1060.0)
    text = "toy: 40/100 trials, 2 failed (ValueError 2), 0.5 a second, 1 min 0 s, about 2 min 0 s left"
    assert display.line(found) == text
    said: list[str] = []
    show = display.lines(said.append)
    for second, done in ((0.0, 0), (0.2, 4), (0.9, 8), (1.1, 12), (2.5, 12), (2.6, 16)):
        show(status.status(facts(done=done, marks=[Mark(1000.0, 0)], started=1000.0), 1000.0 + second))
    assert [line.split()[1] for line in said] == ["0/100", "12/100", "16/100"]


def test_the_view_of_a_terminal() -> None:
    nodes = {f"node-{i:02}": Work(i, 1.0) for i in range(1, 13)}
    found = status.status(facts(marks=[Mark(1000.0, 10), Mark(1060.0, 40)], nodes=nodes, running=7), 1060.0)
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(display.panel(found))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "toy: 40/100 trials" in shown
    assert "7 batches out" in shown
    assert "node-12" in shown
    assert "node-01" not in shown
    assert "2 more nodes" in shown
