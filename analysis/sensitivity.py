"""Does the verdict hang on a choice? The same question at other bands, and with classes or splits as the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.bootstrap import RESAMPLES
from landsweep.analysis.classes import assign_classes
from landsweep.analysis.groups import Groups, gather, landscape_keys
from landsweep.analysis.judgement import LEAST_GROUP, LEAST_SPLITS, Judgement, judge_splits, judge_strata
from landsweep.analysis.strata import stratify
from landsweep.analysis.verdict import MOST_EXCLUDED, SPLIT_COLUMN, VerdictOptions
from landsweep.workers.errors import QueryError

#: What can be the unit.
UNITS = ("trial", "class", "split")
_COLUMNS = (
    "band factor unit chosen n_local n_global n_configs estimate ci_low ci_high diff_low diff_high verdict reason"
)


def sensitivity(
    points: pd.DataFrame,
    options: VerdictOptions | None = None,
    *,
    bands: Sequence[float] | None = None,
    decades: float = 2.0,
    steps: int = 9,
    units: Sequence[str] = UNITS,
    trials: pd.DataFrame | None = None,
    landscape_key: pd.Series | None = None,
    known_minimum: float | Mapping[str, float | None] | None = None,
    split_column: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """The verdict at other bands and with other units; one row for each pair of them.

    points, options, trials, landscape_key, known_minimum, split_column, seed, resamples: as ``verdict`` takes them.
    bands: in units of the objective, the same for all landscapes (None: ``steps`` multiples of every landscape's chosen
    band, evenly on a log scale over ± ``decades``, the chosen one among them). units: ``trial`` (one value a trial,
    strata are configurations), ``class`` (the mean of a configuration's trials that reached the same ``class_id``),
    ``split`` (Student's t over the test splits' estimates, from 5 splits on).

    Columns: ``band`` (NaN where landscapes have different ones), ``factor`` (times the chosen band; NaN where bands
    were given), ``unit``, ``chosen`` (the row that ``verdict`` answers with), ``n_local``, ``n_global`` (trials, or
    classes), ``n_configs``, ``estimate``, ``ci_low``, ``ci_high`` (1−2α), ``diff_low``, ``diff_high`` (1−α), in the
    metric's unit and NaN where there is none, ``verdict``, ``reason`` (why inconclusive without an interval, else
    empty). Looks are not recorded and alpha is not shared among the rows: they are views of one question, not tests.

    Raises QueryError for units or bands that mean nothing.
    """
    options = options or VerdictOptions()
    _check(bands, decades, steps, units)
    column = split_column or (SPLIT_COLUMN if SPLIT_COLUMN in points.columns else None)
    landscape = landscape_keys(points, landscape_key)
    groups = gather(
        points,
        metric=options.metric,
        trials=trials,
        landscape=landscape,
        known_minimum=known_minimum,
        reference=options.reference,
        band=options.band,
        split_column=column,
    )
    classes = _classes(points, landscape, groups) if "class" in units else None
    own = groups.chosen["landscape"].map({key: item.band for key, item in groups.references.items()}).astype(float)
    rows = []
    for band, factor, width in _grid(groups, own, bands, decades, steps):
        chosen = groups.chosen.assign(local=groups.chosen["excess"] > width)
        for unit in units:
            table = chosen.assign(class_id=classes) if unit == "class" else chosen
            row = _row(table, unit, groups, bool(column), options, (resamples, seed))
            rows.append({"band": band, "factor": factor, "unit": unit, **row})
    frame = pd.DataFrame(rows)
    decides = "split" if column and _n_splits(groups.chosen) >= LEAST_SPLITS else "trial"
    same = np.isclose(frame["factor"], 1) if bands is None else frame["band"].isin(set(own))
    return frame.assign(chosen=same & (frame["unit"] == decides))[_COLUMNS.split()]


def _check(bands: Sequence[float] | None, decades: float, steps: int, units: Sequence[str]) -> None:
    wrong = [unit for unit in units if unit not in UNITS]
    if wrong or not units:
        raise QueryError(f"units are {list(units)}: choose among {', '.join(UNITS)}")
    if bands is not None and (not len(bands) or not all(0 <= band < math.inf for band in bands)):
        raise QueryError(f"bands are {list(bands)}: give numbers ≥ 0, in units of the objective")
    if not 0 < decades <= 12 or steps < 3 or steps % 2 == 0:
        raise QueryError(f"{steps} steps over ± {decades} decades: an odd number ≥ 3, over at most 12 decades")


def _grid(
    groups: Groups, own: pd.Series, bands: Sequence[float] | None, decades: float, steps: int
) -> list[tuple[float, float, Any]]:
    """(band, factor, the width that each trial is judged with)."""
    if bands is not None:
        return [(float(band), math.nan, float(band)) for band in bands]
    if (own == 0).any():
        raise QueryError("the chosen band is 0, which has no multiples: give bands")
    distinct = {item.band for item in groups.references.values()}
    band = distinct.pop() if len(distinct) == 1 else math.nan
    exponents = np.linspace(-decades, decades, steps)
    exponents[steps // 2] = 0.0
    return [(band * factor, factor, own * factor) for factor in map(float, 10.0**exponents)]


def _row(
    chosen: pd.DataFrame, unit: str, groups: Groups, has_splits: bool, options: VerdictOptions, draws: tuple[int, int]
) -> dict[str, Any]:
    table, names = _units(chosen) if unit == "class" else (chosen, "trials")
    samples, _ = stratify(table, "value") if len(table) else ([], [])
    counts = {
        "n_local": sum(len(sample.local) for sample in samples),
        "n_global": sum(len(sample.best) for sample in samples),
        "n_configs": len(samples),
    }
    judged, reason = None, ""
    if not samples:
        reason = f"no configuration has 2 {names} in each group" if len(table) else f"no {names} to compare"
    elif unit == "split":
        judged, reason = _by_split(chosen, [s.name for s in samples], samples, has_splits, options, draws)
    else:
        limits = {"margin": options.chosen_margin, "alpha": options.alpha}
        judged = judge_strata(samples, resamples=draws[0], seed=draws[1], **limits)
    if samples and not reason:
        reason = _objection(counts, names, groups)
    numbers = dict.fromkeys(("estimate", "ci_low", "ci_high", "diff_low", "diff_high"), math.nan)
    if judged:
        ends = zip(("ci_low", "ci_high", "diff_low", "diff_high"), (*judged.ci, *judged.diff), strict=True)
        numbers = {"estimate": judged.estimate.value, **dict(ends)}
        reason = "; ".join([*([reason] if reason else []), *judged.objections])
    word = judged.verdict if judged and not reason else "inconclusive"
    return {**counts, **numbers, "verdict": word, "reason": reason}


def _by_split(
    chosen: pd.DataFrame,
    configs: list[str],
    samples: list[Any],
    has_splits: bool,
    options: VerdictOptions,
    draws: tuple[int, int],
) -> tuple[Judgement | None, str]:
    of = chosen.drop_duplicates("config").set_index("config")
    splits = [str(of["split"][config]) for config in configs]
    count = len(set(splits)) if has_splits else 1
    if count < LEAST_SPLITS:
        return None, f"{count} split{'s' if count > 1 else ''}; {LEAST_SPLITS} are needed for them to be the unit"
    cells = [str(of["cell"][config]) for config in configs]
    limits = {"margin": options.chosen_margin, "alpha": options.alpha}
    return judge_splits(samples, splits, cells, resamples=draws[0], seed=draws[1], **limits), ""


def _objection(counts: Mapping[str, int], names: str, groups: Groups) -> str:
    """What stands against any verdict, as ``verdict`` has it."""
    found = []
    few = min(counts["n_local"], counts["n_global"])
    if few < LEAST_GROUP:
        which = "local" if counts["n_local"] < counts["n_global"] else "global"
        found.append(f"only {few} {which} {names}; {LEAST_GROUP} are needed")
    left_out = sum(groups.excluded.values())
    if left_out > MOST_EXCLUDED * groups.n_trials:
        found.append(f"{left_out} of {groups.n_trials} trials are excluded, more than {MOST_EXCLUDED:.0%}")
    return "; ".join(found)


def _units(chosen: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One row a configuration and class; a class is local where all of its trials are."""
    known = chosen.dropna(subset="class_id")
    grouped = known.groupby(["config", "class_id"], as_index=False)
    return grouped.agg(value=("value", "mean"), local=("local", "min")), "classes"


def _classes(points: pd.DataFrame, landscape: pd.Series, groups: Groups) -> np.ndarray[Any, Any] | None:
    """The class of every chosen trial; all null where the points have no fingerprint."""
    if "class_id" in points.columns:
        values = points["class_id"]
    elif "fingerprint" in points.columns:
        values = assign_classes(points, landscape)
    else:
        return None
    names: np.ndarray[Any, Any] = values.to_numpy(dtype=object)[groups.chosen["row"].to_numpy(dtype=int)]
    return names


def _n_splits(chosen: pd.DataFrame) -> int:
    """The splits among the strata at the chosen band."""
    samples, _ = stratify(chosen, "value")
    return int(chosen[chosen["config"].isin({sample.name for sample in samples})]["split"].nunique())
