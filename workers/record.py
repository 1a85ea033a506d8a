"""The tables' schemas (one place), content hashes, and nothing else. Imports pyarrow alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

#: landsweep's version (read by pyproject.toml too).
VERSION = "0.1.0"
SCHEMA_VERSION = 1
#: Raised whenever a change alters the numbers a trial produces; part of every configuration's id.
NUMERICS_VERSION = 7

KINDS = (
    "minimum",
    "degenerate_minimum",
    "saddle",
    "degenerate_saddle",
    "maximum",
    "undetermined",
    "gradient_flat",
    "not_converged",
    "diverged",
)
#: The kinds that are critical points.
CRITICAL_KINDS = KINDS[:6]
SOURCES = ("training", "trajectory", "initialisation", "noise", "connection")
STATUSES = ("done", "failed")

_STRING = pa.string()
_INT = pa.int64()
_FLOAT = pa.float64()
_BOOL = pa.bool_()
_FLOATS = pa.list_(pa.float64())


def _fields(names: str, kind: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names.split()]


_POINTS = [
    *_fields("sweep config trial", _STRING),
    *_fields("seed", _INT),
    *_fields("point batch source", _STRING),
    *_fields("step", _INT),
    *_fields("kind", _STRING),
    *_fields("index n_positive n_zero n_symmetry n_undetermined", _INT),
    *_fields("certified", _BOOL),
    *_fields("certificate", _STRING),
    *_fields("radius", _FLOAT),
    *_fields("reason", _STRING),
    *_fields("grad_norm newton_step objective train_loss test_loss gap train_error test_error error_gap", _FLOAT),
    *_fields("test_loss_trained test_error_trained polish_distance", _FLOAT),
    *_fields("same_basin", _BOOL),
    *_fields("eig_min eig_max trace trace_error frobenius zero_tolerance eig_error", _FLOAT),
    *_fields("spectrum", _FLOATS),
    *_fields("sharpness sharpness_filter jacobian_norm test_jacobian_norm", _FLOAT),
    *_fields(
        "parameter_jacobian_norm test_parameter_jacobian_norm fisher_trace test_fisher_trace path_norm spectral_norm",
        _FLOAT,
    ),
    *_fields("margin margin_quantile test_margin_quantile margin_normalised", _FLOAT),
    *_fields("param_norm init_distance kink_distance", _FLOAT),
    *_fields("escape_time escape_time_predicted", _FLOAT),
    *_fields("fingerprint", _FLOATS),
    *_fields("known_class", _STRING),
    *_fields("parameters_row", _INT),
]
_TRIALS = [
    *_fields("sweep trial config", _STRING),
    *_fields("seed", _INT),
    *_fields("batch status", _STRING),
    *_fields("attempt steps", _INT),
    *_fields("final_objective known_minimum seconds", _FLOAT),
    *_fields("device execution", _STRING),
    *_fields("numerics_version", _INT),
    *_fields("torch_version code_version error", _STRING),
]
_TRAJECTORY_DETAILS = [
    *_fields("eig_max eig_min", _FLOAT),
    *_fields("index", _INT),
    *_fields("aligned_stable aligned_unstable aligned_centre", _FLOAT),
    *_fields("predicted_change actual_change saddle_distance", _FLOAT),
]
#: columns of trajectories that are null unless ``measure.trajectory`` asks for them
TRAJECTORY_DETAILS = tuple(field.name for field in _TRAJECTORY_DETAILS)
_TRAJECTORIES = [
    *_fields("trial config", _STRING),
    *_fields("seed step", _INT),
    *_fields("objective train_loss test_loss grad_norm distance", _FLOAT),
    *_TRAJECTORY_DETAILS,
]
_CONNECTIONS = [
    *_fields("saddle config", _STRING),
    *_fields("seed", _INT),
    *_fields("minimum_a minimum_b", _STRING),
    *_fields("barrier_a barrier_b", _FLOAT),
]
_SPECTRA = [
    *_fields("point config", _STRING),
    *_fields("seed", _INT),
    *_fields("eigenvalues", _FLOATS),
]
_TABLES = {
    "points": _POINTS,
    "trials": _TRIALS,
    "trajectories": _TRAJECTORIES,
    "connections": _CONNECTIONS,
    "spectra": _SPECTRA,
}
TABLES = tuple(_TABLES)


def schema(table: str, grid: dict[str, bool] | None = None) -> pa.Schema:
    """The schema of ``table`` with one extra column per grid key (points only).

    ``grid`` maps a dotted key to whether its values are numbers: numbers are float64, everything else JSON text.

    >>> schema("points", {"training.lr": True}).field("training.lr").type
    DataType(double)
    """
    fields = list(_TABLES[table])
    if table == "points":
        fields += [pa.field(key, _FLOAT if numeric else _STRING) for key, numeric in (grid or {}).items()]
    return pa.schema(fields, metadata={"landsweep_schema": str(SCHEMA_VERSION), "pandas": pandas_metadata(fields)})


def pandas_metadata(fields: Iterable[pa.Field]) -> str:
    """What makes ``pandas.read_parquet`` keep integers and booleans that hold nulls as Int64 and boolean."""
    nullable = {_INT: ("int64", "Int64"), _BOOL: ("bool", "boolean")}
    columns = [
        {"name": f.name, "field_name": f.name, "pandas_type": kind[0], "numpy_type": kind[1], "metadata": None}
        for f in fields
        if (kind := nullable.get(f.type))
    ]
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "3.0.0"})


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """The first 16 hex digits of the sha256 of ``canonical_json(value)``.

    >>> content_hash({"b": 1, "a": [2]}) == content_hash({"a": [2], "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def configuration_label(grid: Mapping[str, Any]) -> str:
    """A configuration's short name from its grid values; of a whole section, what it is called.

    >>> configuration_label({"landscape.hidden": [2], "training": {"optimizer": "adam", "lr": 0.01}})
    'hidden=[2], adam'
    """
    return ", ".join(_labelled(key.rpartition(".")[2], value) for key, value in grid.items())


def _labelled(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("optimizer") or value.get("name") or f"{key} {content_hash(value)[:6]}")
    return f"{key}={value if isinstance(value, str) else canonical_json(value)}"


def trial_id(config: str, seed: int) -> str:
    """``<config>-<seed>``."""
    return f"{config}-{seed}"
