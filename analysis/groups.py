"""From the points table to two groups: one point a trial, the reference, global and local, and who is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from landsweep.workers.errors import QueryError
from landsweep.workers.record import content_hash, schema

#: The kinds that count as minima.
MINIMA = ("minimum", "degenerate_minimum")
_SCHEMA = frozenset(schema("points").names) | {"class_id"}
_LARGEST = 1e100  # the squares of larger numbers overflow in a variance: not finite, for what follows
_NEEDED = ("config", "trial", "point", "source", "kind", "objective")


@dataclass(frozen=True)
class Reference:
    """The global minimum of one landscape, and how far above it a minimum still counts as global."""

    value: float
    source: str  # given | known | found
    band: float  # in units of the objective
    below: int  # minima more than the band below the reference: it is none, then


@dataclass(frozen=True)
class Groups:
    """The trials that a comparison can use, and the others by reason."""

    chosen: pd.DataFrame  # one row a trial: trial config cell split landscape objective excess local value row
    excluded: dict[str, int]
    excluded_reasons: dict[str, int]  # the same trials, with the reason that their point gives
    excluded_by_config: dict[str, int]
    references: dict[str, Reference]  # by landscape key
    n_trials: int  # chosen and excluded


def grid_columns(points: pd.DataFrame) -> list[str]:
    """The columns that are grid keys: those that are not in the schema."""
    return [column for column in points.columns if column not in _SCHEMA]


def landscape_keys(points: pd.DataFrame, given: pd.Series | None) -> pd.Series:
    """A str Series on the rows of ``points``: equal keys, same landscape.

    Where none is given: sweep and the grid columns of ``landscape`` together, since everything else of the landscape is
    the same over a sweep.
    """
    if given is not None:
        if len(given) != len(points) or not given.index.equals(points.index):
            raise QueryError(f"landscape_key has {len(given)} rows on another index than the {len(points)} points")
        return given.astype(str)
    columns = [column for column in grid_columns(points) if column.split(".")[0] == "landscape"]
    columns += ["sweep"] if "sweep" in points.columns else []
    return _per_config(points, columns)


def gather(
    points: pd.DataFrame,
    *,
    metric: str,
    trials: pd.DataFrame | None,
    landscape: pd.Series,
    known_minimum: float | Mapping[str, float | None] | None,
    reference: float | None,
    band: float | None,
    split_column: str | None,
) -> Groups:
    """Sort the trials of ``points`` (and the failed ones of ``trials``) into global, local and excluded.

    One point a trial: source ``training``, kind ``minimum`` or ``degenerate_minimum``. Global: objective − reference ≤
    band; band defaults to max(1e-6, 1e-4·|reference|). Rows come out ordered by trial, whatever the order of the input.
    """
    missing = [column for column in (*_NEEDED, metric) if column not in points.columns]
    if missing:
        raise QueryError(f"the points lack the columns {', '.join(missing)}, which a verdict on {metric} reads")
    frame = _frame(points, metric, landscape, split_column)
    references = _references(frame, known_minimum, reference, band)
    training = frame[frame["source"] == "training"]
    one = training.sort_values(["trial", "order", "point"], kind="stable").drop_duplicates("trial")
    rest = _without_training(frame, trials, set(one["trial"]))
    reason = _reasons(one, metric)
    left_out = pd.concat([one.assign(why=reason)[reason != ""], rest], ignore_index=True)
    chosen = one[reason == ""].reset_index(drop=True)
    value = chosen["landscape"].map({key: item.value for key, item in references.items()}).astype(float)
    bands = chosen["landscape"].map({key: item.band for key, item in references.items()}).astype(float)
    chosen["excess"] = chosen["objective"] - value
    chosen["local"] = chosen["excess"] > bands
    text = left_out["reason"].fillna("").astype(str)
    return Groups(
        chosen=chosen,
        excluded=_counts(left_out["why"]),
        excluded_reasons=_counts(left_out["why"].where(text == "", left_out["why"] + ": " + text)),
        excluded_by_config=_counts(left_out["config"]),
        references=references,
        n_trials=len(chosen) + len(left_out),
    )


def _frame(points: pd.DataFrame, metric: str, landscape: pd.Series, split_column: str | None) -> pd.DataFrame:
    """The columns that matter, under names that no grid key can shadow, with the row of ``points`` each came from."""
    columns = [column for column in grid_columns(points) if column != split_column]
    names = {name: points[name].astype(str).to_numpy() for name in ("trial", "config", "point", "source")}
    return pd.DataFrame(
        {
            **names,
            "kind": points["kind"].astype(object).where(points["kind"].notna(), "no kind").to_numpy(),
            "order": points["point"].astype(str).str.len().to_numpy(),  # so that -2 comes before -10
            "reason": points["reason"].to_numpy() if "reason" in points.columns else None,
            "objective": pd.to_numeric(points["objective"]).to_numpy(dtype=np.float64, na_value=np.nan),
            "value": pd.to_numeric(points[metric]).to_numpy(dtype=np.float64, na_value=np.nan),
            "landscape": landscape.to_numpy(),
            "cell": _per_config(points, columns).to_numpy() if split_column else names["config"],
            "split": points[split_column].astype(str).to_numpy() if split_column else "",
            "row": np.arange(len(points)),
        }
    )


def _per_config(points: pd.DataFrame, columns: list[str]) -> pd.Series:
    """A content hash of the values of ``columns``; they are the same over a configuration, so each is hashed once."""
    first = points.drop_duplicates("config")
    rows = zip(*(map(str, first[column].tolist()) for column in columns), strict=True) if columns else [()] * len(first)
    hashes = [content_hash(dict(zip(columns, row, strict=True))) for row in rows]
    return points["config"].map(dict(zip(first["config"], hashes, strict=True))).astype("str")


def _references(
    frame: pd.DataFrame,
    known_minimum: float | Mapping[str, float | None] | None,
    given: float | None,
    band: float | None,
) -> dict[str, Reference]:
    """Given by the request, else known from theory, else the lowest of all minima that any configuration found."""
    minima = frame[frame["kind"].isin(MINIMA) & (frame["objective"].abs() < _LARGEST)]
    references = {}
    for key, objective in minima.groupby("landscape", sort=True)["objective"]:
        name = str(key)
        known = known_minimum.get(name) if isinstance(known_minimum, Mapping) else known_minimum
        if given is not None:
            value, source = given, "given"
        elif known is not None:
            value, source = float(known), "known"
        else:
            value, source = float(objective.min()), "found"
        if not math.isfinite(value):
            raise QueryError(f"the reference of landscape {name} is {value}: it must be a finite objective")
        width = max(1e-6, 1e-4 * abs(value)) if band is None else band
        references[name] = Reference(value, source, width, int((objective < value - width).sum()))
    return references


def _without_training(frame: pd.DataFrame, trials: pd.DataFrame | None, seen: set[str]) -> pd.DataFrame:
    """One row (config, why, reason) for every trial that has no point at the end of training."""
    rows: dict[str, tuple[str, str, object]] = {}
    if trials is not None and len(trials):
        last = trials.sort_values("attempt", kind="stable").drop_duplicates("trial", keep="last")
        failed = (last["status"] == "failed").to_numpy()
        names = zip(last["trial"].astype(str), last["config"].astype(str), failed, last["error"], strict=True)
        rows = {
            trial: (config, "failed", _first_line(error)) if bad else (config, "no training point", None)
            for trial, config, bad, error in names
        }
    for trial, config in zip(frame["trial"], frame["config"], strict=True):
        rows.setdefault(trial, (config, "no training point", None))
    kept = [row for trial, row in sorted(rows.items()) if trial not in seen]
    return pd.DataFrame(kept, columns=["config", "why", "reason"], dtype=object)


def _first_line(error: object) -> str | None:
    return str(error).strip().partition("\n")[0] if isinstance(error, str) else None


def _reasons(one: pd.DataFrame, metric: str) -> pd.Series:
    """Why each trial is left out; empty where it is not."""
    reason = pd.Series("", index=one.index, dtype=object)
    reason[~(one["value"].abs() < _LARGEST)] = f"no finite {metric}"
    reason[~(one["objective"].abs() < _LARGEST)] = "no finite objective"
    other = ~one["kind"].isin(MINIMA)
    reason[other] = one["kind"][other]
    return reason


def _counts(values: pd.Series) -> dict[str, int]:
    """Counts by value, the most frequent first."""
    counts = values.value_counts()
    return {str(key): int(counts[key]) for key in sorted(counts.index, key=lambda key: (-counts[key], str(key)))}
