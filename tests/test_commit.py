"""The commit protocol: every trial exactly once, at every moment, whoever dies or races."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import landsweep
from landsweep.cluster import commit
from landsweep.cluster.files import LocalFiles, checked_name, checksum
from landsweep.cluster.progress import damaged
from landsweep.cluster.spans import Spans
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import StoreError
from tests import fabricated


class Crash(BaseException):
    """The process died here."""


@dataclass(frozen=True)
class Dying(LocalFiles):
    """Local files of a process that dies at its step number ``left``; a deletion dies half way."""

    left: list[int] = field(default_factory=lambda: [10**9])

    def _step(self) -> bool:
        self.left[0] -= 1
        return self.left[0] < 0

    def write(self, name: str, content: bytes) -> None:
        if self._step():
            folder = self.root / "tmp"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"@{socket.gethostname()}+999999999+half").write_bytes(content[: len(content) // 2])
            raise Crash
        super().write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        if self._step():
            raise Crash
        return super().create(name, content)

    def delete(self, name: str) -> None:
        if self._step():
            files = sorted(path for path in (self.root / name).rglob("*") if path.is_file())
            for path in files[: len(files) // 2]:
                path.unlink()
            raise Crash
        super().delete(name)


def opened(root: Path, dies_after: int | None = None) -> SweepStore:
    store = SweepStore(root)
    store.files = Dying(root, [10**9 if dies_after is None else dies_after])
    return store


def trials(store: SweepStore, table: str = "points") -> list[tuple[str, int]]:
    """The trials of a table; of points the trained ones, one a trial."""
    columns = ["config", "seed", "source"] if table == "points" else ["config", "seed"]
    rows = store.table(table, columns).to_pylist()
    return sorted((row["config"], row["seed"]) for row in rows if row.get("source", "training") == "training")


def plain(root: Path, table: str = "points") -> pd.DataFrame:
    return pd.read_parquet(root / table)


def segment_files(root: Path) -> dict[str, bytes]:
    """Everything that is for readers: name → bytes."""
    found = [path for path in root.rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in names.items() if name.split("/")[0] not in ("tmp", "staged")}


# --- without disturbance ------------------------------------------------------------------------------------------


def test_staged_rows_are_seen_before_they_are_gathered(tmp_path: Path) -> None:
    store = SweepStore(tmp_path / "small")
    fabricated.stage(store, "aa", [0, 1])
    assert not (tmp_path / "small" / "points").exists()
    assert trials(store) == [("aa", 0), ("aa", 1)]
    store.files.write("sweep.yaml", b"name: small\n")
    points = landsweep.open(tmp_path / "small").points()
    assert points["point"].tolist() == ["aa-0-training-0", "aa-0-trajectory-0", "aa-1-training-0", "aa-1-trajectory-0"]


def test_a_batch_without_its_last_file_does_not_exist(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    name = fabricated.stage(store, "aa", [0])
    (tmp_path / "staged" / name / "batch.json").unlink()
    assert trials(store) == []
    assert store.snapshot().trials() == {}


def test_gathering_makes_one_ordered_segment(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    for config, seeds in (("bb", [2, 3]), ("aa", [4, 5]), ("bb", [0, 1]), ("aa", [6])):
        fabricated.stage(store, config, seeds)
    before = store.table("points").num_rows
    assert commit.gather(store) == 1
    assert [path.name for path in (tmp_path / "points").iterdir()] == ["segment-00000000.parquet"]
    rows = plain(tmp_path)
    assert len(rows) == before == 14
    assert list(zip(rows["config"], rows["seed"], strict=True)) == sorted(
        zip(rows["config"], rows["seed"], strict=True)
    )
    assert rows["source"].tolist() == ["training", "trajectory"] * 7
    assert list((tmp_path / "staged").iterdir()) == []
    assert commit.gather(store) == 0


def test_done_holds_the_checksums_of_what_is_there(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0, 1], "b0")
    commit.gather(store)
    done = json.loads((tmp_path / "log/00000000.done").read_text())
    assert done["segment"] == "segment-00000000"
    tables = {f"{name}/segment-00000000.parquet" for name in ("points", "trials", "trajectories", "spectra")}
    assert set(done["files"]) == tables | {"parameters/segment-00000000-0000.safetensors"}
    for name, entry in done["files"].items():
        batches = {"batches": ["b0"]} if name.startswith("parameters/") else {}
        assert entry == checksum((tmp_path / name).read_bytes()) | batches
    claim = json.loads((tmp_path / "log/00000000.json").read_text())
    assert claim["trials"] == {"aa": [[0, 2]]}
    assert damaged(store) == (5, [])


def test_tables_keep_their_schema(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    for _ in range(2):  # staged, then gathered
        for name in ("points", "trials", "trajectories", "spectra"):
            schema = record.schema(name, fabricated.GRID)
            found = store.table(name).schema
            assert found.equals(schema, check_metadata=False), name
            assert found.metadata[b"landsweep_schema"] == b"1"
        commit.gather(store)
    written = pq.ParquetFile(tmp_path / "points/segment-00000000.parquet")
    assert written.metadata.row_group(0).column(0).compression == "ZSTD"


# --- crashes ------------------------------------------------------------------------------------------------------


def scenario(store: SweepStore) -> None:
    """Two segments: the second finds one of its trials in the first."""
    fabricated.stage(store, "bb", [0, 1], "b1")
    fabricated.stage(store, "aa", [0, 1], "b0")
    commit.gather(store)
    fabricated.stage(store, "aa", [1, 2], "b2")
    commit.gather(store)


WANTED = [("aa", 0), ("aa", 1), ("aa", 2), ("bb", 0), ("bb", 1)]


@pytest.fixture
def fixed_names(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Staged names that count up, so that two runs can be compared; a call starts anew."""
    counter = [0]

    class _Uuid:
        @property
        def hex(self) -> str:
            counter[0] += 1
            return f"{counter[0]:032x}"[::-1]

    monkeypatch.setattr(commit.uuid, "uuid4", _Uuid)
    return lambda: counter.__setitem__(0, 0)


