"""Comparing the tables of two runs of one sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

#: Columns that say how a row came about, not what it is.
_CIRCUMSTANCES = ("batch", "parameters_row", "seconds")


def points_of(sweep: Path) -> pd.DataFrame:
    """A sweep's points as plain pandas reads them, by id."""
    return pd.read_parquet(sweep / "points").sort_values("point", ignore_index=True)


def largest_difference(left: pd.DataFrame, right: pd.DataFrame) -> float:
    """The largest |a − b|/max(1, |a|, |b|) over all numbers; everything else has to be equal exactly."""
    columns = [name for name in left.columns if name not in _CIRCUMSTANCES]
    assert list(left.columns) == list(right.columns), "the tables have other columns"
    assert len(left) == len(right), f"{len(left)} rows against {len(right)}"
    worst = 0.0
    for name in columns:
        a, b = left[name], right[name]
        if a.dtype == np.float64:
            worst = max(worst, _gap(a.to_numpy(), b.to_numpy(), name))
        elif name in ("spectrum", "fingerprint"):
            for one, other in zip(a, b, strict=True):
                assert (one is None) == (other is None), f"column {name}: null against a list"
                if one is not None:
                    worst = max(worst, _gap(np.asarray(one), np.asarray(other), name))
        else:
            assert a.equals(b), f"column {name} differs"
    return worst


def _gap(a: np.ndarray, b: np.ndarray, name: str) -> float:
    assert np.array_equal(np.isnan(a), np.isnan(b)), f"column {name}: null in one of them"
    scale = np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    gaps = np.abs(a - b) / scale
    return float(np.nanmax(gaps, initial=0.0))


def doubled(sweep: Path) -> str | None:
    """What plain pandas sees wrong in a sweep's points at this moment: a row twice; None if nothing."""
    folder = sweep / "points"
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    points = pd.read_parquet(folder, columns=["point"])
    twice = points[points["point"].duplicated()]
    return f"{len(twice)} points twice" if len(twice) else None
