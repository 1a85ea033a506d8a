"""A reader that is slower than what it reads changes: it sees each trial once, and is not told that files are lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landsweep.cluster import commit
from landsweep.cluster.files import LocalFiles
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import StoreError
from tests import fabricated

COUNT = 6  # batches, more than a reader would try for


@pytest.fixture
def before_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[str], object]], None]:
    """Have something done before each reading of a staged file of this name, but for what that itself reads."""
    read, busy = LocalFiles.read, [False]

    def install(file: str, act: Callable[[str], object]) -> None:
        def patched(self: LocalFiles, name: str, limit: int | None = None) -> bytes:
            if name.startswith("staged/") and name.endswith(file) and not busy[0]:
                busy[0] = True
                act(name)
                busy[0] = False
            return read(self, name, limit)

        monkeypatch.setattr(LocalFiles, "read", patched)

    return install


def seeds_of(store: SweepStore) -> list[int]:
    return sorted(store.table("trials", ["seed"]).column("seed").to_pylist())


def test_what_is_gathered_is_deleted_ahead_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_reading: Callable[[str, Callable[[str], object]], None]
) -> None:
    store = SweepStore(tmp_path)
    for seed in range(COUNT):
        fabricated.stage(store, "one", [seed])
    delete = LocalFiles.delete
    monkeypatch.setattr(LocalFiles, "delete", lambda self, name: None)
    commit.gather(store)
    before_reading("batch.json", lambda name: delete(store.files, name.rpartition("/")[0]))  # type: ignore[arg-type]
    assert len(store.files.names("staged")) > COUNT
    assert seeds_of(SweepStore(tmp_path)) == list(range(COUNT))
    assert store.files.names("staged") == []


def test_segments_are_written_as_fast_as_the_reader_reads(
    tmp_path: Path, before_reading: Callable[[str, Callable[[str], object]], None]
) -> None:
    store, left = SweepStore(tmp_path), list(range(1, COUNT))
    fabricated.stage(store, "one", [0])

    def go_on(name: str) -> None:
        commit.gather(store)
        if left:
            fabricated.stage(store, "one", [left.pop(0)])

    before_reading("trials.parquet", go_on)
    assert seeds_of(SweepStore(tmp_path)) == list(range(COUNT))


def test_a_batch_that_another_has_replaced_is_listed_again(
    tmp_path: Path, before_reading: Callable[[str, Callable[[str], object]], None]
) -> None:
    """Two drivers staged the same trials: the other of the two is deleted before any segment has the first."""
    store = SweepStore(tmp_path)
    late = fabricated.stage(store, "one", [0, 1], batch="b")

    def replace(name: str) -> None:
        if late in name:
            fabricated.stage(store, "one", [0, 1], batch="a")
            store.files.delete(f"staged/{late}")

    before_reading("batch.json", replace)
    assert seeds_of(SweepStore(tmp_path)) == [0, 1]


def test_a_file_that_nothing_explains_is_missing(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    name = fabricated.stage(store, "one", [0])
    store.files.delete(f"staged/{name}/trials.parquet")
    with pytest.raises(StoreError, match=f"a committed file is missing: .*{name}/trials.parquet"):
        store.table("trials")


def test_a_listing_that_names_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFiles, "names", lambda self, folder: [f"{folder}/ghost/batch.json"])
    with pytest.raises(StoreError, match="ghost is listed and not there"):
        SweepStore(tmp_path).snapshot()
