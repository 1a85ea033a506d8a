"""What MLflow holds after a run: one tree of runs, sent once, whatever goes wrong in between."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

import landsweep
from landsweep.cluster import finish, spec, tracking
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.finish import Conclusion
from landsweep.cluster.mistakes import masked
from landsweep.cluster.prepare import prepare
from landsweep.cluster.tracked import TrackedRun, run_tree
from landsweep.workers.errors import LandsweepError
from tests.toy import small_sweep, spoil

FIGURES = {"plot.png": b"image", "points.parquet": b"table"}
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    """A finished sweep, 2 configurations × 3 trials, of which seed 1 failed."""
    before = list(sys.path)
    content = small_sweep(tmp_path_factory.mktemp("tracked"), seeds=3, tracking={})
    spoil(content, seed=1)
    runs.run(prepare(spec.validate(content, "x")), InlineExecutor, lambda progress: None)
    sys.path[:] = before
    return content


def concluded(sweep: dict[str, Any], verdict: Mapping[str, Any] | None = None, **changes: Any) -> str | None:
    planned = prepare(spec.validate({**sweep, **changes}, "x"))
    opened = landsweep.open(planned.store.uri)
    points, trials = opened.points(), opened.trials()
    figures = dict.fromkeys(points["config"].unique(), FIGURES)
    answer = verdict or {"verdict": "inconclusive", "margin": 0.02, "estimate": None}
    return Conclusion(planned).track(points, trials, answer, b"<html>", figures)


def logged(sweep: dict[str, Any]) -> list[Any]:
    client = MlflowClient(tracking_uri=tracking.default_uri(sweep["store"]))
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def level(found: list[Any], name: str) -> list[Any]:
    return [run for run in found if run.data.tags["landsweep.level"] == name]


def test_the_tree_of_runs(sweep: dict[str, Any], recwarn: pytest.WarningsRecorder) -> None:
    # an unreachable server loses nothing and says so in one line; the next run sends everything
    before = Path(sweep["store"], "toy/verdict/state.json").exists()
    warning = concluded(sweep, tracking={"uri": NOBODY})
    assert warning is not None
    assert warning.startswith(f"tracking: {NOBODY} did not take the runs (")
    assert "`landsweep run` sends them again" in warning
    assert "\n" not in warning
    assert not before
    assert not Path(sweep["store"], "toy", finish.STATE).exists()
    assert concluded(sweep) is None

    found = logged(sweep)
    (parent,) = level(found, "sweep")
    children, grandchildren = level(found, "configuration"), level(found, "trial")
    assert (len(found), len(children), len(grandchildren)) == (9, 2, 6)
    assert parent.info.run_name == "toy"
    assert parent.data.metrics["trials"] == 6
    assert parent.data.metrics["kind.minimum"] == 4
    assert parent.data.metrics["verdict.margin"] == 0.02
    assert "verdict.estimate" not in parent.data.metrics  # null
    assert parent.data.tags["verdict"] == "inconclusive"
    assert "mlflow.parentRunId" not in parent.data.tags
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert sorted(child.data.params["training.lr"] for child in children) == ["0.02", "0.05"]
    for child in children:
        mine = [run for run in grandchildren if run.data.tags["mlflow.parentRunId"] == child.info.run_id]
        assert sorted(run.data.params["seed"] for run in mine) == ["0", "1", "2"]
        assert {run.data.params["training.lr"] for run in mine} == {child.data.params["training.lr"]}
        done = [run for run in mine if run.data.tags["status"] == "done"]
        mean = sum(run.data.metrics["objective"] for run in done) / 2
        assert child.data.metrics["objective.mean"] == pytest.approx(mean)
        assert {run.data.tags["kind"] for run in done} == {"minimum"}
        (failed,) = [run for run in mine if run.data.tags["status"] == "failed"]
        assert (failed.info.status, failed.data.params["seed"]) == ("FAILED", "1")
        assert {run.info.status for run in done} == {"FINISHED"}
    client = MlflowClient(tracking_uri=tracking.default_uri(sweep["store"]))
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "sweep.yaml",
        "verdict.json",
        "report.html",
    }
    assert {file.path for file in client.list_artifacts(children[0].info.run_id)} == set(FIGURES)
    assert Path(sweep["store"], "mlartifacts", "toy").is_dir()


def test_running_twice_makes_no_second_set(sweep: dict[str, Any]) -> None:
    assert concluded(sweep) is None
    before = {run.info.run_id: run for run in logged(sweep)}
    planned = prepare(spec.validate(sweep, "x"))
    conclusion = Conclusion(planned)
    conclusion.store({}, "the summary", b"")
    assert conclusion.known_summary() == "the summary"
    assert concluded(sweep) is None
    after = {run.info.run_id: run for run in logged(sweep)}
    assert {key: run.to_dictionary() for key, run in after.items()} == {
        key: run.to_dictionary() for key, run in before.items()
    }
    # another content: the same runs, and only those that differ are sent
    assert concluded(sweep, {"verdict": "different", "estimate": 0.5}) is None
    changed = {run.info.run_id: run for run in logged(sweep)}
    assert set(changed) == set(before)
    (parent,) = level(list(changed.values()), "sweep")
    assert parent.data.tags["verdict"] == "different"
    assert parent.data.metrics["verdict.estimate"] == 0.5
    others = [run_id for run_id in before if run_id != parent.info.run_id]
    assert all(changed[one].to_dictionary() == before[one].to_dictionary() for one in others)


def test_a_broken_off_send_is_completed(sweep: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The connection breaks at the third run; what was created is found again and completed."""
    assert concluded(sweep) is None  # the data base is there
    uri, tree = tracking.default_uri(sweep["store"]), [TrackedRun("k0", "parent", None, {"a": "1"}, {"m": 1.0})]
    tree += [TrackedRun(f"k{i}", f"child {i}", "k0", artifacts={"x.txt": b"x"}) for i in (1, 2, 3)]
    real, calls = MlflowClient.log_batch, [0]

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise ConnectionError("reset by peer")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", broken)
    with pytest.raises(tracking.TrackingError, match="reset by peer"):
        tracking.send(uri, "broken", str(tmp_path), tree)
    assert tracking.send(uri, "broken", str(tmp_path), tree) == 2
    assert tracking.send(uri, "broken", str(tmp_path), tree) == 0
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("broken").experiment_id])
    assert sorted(run.info.run_name for run in found) == ["child 1", "child 2", "child 3", "parent"]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_none_switches_tracking_off(sweep: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "send", lambda *_: pytest.fail("tracking is off"))
    assert concluded(sweep, tracking={"uri": "none"}) is None