def steps_of(root: Path, act: Callable[[SweepStore], Any]) -> int:
    store = opened(root)
    assert isinstance(store.files, Dying)
    act(store)
    return 10**9 - store.files.left[0]


def check_readers(root: Path, tried: set[tuple[str, int]]) -> None:
    """What anybody sees now: no trial twice, no half file, what was done before still there."""
    store = SweepStore(root)
    seen = trials(store)
    assert len(seen) == len(set(seen))
    assert tried <= set(seen)
    if (root / "points").is_dir():
        assert not plain(root).duplicated("point").any()
    for path in root.rglob("*.parquet"):
        pq.read_table(path)


def test_a_crash_at_any_step_loses_and_doubles_nothing(tmp_path: Path, fixed_names: Callable[[], None]) -> None:
    fixed_names()
    steps = steps_of(tmp_path / "calm", scenario)
    assert steps > 30
    assert trials(SweepStore(tmp_path / "calm")) == WANTED
    for step in range(steps):
        root = tmp_path / f"at-{step}"
        fixed_names()
        with pytest.raises(Crash):
            scenario(opened(root, dies_after=step))
        done = {(config, seed) for config, seeds in SweepStore(root).snapshot().trials().items() for seed in seeds}
        check_readers(root, done)
        store = SweepStore(root)
        commit.gather(store)
        assert trials(store) == sorted(done), step
        assert damaged(store)[1] == []
        # what never was staged is run again, as the next `run` would
        for config, seeds, batch in (("bb", [0, 1], "b1"), ("aa", [0, 1], "b0"), ("aa", [1, 2], "b2")):
            if not {(config, seed) for seed in seeds} <= done:
                fabricated.stage(store, config, seeds, batch)
        commit.gather(store)
        assert trials(store) == WANTED, step
        for table in ("points", "trials"):
            rows = plain(root, table)
            rows = rows[rows["source"] == "training"] if table == "points" else rows
            assert sorted(zip(rows["config"], rows["seed"], strict=True)) == WANTED, step
        assert not list((root / "staged").rglob("batch.json"))
        for batch in ("b0", "b1", "b2"):
            held, wanted = SweepStore(root).parameters(batch), SweepStore(tmp_path / "calm").parameters(batch)
            assert {name: array.tolist() for name, array in held.items()} == {
                name: array.tolist() for name, array in wanted.items()
            }


