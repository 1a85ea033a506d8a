"""Jobs: which id comes next, what travels, what is said. Ray's side is a list here; test_ray_jobs has a real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import landsweep
from landsweep.cluster import control, job_report, jobs, shipping, spec
from landsweep.cluster.code import code_hash
from landsweep.cluster.ray_adapter import JobExists, JobRecord
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import RequestError
from tests.toy import small_sweep


def job(id: str, state: str = "RUNNING", **changes: Any) -> JobRecord:
    metadata = {jobs.SWEEP: "toy", jobs.STORE: "/runs", **changes.pop("metadata", {})}
    return JobRecord(
        id, state, changes.get("message", ""), changes.get("exit_code"), changes.get("started", 0.0), metadata
    )


@dataclass
class FakeClient:
    """A cluster that starts whatever it is given; ``sees`` says whether its head has this machine's folders."""

    known: list[JobRecord] = field(default_factory=list)
    sees: bool = True
    hidden: list[JobRecord] = field(default_factory=list)  # what somebody else submits meanwhile
    files: dict[str, bytes] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)

    def submit(
        self, id: str, entrypoint: str, folder: str | None, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        if any(one.id == id for one in self.hidden):
            raise JobExists
        probe = entrypoint.startswith("test -f ")
        if probe:
            assert Path(entrypoint.removeprefix("test -f ")).exists()
        if folder:
            found = (path for path in Path(folder).rglob("*") if path.is_file())
            self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
            self.environment = environment
        state = ("SUCCEEDED" if self.sees else "FAILED") if probe else "PENDING"
        self.known.append(JobRecord(id, state, "", None, 0.0, metadata))

    def jobs(self) -> list[JobRecord]:
        return list(self.known)

    def job(self, id: str) -> JobRecord:
        return next(one for one in [*self.known, *self.hidden] if one.id == id)

    def cancel(self, id: str) -> None:
        self.cancelled.append(id)

    def forget(self, id: str) -> None:
        self.forgotten.append(id)
        self.known = [one for one in self.known if one.id != id]


def submitted(client: FakeClient, sweep: Mapping[str, Any]) -> jobs.Submission:
    return jobs.submit(client, spec.validate(sweep, "toy"))  # type: ignore[arg-type]


def test_the_attempt_rises_when_the_last_job_has_ended() -> None:
    assert jobs.next_attempt("toy-1", []) == ("toy-1-1", None)
    ended = [job("toy-1-1", "FAILED"), job("toy-1-10", "STOPPED"), job("toy-1-9", "SUCCEEDED")]
    assert jobs.next_attempt("toy-1", ended) == ("toy-1-11", None)
    for state in ("PENDING", "RUNNING"):
        live = job("toy-1-11", state)
        assert jobs.next_attempt("toy-1", [*ended, live])[1] == live
    assert jobs.next_attempt("toy", [job("toy-1-1")]) == ("toy-1", None)  # another sweep, called toy-1


def test_sweeps_of_one_name_in_two_stores_do_not_meet() -> None:
    assert jobs.submission_prefix("toy", "/a") != jobs.submission_prefix("toy", "/b")
    assert jobs.submission_prefix("toy", "/a").startswith("toy-")


def test_submitting_twice_gives_one_job(tmp_path: Path) -> None:
    client, sweep = FakeClient(), small_sweep(tmp_path)
    first, second = submitted(client, sweep), submitted(client, sweep)
    assert (first.new, second.new) == (True, False)
    assert first.id == second.id
    assert [one.id for one in client.known] == [first.id]
    assert second.note is None
    third = submitted(client, {**sweep, "seeds": 9})
    assert third.id == first.id
    assert "another version" in str(third.note)


def test_who_comes_second_gets_the_first_ones_job(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    prefix = jobs.submission_prefix("toy", str(tmp_path / "runs"))
    client = FakeClient(hidden=[job(f"{prefix}-1")])
    assert submitted(client, sweep) == jobs.Submission(f"{prefix}-1", False, submitted(client, sweep).note)


def test_a_store_that_the_head_does_not_see_is_refused(tmp_path: Path) -> None:
    client = FakeClient(sees=False)
    with pytest.raises(RequestError, match="is not there on the cluster's head; name s3://"):
        submitted(client, small_sweep(tmp_path))
    assert not client.known
    assert not list((tmp_path / "runs").iterdir())


def test_a_store_on_s3_is_not_looked_for(tmp_path: Path) -> None:
    client = FakeClient(sees=False)
    assert submitted(client, small_sweep(tmp_path, store="s3://bucket/runs")).new


def test_what_travels_is_source_and_the_sweep(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    code = Path(sweep["code"][0])
    (code / "credentials.json").write_text("secret")
    (code / ".env").write_text("secret")
    (code / "key.pem").write_text("secret")
    (code / "credentials.py").write_text("X = 1")
    (code / "table.csv").write_text("1,2")
    (code / "away.py").symlink_to("/etc/passwd")
    (code / "env").mkdir()
    (code / "env/pyvenv.cfg").touch()
    (code / "env/module.py").touch()
    client = FakeClient()
    submitted(client, sweep)
    module = f"{sweep['landscape']['name'].partition(':')[0]}.py"
    assert sorted(client.files) == sorted(
        ["sweep.yaml", *(f"code/0-code/{name}" for name in (module, "credentials.py", "table.csv"))]
    )
    assert client.environment.keys() == {control.VERSION, control.JOB, "RAY_JOB_STOP_WAIT_TIME_S"}


def test_no_two_jobs_ship_the_same_package(tmp_path: Path) -> None:
    """Ray may delete a package, together with the job that had it, although another that shipped the same begins."""
    client, sweep, shipped = FakeClient(), small_sweep(tmp_path), []
    for _ in range(2):
        id = submitted(client, sweep).id
        shipped.append(client.files)
        client.known = [replace(one, state="SUCCEEDED") if one.id == id else one for one in client.known]
    assert shipped[0] != shipped[1]


def test_the_shipped_sweep_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configurations, its store, and what its landscape's code hashes to."""
    sweep = spec.validate(small_sweep(tmp_path, store="results"), "toy")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shipped"
    folder.mkdir()
    shipping.ship(sweep, folder, "job-1")
    there = spec.load(folder / "sweep.yaml")
    assert there.configurations() == sweep.configurations()
    assert there.seeds == sweep.seeds
    assert there.store == str(tmp_path / "results")
    module = sweep.landscape.name.partition(":")[0]
    hashes = []
    for base in (Path(sweep.code[0]), folder / there.code[0]):
        code = f"import sys; sys.path.insert(0, {str(base)!r}); from {code_hash.__module__} import code_hash"
        code += f"; print(code_hash({module!r}))"
        hashes.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert hashes[0] == hashes[1]


def test_results_below_a_code_folder_stay(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    store = Path(sweep["code"][0]) / "runs"
    (store / "toy").mkdir(parents=True)
    (store / "toy/large").touch()
    client = FakeClient()
    submitted(client, {**sweep, "store": str(store)})
    assert not [name for name in client.files if "large" in name]


def test_folders_that_are_no_source_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "MAX_BYTES", 100)
    with pytest.raises(RequestError, match="hold more than 0 MiB"):
        submitted(FakeClient(), small_sweep(tmp_path))
    with pytest.raises(RequestError, match="code: no folder"):
        submitted(FakeClient(), {**small_sweep(tmp_path), "code": [str(tmp_path / "none")]})


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"landscape": {"name": "mlp", "data": "npz:here.npz", "hidden": [2]}}, "landscape.data: found 'here.npz'"),
        ({"training": {"start": {"kind": "sweep", "path": "runs/a"}}}, "training.start.path: found 'runs/a'"),
    ],
)
def test_paths_that_mean_nothing_elsewhere_are_refused(tmp_path: Path, section: dict[str, Any], key: str) -> None:
    with pytest.raises(RequestError, match=f"{key}; a job runs elsewhere"):
        submitted(FakeClient(), {**small_sweep(tmp_path, grid={}), **section})


