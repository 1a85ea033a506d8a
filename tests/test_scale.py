"""300,000 points: answers are those of plain pandas, and only what is asked for is read. Nothing is timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import landsweep
from landsweep.analysis.verdict import KEYS, verdict
from landsweep.workers.errors import QueryError, StoreError
from tests.large_sweep import Plan, config_id, write

PLAN = Plan(configs=20, trials=3750, rows=50_000)  # six segments, ten configurations in each
SMALL = Plan(configs=20, trials=60, rows=2000)
WHERE = "objective < 0.2 and training.lr < 0.04"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("scale"), PLAN)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL)


def plain(sweep: Path, columns: list[str]) -> pd.DataFrame:
    frame = pd.read_parquet(sweep / "points", columns=columns)
    return frame.sort_values(["config", "seed"], kind="stable", ignore_index=True)


def test_a_query_is_what_plain_pandas_gives(sweep: Path) -> None:
    columns = ["config", "objective", "test_loss"]
    found = landsweep.open(sweep).points(columns, where=WHERE, kind="minimum")
    whole = plain(sweep, [*columns, "seed", "kind", "training.lr"])
    assert len(whole) == PLAN.points == 300_000
    kept = (whole["objective"] < 0.2) & (whole["training.lr"] < 0.04) & (whole["kind"] == "minimum")
    assert len(found) > 1000
    pd.testing.assert_frame_equal(found, whole.loc[kept, columns].reset_index(drop=True))


def test_a_scan_gives_the_same_rows_in_batches(sweep: Path) -> None:
    scanner = landsweep.open(sweep).scan(["seed", "objective"], where=WHERE, kind=["minimum", "maximum"])
    assert scanner.projected_schema.names == ["seed", "objective"]
    batches = list(scanner.to_batches())
    found = landsweep.open(sweep).points(["seed", "objective"], where=WHERE, kind="minimum")
    assert max(batch.num_rows for batch in batches) < PLAN.points / 4
    values = np.concatenate([batch.column("objective").to_numpy() for batch in batches])
    assert np.array_equal(np.sort(values), np.sort(found["objective"].to_numpy()))
    with pytest.raises(QueryError, match="objective"):
        landsweep.open(sweep).scan(["objectiv"])


def _spoil(path: Path, column: str | None) -> None:
    """Overwrite the pages of one column, or of all, and leave the footer."""
    footer = pq.ParquetFile(path).metadata
    content = bytearray(path.read_bytes())
    for group in range(footer.num_row_groups):
        for k in range(footer.num_columns):
            chunk = footer.row_group(group).column(k)
            if column is None or chunk.path_in_schema.split(".")[0] == column:
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(bytes(content))


def test_columns_that_are_not_asked_for_are_not_read(small: Path) -> None:
    before = landsweep.open(small).points(["objective"], where=WHERE)
    for path in (small / "points").iterdir():
        _spoil(path, "fingerprint")
    opened = landsweep.open(small)
    pd.testing.assert_frame_equal(opened.points(["objective"], where=WHERE), before)
    with pytest.raises(StoreError, match="cannot be read"):
        opened.points(["fingerprint"])


def test_segments_that_cannot_match_are_not_read(small: Path) -> None:
    ids = sorted(config_id(k) for k in range(SMALL.configs))
    where = f"config == '{ids[-1]}'"
    before = landsweep.open(small).points(["objective", "class_id"], where=where)
    count = 0
    for path in (small / "points").iterdir():
        statistics = pq.ParquetFile(path).metadata.row_group(0).column(1).statistics
        if statistics.max < ids[-1]:
            _spoil(path, None)
            count += 1
    assert count > 0
    assert landsweep.open(small).points(["objective"], where=where)["objective"].equals(before["objective"])


def test_the_verdict_reads_no_column_that_it_does_not_use(small: Path) -> None:
    before = landsweep.open(small).verdict(record_look=False).to_json()
    for path in (small / "points").iterdir():
        for column in ("sharpness", "trace", "grad_norm", "step", "batch"):
            _spoil(path, column)
    assert landsweep.open(small).verdict(record_look=False).to_json() == before


def test_the_verdict_of_a_store_is_that_of_its_points(small: Path) -> None:
    sweep = landsweep.open(small)
    stored, direct = sweep.verdict(record_look=False), verdict(sweep.points(), trials=sweep.trials())
    assert stored.n_configs == SMALL.configs
    for key in KEYS:
        one, other = getattr(stored, key), getattr(direct, key)
        assert one == (pytest.approx(other, rel=1e-9) if isinstance(other, float) else other), key
    for key in ("bootstrap", "saddles", "polish", "n_trials", "worst_case"):
        assert stored.details[key] == direct.details[key], key
    by_class = [found.details["repeated"]["class_id"] for found in (stored, direct)]
    assert by_class[0]["n_local"] == by_class[1]["n_local"] > 0


def test_classes_of_a_part_are_those_of_the_whole(small: Path) -> None:
    sweep = landsweep.open(small)
    whole = sweep.points(["point", "class_id", "kind"])
    part = sweep.points(["point", "class_id"], kind="minimum")
    assert part["class_id"].nunique() <= 4 * 60
    expected = whole.set_index("point")["class_id"][part["point"]]
    assert part["class_id"].tolist() == expected.tolist()