def test_a_crash_while_gathering_leaves_the_same_bytes(tmp_path: Path, fixed_names: Callable[[], None]) -> None:
    def staged(root: Path) -> Path:
        fixed_names()
        for config, seeds, batch in (("bb", [0, 1], "b1"), ("aa", [0, 1], "b0"), ("aa", [1, 2], "b2")):
            fabricated.stage(SweepStore(root), config, seeds, batch)
        return root

    steps = steps_of(staged(tmp_path / "calm"), commit.gather)
    calm = segment_files(tmp_path / "calm")
    assert steps > 8
    for step in range(steps):
        root = staged(tmp_path / f"at-{step}")
        with pytest.raises(Crash):
            commit.gather(opened(root, dies_after=step))
        check_readers(root, set(WANTED))
        commit.gather(SweepStore(root))
        commit.gather(SweepStore(root))
        assert segment_files(root) == calm, step
        assert list((root / "staged").iterdir()) == []


class Disturbed(LocalFiles):
    """Local files that call ``disturb`` right before the operation ``at`` on a name that starts with ``prefix``."""

    def __init__(self, root: Path, at: str, prefix: str, disturb: Callable[[], Any]) -> None:
        super().__init__(root)
        object.__setattr__(self, "plan", [(at, prefix, disturb)])

    def _disturb(self, operation: str, name: str) -> None:
        plan: list[tuple[str, str, Callable[[], Any]]] = self.__dict__["plan"]
        if plan and plan[0][0] == operation and name.startswith(plan[0][1]):
            plan.pop()[2]()

    def read(self, name: str, limit: int | None = None) -> bytes:
        self._disturb("read", name)
        return super().read(name, limit)

    def write(self, name: str, content: bytes) -> None:
        self._disturb("write", name)
        super().write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        self._disturb("create", name)
        return super().create(name, content)

    def names(self, folder: str) -> list[str]:
        self._disturb("names", folder)
        return super().names(folder)

    def delete(self, name: str) -> None:
        self._disturb("delete", name)
        super().delete(name)


MOMENTS = [
    ("names", "staged"),
    ("names", "log"),
    ("read", "staged"),
    ("create", "log"),
    ("write", "points"),
    ("write", "parameters"),
    ("write", "log"),
    ("delete", "staged"),
]


# --- races --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "prefix"), MOMENTS)
@pytest.mark.parametrize("other_dies_after", [None, 1, 3, 6])
def test_two_drivers_gather_at_once(tmp_path: Path, operation: str, prefix: str, other_dies_after: int | None) -> None:
    """The other gathers, and perhaps dies, at any moment of ours; both hold a copy of one of the trials."""
    for config, seeds in (("aa", [0, 1]), ("aa", [1, 2]), ("bb", [0])):
        fabricated.stage(SweepStore(tmp_path), config, seeds)
    happened = []

    def other() -> None:
        happened.append(True)
        fabricated.stage(SweepStore(tmp_path), "bb", [1])
        try:
            commit.gather(opened(tmp_path, other_dies_after))
        except Crash:
            assert other_dies_after is not None

    store = SweepStore(tmp_path)
    store.files = Disturbed(tmp_path, operation, prefix, other)
    commit.gather(store)
    assert happened
    check_readers(tmp_path, set(WANTED))
    commit.gather(SweepStore(tmp_path))
    assert trials(SweepStore(tmp_path)) == WANTED
    rows = plain(tmp_path)
    assert sorted(rows["trial"][rows["source"] == "training"]) == ["aa-0", "aa-1", "aa-2", "bb-0", "bb-1"]
    assert list((tmp_path / "staged").iterdir()) == []
    assert damaged(SweepStore(tmp_path))[1] == []


