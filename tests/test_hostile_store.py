"""A store that somebody else wrote: one clear error in bounded time and memory, and nothing in it is ever run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

import landsweep
from landsweep.cluster import checkpoints, commit
from landsweep.cluster.files import checksum
from landsweep.cluster.progress import damaged, sweeps
from landsweep.cluster.store import ENTRY_BYTES, SweepStore
from landsweep.workers.errors import LandsweepError, StoreError
from tests import fabricated

POINTS = "points/segment-00000000.parquet"
PARAMETERS = "parameters/segment-00000000-0000.safetensors"


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStore:
    """A done segment and a staged batch."""
    store = SweepStore(tmp_path / "runs" / "small")
    store.files.write("sweep.yaml", b"name: small\n")
    fabricated.stage(store, "aa", [0, 1])
    commit.gather(store)
    fabricated.stage(store, "bb", [0])
    return store


def put(store: SweepStore, name: str, content: bytes) -> None:
    """A committed file with other content, in a log that knows it."""
    store.files.write(name, content)
    done = json.loads(store.files.read("log/00000000.done"))
    done["files"][name] |= checksum(content)
    store.files.write("log/00000000.done", json.dumps(done).encode())


def read_all(where: str) -> None:
    """Everything that a reader may ask for."""
    opened = landsweep.open(where)
    points = opened.points()
    for table in (opened.trials, opened.trajectories, opened.spectra, opened.connections):
        table()
    for point in points["point"]:
        opened.parameters(point)
    opened.verdict(record_look=False)
    damaged(SweepStore(where))


# --- names and entries of the log -----------------------------------------------------------------------------------

NAMES = ["../../secret", "/etc/passwd", "points/../../secret", "", ".", "a\\b", "a\x00b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["segment", "staged", "files", "batch"])
def test_names_that_lead_outside_are_refused(sweep: SweepStore, name: str, place: str) -> None:
    log = "log/00000000.done" if place == "files" else "log/00000000.json"
    if place == "batch":
        (log,) = (name for name in sweep.files.names("staged") if name.endswith("batch.json"))
    entry = json.loads(sweep.files.read(log))
    key = "files" if place == "batch" else place
    entry[key] = {"segment": name, "staged": [name]}.get(key, {name: checksum(b"")})
    sweep.files.write(log, json.dumps(entry).encode())
    with pytest.raises(StoreError, match="is not a relative name below the sweep; the log that names it"):
        read_all(sweep.uri)


def test_links_in_the_store_are_not_followed(sweep: SweepStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(sweep.files.read(POINTS))
    place = Path(sweep.uri) / POINTS
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(StoreError, match=r"points/segment-00000000\.parquet is a link"):
        read_all(sweep.uri)
    (fault,) = damaged(SweepStore(sweep.uri))[1]
    assert fault.startswith(POINTS) and "is a link" in fault


@pytest.mark.parametrize("name", ["log/00000000.json", "log/00000000.done", "sweep.yaml", "staged"])
def test_an_entry_of_a_gigabyte_is_not_read(sweep: SweepStore, name: str) -> None:
    if name == "staged":
        (name,) = (name for name in sweep.files.names("staged") if name.endswith("batch.json"))
    os.truncate(Path(sweep.uri) / name, 10**9)  # a hole: it takes no space
    with pytest.raises(StoreError, match=rf"1,000,000,000 bytes where at most {ENTRY_BYTES:,} are written"):
        read_all(sweep.uri)
        sweeps(str(Path(sweep.uri).parent))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10**6, b'{"a":' * 10**6, b"9" * 10**5]
)
@pytest.mark.parametrize("name", ["log/00000000.json", "log/00000000.done", "verdict/looks.json"])
def test_entries_that_are_none_are_one_error(sweep: SweepStore, name: str, content: bytes) -> None:
    if name.startswith("verdict") and content in (b"", b"[]"):
        return  # no look yet
    sweep.files.write(name, content)
    with pytest.raises(StoreError, match=r"(log|verdict)/.* (is not JSON|is no text|lacks|is not)"):
        read_all(sweep.uri)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(["segment", "staged", "trials", "failed"]), value=JSON)
def test_any_other_value_in_a_claim_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    store = SweepStore(tmp_path_factory.mktemp("any"))
    entry = {"schema": 1, "segment": "segment-00000000", "staged": [], "trials": {"aa": [0]}, "failed": {}, key: value}
    store.files.write("log/00000000.json", json.dumps(entry).encode())
    try:
        store.snapshot().trials()
    except StoreError as error:
        assert "log/00000000.json" in str(error) or "relative name" in str(error)


@given(key=st.sampled_from(["config", "batch", "seeds", "failed", "files"]), value=JSON)
def test_any_other_value_in_a_batch_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    store = SweepStore(tmp_path_factory.mktemp("any"))
    entry = {"schema": 1, "config": "aa", "batch": "b", "seeds": [0], "failed": [], "files": {}, key: value}
    store.files.write("staged/b-1/batch.json", json.dumps(entry).encode())
    try:
        store.snapshot().pending()
    except StoreError as error:
        assert "staged/b-1/batch.json" in str(error) or "relative name" in str(error)


# --- tables and parameters ------------------------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """Every byte after the magic is another."""
    return content[:4] + bytes(byte ^ 0x55 for byte in content[4:-4]) + content[-4:]


def empty(content: bytes) -> bytes:
    return b""


def announcing(content: bytes) -> bytes:
    """A safetensors header, or a Parquet footer, of 2⁶³ bytes."""
    return (2**63 - 1).to_bytes(8, "little") + content[8:-8] + b"\xff\xff\xff\x7fPAR1"


def outside(content: bytes) -> bytes:
    """Tensors that lie outside of the file."""
    header = {"aa-0.points": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8 * 10**12]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def of_objects(content: bytes) -> bytes:
    header = {"aa-0.points": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"01234567"


SPOILED = [truncated, flipped, empty, announcing]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [*((POINTS, one) for one in SPOILED), *((PARAMETERS, one) for one in (*SPOILED, outside, of_objects))],
)
@pytest.mark.parametrize("known", [False, True], ids=["damaged", "poisoned"])
def test_files_that_are_none_are_one_error(
    sweep: SweepStore, name: str, spoil: Callable[[bytes], bytes], known: bool
) -> None:
    """Whether the log knows the content (somebody wrote both) or not (it was damaged)."""
    content = spoil(sweep.files.read(name))
    if known:
        put(sweep, name, content)
    else:
        sweep.files.write(name, content)
    with pytest.raises(StoreError, match=rf"{name.partition('/')[0]}/segment-0.*restore it from a copy"):
        read_all(sweep.uri)
    if not known:
        (fault,) = damaged(SweepStore(sweep.uri))[1]
        assert fault.startswith(f"{name}: ") and fault.endswith("; restore it from a copy")


def test_a_damaged_staged_file_says_how_to_go_on(sweep: SweepStore) -> None:
    (name,) = (name for name in sweep.files.names("staged") if name.endswith("points.parquet"))
    sweep.files.write(name, b"1")
    (fault,) = damaged(SweepStore(sweep.uri))[1]
    assert fault.startswith(f"{name}: 1 bytes where ")
    assert f"or delete {name.rpartition('/')[0]} and run the sweep again" in fault
    with pytest.raises(StoreError, match="is not what was staged"):
        commit.gather(sweep)


def test_a_small_table_of_very_many_rows_is_refused(sweep: SweepStore) -> None:
    """Runs of one value take no space in a file, and all of it in memory."""
    table = pa.table({"seed": np.zeros(10**7, dtype=np.int64)})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(table, row_group_size=10**7)
    content = sink.getvalue().to_pybytes()
    assert len(content) < 10**6
    put(sweep, POINTS, content)
    script = f"""
