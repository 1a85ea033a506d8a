"""Any two groups of points compared like local and global minima: within configurations, by trial, the same tests.

The unit is a trial: its points of a group count as their mean. Where a trial has points in both groups its two means
are not independent, and the trial enters as one difference; trials with points in one group alone are compared with
each other. A configuration thus gives up to two strata, whose estimates are independent, combined as the verdict
combines its strata (``equivalence.combine``).

Matched on a column (``match="train_loss"``: do saddles generalise worse than minima of the same training loss?), every
configuration's trials are put into pairs, one of each group, that differ by at most the caliper in that column. Each
trial is in one pair at most. The unit is then a pair, and what is left of the column's difference inside the pairs is
taken off by a regression on the matched trials, y_a − y_b − β(x_a − x_b), β the common slope within groups and
configurations (Rubin, Biometrics 29, 1973, 185–203; Abadie & Imbens, J. Bus. Econ. Stat. 29, 2011, 1–11). Trials
without a partner are left out and counted: the answer is about the part of the column that both groups reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.bootstrap import RESAMPLES
from landsweep.analysis.effects import CliffDelta, cliff_delta, holm, i_squared, plain
from landsweep.analysis.equivalence import FloatArray, Sample, combine, hedges_g
from landsweep.analysis.groups import MINIMA, grid_columns
from landsweep.analysis.judgement import LEAST_GROUP, LEAST_SPLITS, Judgement, judge_splits, judge_strata
from landsweep.analysis.query import parse_where
from landsweep.analysis.strata import LEAST_STRATUM, stratify
from landsweep.analysis.verdict import METRICS, MOST_EXCLUDED, SPLIT_COLUMN, VerdictOptions
from landsweep.workers.errors import QueryError
from landsweep.workers.record import content_hash, schema

#: The kinds that count as saddles.
SADDLES = ("saddle", "degenerate_saddle")
#: Largest difference inside a matched pair, in standard deviations of the column within groups of a configuration.
CALIPER = 0.1
_LARGEST = 1e100  # the squares of larger numbers overflow in a variance: not finite, for what follows
_NEEDED = ("config", "trial", "point", "source", "kind")

Group = str | pd.Series


@dataclass(frozen=True)
class Comparison:
    """mean(a) − mean(b) of a metric within configurations, and what it says; None: could not be estimated."""

    verdict: str  # equivalent | different | inconclusive
    reason: str
    metric: str
    names: tuple[str, str]  # of the groups a and b
    estimate: float | None  # in the metric's unit
    ci_low: float | None  # 1−2α: what equivalence is judged on
    ci_high: float | None
    diff_low: float | None  # 1−α: what a difference is judged on
    diff_high: float | None
    margin: float
    alpha: float
    p_equivalence: float | None
    p_difference: float | None
    n_a: int  # trials that the estimate rests on
    n_b: int
    n_pairs: int  # of them in pairs: the same trial, or matched
    n_points_a: int  # points of the group with a finite metric
    n_points_b: int
    n_configs: int
    heterogeneity_p: float | None
    i_squared: float | None
    hedges_g: float | None
    cliff_delta: float | None
    cliff_low: float | None  # 1−α
    cliff_high: float | None
    match: str | None
    caliper: float | None  # in standard deviations
    match_before: float | None  # mean difference of the matched column, all trials of the groups
    match_after: float | None  # and inside the pairs
    excluded: dict[str, int]  # points by reason
    splits: str
    details: dict[str, Any] = field(default_factory=dict)  # strata, dropped, unused_trials, bootstrap_verdict

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain Python values; numbers that are not finite are None."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def select(points: pd.DataFrame, group: Group) -> pd.Series:
    """The rows of a group, as a bool Series on the index of ``points``.

    group: a ``--where`` text (``query.parse_where``; a null is in no group) or a bool Series on the same index.
    Raises QueryError where the text cannot be read, a column is missing or the Series does not fit.
    """
    if isinstance(group, str):
        return _where(points, group)
    if len(group) != len(points) or not group.index.equals(points.index):
        raise QueryError(f"a mask of {len(group)} rows does not fit the {len(points)} points: give it their index")
    if group.dtype not in (bool, "boolean"):
        raise QueryError(f"a mask holds true and false; this one holds {group.dtype}")
    return group.fillna(False).astype(bool)


def compare(
    points: pd.DataFrame,
    a: Group,
    b: Group,
    *,
    names: tuple[str, str] | None = None,
    metric: str = "test_loss",
    margin: float | None = None,
    alpha: float = 0.05,
    match: str | None = None,
    caliper: float = CALIPER,
    split_column: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the mean metric of two groups of points within configurations, by trial (see the module).

    a, b: a ``--where`` text or a bool Series each; they may share trials, not points. names: theirs in words (None: the
    texts). metric, margin (None: the metric's default), alpha: as in ``VerdictOptions``; a metric of another column
    needs a margin. match: a numeric column to match on, caliper: see ``CALIPER``. split_column, seed, resamples: as
    ``verdict`` takes them.

    Cliff's δ and Hedges' g are those of the trials' means; where trials are in both groups, δ's interval takes them as
    independent (too wide where they agree). What cannot be compared is ``inconclusive`` with the reason; QueryError is
    for requests that mean nothing.
    """
    return _compare(points, a, b, names, (metric, margin, alpha), (match, caliper), split_column, (resamples, seed), {})


