"""Which points are the same stationary point: one ``class_id`` for all points of one symmetry orbit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from landsweep.analysis.equivalence import FloatArray
from landsweep.workers.errors import QueryError

#: Two points are linked where every coordinate of their fingerprints agrees to this, relative to max(1, |value|).
TOLERANCE = 1e-6
_CELLS = 16  # cells per tolerance: see _linked

IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Fingerprints:
    """Lists of numbers, end to end."""

    values: FloatArray  # (Σ lengths,)
    starts: IntArray  # (points,): where each list begins
    lengths: IntArray  # (points,); 0 where there is none

    @staticmethod
    def of(column: pd.Series) -> Fingerprints:
        """Of a column of arrays, lists and nulls."""
        arrays = [_coordinates(value) for value in column]
        lengths = np.array([len(array) for array in arrays], dtype=np.intp)
        values = np.concatenate(arrays) if arrays else np.empty(0)
        return Fingerprints(values, np.cumsum(lengths) - lengths, lengths)

    @staticmethod
    def of_arrow(column: pa.ChunkedArray) -> Fingerprints:
        """Of a list<float64> column, without an object for each of its rows."""
        chunks = [pa.array([], column.type), *column.chunks]
        values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks])
        lengths = np.concatenate([chunk.value_lengths().fill_null(0).to_numpy() for chunk in chunks]).astype(np.intp)
        return Fingerprints(values, np.cumsum(lengths) - lengths, lengths)


def assign_classes(points: pd.DataFrame, landscape_key: pd.Series) -> pd.Series:
    """A ``class_id`` for every row of ``points``: single linkage over the fingerprints of one landscape.

    A fingerprint is [objective, index, n_zero, projections…], invariant under the landscape's symmetries. Two points
    are linked where landscape, index and n_zero are equal and every other coordinate agrees to
    |a − b| ≤ 1e-6·max(1, |a|, |b|); a class is a connected component of that graph.

    points: DataFrame with ``fingerprint`` (list<float64>, null for what is no critical point).
    landscape_key: Series on the index of ``points``; equal keys mean the same landscape.
    Returns a str Series on the same index: ``<landscape key>-<k>``, k counting a landscape's classes from the lowest
    objective (equal objectives: by the rest of the fingerprint), so that the name depends on the set of points and not
    on their order; null where the fingerprint is null or not finite. More points may shift k: the name belongs to the
    tables read, not to the store.

    Raises QueryError where ``fingerprint`` is missing or the key is not on the index of ``points``.
    """
    if "fingerprint" not in points.columns:
        raise QueryError("the points have no column 'fingerprint', which says what is the same point: read it too")
    if not landscape_key.index.equals(points.index):
        raise QueryError(f"landscape_key has {len(landscape_key)} rows on another index than the {len(points)} points")
    keys = landscape_key.astype("category")
    codes, names = class_codes(Fingerprints.of(points["fingerprint"]), keys)
    labels = np.array([*names, None], dtype=object)
    return pd.Series(labels[codes], index=points.index, dtype="str")


def class_codes(prints: Fingerprints, landscape: pd.Series) -> tuple[IntArray, list[str]]:
    """The class of every point as an index into the classes' names; −1 where its fingerprint says nothing.

    landscape: a categorical Series, one value a point. See ``assign_classes``.
    """
    keys = landscape.cat.codes.to_numpy().astype(np.intp)
    labels = np.full(len(keys), -1, dtype=np.intp)
    first: list[tuple[int, tuple[float, ...], int]] = []  # (landscape, smallest fingerprint, label) of every class
    for length in np.unique(prints.lengths[prints.lengths >= 3]).tolist():
        rows = np.flatnonzero((prints.lengths == length) & (keys >= 0))
        whole = len(rows) * length == len(prints.values)
        places = slice(None) if whole else prints.starts[rows, None] + np.arange(length)
        matrix = prints.values[places].reshape(-1, length)
        finite = np.isfinite(matrix).all(axis=1)
        rows, matrix = (rows, matrix) if finite.all() else (rows[finite], matrix[finite])
        found = _components(keys[rows], matrix)
        smallest = _smallest(found, matrix)
        labels[rows] = found + len(first)
        first += [(int(keys[rows[row]]), tuple(matrix[row].tolist()), len(first) + k) for k, row in enumerate(smallest)]
    names: list[str] = []
    rank = np.empty(len(first) + 1, dtype=np.intp)
    rank[-1] = -1
    place: dict[int, int] = {}  # of the next class of a landscape
    texts = [str(key) for key in landscape.cat.categories]
    for key, _, label in sorted(first):
        rank[label] = len(names)
        names.append(f"{texts[key]}-{place.setdefault(key, 0)}")
        place[key] += 1
    return rank[labels], names


def _coordinates(value: object) -> FloatArray:
    none = np.empty(0)
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return none
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim == 1 else none


def _components(keys: IntArray, prints: FloatArray) -> IntArray:
    """Labels 0, 1, … of the classes; ``prints`` is (m, d), keys are the landscapes'."""
    pieces = _numbered(keys, prints[:, 1], prints[:, 2])
    coordinates = _flatten(prints[:, [0, *range(3, prints.shape[1])]])
    rows, count = np.arange(len(prints)), -1  # of the pieces in which linkage still has to be looked at
    while len(rows) and count != (count := len(np.unique(pieces[rows]))):
        for column in range(coordinates.shape[1]):
            rows = _cut(pieces, coordinates, rows, column)
    rows = rows[np.argsort(pieces[rows], kind="stable")]
    for piece in np.split(rows, np.flatnonzero(np.diff(pieces[rows])) + 1) if len(rows) else ():
        pieces[piece] = _linked(coordinates[piece]) + pieces.max() + 1
    return np.asarray(pd.factorize(pieces)[0], dtype=np.intp)