import resource, landsweep
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    landsweep.open({sweep.uri!r}).points()
except landsweep.LandsweepError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    said, grown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()
    assert "points/segment-00000000.parquet announces 100,000,000 rows in" in said
    assert int(grown) < 500  # MiB; the rows would be 800


# --- nothing is run -------------------------------------------------------------------------------------------------


class Marker:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def poisons(path: Path) -> dict[str, bytes]:
    """Content that would create ``path`` if it were unpickled or built by an unsafe YAML loader."""
    pickled = pickle.dumps(Marker(path))
    metadata = {b"landsweep_schema": b"1", b"ARROW:extension:name": b"arrow.py_extension_type", b"pandas": b"{}"}
    field = pa.field("config", pa.string(), metadata={**metadata, b"ARROW:extension:metadata": pickled})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([pa.array(["aa"])], schema=pa.schema([field], metadata=metadata)), sink)
    array = np.frombuffer(pickled, dtype=np.uint8)
    return {
        "pickle": pickled,
        "parquet": sink.getvalue().to_pybytes(),
        "safetensors": save({"points": array}, {"identity": pickled.hex()}),
        "yaml": f"!!python/object/apply:os.mkdir ['{path}']\n".encode(),
    }


@pytest.mark.parametrize("kind", ["pickle", "parquet", "safetensors", "yaml"])
def test_nothing_in_a_store_is_unpickled(sweep: SweepStore, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "unpickled"
    content = poisons(marker)[kind]
    staged = sweep.files.names("staged")
    places = [POINTS, PARAMETERS, "log/00000000.json", "log/00000000.done", "sweep.yaml", "data.json", *staged]
    places += ["verdict/question.json", "verdict/looks.json", "checkpoints/aa-training.safetensors"]
    for place in places:
        before = sweep.files.read(place) if any(place == entry.name for entry in sweep.files.entries()) else None
        sweep.files.write(place, content)
        for use in (
            read_all,
            lambda where: sweeps(str(Path(where).parent)),
            lambda where: commit.gather(SweepStore(where)),
        ):
            try:
                use(sweep.uri)
            except LandsweepError:
                continue
        assert checkpoints.unpacked(content, "aa") is None
        if before is None:
            sweep.files.delete(place)
        else:
            sweep.files.write(place, before)
    assert not marker.exists()
    pickle.loads(poisons(marker)["pickle"])  # it would have
    assert marker.exists()