def compare_metrics(
    points: pd.DataFrame,
    a: Group,
    b: Group,
    metrics: Sequence[str],
    *,
    margins: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    **options: Any,
) -> pd.DataFrame:
    """``compare`` for each metric, and Holm's correction over them; one row a metric, in the order given.

    Columns: metric, n_a, n_b, estimate, ci_low, ci_high, diff_low, diff_high, margin, hedges_g, cliff_delta,
    p_equivalence, p_difference, verdict; ``p_equivalence_holm``, ``p_difference_holm``: corrected over the metrics;
    ``verdict_holm``: the verdict where its corrected p is ≤ alpha too, else ``inconclusive``; reason. The 1−α and 1−2α
    intervals are each metric's own. margins: by metric, the defaults elsewhere. options: as ``compare`` takes them.
    Raises QueryError for no metric or one named twice.
    """
    if not metrics or len(set(metrics)) != len(metrics):
        raise QueryError(f"metrics are {list(metrics)}: name at least one, each once")
    margins = margins or {}
    found = [compare(points, a, b, metric=m, margin=margins.get(m), alpha=alpha, **options) for m in metrics]
    shown = "metric n_a n_b estimate ci_low ci_high diff_low diff_high margin hedges_g cliff_delta p_equivalence"
    columns = [*shown.split(), "p_difference", "verdict"]
    table = pd.DataFrame([{name: getattr(item, name) for name in columns} for item in found])
    for kind in ("equivalence", "difference"):
        p = {item.metric: getattr(item, f"p_{kind}") for item in found}
        table[f"p_{kind}_holm"] = holm(p, alpha)["p_holm"].to_numpy()
    own = table["verdict"].map({"equivalent": "p_equivalence_holm", "different": "p_difference_holm"})
    kept = [isinstance(name, str) and table[name].iloc[row] <= alpha for row, name in enumerate(own)]
    table["verdict_holm"] = table["verdict"].where(pd.Series(kept, index=table.index), "inconclusive")
    return table.assign(reason=[item.reason for item in found])


def saddles_against_minima(points: pd.DataFrame, *, source: str | None = None, **options: Any) -> Comparison:
    """Saddles (a) against the minima at the end of training (b); ``match="train_loss"`` at matched training loss.

    Saddles are a sample of their searcher, not of the landscape: source keeps those of one (``trajectory``,
    ``initialisation``, ``noise``). options: as ``compare`` takes them. Raises QueryError.
    """
    _need(points, _NEEDED)
    saddles = points["kind"].isin(SADDLES)
    if source is not None:
        saddles &= points["source"] == source
    options.setdefault("names", ("saddles", "minima"))
    return compare(points, saddles.fillna(False), _end_minima(points), **options)