@pytest.mark.parametrize(("wanted", "count"), [("auto", 9), (True, 9), (False, 3)])
def test_a_run_a_trial_only_where_asked(sweep: dict[str, Any], wanted: Any, count: int) -> None:
    planned = prepare(spec.validate({**sweep, "tracking": {"trials": wanted}}, "x"))
    opened = landsweep.open(planned.store.uri)
    tree = run_tree(planned, opened.points(), opened.trials(), {}, {}, {})
    assert len(tree) == count
    keys = [run.key for run in tree]
    assert len(set(keys)) == count
    assert all(run.parent is None or run.parent in keys[:place] for place, run in enumerate(tree))  # parents first
    if wanted == "auto":
        many = replace(planned, sweep=planned.sweep.model_copy(update={"seeds": spec.Seeds(start=0, stop=251)}))
        assert len(run_tree(many, opened.points(), opened.trials(), {}, {}, {})) == 3


@pytest.mark.parametrize(
    "uri",
    ["postgresql://me:hunter2@127.0.0.1:9/runs", "http://me:hunter2@127.0.0.1:9", "mysql://u@h/x?password=hunter2&a=b"],
)
def test_passwords_are_masked_wherever_an_uri_is_shown(uri: str, tmp_path: Path) -> None:
    assert "hunter2" not in masked(uri)
    assert "***" in masked(uri)
    with pytest.raises(LandsweepError) as error:
        tracking.send(uri, "x", str(tmp_path), [])
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "nonsense://x"])
def test_an_uri_that_cannot_be_used_is_a_warning(uri: str, tmp_path: Path) -> None:
    with pytest.raises(tracking.TrackingError, match="did not take the runs"):
        tracking.send(uri, "x", str(tmp_path), [])
