"""What MLflow holds after a run and during one: one tree of runs, sent once, whatever goes wrong in between."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from landsweep.cluster import finish, follow, prepare, spec, status, tracked, tracker, tracking
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.finish import Conclusion
from landsweep.cluster.follow import Follower
from landsweep.cluster.mistakes import masked
from landsweep.cluster.spool import LEASE_SECONDS, MOMENTS, WRITER, Spool, Writer, may_write, thinned
from landsweep.cluster.store import SweepStore
from landsweep.cluster.tracked import TrackedRun, TrackedSweep
from landsweep.cluster.tracker import Tracker
from landsweep.cluster.tracking import Moment, Server
from landsweep.workers.errors import LandsweepError
from tests.processes import environment, free_port
from tests.toy import small_sweep, spoil
from tests.tracking_server import mlflow_server, postgresql

FIGURES = {"plot.png": b"image", "points.parquet": b"table"}
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    """A finished sweep, 2 configurations × 3 trials, of which seed 1 failed."""
    before = list(sys.path)
    content = small_sweep(tmp_path_factory.mktemp("tracked"), seeds=3, tracking={})
    spoil(content, seed=1)
    runs.run(planned(content), InlineExecutor, lambda progress: None)
    sys.path[:] = before
    return content


def planned(content: dict[str, Any]) -> prepare.Plan:
    return prepare.prepare(spec.validate(content, "x"))


def artifacts(folder: Path, sweep: TrackedSweep, verdict: dict[str, Any]) -> Path:
    """The folder of artifacts as the end of a run makes it."""
    files = {"sweep.yaml": b"x", "verdict.json": json.dumps(verdict).encode(), "report.html": b"<html>"}
    for inner, content in {"sweep": files, **dict.fromkeys(sweep.grids, FIGURES)}.items():
        (folder / inner).mkdir(parents=True)
        for name, data in content.items():
            (folder / inner / name).write_bytes(data)
    return folder


def follower(content: dict[str, Any], uri: str | None = None) -> Follower:
    plan = planned(content)
    return Follower(TrackedSweep.of(plan), uri or tracking.default_uri(content["store"]), plan.store)


def ended(content: dict[str, Any], folder: Path, verdict: dict[str, Any] | None = None, uri: str | None = None) -> Any:
    """Log a finished sweep; what the process would answer."""
    answer = verdict or {"verdict": "inconclusive", "margin": 0.02, "estimate": None}
    return follower(content, uri).end(artifacts(folder, TrackedSweep.of(planned(content)), answer))


def logged(uri: str, name: str = "toy") -> list[Any]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def level(found: list[Any], name: str) -> list[Any]:
    return [run for run in found if run.data.tags["landsweep.level"] == name]


def test_the_tree_of_runs(sweep: dict[str, Any], tmp_path: Path) -> None:
    # an unreachable server loses nothing and says so in one line; the next run sends everything
    warning = ended(sweep, tmp_path / "a", uri=NOBODY)
    assert warning.startswith(f"tracking: {NOBODY} did not take the runs (")
    assert "`landsweep run` sends them again" in warning
    assert "\n" not in warning
    assert ended(sweep, tmp_path / "b") is None

    uri = tracking.default_uri(sweep["store"])
    found = logged(uri)
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
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for child in children:
        mine = [run for run in grandchildren if run.data.tags["mlflow.parentRunId"] == child.info.run_id]
        assert sorted(run.data.params["seed"] for run in mine) == ["0", "1", "2"]
        assert {run.data.params["training.lr"] for run in mine} == {child.data.params["training.lr"]}
        done = [run for run in mine if run.data.tags["status"] == "done"]
        objectives = [run.data.metrics["objective"] for run in done]
        assert child.data.metrics["objective.mean"] == pytest.approx(sum(objectives) / 2)
        assert child.data.metrics["objective.min"] == min(objectives)
        assert child.data.metrics["kind.minimum"] == 2
        assert (child.data.metrics["trials"], child.data.metrics["failed"]) == (3, 1)
        finals = [run.data.metrics["final_objective"] for run in done]
        assert child.data.metrics["final_objective.mean"] == pytest.approx(sum(finals) / 2)
        assert {run.data.tags["kind"] for run in done} == {"minimum"}
        (failed,) = [run for run in mine if run.data.tags["status"] == "failed"]
        assert (failed.info.status, failed.data.params["seed"]) == ("FAILED", "1")
        assert {run.info.status for run in done} == {"FINISHED"}
    client = MlflowClient(tracking_uri=uri)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"sweep.yaml", "verdict.json", "report.html"}
    assert {file.path for file in client.list_artifacts(children[0].info.run_id)} == set(FIGURES)
    assert Path(sweep["store"], "mlartifacts", "toy").is_dir()


def test_running_twice_makes_no_second_set(sweep: dict[str, Any], tmp_path: Path) -> None:
    uri = tracking.default_uri(sweep["store"])
    assert ended(sweep, tmp_path / "a") is None
    before = {run.info.run_id: run for run in logged(uri)}
    assert ended(sweep, tmp_path / "b") is None
    after = {run.info.run_id: run for run in logged(uri)}
    assert {key: run.to_dictionary() for key, run in after.items()} == {
        key: run.to_dictionary() for key, run in before.items()
    }
    # another content, and another spelling of the store: the same runs, and only those that differ are sent
    spelled = {**sweep, "store": os.path.relpath(sweep["store"])}
    assert ended(spelled, tmp_path / "c", {"verdict": "different", "estimate": 0.5}) is None
    changed = {run.info.run_id: run for run in logged(uri)}
    assert set(changed) == set(before)
    (parent,) = level(list(changed.values()), "sweep")
    assert parent.data.tags["verdict"] == "different"
    assert parent.data.metrics["verdict.estimate"] == 0.5
    others = [run_id for run_id in before if run_id != parent.info.run_id]
    assert all(changed[one].to_dictionary() == before[one].to_dictionary() for one in others)


def test_a_broken_off_send_is_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The connection breaks at the third run; what was created is found again and completed."""
    uri, tree = f"sqlite:///{tmp_path}/mlflow.db", [TrackedRun("k0", "parent", None, {"a": "1"}, {"m": 1.0})]
    tree += [TrackedRun(f"k{i}", f"child {i}", "k0", artifacts={"x.txt": b"x"}) for i in (1, 2, 3)]
    real, calls = MlflowClient.log_batch, [0]

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise ConnectionError("reset by peer")
        return real(self, *args, **kwargs)

    def sent() -> int:
        server = Server(uri, "broken", str(tmp_path))
        return sum(server.send(run) for run in tree)

    monkeypatch.setattr(MlflowClient, "log_batch", broken)
    with pytest.raises(tracking.TrackingError, match="reset by peer"):
        sent()
    assert sent() == 2
    assert sent() == 0
    found = logged(uri, "broken")
    assert sorted(run.info.run_name for run in found) == ["child 1", "child 2", "child 3", "parent"]
    assert {run.info.status for run in found} == {"FINISHED"}