def sharp_against_flat(
    points: pd.DataFrame,
    *,
    by: str = "eig_max",
    threshold: float | None = None,
    names: tuple[str, str] = ("sharp minima", "flat minima"),
    metric: str = "test_loss",
    margin: float | None = None,
    alpha: float = 0.05,
    match: str | None = None,
    caliper: float = CALIPER,
    split_column: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Sharp (a) against flat (b) minima at the end of training: ``by`` above the threshold, or not.

    by: a measure of sharpness (eig_max, trace, frobenius, sharpness). threshold: in its unit (None: the median of each
    configuration's minima; what equals it is flat). Minima without the measure are excluded and counted. The other
    arguments are those of ``compare``. Raises QueryError where the measure is missing or was not measured at all.
    """
    _need(points, (*_NEEDED, by))
    minima = _end_minima(points)
    values = _numbers(points, by)
    measured = minima & np.isfinite(values)
    if minima.any() and not measured.any():
        raise QueryError(f"no minimum has a finite {by}: it was not measured, see `measure` in the sweep file")
    limit = values[measured].groupby(points["config"][measured].astype(str)).median()
    level = points["config"].astype(str).map(limit) if threshold is None else threshold
    lacking = {f"no finite {by}": int((minima & ~measured).sum())} if (minima & ~measured).any() else {}
    return _compare(
        points,
        measured & (values > level),
        measured & (values <= level),
        names,
        (metric, margin, alpha),
        (match, caliper),
        split_column,
        (resamples, seed),
        lacking,
    )


@dataclass(frozen=True)
class _Strata:
    """What is compared."""

    samples: list[Sample]
    configs: list[str]  # of each sample
    effects: list[Sample]  # the groups' values, for effect sizes
    n_a: int
    n_b: int
    n_pairs: int
    dropped: list[dict[str, Any]]
    units: pd.DataFrame  # config trial local value x
    before: float | None = None
    after: float | None = None


def _compare(
    points: pd.DataFrame,
    a: Group,
    b: Group,
    names: tuple[str, str] | None,
    question: tuple[str, float | None, float],
    matching: tuple[str | None, float],
    split_column: str | None,
    draws: tuple[int, int],
    excluded: dict[str, int],
) -> Comparison:
    metric, _, alpha = question
    match, caliper = matching
    margin = _margin(*question)
    _need(points, (*_NEEDED, metric, *([match] if match else []), *([split_column] if split_column else [])))
    if not 0 < caliper < math.inf:
        raise QueryError(f"caliper is {caliper}: it must be a positive number of standard deviations")
    if names is None:
        names = (a if isinstance(a, str) else "a", b if isinstance(b, str) else "b")
    rows, left_out = _rows(points, select(points, a), select(points, b), metric, match)
    excluded = {**excluded, **left_out}
    strata = _unmatched(rows) if match is None else _matched(rows, caliper)
    judged, splits = _judge(points, strata, (margin, alpha), split_column, draws)
    objections = _objections(strata, rows, names, match, excluded)
    objections += list(judged.objections) if judged else []
    word = judged.verdict if judged and not objections else "inconclusive"
    delta = cliff_delta(strata.effects, alpha) if strata.effects else None
    scatter = i_squared([combine([sample]) for sample in strata.samples], alpha)
    return Comparison(
        verdict=word,
        reason="; ".join(objections) if objections or judged is None else _reason(judged, names, margin, alpha),
        metric=metric,
        names=names,
        **_numbers_of(judged, margin),
        margin=margin,
        alpha=alpha,
        n_a=strata.n_a,
        n_b=strata.n_b,
        n_pairs=strata.n_pairs,
        n_points_a=int(rows["local"].sum()),
        n_points_b=int((~rows["local"]).sum()),
        n_configs=len(set(strata.configs)),
        i_squared=scatter.i2 if scatter else None,
        hedges_g=hedges_g(strata.effects) if strata.effects else None,
        **_cliff(delta),
        match=match,
        caliper=caliper if match else None,
        match_before=strata.before,
        match_after=strata.after,
        excluded=excluded,
        splits=splits,
        details=_details(strata, judged, alpha),
    )


def _margin(metric: str, margin: float | None, alpha: float) -> float:
    if metric not in METRICS and margin is None:
        raise QueryError(f"metric {metric!r} has no default margin: give one, in its unit")
    known = metric if metric in METRICS else METRICS[0]
    return VerdictOptions(metric=known, margin=margin, alpha=alpha).chosen_margin


def _need(points: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in points.columns]
    if missing:
        raise QueryError(f"the points lack the columns {', '.join(missing)}, which the comparison reads")


def _where(points: pd.DataFrame, text: str) -> pd.Series:
    """Only the columns that the text can mean are converted; types are those of the schema."""
    import pyarrow as pa

    known = {item.name: item.type for item in schema("points")}
    grid = {name: pa.float64() if pd.api.types.is_numeric_dtype(points[name]) else pa.string() for name in points}
    types = pa.schema([(str(name), known.get(str(name), grid[name])) for name in points.columns])
    expression = parse_where(text, types)
    named = [name for name in types.names if name in text]
    columns = {name: _array(points[name], types.field(name).type) for name in named}
    row = "row of the table"
    table = pa.table({**columns, row: pa.array(np.arange(len(points)))})
    mask = np.zeros(len(points), dtype=bool)
    mask[table.filter(expression)[row].to_numpy()] = True
    return pd.Series(mask, index=points.index)


def _array(column: pd.Series, kind: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(column, type=kind, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        raise QueryError(f"the column {column.name} cannot be read as {kind}: {exc}") from exc


def _numbers(points: pd.DataFrame, column: str) -> pd.Series:
    try:
        values = pd.to_numeric(points[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as exc:
        raise QueryError(f"the column {column!r} holds no numbers: name a numeric one") from exc
    return pd.Series(np.where(np.abs(values) < _LARGEST, values, np.nan), index=points.index)


def _end_minima(points: pd.DataFrame) -> pd.Series:
    """The minima at the end of training, one a trial."""
    return (points["kind"].isin(MINIMA) & (points["source"] == "training")).fillna(False).astype(bool)


def _rows(
    points: pd.DataFrame, a: pd.Series, b: pd.Series, metric: str, match: str | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row a point (config trial local value x), ordered by trial, and the excluded ones by reason."""
    both = int((a & b).sum())
    if both:
        raise QueryError(f"{both} points are in both groups: a point can be in one of them only")
    kept = points[a | b]
    frame = pd.DataFrame(
        {
            "config": kept["config"].astype(str),
            "trial": kept["trial"].astype(str),
            "point": kept["point"].astype(str),
            "local": a[a | b],
            "value": _numbers(kept, metric),
            "x": _numbers(kept, match) if match else 0.0,
        }
    )
    valued = np.isfinite(frame["value"])
    reasons = {f"no finite {metric}": int((~valued).sum())}
    if match:
        reasons[f"no finite {match}"] = int((valued & ~np.isfinite(frame["x"])).sum())
    finite = frame[valued & np.isfinite(frame["x"])]
    return finite.sort_values(["config", "trial", "point"]), {k: n for k, n in reasons.items() if n}


def _units(rows: pd.DataFrame) -> pd.DataFrame:
    """A trial's mean over its points of a group: config trial local value x."""
    return rows.groupby(["config", "trial", "local"], sort=True, as_index=False)[["value", "x"]].mean()


def _unmatched(rows: pd.DataFrame) -> _Strata:
    """Per configuration the trials in both groups as differences, and the others as two groups."""
    units = _units(rows)
    shared = units.duplicated(["config", "trial"], keep=False)
    wide = units[shared].pivot(index=["config", "trial"], columns="local", values="value")
    samples, configs, used = [], [], {True: 0, False: 0}
    for config, part in wide.groupby(level="config"):
        if len(part) >= LEAST_STRATUM:
            differences = (part[True] - part[False]).to_numpy(dtype=np.float64)
            samples.append(_paired(f"{config} (same trials)", differences))
            configs.append(str(config))
    pairs = sum(len(sample.local) for sample in samples)
    alone, _ = stratify(units[~shared], "value")
    for sample in alone:
        used[True] += len(sample.local)
        used[False] += len(sample.best)
    effects, _ = stratify(units, "value")
    return _Strata(
        samples=[*samples, *alone],
        configs=[*configs, *(sample.name for sample in alone)],
        effects=[sample for sample in effects if sample.name in {*configs, *(one.name for one in alone)}],
        n_a=pairs + used[True],
        n_b=pairs + used[False],
        n_pairs=pairs,
        dropped=_dropped(units, {*configs, *(sample.name for sample in alone)}),
        units=units,
    )


def _matched(rows: pd.DataFrame, caliper: float) -> _Strata:
    """Per configuration the pairs within the caliper, corrected for what is left inside them."""
    units = _units(rows)
    pairs = {str(config): found for config, part in units.groupby("config") if len(found := _pairs(part, caliper)) >= 2}
    slope = _slope(pairs)
    samples, effects = [], []
    for config, found in pairs.items():
        rest = slope * (found[:, 1] - found[:, 3])
        samples.append(_paired(config, found[:, 0] - found[:, 2] - rest))
        effects.append(Sample(config, found[:, 0] - rest, found[:, 2]))
    count = sum(len(found) for found in pairs.values())
    both, _ = stratify(units, "x")
    apart = np.concatenate([found[:, 1] - found[:, 3] for found in pairs.values()]) if pairs else np.zeros(0)
    return _Strata(
        samples=samples,
        configs=list(pairs),
        effects=effects,
        n_a=count,
        n_b=count,
        n_pairs=count,
        dropped=_dropped(units, set(pairs)),
        units=units,
        before=combine(both).value if both else None,
        after=float(apart.mean()) if len(apart) else None,
    )


def _paired(name: str, differences: FloatArray) -> Sample:
    """A stratum of k differences: against k zeros its weight is k/2, its variance s²/k, its freedom k − 1."""
    return Sample(name, differences, np.zeros(len(differences)))


def _pairs(part: pd.DataFrame, caliper: float) -> FloatArray:
    """(pairs, 4): value and x of a, value and x of b.

    Along x, every trial takes the nearest waiting trial of the other group before it, if that is within the caliper
    (brackets: the last to wait is the first to be taken). Each trial is used once, in whichever group.
    """
    spread = [float(rows["x"].var(ddof=1)) for _, rows in part.groupby("local") if len(rows) > 1]
    width = caliper * math.sqrt(sum(spread) / len(spread)) if spread else 0.0
    order = part.sort_values(["x", "trial", "local"])
    columns = (order[name].tolist() for name in ("trial", "local", "value", "x"))
    waiting: dict[bool, list[tuple[str, float, float]]] = {True: [], False: []}
    used: set[str] = set()
    found = []
    for trial, local, value, x in zip(*columns, strict=True):
        if trial in used:
            continue
        others = waiting[not local]
        while others and others[-1][0] in used:
            others.pop()
        if others and x - others[-1][2] <= width:
            other, their_value, their_x = others.pop()
            used |= {trial, other}
            found.append((value, x, their_value, their_x) if local else (their_value, their_x, value, x))
        else:
            waiting[local].append((trial, value, x))
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def _slope(pairs: Mapping[str, FloatArray]) -> float:
    """The common slope of value on x within groups and configurations; 0 where x does not vary."""
    centred = [
        found[:, columns] - found[:, columns].mean(axis=0) for found in pairs.values() for columns in ([0, 1], [2, 3])
    ]
    joined = np.concatenate(centred) if centred else np.zeros((0, 2))
    size = float(joined[:, 1] @ joined[:, 1])
    return float(joined[:, 1] @ joined[:, 0]) / size if size > 0 else 0.0


def _dropped(units: pd.DataFrame, used: set[str]) -> list[dict[str, Any]]:
    """The configurations that give nothing, with their trials by group."""
    rest = units[~units["config"].isin(used)]
    return [
        {"config": str(config), "n_a": int(rows["local"].sum()), "n_b": int((~rows["local"]).sum())}
        for config, rows in rest.groupby("config", sort=True)
    ]


def _judge(
    points: pd.DataFrame,
    strata: _Strata,
    limits: tuple[float, float],
    split_column: str | None,
    draws: tuple[int, int],
) -> tuple[Judgement | None, str]:
    """The judgement (None without strata) and what it is conditional on: as the verdict has it."""
    (margin, alpha), (resamples, seed) = limits, draws
    column = split_column or (SPLIT_COLUMN if SPLIT_COLUMN in points.columns else None)
    first = points.drop_duplicates("config").assign(config=lambda rows: rows["config"].astype(str)).set_index("config")
    splits = [str(first[column][config]) for config in strata.configs] if column else []
    count = len(set(splits))
    if column and count >= LEAST_SPLITS:
        grid = [name for name in grid_columns(points) if name != column]
        cells = [content_hash([str(first[name][config]) for name in grid]) for config in strata.configs]
        judged = judge_splits(strata.samples, splits, cells, margin=margin, alpha=alpha, resamples=resamples, seed=seed)
        return judged, f"{count} splits decide: Student's t over their estimates"
    text = f"conditional on {count} splits" if count > 1 else "conditional on one split"
    if not strata.samples:
        return None, text
    return judge_strata(strata.samples, margin=margin, alpha=alpha, resamples=resamples, seed=seed), text


def _objections(
    strata: _Strata, rows: pd.DataFrame, names: tuple[str, str], match: str | None, excluded: Mapping[str, int]
) -> list[str]:
    """Why no test can decide, before any test."""
    found = []
    counts = {name: int((rows["local"] == flag).sum()) for name, flag in zip(names, (True, False), strict=True)}
    empty = [name for name, count in counts.items() if not count]
    few = min(strata.n_a, strata.n_b)
    if empty:
        found.append(f"no point with a finite metric in {' and '.join(empty)}")
    elif not strata.samples:
        what = f"2 pairs within the caliper of {match}" if match else "2 trials in each group"
        found.append(f"no configuration has {what}")
    elif few < LEAST_GROUP:
        what = "pairs" if match else f"trials of {names[0] if strata.n_a == few else names[1]}"
        found.append(f"only {few} {what} can be compared; {LEAST_GROUP} are needed")
    lost, total = sum(excluded.values()), sum(excluded.values()) + len(rows)
    if lost > MOST_EXCLUDED * total:
        found.append(f"{lost} of {total} points ({lost / total:.1%}) are excluded, more than {MOST_EXCLUDED:.0%}")
    return found


def _reason(judged: Judgement, names: tuple[str, str], margin: float, alpha: float) -> str:
    ci, diff = f"{100 * (1 - 2 * alpha):.4g} %", f"{100 * (1 - alpha):.4g} %"
    within = max(abs(judged.ci[0]), abs(judged.ci[1])) < margin
    if judged.verdict == "equivalent":
        return f"the {ci} interval lies inside ± {margin:g}"
    if judged.verdict == "different":
        higher, lower = names if judged.estimate.value > 0 else names[::-1]
        tail = ": not in every configuration" if within else ""
        return f"{higher} are higher than {lower}: the {diff} interval excludes 0 and equivalence is not shown{tail}"
    if within:
        return f"the {ci} interval lies inside ± {margin:g}, but configurations differ and not each one's does"
    return f"the {ci} interval reaches beyond ± {margin:g} and the {diff} interval holds 0"


def _numbers_of(judged: Judgement | None, margin: float) -> dict[str, float | None]:
    if judged is None:
        names = "estimate ci_low ci_high diff_low diff_high p_equivalence p_difference heterogeneity_p"
        return dict.fromkeys(names.split())
    return {
        "estimate": judged.estimate.value,
        "ci_low": judged.ci[0],
        "ci_high": judged.ci[1],
        "diff_low": judged.diff[0],
        "diff_high": judged.diff[1],
        "p_equivalence": judged.estimate.p_equivalence(margin),
        "p_difference": judged.estimate.p_difference(),
        "heterogeneity_p": judged.heterogeneity_p,
    }


def _cliff(delta: CliffDelta | None) -> dict[str, float | None]:
    if delta is None:
        return {"cliff_delta": None, "cliff_low": None, "cliff_high": None}
    return {"cliff_delta": delta.value, "cliff_low": delta.low, "cliff_high": delta.high}


def _details(strata: _Strata, judged: Judgement | None, alpha: float) -> dict[str, Any]:
    rows = []
    for sample, config in zip(strata.samples, strata.configs, strict=True):
        estimate = combine([sample])
        (ci_low, ci_high), (diff_low, diff_high) = estimate.interval(alpha), estimate.interval(alpha / 2)
        paired = not sample.best.any() and len(sample.local) == len(sample.best)
        counts = {"config": config, "paired": paired, "n_a": len(sample.local), "n_b": len(sample.best)}
        numbers = {"ci_low": ci_low, "ci_high": ci_high, "diff_low": diff_low, "diff_high": diff_high}
        rows.append({**counts, "estimate": estimate.value, **numbers})
    boot = judged.bootstrap_verdict if judged else None
    n_a, n_b = int(strata.units["local"].sum()), int((~strata.units["local"]).sum())
    unused = {"a": n_a - strata.n_a, "b": n_b - strata.n_b}
    return {"strata": rows, "dropped": strata.dropped, "unused_trials": unused, "bootstrap_verdict": boot}