def _numbered(*columns: NDArray[Any]) -> IntArray:
    """One number for each distinct combination of the columns' values."""
    number = np.zeros(len(columns[0]), dtype=np.intp)
    for column in columns:
        codes, values = pd.factorize(column)
        number = pd.factorize(number * len(values) + codes)[0]
    return number


def _cut(pieces: IntArray, coordinates: FloatArray, rows: IntArray, column: int) -> IntArray:
    """Cut the pieces of ``rows``, in place, at every gap of a coordinate that no link spans: linked rows stay together.

    Returns the rows of those pieces in which not every two rows are linked.
    """
    reach = TOLERANCE * (1 + 1e-9)
    order = rows[np.lexsort((coordinates[rows, column], pieces[rows]))]
    gap = (np.diff(pieces[order]) != 0) | (np.diff(coordinates[order, column]) > reach)
    starts = np.concatenate([[0], np.flatnonzero(gap) + 1]) if len(order) else np.empty(0, dtype=np.intp)
    sizes = np.diff(np.append(starts, len(order)))
    pieces[order] = np.repeat(np.arange(len(starts)), sizes) + pieces.max(initial=-1) + 1
    wide = np.zeros(len(starts), dtype=bool)
    for values in coordinates.T if len(order) else ():
        ordered = values[order]
        wide |= np.maximum.reduceat(ordered, starts) - np.minimum.reduceat(ordered, starts) > reach
    kept: IntArray = order[np.repeat(wide, sizes)]
    return kept


def _smallest(labels: IntArray, prints: FloatArray) -> IntArray:
    """The row of each class's lexicographically smallest fingerprint, in order of the labels."""
    least = np.full(int(labels.max(initial=-1)) + 1, np.inf)
    np.minimum.at(least, labels, prints[:, 0])
    rows = np.flatnonzero(prints[:, 0] == least[labels])
    rows = rows[np.lexsort((*prints[rows].T[::-1], labels[rows]))]
    return rows[np.unique(labels[rows], return_index=True)[1]]


def _flatten(values: FloatArray) -> FloatArray:
    """φ(x) = x for |x| ≤ 1, sign(x)·(1 + ln|x|) beyond: φ' = 1/max(1, |x|) makes a relative distance absolute."""
    flat = values.copy()
    far = np.abs(values) > 1
    flat[far] = np.sign(values[far]) * (1 + np.log(np.abs(values[far])))
    return flat


def _linked(values: FloatArray) -> IntArray:
    """Component labels of the graph that links rows within TOLERANCE in the maximum norm.

    Repeats of one point are put together first, on a lattice of TOLERANCE/16 (so links are exact to 1/16 of the
    tolerance): 10⁵ trials that reach the same minimum would otherwise be 5·10⁹ pairs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    cells, inverse = np.unique(np.round(values * (_CELLS / TOLERANCE)), axis=0, return_inverse=True)
    pairs = cKDTree(cells).query_pairs(_CELLS * (1 + 1e-9), p=math.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels[inverse.reshape(-1)], dtype=np.intp)