def part(content: dict[str, Any], seeds: int) -> None:
    """Run the sweep with fewer seeds."""
    runs.run(planned({**content, "seeds": seeds}), InlineExecutor, lambda progress: None)


def told(store: SweepStore, done: int, now: float) -> None:
    """What a driver writes down every ten seconds."""
    facts = status.Facts("toy", "running", 8, done, started=now - 10, marks=[status.Mark(now - 10, 0)])
    status.write(store, status.status(facts, now))


def test_runs_appear_while_the_sweep_runs(tmp_path: Path) -> None:
    content = small_sweep(tmp_path, seeds=2, tracking={"trials": False})
    uri = tracking.default_uri(content["store"])
    one = {**content, "grid": {"training.lr": [0.05]}}
    part(one, 2)
    whole = follower(content)
    store = SweepStore(tmp_path / "runs/toy")
    told(store, 2, 1000.0)
    whole.look()
    (parent,) = level(logged(uri), "sweep")
    assert parent.info.status == "RUNNING"
    assert [run.data.params["training.lr"] for run in level(logged(uri), "configuration")] == ["0.05"]
    runs.run(planned(content), InlineExecutor, lambda progress: None)
    told(store, 4, 1010.0)
    whole.look()
    assert len(level(logged(uri), "configuration")) == 2
    history = MlflowClient(tracking_uri=uri).get_metric_history(parent.info.run_id, "progress.done")
    assert [(m.timestamp, m.step, m.value) for m in history] == [(1_000_000, 2, 2.0), (1_010_000, 4, 4.0)]
    assert whole.end(artifacts(tmp_path / "a", TrackedSweep.of(planned(content)), {"verdict": "different"})) is None
    assert {run.info.status for run in logged(uri)} == {"FINISHED"}
    assert not store.files.names("spool")


