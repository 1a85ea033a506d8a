"""From a sweep to its tables in this process: what is planned, tried again, given up, kept."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import landsweep
from landsweep.analysis.sweep import Sweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.execute import Job
from landsweep.cluster.executors import Completion, Executor, InlineExecutor
from landsweep.cluster.prepare import Plan, prepare
from landsweep.cluster.progress import damaged, sweeps
from landsweep.cluster.run import Progress
from landsweep.cluster.store import QUESTION_FILE, SweepStore
from landsweep.workers.errors import ConflictError, ExecutionError, LandscapeError, RequestError
from tests.toy import small_sweep, spoil

SADDLES = {"saddles": {"per_trial": 1, "max_iterations": 30}}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def prepared(sweep: dict[str, Any], retry_failed: bool = False) -> Plan:
    return prepare(spec.validate(sweep, "sweep.yaml"), retry_failed)


def ran(sweep: dict[str, Any], retry_failed: bool = False, make: Callable[[], Executor] = InlineExecutor) -> Progress:
    return runs.run(prepared(sweep, retry_failed), make, lambda progress: None)


def opened(sweep: dict[str, Any]) -> Sweep:
    return landsweep.open(f"{sweep['store']}/{sweep['name']}")


def never() -> Executor:
    raise AssertionError("nothing is left to run")


def measured(sweep: dict[str, Any]) -> pd.DataFrame:
    """The points but for what says where they were computed; of ``class_id`` its rank, as its name has the sweep's."""
    points = opened(sweep).points().drop(columns=["batch", "parameters_row", "sweep"])
    return points.assign(class_id=points["class_id"].str.rpartition("-")[2])


def test_a_sweep_runs_once(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, search=SADDLES)
    assert (prepared(sweep).total, prepared(sweep).left, len(prepared(sweep).batches)) == (8, 8, 2)
    assert not (tmp_path / "runs").exists()  # planning writes nothing
    progress = ran(sweep)
    assert (progress.done, progress.failed, progress.retried) == (8, [], 0)
    points, trials = opened(sweep).points(), opened(sweep).trials()
    assert trials.groupby("config")["seed"].apply(list).tolist() == [[0, 1, 2, 3]] * 2
    assert set(points["kind"]) >= {"minimum", "saddle"}
    assert sum(progress.kinds.values()) == len(points)
    assert set(points["training.lr"]) == {0.05, 0.02}
    again = prepared(sweep)
    assert (again.left, again.done, len(again.batches)) == (0, 8, 0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*")}
    assert runs.run(again, never, lambda progress: None).done == 8
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*") if path.is_file()}.items() <= (
        before.items()
    )
    assert damaged(SweepStore(again.store.uri))[1] == []
    store = sweeps(sweep["store"])
    assert store == [{"name": "toy", "configurations": 2, "trials": 8, "done": 8, "failed": 0}]


