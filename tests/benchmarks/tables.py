"""10⁷ points: a filter and three columns to pandas, through landsweep and by reading the files whole.

``python -m tests.benchmarks.tables CONTENDER SWEEP`` measures one and prints JSON; CONTENDER is landsweep (from
``landsweep.open`` on), pandas (``read_parquet``, then the filter) or columns (``read_parquet`` of the columns that
filter and answer name). Imports are left out; the system has the files in memory, as far as they fit.

pandas reads one file after the other: all at once would not fit the memory of most machines, and takes no less time.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import landsweep
from tests.benchmarks.contest import OURS, Contest, process
from tests.large_sweep import Plan, write

MODULE = "tests.benchmarks.tables"
PLAN = Plan(configs=100, trials=25_000)
COLUMNS = ["config", "objective", "test_loss"]
FILTER = ["objective", "training.lr", "kind"]


def by_landsweep(sweep: Path) -> pd.DataFrame:
    where = "objective < 0.2 and training.lr < 0.1"
    return landsweep.open(sweep).points(COLUMNS, where=where, kind="minimum")


def by_pandas(sweep: Path, columns: list[str] | None = None) -> pd.DataFrame:
    parts = []
    for file in sorted((sweep / "points").iterdir()):
        frame = pd.read_parquet(file, columns=columns)
        kept = (frame["objective"] < 0.2) & (frame["training.lr"] < 0.1) & (frame["kind"] == "minimum")
        parts.append(frame.loc[kept, COLUMNS])
    return pd.concat(parts)


def by_columns(sweep: Path) -> pd.DataFrame:
    return by_pandas(sweep, sorted({*COLUMNS, *FILTER}))


CONTENDERS = {OURS: by_landsweep, "pandas": by_pandas, "columns": by_columns}


@functools.cache
def fabricated() -> tempfile.TemporaryDirectory[str]:
    """Where the sweep is, written when first asked for; it goes with this process."""
    folder = tempfile.TemporaryDirectory(prefix="landsweep-tables-")
    write(Path(folder.name), PLAN)
    return folder


def _contender(who: str) -> Mapping[str, float]:
    return process(MODULE, who, Path(fabricated().name, "large"), cores=None)()


def contests() -> list[Contest]:
    """On all cores. The reader of few columns is no peer but a note: it has to know which to name."""
    work = f"{PLAN.points:,} points in {PLAN.configs} configurations: filter, three columns to pandas, all cores"
    pair = {who: functools.partial(_contender, who) for who in (OURS, "pandas")}
    return [Contest("10^7 points", work, "queries/s", 10.0, pair)]


if __name__ == "__main__":
    contender, folder = sys.argv[1], Path(sys.argv[2])
    begun = time.perf_counter()
    frame = CONTENDERS[contender](folder)
    seconds = time.perf_counter() - begun
    print(json.dumps({"rate": 1 / seconds, "seconds": seconds, "rows": len(frame), "mean": frame["test_loss"].mean()}))