def test_what_a_server_that_is_down_missed_is_sent_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = small_sweep(tmp_path, seeds=1, tracking={"trials": False})
    part(content, 1)
    store = SweepStore(tmp_path / "runs/toy")
    down = follower(content, NOBODY)
    told(store, 1, 1000.0)
    down.look()
    told(store, 2, 1010.0)
    down.look()
    down.leave()  # the driver is killed
    assert store.files.names("spool") == [MOMENTS]
    uri = tracking.default_uri(content["store"])
    up = follower(content, uri)
    up.look()
    assert store.files.names("spool") == [WRITER]
    (parent,) = level(logged(uri), "sweep")
    history = MlflowClient(tracking_uri=uri).get_metric_history(parent.info.run_id, "progress.done")
    assert [m.value for m in history] == [1.0, 2.0]
    up.leave()


def test_only_one_of_two_runs_of_a_sweep_logs_it(tmp_path: Path) -> None:
    content = small_sweep(tmp_path, seeds=1, tracking={"trials": False})
    part(content, 1)
    first, second = follower(content), follower(content)
    first.look()
    warning = second.end(artifacts(tmp_path / "a", TrackedSweep.of(planned(content)), {}))
    assert "another run of this sweep logs it now" in str(warning)
    first.leave()
    third = follower(content)
    assert third.end(artifacts(tmp_path / "b", TrackedSweep.of(planned(content)), {})) is None
    assert len(logged(tracking.default_uri(content["store"]))) == 3


def test_who_may_log() -> None:
    me, other = Writer("a", "here", 1, 0.0), Writer("b", "here", 2, 100.0)
    assert may_write(None, me, 100.0, False)
    assert may_write(Writer("a", "here", 1, 0.0), me, 100.0, True)
    assert not may_write(other, me, 100.0 + LEASE_SECONDS, True)
    assert may_write(other, me, 101.0 + LEASE_SECONDS, True)
    assert may_write(other, me, 100.0, False)


def test_the_right_to_log_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    now = time.time()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = Writer("x", socket.gethostname(), ended.pid, now)
    store.files.write(WRITER, json.dumps(dead.__dict__).encode())
    assert Spool(store, now).hold(now)
    assert not Spool(store, now).hold(now)  # another object is another process, and this one is alive


