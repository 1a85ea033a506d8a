"""Which points are the same stationary point: one ``class_id`` for all points of one symmetry orbit."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landsweep.analysis.equivalence import FloatArray
from landsweep.workers.errors import QueryError

#: Two points are linked where every coordinate of their fingerprints agrees to this, relative to max(1, |value|).
TOLERANCE = 1e-6
_CELLS = 16  # cells per tolerance: see _linked


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
    prints = [_coordinates(value) for value in points["fingerprint"]]
    keys = landscape_key.astype(str).tolist()
    groups: dict[tuple[str, float, float, int], list[int]] = {}
    for row, value in enumerate(prints):
        if value is not None:
            groups.setdefault((keys[row], value[1], value[2], len(value)), []).append(row)
    found: dict[str, list[tuple[tuple[float, ...], NDArray[np.intp]]]] = {}
    for (key, *_), rows in groups.items():
        found.setdefault(key, []).extend(_components(np.array([prints[row] for row in rows]), np.array(rows)))
    names: list[str | None] = [None] * len(points)
    for key, classes in found.items():
        for rank, (_, members) in enumerate(sorted(classes, key=lambda item: item[0])):
            for row in members:
                names[row] = f"{key}-{rank}"
    return pd.Series(names, index=points.index, dtype="str", name="class_id")


def _coordinates(value: object) -> FloatArray | None:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return None
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim == 1 and len(array) >= 3 and bool(np.isfinite(array).all()) else None


def _components(prints: FloatArray, rows: NDArray[np.intp]) -> list[tuple[tuple[float, ...], NDArray[np.intp]]]:
    """(lexicographically smallest fingerprint, rows) of every class; ``prints`` is (m, d)."""
    labels = _linked(_flatten(np.delete(prints, [1, 2], axis=1)))
    order = np.lexsort((*prints.T[::-1], labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return [
        (tuple(prints[members[0]].tolist()), rows[members]) for members in np.split(order, starts[1:]) if len(members)
    ]


def _flatten(values: FloatArray) -> FloatArray:
    """φ(x) = x for |x| ≤ 1, sign(x)·(1 + ln|x|) beyond: φ' = 1/max(1, |x|) makes a relative distance absolute."""
    size = np.abs(values)
    return np.where(size <= 1, values, np.sign(values) * (1 + np.log(np.maximum(size, 1))))


def _linked(values: FloatArray) -> NDArray[np.intp]:
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