def test_the_latest_job_is_found() -> None:
    client: Any = FakeClient(
        [job("b", started=1.0), job("a", started=2.0), JobRecord("foreign", "RUNNING", "", None, 3.0, {})]
    )
    assert jobs.find(client, None).id == "a"
    assert jobs.find(client, "b").id == "b"
    with pytest.raises(RequestError, match="found no job c on that cluster; there are: b, a"):
        jobs.find(client, "c")


@pytest.mark.parametrize(
    ("state", "driver", "code"),
    [
        ("PENDING", None, 0),
        ("RUNNING", None, 0),
        ("SUCCEEDED", 0, 0),
        ("STOPPED", None, 130),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 130, 130),
        ("FAILED", None, 1),  # killed, or never begun
    ],
)
def test_status_exits_as_run_would(state: str, driver: int | None, code: int) -> None:
    assert jobs.exit_code(job("a", state, exit_code=driver)) == code


def test_stop_asks_through_the_store(tmp_path: Path) -> None:
    client: Any = FakeClient()
    running = job("toy-1-2", metadata={jobs.STORE: str(tmp_path)})
    assert "running batches end" in jobs.stop(client, running)
    store = SweepStore(tmp_path / "toy")
    flag = control.StopFlag(store, "toy-1-2")
    assert flag.poll(0.0)
    later = control.StopFlag(store, "toy-1-3")  # the next run is another
    assert not later.poll(0.0)
    assert store.text(control.STOP) is None


def test_the_flag_is_looked_at_now_and_then(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    flag = control.StopFlag(store)
    assert not flag.poll(100.0)
    control.request_stop(store, "")
    assert not flag.poll(100.0 + 0.9 * control.POLL_SECONDS)
    assert flag.poll(100.0 + control.POLL_SECONDS)
    assert flag.poll(100.0)


def test_a_driver_of_another_version_refuses() -> None:
    control.check_submitter({})
    control.check_submitter({control.VERSION: landsweep.__version__})
    with pytest.raises(RequestError, match=r"landsweep 0\.0\.1 submitted this"):
        control.check_submitter({control.VERSION: "0.0.1"})


def test_what_has_not_begun_is_cancelled_and_what_has_ended_left_alone() -> None:
    client: Any = FakeClient()
    assert "had not begun" in jobs.stop(client, job("a", "PENDING"))
    assert client.cancelled == ["a"]
    for act in (jobs.stop, jobs.cancel):
        assert "has ended already (FAILED)" in act(client, job("b", "FAILED"))
    assert "is cancelled" in jobs.cancel(client, job("c"))
    assert client.cancelled == ["a", "c"]


def test_a_store_that_cannot_be_read_from_here_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "toy"
    (broken / "log").mkdir(parents=True)
    (broken / "log/00000000.json").write_text("{")
    found = job_report.facts(
        job("a", "FAILED", message="line\nlast line", exit_code=2, metadata={jobs.STORE: str(tmp_path)}), 0.0
    )
    assert found["progress"] is None
    assert found["exit_code"] == 2
    assert "last line its store cannot be read from here" in found["note"]
    assert job_report.lines(found)[0] == "a: FAILED"


def test_the_client_needs_neither_torch_nor_mlflow() -> None:
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mlflow", "sklearn", "torchvision"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import landsweep.cli, landsweep.cluster.job_report, landsweep.cluster.jobs, landsweep.cluster.authentication
from ray.job_submission import JobSubmissionClient
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
