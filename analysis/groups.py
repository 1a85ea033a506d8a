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


def labels(values: pd.Series) -> pd.Categorical[str]:
    """The values as text, their categories in lexical order; few of them stand for many rows."""
    found = values if isinstance(values.dtype, pd.CategoricalDtype) else values.astype("category")
    texts = [str(value) for value in found.cat.categories]
    kept = sorted(set(texts))
    places = pd.Index(kept).get_indexer(pd.Index(texts, dtype=object))
    codes = np.append(places, -1)[found.cat.codes.to_numpy()]
    return pd.Categorical.from_codes(codes, pd.Index(kept, dtype="str"))


def landscape_keys(points: pd.DataFrame, given: pd.Series | None) -> pd.Series:
    """A categorical Series of texts on the rows of ``points``: equal keys, same landscape.

    Where none is given: sweep and the grid columns of ``landscape`` together, since everything else of the landscape is
    the same over a sweep.
    """
    if given is not None:
        if len(given) != len(points) or not given.index.equals(points.index):
            raise QueryError(f"landscape_key has {len(given)} rows on another index than the {len(points)} points")
        return pd.Series(labels(given), index=points.index)
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
    band; band defaults to max(1e-6, 1e-4·|reference|). ``known_minimum`` None: what ``trials`` says. Rows come out
    ordered by trial, whatever the order of the input.
    """
    missing = [column for column in (*_NEEDED, metric) if column not in points.columns]
    if missing:
        raise QueryError(f"the points lack the columns {', '.join(missing)}, which a verdict on {metric} reads")
    used = (points["source"] == "training").to_numpy() | points["kind"].isin(MINIMA).to_numpy()
    frame = _frame(points[used], metric, landscape[used], split_column).assign(row=np.flatnonzero(used))
    known = known_minima(points, trials, landscape) if known_minimum is None else known_minimum
    references = _references(frame, known, reference, band)
    one = _one_a_trial(frame[(frame["source"] == "training").to_numpy()])
    rest = _without_training(points, trials, one["trial"])
    reason = _reasons(one, metric)
    left_out = pd.concat([one.assign(why=reason)[reason != ""], rest], ignore_index=True)
    chosen = one[reason == ""].reset_index(drop=True)
    of = [references.get(str(key)) for key in chosen["landscape"].cat.categories]
    codes = chosen["landscape"].cat.codes.to_numpy()
    chosen["excess"] = chosen["objective"] - np.array([item.value if item else np.nan for item in of])[codes]
    chosen["local"] = chosen["excess"] > np.array([item.band if item else np.nan for item in of])[codes]
    text = left_out["reason"].astype(object).fillna("").astype(str)
    return Groups(
        chosen=chosen,
        excluded=_counts(left_out["why"]),
        excluded_reasons=_counts(left_out["why"].where(text == "", left_out["why"] + ": " + text)),
        excluded_by_config=_counts(left_out["config"]),
        references=references,
        n_trials=len(chosen) + len(left_out),
    )


def known_minima(points: pd.DataFrame, trials: pd.DataFrame | None, landscape: pd.Series) -> dict[str, float]:
    """Landscape key → the objective of its global minimum, of the landscapes whose trials know it."""
    if trials is None or "known_minimum" not in trials.columns:
        return {}
    told = trials[["config", "known_minimum"]].dropna().drop_duplicates("config")
    of_config = dict(zip(told["config"].astype(str), told["known_minimum"].astype(float), strict=True))
    keys = pd.DataFrame({"config": points["config"].astype(str), "key": landscape.astype(str)}).drop_duplicates()
    pairs = zip(keys["config"], keys["key"], strict=True)
    return {key: of_config[config] for config, key in pairs if config in of_config}


def _frame(points: pd.DataFrame, metric: str, landscape: pd.Series, split_column: str | None) -> pd.DataFrame:
    """The columns that matter, under names that no grid key can shadow."""
    columns = [column for column in grid_columns(points) if column != split_column]
    config = labels(points["config"])
    frame = pd.DataFrame(
        {
            "trial": points["trial"].array,
            "point": points["point"].array,
            "config": config,
            "source": labels(points["source"]),
            "kind": pd.Series(labels(points["kind"])).cat.add_categories("no kind").fillna("no kind"),
            "objective": pd.to_numeric(points["objective"]).to_numpy(dtype=np.float64, na_value=np.nan),
            "value": pd.to_numeric(points[metric]).to_numpy(dtype=np.float64, na_value=np.nan),
            "landscape": landscape.array,
            "cell": _per_config(points, columns).array if split_column else config,
        }
    )
    frame["reason"] = points["reason"].array if "reason" in points.columns else None
    frame["split"] = labels(points[split_column].astype(str)) if split_column else labels(pd.Series([""] * len(points)))
    return frame


def _per_config(points: pd.DataFrame, columns: list[str]) -> pd.Series:
    """A content hash of the values of ``columns``; they are the same over a configuration, so each is hashed once."""
    config = labels(points["config"])
    codes = config.codes.astype(np.intp)
    present, first = np.unique(codes, return_index=True)
    rows = points[columns].iloc[first].astype(object).map(str).to_dict("records")
    hashes = [content_hash(row) for row in rows]
    kept = sorted(set(hashes))
    places = np.full(len(config.categories) + 1, -1)
    places[present] = [kept.index(value) for value in hashes]
    return pd.Series(pd.Categorical.from_codes(places[codes], pd.Index(kept, dtype="str")), index=points.index)


def _one_a_trial(training: pd.DataFrame) -> pd.DataFrame:
    """The first training point of every trial, ordered by what is compared, whatever the order of the rows."""
    twice = training["trial"].duplicated(keep=False).to_numpy()
    if twice.any():
        more = training[twice]
        more = more.assign(order=more["point"].astype(str).str.len())  # so that -2 comes before -10
        first = more.sort_values(["trial", "order", "point"], kind="stable").drop_duplicates("trial")
        training = pd.concat([training[~twice], first.drop(columns="order")])
    values = [training[name].to_numpy() for name in ("value", "objective")]
    order = np.lexsort((_rank(training["trial"]), *values, training["config"].cat.codes.to_numpy()))
    return training.iloc[order].reset_index(drop=True)


def _rank(trial: pd.Series) -> np.ndarray:
    """Numbers in the order of the values."""
    is_number = pd.api.types.is_integer_dtype(trial.dtype)
    return trial.to_numpy() if is_number else pd.factorize(trial.astype(object), sort=True)[0]


def _references(
    frame: pd.DataFrame,
    known_minimum: float | Mapping[str, float | None] | None,
    given: float | None,
    band: float | None,
) -> dict[str, Reference]:
    """Given by the request, else known from theory, else the lowest of all minima that any configuration found."""
    minima = frame[frame["kind"].isin(MINIMA) & (frame["objective"].abs() < _LARGEST)]
    references = {}
    for key, objective in minima.groupby("landscape", sort=True, observed=True)["objective"]:
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


def latest_attempts(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of the trials table, of a trial that was tried again its highest attempt."""
    if not trials["trial"].duplicated().any():
        return trials
    return trials.sort_values("attempt", kind="stable").drop_duplicates("trial", keep="last")