def test_a_copy_that_another_driver_claims_is_not_deleted(tmp_path: Path) -> None:
    """The other looked before our copy was there, and claims its own right before we claim ours."""
    other = SweepStore(tmp_path)
    first = fabricated.stage(other, "aa", [0, 1], "b0")
    seen = other.snapshot()
    while fabricated.stage(SweepStore(tmp_path), "aa", [0, 1], "b0") > first:
        pass  # until one of ours is taken and the other's is needless
    store = SweepStore(tmp_path)
    store.files = Disturbed(tmp_path, "create", "log", lambda: commit._claim(other, seen, seen.pending()))
    commit.gather(store)
    assert trials(SweepStore(tmp_path)) == [("aa", 0), ("aa", 1)]
    assert list((tmp_path / "staged").iterdir()) == []
    assert damaged(SweepStore(tmp_path))[1] == []


@pytest.mark.parametrize("table", ["points", "trials"])
@pytest.mark.parametrize(("operation", "prefix"), [("names", "staged"), ("names", "log"), ("read", "staged")])
def test_a_reader_sees_each_trial_once_while_a_gather_runs(
    tmp_path: Path, table: str, operation: str, prefix: str
) -> None:
    fabricated.stage(SweepStore(tmp_path), "aa", [0, 1])
    reader = SweepStore(tmp_path)
    reader.files = Disturbed(tmp_path, operation, prefix, lambda: commit.gather(SweepStore(tmp_path)))
    assert trials(reader, table) == [("aa", 0), ("aa", 1)]
    assert (tmp_path / "log/00000000.done").exists()


def test_a_reader_does_not_lose_rows_gathered_between_listing_and_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricated.stage(SweepStore(tmp_path), "aa", [0, 1])
    reader = SweepStore(tmp_path)
    listed = reader.snapshot()
    commit.gather(SweepStore(tmp_path))
    real, answers = SweepStore.snapshot, [listed]
    monkeypatch.setattr(SweepStore, "snapshot", lambda self: answers.pop() if answers else real(self))
    assert trials(reader) == [("aa", 0), ("aa", 1)]
    assert answers == []


