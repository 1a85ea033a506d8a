"""Parquet: a column ``label``, and either a list column ``inputs`` or numeric columns, each a feature."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from landsweep.cluster.data.checks import Part, checked
from landsweep.cluster.data.source import Source, check_size, open_source, place, read, refusal
from landsweep.workers.samples import Array, Samples


def load(path: str, name: str) -> Samples:
    """One file, or a folder of them: those whose name starts with ``train`` and ``test`` are the two sets, if any."""
    source = open_source(path)
    names = [file for file in source.names() if file.endswith(".parquet")] if not path.endswith(".parquet") else [""]
    if not names:
        raise refusal(source.uri, "no .parquet file", "name a file, or a folder that holds some")
    test = [file for file in names if file.startswith("test")]
    train = [file for file in names if file.startswith("train")] if test else names
    if not train:
        raise refusal(source.uri, f"{test[0]} without a train….parquet", "add the training set")
    return checked(name, _part(source, train), _part(source, test) if test else None)


def _part(source: Source, names: list[str]) -> Part:
    """The rows of all files, in the order of their names."""
    parts = [_columns(_table(read(source, name), place(source, name)), place(source, name)) for name in names]
    first = parts[0]
    for name, (inputs, _) in zip(names, parts, strict=True):
        if inputs.shape[1:] != first[0].shape[1:]:
            found = f"{inputs.shape[1]} inputs a row, in {place(source, names[0])} {first[0].shape[1]}"
            raise refusal(place(source, name), found, "give all files the same columns")
    file = place(source, names[0]) if len(names) == 1 else source.uri
    inputs, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Part(inputs, labels, file, file)


def _table(content: bytes, file: str) -> pa.Table:
    try:
        check_size(_unpacked_bytes(pq.read_metadata(io.BytesIO(content))), len(content), file)
        return pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as exc:
        raise refusal(file, f"is no readable Parquet file ({exc})", "write it again") from exc


def _unpacked_bytes(footer: pq.FileMetaData) -> int:
    """At least what a file's columns take in memory. (A run of one value counts once in its uncompressed size.)"""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    values = sum(int(group.column(number).num_values) for group in groups for number in range(group.num_columns))
    return max(8 * values, sum(int(group.total_byte_size) for group in groups))


def _columns(table: pa.Table, file: str) -> tuple[Array, Array]:
    """Inputs (N, d) and labels (N,)."""
    if "label" not in table.column_names:
        raise refusal(file, f"columns are {', '.join(table.column_names)[:200]}", "name the labels' column label")
    for name in table.column_names:
        if table.column(name).null_count:
            found = f"column {name} holds {table.column(name).null_count} nulls"
            raise refusal(file, found, "fill them or drop such rows")
    labels = table.column("label").to_numpy()
    if "inputs" in table.column_names:
        return _lists(table.column("inputs").combine_chunks(), file), labels
    features = [name for name in table.column_names if name != "label"]
    if not features:
        raise refusal(file, "no column but label", "add numeric columns, or a list column inputs")
    return np.stack([_feature(table.column(name), name, file) for name in features], axis=1), labels


def _feature(column: pa.ChunkedArray, name: str, file: str) -> Array:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise refusal(file, f"column {name} is of type {kind}", "give numbers, or drop the column")
    values: Array = column.to_numpy().astype(np.float64)
    return values


def _lists(column: pa.Array, file: str) -> Array:
    """A list column as a matrix; float32 and float64 keep their type, other numbers become float64."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise refusal(file, f"column inputs is of type {kind}", "give a list of numbers in each row")
    values = column.flatten()
    if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise refusal(file, f"column inputs holds {values.type} or nulls", "give a list of numbers in each row")
    lengths = np.asarray(pa.compute.list_value_length(column))
    if len(lengths) == 0 or lengths.min() != lengths.max():
        found = "no row" if len(lengths) == 0 else f"lists of {lengths.min()} to {lengths.max()} numbers"
        raise refusal(file, f"column inputs holds {found}", "give every row equally many")
    flat: Array = values.to_numpy(zero_copy_only=False)
    numbers = flat if flat.dtype in (np.float32, np.float64) else flat.astype(np.float64)
    return numbers.reshape(len(lengths), -1)
