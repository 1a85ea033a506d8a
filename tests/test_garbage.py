"""What no commit names is found and removed, on both kinds of store; what a commit names never is."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from landsweep.cli import app
from landsweep.cluster import commit
from landsweep.cluster.files import LocalFiles
from landsweep.cluster.garbage import GRACE, leftovers, remove
from landsweep.cluster.progress import damaged
from landsweep.cluster.s3_files import S3Files
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import StoreError
from tests import fabricated
from tests.s3_server import ENVIRONMENT, binary, client, s3_server

LATER = 2 * GRACE  # seconds: everything is old by then
KINDS = ["local", pytest.param("s3", marks=pytest.mark.skipif(binary() is None, reason="no S3 server here"))]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        client(endpoint).create_bucket(Bucket="results")
        yield endpoint


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepStore:
    """A sweep with a done segment, an open claim and a staged batch: everything that has to be kept."""
    if request.param == "s3":
        endpoint = request.getfixturevalue("endpoint")
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
    where = f"s3://results/{uuid.uuid4().hex}" if request.param == "s3" else str(tmp_path)
    store = SweepStore(f"{where}/small")
    store.files.write("sweep.yaml", b"name: small\n")
    store.files.write("verdict/question.json", b"{}")
    fabricated.stage(store, "aa", [0, 1])
    commit.gather(store)
    fabricated.stage(store, "bb", [0, 1])
    _claim_only(store)
    fabricated.stage(store, "cc", [0])
    return store


def _claim_only(store: SweepStore) -> None:
    """Claim what is staged, write a part of the segment, and die."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "_put", _dying)
        with pytest.raises(KeyboardInterrupt):
            commit.gather(store)


def _dying(store: SweepStore, name: str, content: bytes) -> None:
    store.files.write(name, content)
    raise KeyboardInterrupt


def names(store: SweepStore) -> list[str]:
    return [entry.name for entry in store.files.entries()]


def abandon(store: SweepStore) -> dict[str, str]:
    """Put there what is to be removed: name → why."""
    files = store.files
    files.write("points/segment-00000007.parquet", b"12345")
    files.write("parameters/segment-00000007-0000.safetensors", b"12345")
    files.write("staged/dead-0123/points.parquet", b"123")
    files.write("staged/dead-0123/trials.parquet", b"4567")
    (done,) = (name for claim in store.snapshot().claims if claim.done for name in claim.staged)
    files.write(f"checkpoints/{done.rpartition('-')[0]}-training.safetensors", b"1")
    files.write("checkpoints/still-to-run-training.safetensors", b"1")  # to be kept
    if isinstance(files, LocalFiles):
        (files.root / "tmp").mkdir(exist_ok=True)
        (files.root / "tmp" / "@elsewhere+1+x").write_bytes(b"12345")
        broken = "tmp/@elsewhere+1+x"
    else:
        assert isinstance(files, S3Files)
        place = {"Bucket": files.bucket, "Key": files.key("parameters/half")}
        upload = files.client.create_multipart_upload(**place)["UploadId"]
        files.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"12345")
        broken = "parameters/half"
    return {
        "points/segment-00000007.parquet": "in no commit",
        "parameters/segment-00000007-0000.safetensors": "in no commit",
        "staged/dead-0123": "a batch that was never finished",
        f"checkpoints/{done.rpartition('-')[0]}-training.safetensors": "its batch is done",
        broken: "a write that was broken off",
    }


def test_what_is_named_is_kept_however_old(store: SweepStore) -> None:
    assert leftovers(store, time.time() + LATER) == []


def test_what_is_left_over_is_found_and_removed(store: SweepStore) -> None:
    before = names(store)
    expected = abandon(store)
    assert leftovers(store, time.time()) == []  # a writer may be at work on it
    found = leftovers(store, time.time() + LATER)
    assert {left.name: left.why for left in found} == expected
    assert {left.name: left.bytes for left in found}["staged/dead-0123"] == 7
    assert remove(store, found) == found
    assert names(store) == sorted([*before, "checkpoints/still-to-run-training.safetensors"])
    assert store.files.unfinished() == []
    assert leftovers(store, time.time() + LATER) == []
    commit.gather(store)  # the open claim is finished from what was kept
    assert damaged(store)[1] == []
    assert store.snapshot().trials().keys() == {"aa", "bb", "cc"}


def test_a_batch_that_is_finished_meanwhile_is_kept(store: SweepStore) -> None:
    name = fabricated.stage(store, "dd", [0])
    last = store.files.read(f"staged/{name}/batch.json")
    store.files.delete(f"staged/{name}/batch.json")
    found = leftovers(store, time.time() + LATER)
    assert [left.name for left in found] == [f"staged/{name}"]
    store.files.write(f"staged/{name}/batch.json", last)
    assert remove(store, found) == []
    assert store.table("trials", ["config"], None).column("config").to_pylist().count("dd") == 1


def test_age_is_that_of_the_newest_file(store: SweepStore) -> None:
    store.files.write("staged/slow-01/points.parquet", b"1")
    now = max(entry.modified for entry in store.files.entries() if "slow" in entry.name)
    assert leftovers(store, now + GRACE) == []
    assert [left.name for left in leftovers(store, now + GRACE + 1)] == ["staged/slow-01"]


def test_nothing_is_removed_by_a_log_that_cannot_be_trusted(store: SweepStore) -> None:
    store.files.write("log/00000009.json", b"{")
    with pytest.raises(StoreError, match=r"log/00000009\.json is not JSON"):
        leftovers(store, time.time() + LATER)


def test_the_verb_shows_first_and_deletes_when_told(tmp_path: Path) -> None:
    store = SweepStore(tmp_path / "small")
    store.files.write("sweep.yaml", b"name: small\n")
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    store.files.write("staged/dead-01/points.parquet", b"123")
    store.files.write("staged/new-01/points.parquet", b"123")
    old = time.time() - LATER
    os.utime(tmp_path / "small/staged/dead-01/points.parquet", (old, old))
    call = CliRunner().invoke
    shown = call(app, ["gc", store.uri])
    assert shown.exit_code == 0
    assert shown.stdout == (
        "staged/dead-01: 3 bytes, 48 hours old, a batch that was never finished\n"
        "1 leftover, 3 bytes; nothing was removed: --delete removes it\n"
    )
    assert (tmp_path / "small/staged/dead-01").exists()
    assert call(app, ["gc", store.uri, "--delete"]).stdout.endswith("1 leftover, 3 bytes removed\n")
    assert not (tmp_path / "small/staged/dead-01").exists()
    assert (tmp_path / "small/staged/new-01/points.parquet").exists()
    assert call(app, ["gc", store.uri]).stdout == "0 leftovers, 0 bytes\n"
    refused = call(app, ["gc", str(tmp_path / "absent")])
    assert refused.exit_code == 2 and "no sweep there" in refused.stderr