def test_the_same_trials_staged_twice_count_once(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    assert fabricated.stage(store, "aa", [0, 1], "b0") != fabricated.stage(store, "aa", [0, 1], "b0")
    assert trials(store) == trials(store, "trials") == [("aa", 0), ("aa", 1)]
    commit.gather(store)
    fabricated.stage(store, "aa", [0, 1], "b0")
    assert trials(store) == trials(store, "trials") == [("aa", 0), ("aa", 1)]
    assert commit.gather(store) == 0
    assert len(plain(tmp_path, "trials")) == 2
    assert list((tmp_path / "staged").iterdir()) == []


# --- failed trials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gathered_between", [True, False])
def test_a_failed_trial_and_its_retry(tmp_path: Path, gathered_between: bool) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    fabricated.stage_failed(store, "aa", 1, attempt=3)
    assert store.snapshot().failed() == {"aa": Spans.of([1])}
    assert store.snapshot().trials() == {"aa": Spans.of([0, 1])}
    if gathered_between:
        commit.gather(store)
        assert store.snapshot().failed() == {"aa": Spans.of([1])}
    fabricated.stage(store, "aa", [1], attempt=4)
    for _ in range(2):  # staged, then gathered
        assert store.snapshot().failed() == {}
        assert trials(store) == [("aa", 0), ("aa", 1)]
        rows = _trials(store)
        assert rows[["seed", "status", "attempt"]].values.tolist() == [[0, "done", 1], [1, "done", 4]]
        commit.gather(store)
    fabricated.stage_failed(store, "aa", 1)  # a slow driver comes too late with its failure
    commit.gather(store)
    assert store.snapshot().failed() == {}


def _trials(store: SweepStore) -> pd.DataFrame:
    from landsweep.analysis.sweep import Sweep

    return Sweep(store).trials()


def test_a_trial_that_fails_again_has_one_row(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    for attempt in (1, 2):
        fabricated.stage_failed(store, "aa", 1, attempt)
        commit.gather(store)
    assert store.snapshot().failed() == {"aa": Spans.of([1])}
    assert _trials(store)[["status", "attempt"]].values.tolist() == [["failed", 2]]
    assert trials(store) == []


def test_a_failed_trial_whose_staged_folder_outlived_its_segment_has_one_row(tmp_path: Path) -> None:
    fabricated.stage_failed(SweepStore(tmp_path), "aa", 1)
    (staged,) = (tmp_path / "staged").iterdir()
    content = {path.name: path.read_bytes() for path in staged.iterdir()}
    commit.gather(SweepStore(tmp_path))
    for name, text in content.items():  # its deleter was killed
        LocalFiles(tmp_path).write(f"staged/{staged.name}/{name}", text)
    assert trials(SweepStore(tmp_path), "trials") == [("aa", 1)]
    assert commit.gather(SweepStore(tmp_path)) == 0
    assert trials(SweepStore(tmp_path), "trials") == [("aa", 1)]
    assert not staged.exists()


# --- damage and malice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "points/../../x", "a\\b", "a\x00b", "", "."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError):
        checked_name(name)
    for act in (LocalFiles(tmp_path).read, LocalFiles(tmp_path).delete, LocalFiles(tmp_path).location):
        with pytest.raises(StoreError):
            act(name)


HOSTILE = ["../outside/segment.parquet", "points/../../outside/segment.parquet", "/outside/segment.parquet"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["files", "segment", "staged", "batch"])
def test_hostile_names_in_the_log_are_refused(tmp_path: Path, name: str, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "segment.parquet").write_bytes(b"precious")
    store = SweepStore(tmp_path / "small")
    staged = fabricated.stage(store, "aa", [0])
    if place == "batch":
        path, keys = f"staged/{staged}/batch.json", {"files": {name: {"bytes": 1, "sha256": ""}}}
    else:
        commit.gather(store)
        path = "log/00000000.done" if place == "files" else "log/00000000.json"
        keys = {place: {"files": {name: {"bytes": 1, "sha256": ""}}, "segment": name, "staged": [name]}[place]}
    content = json.loads(store.files.read(path))
    store.files.write(path, json.dumps({**content, **keys}).encode())
    store = SweepStore(store.uri)
    for act in (lambda: store.table("points"), lambda: commit.gather(store), lambda: damaged(store)):
        with pytest.raises(StoreError, match=r"not a relative name"):
            act()
    assert (outside / "segment.parquet").read_bytes() == b"precious"


@pytest.mark.parametrize("linked", ["points/segment-00000000.parquet", "points", "log"])
def test_links_are_not_followed(tmp_path: Path, linked: str) -> None:
    store = SweepStore(tmp_path / "small")
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    inside, outside = tmp_path / "small" / linked, tmp_path / "elsewhere"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        store.table("points")


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_table_is_named(tmp_path: Path, keep: int) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    path = tmp_path / "points/segment-00000000.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"points/segment-00000000\.parquet.*restore"):
        store.table("points")
    (fault,) = damaged(store)[1]
    assert fault.startswith("points/segment-00000000.parquet: ")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    (tmp_path / "points/segment-00000000.parquet").unlink()
    with pytest.raises(StoreError, match=r"missing.*points/segment-00000000\.parquet"):
        store.table("points")
    assert damaged(store)[1] == ["points/segment-00000000.parquet: missing; restore it from a copy"]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("file", ["points.parquet", "parameters.safetensors"])
def test_damaged_staged_files_enter_no_segment(tmp_path: Path, file: str, damage: str) -> None:
    store = SweepStore(tmp_path)
    name = fabricated.stage(store, "aa", [0])
    path = tmp_path / "staged" / name / file
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content[:middle] if damage == "truncated" else flipped)
    with pytest.raises(StoreError, match=rf"staged/{name}/{file}"):
        commit.gather(store)
    assert not (tmp_path / "log/00000000.done").exists()
    assert path.exists()
    path.write_bytes(content)  # restored from a copy
    assert commit.gather(store) == 1
    assert trials(store) == [("aa", 0)]


def test_missing_staged_files_of_a_claim_are_named(tmp_path: Path) -> None:
    fabricated.stage(SweepStore(tmp_path), "aa", [0])
    with pytest.raises(Crash):
        commit.gather(opened(tmp_path, dies_after=1))
    LocalFiles(tmp_path).delete("staged")
    with pytest.raises(StoreError, match=r"log/00000000\.json claims is missing"):
        commit.gather(SweepStore(tmp_path))


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "seg', b"[1]", b"\xff\xfe", b"{}", b'{"schema": 99}', b"3"])
@pytest.mark.parametrize("file", ["log/00000000.json", "log/00000000.done", "staged/{}/batch.json"])
def test_broken_json_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    file = file.format(fabricated.stage(store, "aa", [1]))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StoreError, match=file):
        SweepStore(tmp_path).table("points")