def test_more_seeds_and_a_longer_axis_run_only_what_is_new(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    ran(sweep)
    old = measured(sweep)
    more = {**sweep, "seeds": 7}
    assert prepared(more).left == 6
    assert [batch.seeds for batch in prepared(more).batches] == [(4, 5, 6)] * 2
    assert ran(more).done == 14
    longer = {**more, "grid": {"training.lr": [0.05, 0.02, 0.01]}}
    assert prepared(longer).left == 7
    ran(longer)
    new = measured(longer)
    kept = new[new["point"].isin(old["point"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="class_id"), old.drop(columns="class_id"), check_exact=True)
    assert len(opened(longer).trials()) == 21
    whole = {**longer, "name": "whole"}
    ran(whole)
    pd.testing.assert_frame_equal(measured(whole), new, check_exact=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    sweep = small_sweep(tmp_path_factory.mktemp("finished"))
    ran(sweep)
    return sweep


@pytest.mark.parametrize(
    ("section", "value", "named"),
    [
        ("training", {"optimizer": "gd", "steps": 6}, "training.steps"),
        ("search", {"saddles": {"per_trial": 2}}, "search.minima_iterations, search.saddles"),
        ("seeds", 3, "seeds"),
        ("grid", {"training.lr": [0.05]}, "grid.training.lr"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(
    finished: dict[str, Any], section: str, value: Any, named: str
) -> None:
    sweep = finished
    with pytest.raises(ConflictError, match=f"{named} differ.*choose another name") as error:
        prepared({**sweep, section: value})
    assert "runs/toy" in str(error.value)
    assert prepared({**sweep, "verdict": {"margin": 0.5}, "resources": {"batch": 1}, "tracking": {}}).left == 0


def test_batches_change_no_bit(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, seeds=5, grid={}, search=SADDLES)
    frames = []
    for size in (1, 2, 5):
        one = {**sweep, "name": f"by-{size}", "resources": {"batch": size}}
        ran(one)
        frames.append(measured(one))
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], check_exact=True)


def test_a_small_net(tmp_path: Path) -> None:
    sweep = {
        "name": "net",
        "seeds": 3,
        "landscape": {"name": "mlp", "hidden": [2], "resize": 2, "train_size": 60},
        "training": {"optimizer": "sgd", "lr": 0.1, "steps": 10, "batch_size": 20},
        "search": {"minima_iterations": 30},
        "store": str(tmp_path / "runs"),
    }
    split = {**copy.deepcopy(sweep), "name": "split", "resources": {"batch": 1}}
    assert ran(sweep).done == ran(split).done == 3
    pd.testing.assert_frame_equal(measured(split), measured(sweep), check_exact=True)
    assert opened(sweep).points()["test_error"].between(0, 1).all()
    assert prepared(sweep).left == 0


# --- failures -----------------------------------------------------------------------------------------------------


def test_a_trial_that_raises_is_a_row_and_its_mates_are_done(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    bad = spoil(sweep, seed=2)
    progress = ran(sweep)
    assert progress.done == 8
    trials = opened(sweep).trials()
    failed = trials[trials["status"] == "failed"]
    assert failed["seed"].tolist() == [2, 2]
    assert failed["attempt"].tolist() == [3, 3]  # in 4, in 2, alone
    assert all("ValueError: boom" in error for error in failed["error"])
    assert opened(sweep).points()["seed"].drop_duplicates().tolist() == [0, 1, 3]
    with pytest.raises(ExecutionError, match=r"2 trials failed.*--retry-failed") as error:
        runs.require_success(progress)
    assert sorted(trial for trial, _ in progress.failed) == sorted(failed["trial"])
    assert all(f"{trial}: ValueError: boom" in str(error.value) for trial in failed["trial"])
    assert error.value.exit_code == 1

    assert prepared(sweep).left == 0  # a failure is not run again on its own
    assert sweeps(sweep["store"])[0]["failed"] == 2
    assert [batch.seeds for batch in prepared(sweep, retry_failed=True).batches] == [(2,), (2,)]
    again = ran(sweep, retry_failed=True)
    assert len(again.failed) == 2
    assert opened(sweep).trials()["attempt"].max() == 4
    bad.unlink()
    mended = ran(sweep, retry_failed=True)
    runs.require_success(mended)
    trials = opened(sweep).trials()
    assert trials["status"].tolist() == ["done"] * 8
    assert trials["attempt"][trials["seed"] == 2].tolist() == [5, 5]
    assert not opened(sweep).points().duplicated("point").any()
    assert prepared(sweep, retry_failed=True).left == 0

    undisturbed = {**sweep, "name": "undisturbed"}
    ran(undisturbed)
    pd.testing.assert_frame_equal(measured(sweep), measured(undisturbed), check_exact=True)
    point = opened(sweep).points(where="seed == 2")["point"][0]
    found, wanted = opened(sweep).parameters(point), opened(undisturbed).parameters(point)
    assert {key: value.tolist() for key, value in found.items()} == {key: v.tolist() for key, v in wanted.items()}


def test_a_sweep_whose_trials_all_fail_still_ends(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, seeds=1)
    spoil(sweep, seed=0)
    assert len(ran(sweep).failed) == 2
    assert len(opened(sweep).points()) == 0
    assert opened(sweep).verdict().verdict == "inconclusive"


class Losing(InlineExecutor):
    """Loses the process of jobs with ``seed``, ``times`` times."""

    def __init__(self, seed: int, times: int) -> None:
        super().__init__()
        self.seed, self.times, self.lost = seed, times, 0
        self.closed = False

    def wait(self, timeout: float) -> list[Completion]:
        if self._jobs and self.seed in self._jobs[0].work.batch.seeds and self.lost < self.times:
            self.lost += 1
            return [Completion(self._jobs.popleft(), None, "ActorDiedError: killed")]
        return super().wait(timeout)

    def close(self) -> None:
        self.closed = True
        super().close()


def test_lost_processes_are_tried_again(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    losing = Losing(seed=1, times=3)
    progress = ran(sweep, make=lambda: losing)
    assert (progress.done, progress.failed, progress.retried) == (8, [], 3)
    assert losing.closed
    attempts = opened(sweep).trials()["attempt"].tolist()
    assert sorted(attempts)[-1] in (3, 4)
    assert len(attempts) == 8


def test_a_process_that_always_dies_costs_one_trial(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, resources={"batch": 4, "retries": 1})
    progress = ran(sweep, make=lambda: Losing(seed=1, times=10**9))
    assert progress.done == 8
    trials = opened(sweep).trials()
    failed = trials[trials["status"] == "failed"]
    assert failed["seed"].tolist() == [1, 1]
    assert failed["error"].tolist() == ["ActorDiedError: killed"] * 2
    assert opened(sweep).points()["seed"].nunique() == 3


class Interrupted(InlineExecutor):
    """Ctrl-C after the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0

    def wait(self, timeout: float) -> list[Completion]:
        if self.ended == 1:
            raise KeyboardInterrupt
        self.ended += 1
        return super().wait(timeout)


def test_an_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, resources={"batch": 2})
    with pytest.raises(KeyboardInterrupt):
        ran(sweep, make=Interrupted)
    root = tmp_path / "runs" / "toy"
    assert pd.read_parquet(root / "points")["seed"].nunique() == 2
    assert not list((root / "staged").iterdir())
    assert not list((root / "tmp").iterdir())
    assert prepared(sweep).left == 6
    ran(sweep)
    undisturbed = {**sweep, "name": "undisturbed"}
    ran(undisturbed)
    pd.testing.assert_frame_equal(measured(sweep), measured(undisturbed), check_exact=True)


def test_what_no_retry_can_mend_ends_the_run(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    planned = prepared(sweep)
    assert planned.left == 8

    class Wrong(InlineExecutor):
        def submit(self, job: Job) -> None:
            settings = {**job.work.batch.config.settings, "landscape": {"name": "no_such_module_here:build"}}
            object.__setattr__(job.work.batch.config, "settings", settings)
            super().submit(job)

    with pytest.raises(RequestError, match=r"no_such_module_here:build.*cannot be imported"):
        runs.run(planned, Wrong, lambda progress: None)


# --- the user's code ----------------------------------------------------------------------------------------------


def test_another_module_text_makes_another_configuration(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    before = [configuration.id for configuration in prepared(sweep).configurations]
    (module,) = Path(sweep["code"][0]).glob("toy_*.py")
    module.write_text(module.read_text() + "\n# another\n")
    after = [configuration.id for configuration in prepared(sweep).configurations]
    assert len(set(before) | set(after)) == 4


@pytest.mark.parametrize("name", ["no_such_module_here:build", "os.no_such:build", "builtins:build"])
def test_a_landscape_without_a_module_is_refused(tmp_path: Path, name: str) -> None:
    sweep = small_sweep(tmp_path, landscape={"name": name})
    with pytest.raises(LandscapeError, match=r"landscape.name: .*`code:`"):
        prepared(sweep)
    assert not (tmp_path / "runs").exists()


def test_a_landscape_without_the_function_is_refused(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, resources={})
    sweep["landscape"] = {"name": sweep["landscape"]["name"].replace(":build", ":biuld")}
    with pytest.raises(LandscapeError, match=r"landscape.name: .*cannot be imported"):
        prepared(sweep)
    assert not (tmp_path / "runs").exists()


# --- what is written beside the tables ----------------------------------------------------------------------------


def test_the_sweep_file_is_kept_with_the_version(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    ran(sweep)
    text = opened(sweep).text()
    assert text.startswith(f"# landsweep {landsweep.__version__}\n")
    assert spec.validate(yaml.safe_load(text), "kept").canonical() == spec.validate(sweep, "given").canonical()


def test_the_question_is_registered_before_the_first_result(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, verdict={"margin": 0.25})
    ran(sweep)

    def question(sweep: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(SweepStore(f"{sweep['store']}/toy").text(QUESTION_FILE) or ""))

    assert question(sweep)["options"]["margin"] == 0.25
    assert question(sweep)["planned"] == 8
    later = {**sweep, "seeds": 5, "verdict": {"margin": 0.5}}
    ran(later)
    assert question(later)["options"]["margin"] == 0.25  # a result was there: the question stands
    assert question(later)["planned"] == 10


def test_progress_is_reported_as_it_comes(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, grid={}, resources={"batch": 2})
    seen: list[int] = []
    runs.run(prepared(sweep), InlineExecutor, lambda progress: seen.append(progress.done))
    assert seen == [0, 2, 4]
