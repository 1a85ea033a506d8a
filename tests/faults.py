"""What can be wrong with a sweep's tables, and what has to be said about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import landsweep
from landsweep.cluster.files import checksum
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import LandsweepError
from tests.large_sweep import Plan, write

PLAN = Plan(configs=2, trials=120, rows=480)  # two segments


@dataclass(frozen=True)
class Fault:
    """``spoil`` a good sweep; what the verdict then says has to hold ``words``."""

    spoil: Callable[[Path], None]
    words: tuple[str, ...]

    def said(self, folder: Path) -> str:
        """The message, or the verdict's word, reason and exclusions."""
        sweep = write(folder, PLAN)
        self.spoil(sweep)
        try:
            found = landsweep.open(sweep).verdict(record_look=False)
        except LandsweepError as error:
            return str(error)
        return f"{found.verdict}: {found.reason}; excluded {found.excluded}; dropped {found.details['dropped']}"


def _files(sweep: Path) -> list[Path]:
    return sorted((sweep / "points").glob("*.parquet"))


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """A file with other rows, and a log that knows it."""
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    store = SweepStore(path.parents[1])
    name = f"log/{int(path.stem.rpartition('-')[2]):08d}.done"
    done = store.json(name, store.files.read(name))
    done["files"][f"points/{path.name}"] = checksum(path.read_bytes())
    store.files.write(name, record.canonical_json(done).encode())


def _every(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def spoil(sweep: Path) -> None:
        for path in _files(sweep):
            _rewrite(path, change)

    return spoil


def _first(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda sweep: _rewrite(_files(sweep)[0], change)


def _put(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def _training(table: pa.Table) -> np.ndarray:
    return np.array(table.column("source").to_pylist()) == "training"


def _no_local(table: pa.Table) -> pa.Table:
    objective = table.column("objective").to_numpy().copy()
    objective[_training(table)] = 0.1
    return _put(table, "objective", pa.array(objective))


def _one_a_group(table: pa.Table) -> pa.Table:
    """One global and one local minimum in each configuration; the other ends of training are gone."""
    config, training = np.array(table.column("config").to_pylist()), _training(table)
    kept, objective = ~training, table.column("objective").to_numpy().copy()
    for name in sorted(set(config)):
        rows = np.flatnonzero(training & (config == name) & (table.column("seed").to_numpy() < 2))[:2]
        kept[rows], objective[rows] = True, [0.1, 0.5][: len(rows)]
    return _put(table, "objective", pa.array(objective)).filter(pa.array(kept))


def _nan(share: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table.column("test_loss").to_numpy().copy()
        rows = np.flatnonzero(_training(table))
        values[rows[: max(1, round(share * len(rows)))]] = np.nan
        return _put(table, "test_loss", pa.array(values))

    return change


def _version(number: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata(
        {**table.schema.metadata, b"landsweep_schema": str(number).encode()}
    )


def _older(table: pa.Table) -> pa.Table:
    """As a version wrote it that had no such columns, and no number in its files."""
    return table.drop_columns(["test_loss", "sharpness"]).replace_schema_metadata(None)


def _truncated(sweep: Path) -> None:
    path = _files(sweep)[1]
    path.write_bytes(path.read_bytes()[:-1000])


def _foreign(sweep: Path) -> None:
    (sweep / "points" / "notes.parquet").write_text("no table at all")
    pq.write_table(pa.table({"config": ["x"], "objective": [-9.0]}), sweep / "points" / "segment-99999999.parquet")
    (sweep / "log" / "notes.txt").write_text("no claim")


def add_second_ends(sweep: Path) -> None:
    """Give every trial of the first file another training point, better in every way and named after the first."""

    def change(table: pa.Table) -> pa.Table:
        more = table.filter(pa.array(_training(table)))
        names = [name.replace("-training-0", "-training-10") for name in more.column("point").to_pylist()]
        more = _put(_put(more, "point", pa.array(names)), "test_loss", pa.array(np.zeros(more.num_rows)))
        return pa.concat_tables([more, table])

    _rewrite(_files(sweep)[0], change)


def _text_for_number(table: pa.Table) -> pa.Table:
    return _put(table, "training.lr", table.column("training.lr").cast(pa.string()))


FAULTS = {
    "nothing wrong": Fault(lambda sweep: None, ("excluded {}", "dropped []")),
    "a column that no file has": Fault(_every(lambda t: t.drop_columns("test_loss")), ("test_loss", "lack")),
    "a column that one file lacks": Fault(
        _first(lambda t: t.drop_columns("test_loss")), ("120", "no finite test_loss")
    ),
    "an empty group": Fault(_every(_no_local), ("inconclusive", "minima are global", "nothing to compare")),
    "one trial a group": Fault(_every(_one_a_group), ("inconclusive", "no configuration has 2 trials in each group")),
    "a few NaN": Fault(_first(_nan(0.05)), ("'no finite test_loss': 6",)),
    "many NaN": Fault(
        _every(_nan(0.2)), ("inconclusive", "20.0%", "more than 5%", "worst case", "no finite test_loss")
    ),
    "a truncated file": Fault(_truncated, ("segment-00000001.parquet", "cannot be read", "restore it")),
    "a later schema": Fault(_first(_version(2)), ("segment-00000000.parquet", "schema '2'", "newer", "upgrade")),
    "an older schema beside": Fault(_first(_older), ("120", "no finite test_loss")),
    "foreign files": Fault(_foreign, ("excluded {}", "dropped []")),
    "a column of another type": Fault(_first(_text_for_number), ("training.lr", "string", "double")),
}