def test_foreign_files_are_ignored(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0])
    commit.gather(store)
    fabricated.stage(store, "aa", [1])
    foreign = ["log/.00000000.json.swp", "log/notes.txt", "log/x.json", "points/copy.parquet", "README", ".DS_Store"]
    foreign += ["staged/readme.txt", "staged/half/points.parquet", "staged/.x/y", "trials/.part"]
    for name in foreign:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"foreign")
    assert trials(store) == trials(store, "trials") == [("aa", 0), ("aa", 1)]
    assert commit.gather(store) == 1
    assert damaged(store) == (10, [])
    for name in foreign:
        assert (tmp_path / name).read_bytes() == b"foreign"


def test_only_temporaries_of_dead_writers_are_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, host = int(ended.stdout), socket.gethostname()
    folder = tmp_path / "tmp"
    folder.mkdir()
    kept = [f"@{host}+{os.getpid()}+a", f"@other-{host}+{dead}+b", "notes.txt", f"@{host}+x+c", f"@{host}++d"]
    for name in (*kept, f"@{host}+{dead}+e"):
        (folder / name).write_bytes(b"half")
    assert LocalFiles(tmp_path).remove_dead_temporaries() == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_writing_leaves_no_temporary(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write("a/b", b"one")
    assert files.create("a/c", b"two")
    assert not files.create("a/c", b"three")
    assert [files.read("a/b"), files.read("a/c")] == [b"one", b"two"]
    assert list((tmp_path / "tmp").iterdir()) == []


# --- any order ----------------------------------------------------------------------------------------------------


class Protocol(RuleBasedStateMachine):
    """Drivers that stage, gather and die, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "small"
        self.done: set[tuple[str, int]] = set()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(config=st.sampled_from("ab"), seeds=st.sets(st.integers(0, 4), min_size=1), steps=st.integers(0, 12))
    def stage(self, config: str, seeds: set[int], steps: int) -> None:
        try:
            fabricated.stage(opened(self.root, steps), config, sorted(seeds))
        except Crash:
            return
        self.done |= {(config, seed) for seed in seeds}

    @rule(config=st.sampled_from("ab"), seed=st.integers(0, 4))
    def fail(self, config: str, seed: int) -> None:
        fabricated.stage_failed(opened(self.root), config, seed)

    @precondition(lambda self: self.root.exists())
    @rule(steps=st.integers(0, 15))
    def gather(self, steps: int) -> None:
        try:
            commit.gather(opened(self.root, steps))
        except Crash:
            return
        assert damaged(SweepStore(self.root))[1] == []

    @invariant()
    def every_trial_once(self) -> None:
        if self.root.exists():
            assert trials(SweepStore(self.root)) == sorted(self.done)
            found = SweepStore(self.root).snapshot()
            failed = {(config, seed) for config, seeds in found.failed().items() for seed in seeds}
            assert not failed & self.done
            if list(self.root.glob("points/*.parquet")):
                assert not plain(self.root).duplicated("point").any()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def test_empty_tables_have_their_schema(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    assert store.table("points").schema.names == record.schema("points").names
    assert store.table("trials", ["seed"]).schema == pa.schema([("seed", pa.int64())])
    assert not store.exists()