def _without_training(points: pd.DataFrame, trials: pd.DataFrame | None, seen: pd.Series) -> pd.DataFrame:
    """One row (config, why, reason) for every trial that has no point at the end of training."""
    others = points.loc[~_among(points["trial"], seen), ["trial", "config"]].drop_duplicates("trial")
    parts = [others.assign(why="no training point", reason=None)]
    if trials is not None and len(trials):
        last = latest_attempts(trials)
        last = last[~_among(last["trial"], seen)]
        failed = (last["status"] == "failed").to_numpy()
        texts = [_first_line(error) if bad else None for bad, error in zip(failed, last["error"], strict=True)]
        reasons = pd.Series(texts, index=last.index, dtype=object)
        why = np.where(failed, "failed", "no training point")
        parts.insert(0, last[["trial", "config"]].assign(why=why, reason=reasons))
    rows = pd.concat([part.astype(object) for part in parts]).drop_duplicates("trial")
    order = sorted(range(len(rows)), key=lambda row: str(rows["trial"].iloc[row]))
    return rows.iloc[order].drop(columns="trial").reset_index(drop=True)


def _among(values: pd.Series, known: pd.Series) -> np.ndarray:
    """Which values are among the known ones."""
    if pd.api.types.is_integer_dtype(values.dtype) and pd.api.types.is_integer_dtype(known.dtype):
        return np.isin(values.to_numpy(), known.to_numpy())
    places = pd.Index(known.astype(object)).get_indexer(pd.Index(values.astype(object)))
    return np.asarray(places >= 0)


def _first_line(error: object) -> str | None:
    return str(error).strip().partition("\n")[0] if isinstance(error, str) else None


def _reasons(one: pd.DataFrame, metric: str) -> pd.Series:
    """Why each trial is left out; empty where it is not."""
    reason = pd.Series("", index=one.index, dtype=object)
    reason[~(one["value"].abs() < _LARGEST)] = f"no finite {metric}"
    reason[~(one["objective"].abs() < _LARGEST)] = "no finite objective"
    other = ~one["kind"].isin(MINIMA)
    reason[other] = one["kind"][other].astype(object)
    return reason


def _counts(values: pd.Series) -> dict[str, int]:
    """Counts by value, the most frequent first."""
    counts = values.value_counts()
    return {str(key): int(counts[key]) for key in sorted(counts.index, key=lambda key: (-counts[key], str(key)))}