def test_a_spool_keeps_the_shape_of_what_it_thins() -> None:
    moments = [Moment(float(i), i, {}) for i in range(5001)]
    kept = thinned(moments)
    assert len(kept) <= 1000
    assert kept[-1] == moments[-1]
    steps = {b.step - a.step for a, b in itertools.pairwise(kept)}
    assert len(steps) == 1
    assert thinned(moments[:1000]) == moments[:1000]


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def run_in_process(folder: Path, content: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "s.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "landsweep", "run", "s.yaml", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=200)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that logs is ended where it does not end; the state that says all is logged is not written."""
    content = small_sweep(tmp_path, seeds=1)
    part(content, 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    with silent_server() as uri, monkeypatch.context() as hurried:
        hurried.setattr(tracker, "PATIENCE_SECONDS", 10.0)
        content["tracking"] = {"uri": uri}
        conclusion = Conclusion(planned(content))
        conclusion.store({}, "summary", b"")
        following = finish.tracker(planned(content))
        assert following is not None
        warning = conclusion.track(following, empty(tmp_path / "a"))
        following.close()
        assert following._process is not None
        assert following._process.poll() is not None
    assert warning == f"tracking: {uri} did not take everything within 10 s; `landsweep run` sends the rest"
    assert conclusion.known_summary() is None
    content["tracking"] = {}
    conclusion = Conclusion(planned(content))
    following = finish.tracker(planned(content))
    assert conclusion.track(following, empty(tmp_path / "b")) is None
    assert conclusion.known_summary() == "summary"
    assert len(logged(tracking.default_uri(content["store"]))) == 5


def test_a_driver_that_is_killed_leaves_no_process_and_no_second_set(tmp_path: Path) -> None:
    """Its tracker sees its input end; what is missing is logged by the next run."""
    content = small_sweep(tmp_path, seeds=1, tracking={})
    part(content, 1)
    line = follow.task_line(TrackedSweep.of(planned(content)), tracking.default_uri(content["store"]))
    script = f"""
import os, subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-m", "landsweep.cluster.follow"], stdin=subprocess.PIPE, text=True)
inner.stdin.write({line!r} + "\\n")
inner.stdin.flush()
print(inner.pid, flush=True)
time.sleep(600)
"""
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment())
    assert driver.stdout is not None
    inner = int(driver.stdout.readline())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{inner}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{inner}/exe").exists()
    whole = Tracker(planned(content), tracking.default_uri(content["store"]))
    assert whole.finish(artifacts(tmp_path / "a", TrackedSweep.of(planned(content)), {})) is None
    assert len(logged(tracking.default_uri(content["store"]))) == 5


def test_none_switches_tracking_off(sweep: dict[str, Any], tmp_path: Path) -> None:
    plan = planned({**sweep, "tracking": {"uri": "none"}})
    assert finish.tracker(plan) is None
    assert Conclusion(plan).track(None, tmp_path) is None


@pytest.mark.parametrize(("wanted", "per_trial"), [("auto", True), (True, True), (False, False)])
def test_a_run_a_trial_only_where_asked(sweep: dict[str, Any], wanted: Any, per_trial: bool) -> None:
    plan = planned({**sweep, "tracking": {"trials": wanted}})
    assert TrackedSweep.of(plan).per_trial == per_trial
    many = replace(plan, sweep=plan.sweep.model_copy(update={"seeds": spec.Seeds(start=0, stop=251)}))
    assert TrackedSweep.of(many).per_trial == (wanted is True)


def test_artifacts_of_configurations_only_where_they_are_few(sweep: dict[str, Any]) -> None:
    plan = planned(sweep)
    assert Conclusion(plan).wants_figures
    many = plan.configurations * (tracked.FEW_CONFIGURATIONS // 2)
    assert Conclusion(replace(plan, configurations=many)).wants_figures
    assert not Conclusion(replace(plan, configurations=(*many, many[0]))).wants_figures


@pytest.mark.parametrize(
    "uri",
    ["ftp://me:hunter2@127.0.0.1:9/runs", "http://me:hunter2@127.0.0.1:9", "mysql://u@h/x?password=hunter2&a=b"],
)
def test_passwords_are_masked_wherever_an_uri_is_shown(uri: str, tmp_path: Path) -> None:
    assert "hunter2" not in masked(uri)
    assert "***" in masked(uri)
    with pytest.raises(LandsweepError) as error:
        Server(uri, "x", str(tmp_path))
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "nonsense://x"])
def test_an_uri_that_cannot_be_used_is_a_warning(uri: str, tmp_path: Path) -> None:
    with pytest.raises(tracking.TrackingError, match="did not take the runs"):
        Server(uri, "x", str(tmp_path))


def test_a_server_that_wants_a_password_gets_it_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own user management on PostgreSQL: 401 without credentials, and ours in the environment work."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    content = small_sweep(tmp_path, seeds=1, tracking={"trials": False})
    part(content, 1)
    users = tmp_path / "users.ini"
    port, password = free_port(), "a-long-password-1"
    with postgresql() as backend:
        users.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/users.db\n"
            f"admin_username = admin\nadmin_password = {password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        variables = {"MLFLOW_AUTH_CONFIG_PATH": str(users), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret"}
        options = ("--app-name", "basic-auth")
        with mlflow_server(tmp_path, backend, *options, port=port, variables=variables) as uri:
            warning = ended(content, tmp_path / "a", uri=uri)
            assert "401" in warning or "not authenticated" in warning
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
            assert "wrong" not in str(ended(content, tmp_path / "b", uri=uri))
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            assert ended(content, tmp_path / "c", uri=uri) is None
            assert len(logged(uri)) == 3


def test_packages_that_are_not_there_are_not_looked_for_again() -> None:
    code = """
import sys
from landsweep.cluster.tracking import import_no_absent
import_no_absent()
looked = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        looked.append(name)
sys.meta_path.insert(0, Finder())
for name in ("dbruntime.databricks_repl_context", "pyspark", "an_absent_package"):
    try:
        __import__(name)
    except ImportError:
        print("refused")
print(looked)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["refused"] * 3 + ["['an_absent_package']"]
