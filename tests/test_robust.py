"""Faults of a store or of its tables: a clear message or a stated exclusion, never a silent number."""

from __future__ import annotations

from pathlib import Path

import pytest

import landsweep
from landsweep.workers.errors import QueryError, StoreError
from tests import faults
from tests.large_sweep import write


@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_fault_is_said(name: str, tmp_path: Path) -> None:
    fault = faults.FAULTS[name]
    said = fault.said(tmp_path)
    assert all(word in said for word in fault.words), said


def test_a_foreign_file_changes_no_number(tmp_path: Path) -> None:
    """Not even one whose name is a segment's: what the log does not name is not read."""
    sweep = write(tmp_path, faults.PLAN)
    before = landsweep.open(sweep).verdict(record_look=False).to_json()
    count = len(landsweep.open(sweep).points(["seed"]))
    faults.FAULTS["foreign files"].spoil(sweep)
    assert landsweep.open(sweep).verdict(record_look=False).to_json() == before
    assert len(landsweep.open(sweep).points(["seed"])) == count


def test_a_second_end_of_training_counts_once(tmp_path: Path) -> None:
    sweep = write(tmp_path, faults.PLAN)
    before = landsweep.open(sweep).verdict(record_look=False).to_json()
    faults.add_second_ends(sweep)
    assert landsweep.open(sweep).verdict(record_look=False).to_json() == before


def test_every_way_of_reading_names_the_damaged_file(tmp_path: Path) -> None:
    sweep = write(tmp_path, faults.PLAN)
    opened = landsweep.open(sweep)
    opened.points(["seed"])
    for path in sorted((sweep / "points").iterdir()):
        content = bytearray(path.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        path.write_bytes(bytes(content))
    for read in (opened.points, lambda: opened.verdict(record_look=False)):
        with pytest.raises(StoreError, match=r"segment-0000000\d.parquet cannot be read"):
            read()
    with pytest.raises(QueryError, match="objective"):
        opened.points(["objectiv"])
