"""What a verdict reads of a sweep: the columns and rows that it uses, in few bytes a row."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from landsweep.analysis.classes import Fingerprints, class_codes
from landsweep.analysis.details import BESIDE
from landsweep.analysis.groups import MINIMA, grid_columns, landscape_keys, latest_attempts
from landsweep.analysis.saddles import SADDLES
from landsweep.cluster.store import SweepStore

_EVERYWHERE = ("sweep", "config", "seed", "source", "kind", "objective")
_OF_TRIALS = ("config", "seed", "status", "attempt", "error", "known_minimum")
_OF_TRAINING = ("reason", "polish_distance", "same_basin", "fingerprint")


def read_for_verdict(store: SweepStore, metric: str, named: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The points and the trials that ``verdict`` needs for ``metric``.

    Points: the ends of training, minima of every source (for the reference) and saddles; of a store without a trials
    table all, so that every trial is counted. ``trial`` is a number, and ``class_id`` is that of the minima.
    ``named``: read the points' names too, which only matter where a trial has several ends of training.
    """
    trials = _read(store, store.dataset("trials", coded=True), _OF_TRIALS, None)
    data = store.dataset("points", coded=True)
    present = [*_EVERYWHERE, metric, *grid_columns(pd.DataFrame(columns=data.schema.names))]
    field = pa.compute.field
    others = field("source") != "training"
    if trials.num_rows:
        kinds = [field("kind") == kind for kind in (*MINIMA, *SADDLES)]
        others = others & functools.reduce(operator.or_, kinds)
    ends = _read(
        store,
        data,
        [*present, *_OF_TRAINING, *BESIDE[metric], *(["point"] if named else [])],
        field("source") == "training",
    )
    if "fingerprint" in ends.column_names:
        classes = _classes(ends)
        ends = ends.drop_columns("fingerprint").append_column("class_id", classes)
    parts = [ends, _read(store, data, present, others)]
    del ends
    points, tried = _frame(parts), _frame([trials])
    _number(points, tried)
    if not named:
        if points.loc[(points["source"] == "training").to_numpy(), "trial"].duplicated().any():
            return read_for_verdict(store, metric, named=True)
        points["point"] = np.zeros(len(points), dtype=np.int8)
    return points, latest_attempts(tried)


def _classes(ends: pa.Table) -> pa.Array:
    """The class of every minimum among the ends of training."""
    frame = _frame([ends.drop_columns("fingerprint")])
    codes, names = class_codes(Fingerprints.of_arrow(ends.column("fingerprint")), landscape_keys(frame, None))
    none = (codes < 0) | ~frame["kind"].isin(MINIMA).to_numpy()
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=none), pa.array(names, pa.string()))


def _read(store: SweepStore, data: pa.dataset.Dataset, columns: Sequence[str], rows: Any) -> pa.Table:
    """Those of the columns that there are."""
    return store.tables.read(data, [name for name in dict.fromkeys(columns) if name in data.schema.names], rows)


def _frame(parts: list[pa.Table]) -> pd.DataFrame:
    """The parts one after the other; the list is emptied, so that each column is freed when it is converted."""
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    parts.clear()
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    return frame


def _number(*tables: pd.DataFrame) -> None:
    """Give every table a column ``trial``: one number for each configuration and seed, in their order."""
    configs = sorted(set().union(*(table["config"].cat.categories for table in tables)))
    seeds = 1 + max((int(table["seed"].max()) for table in tables if len(table)), default=0)
    for table in tables:
        places = np.array([configs.index(config) for config in table["config"].cat.categories], dtype=np.int64)
        codes = table["config"].cat.codes.to_numpy()
        numbers = places[codes] if len(places) else codes.astype(np.int64)
        table["trial"] = numbers * seeds + table.pop("seed").to_numpy()
