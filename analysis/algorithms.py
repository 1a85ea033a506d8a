"""Algorithms compared: which configuration reaches which minima of one landscape, how often, and at what cost.

Configurations that share a landscape differ in how they train; each is called an algorithm here. Every finished trial
counts: one that diverged or did not converge reached no class. Failed trials (an exception, a dead process) are left
out and counted. Trials of equal seed may share their start between configurations; the tests take them as independent,
which is conservative where shared starts make outcomes alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landsweep.analysis.counting import check_level, reached
from landsweep.analysis.effects import holm
from landsweep.analysis.groups import gather, landscape_keys
from landsweep.analysis.labels import labels
from landsweep.analysis.topology import need
from landsweep.workers.errors import QueryError

_SUMMARY = (
    *("landscape", "config", "label", "n_trials", "n_failed", "n_minima", "n_classes"),
    *("n_global", "p_global", "p_global_low", "p_global_high", "n_costed"),
    *("seconds", "steps", "seconds_per_global", "seconds_per_global_low", "seconds_per_global_high"),
)
_SHARES = (
    *("landscape", "config", "label", "class_id", "objective", "times", "n_trials", "share"),
    *("low", "high", "simultaneous_low", "simultaneous_high"),
)
_PAIRS = ("landscape", "config_a", "config_b", "label_a", "label_b", "question", "difference", "p", "p_holm", "note")


@dataclass(frozen=True)
class Algorithms:
    """Who reaches what, how often and at what cost. Tables are documented at ``compare_algorithms``."""

    summary: pd.DataFrame  # one row a configuration
    shares: pd.DataFrame  # one row a configuration and class of its landscape
    pairs: pd.DataFrame  # one row a pair of configurations of one landscape and a question
    references: dict[str, float]  # objective of the global minimum by landscape key
    level: float
    excluded: dict[str, int]  # trials by reason; those that ended at no minimum still count as trials

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values; numbers that are not finite are None."""
        tables = {name: _records(getattr(self, name)) for name in ("summary", "shares", "pairs")}
        rest = {"references": dict(self.references), "level": self.level, "excluded": dict(self.excluded)}
        return {**tables, **rest}


def compare_algorithms(
    points: pd.DataFrame,
    trials: pd.DataFrame | None = None,
    *,
    landscape_key: pd.Series | None = None,
    known_minimum: float | Mapping[str, float | None] | None = None,
    reference: float | None = None,
    band: float | None = None,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> Algorithms:
    """Compare the configurations of each landscape by where their trials end and what they cost.

    summary — by configuration: trials (finished), failed, at a minimum, distinct classes; ``n_global`` trials in the
    band of the global minimum (objective − reference ≤ band, as in ``verdict``), ``p_global`` = n_global/n_trials with
    Wilson's interval; mean ``seconds`` and ``steps`` of the ``n_costed`` finished trials that have both (NaN without
    ``trials``); ``seconds_per_global`` = seconds/p_global, the expected cost of restarts until the first hit, its
    interval from that of p_global at the mean cost (inf where no trial hit).

    shares — by configuration and class of its landscape: ``times``, ``share`` = times/n_trials; ``low high`` is
    Wilson's interval of this share alone, ``simultaneous_low simultaneous_high`` Goodman's, for all shares of the
    configuration at once (no minimum, or none with a class, is the row with null ``class_id``).

    pairs — ``question`` ``global``: difference of p_global (a − b) with Fisher's exact p; ``classes``: do both end in
    the same classes in the same proportions? χ² of the 2 × classes table (no minimum is a class), its p from
    ``resamples`` tables of equal margins (scipy ``random_table``, ``seed``), (1 + hits)/(1 + resamples); ``difference``
    is the total-variation distance of the observed shares (sample noise included). ``p_holm`` is Holm's correction
    over all pairs of one question, all landscapes together. ``note`` says why there is no p.

    points: the points table with ``class_id``. trials: the trials table; without it nothing is known of cost and of
    trials without points.

    Raises QueryError where a column is missing, an option means nothing or there is no point.
    Sources: Wilson, JASA 22 (1927) 209–212; Goodman, Technometrics 7 (1965) 247–254; Holm, Scand. J. Stat. 6 (1979)
    65–70.
    """
    check_level(level)
    need(points, ("class_id", "config", "trial", "point", "source", "kind", "objective"), "a comparison of algorithms")
    if resamples < 99:
        raise QueryError(f"resamples is {resamples}: a Monte Carlo p-value needs at least 99")
    if not len(points):
        raise QueryError("there are no points: nothing to compare")
    if trials is not None:
        need(
            trials, ("trial", "config", "status", "attempt", "seconds", "steps"), "a comparison of algorithms", "trials"
        )
    keys = landscape_keys(points, landscape_key)
    groups = gather(
        points,
        metric="objective",
        trials=trials,
        landscape=keys,
        known_minimum=known_minimum,
        reference=reference,
        band=band,
        split_column=None,
    )
    chosen, excluded = reached(points, groups)
    hits = groups.chosen.loc[~groups.chosen["local"], "config"].value_counts()
    landscape = dict(zip(points["config"].astype(str), keys, strict=True))
    finished, failed, cost = _finished(points, trials)
    names = labels(points)
    order = sorted(landscape, key=lambda config: (landscape[config], names[config], config))
    summary = [
        {
            "landscape": landscape[config],
            "config": config,
            "label": names[config],
            "n_trials": finished[config],
            "n_failed": failed.get(config, 0),
            "n_minima": int((groups.chosen["config"] == config).sum()),
            "n_classes": int(chosen.loc[chosen["config"] == config, "class_id"].nunique()),
            **_hits(int(hits.get(config, 0)), finished[config], cost.get(config), level),
        }
        for config in order
    ]
    table = pd.DataFrame(summary, columns=list(_SUMMARY))
    shares = _shares(chosen, table, level)
    return Algorithms(
        summary=table,
        shares=shares,
        pairs=_pairs(table, shares, resamples, np.random.default_rng(seed)),
        references={key: item.value for key, item in groups.references.items()},
        level=level,
        excluded=dict(sorted(excluded.items())),
    )


def _finished(
    points: pd.DataFrame, trials: pd.DataFrame | None
) -> tuple[dict[str, int], dict[str, int], dict[str, tuple[int, float, float]]]:
    """By configuration: finished trials, failed trials, (number, mean seconds, mean steps) of those with a cost."""
    pairs = points[["config", "trial"]].astype(str)
    if trials is None or not len(trials):
        return _counted(pairs), {}, {}
    last = trials.sort_values("attempt", kind="stable").drop_duplicates("trial", keep="last")
    frame = pd.DataFrame({"config": last["config"].astype(str), "trial": last["trial"].astype(str)})
    bad = (last["status"] == "failed").to_numpy()
    seconds, steps = (pd.to_numeric(last[name]).to_numpy(np.float64, na_value=np.nan) for name in ("seconds", "steps"))
    # A trial with points has finished, whatever a later attempt says.
    bad = bad & ~frame["trial"].isin(set(pairs["trial"])).to_numpy()
    done = pd.concat([pairs, frame[~bad]]).drop_duplicates()
    known = frame.assign(seconds=seconds, steps=steps)[~bad & np.isfinite(seconds) & np.isfinite(steps)]
    cost = {
        str(config): (len(rows), float(rows["seconds"].mean()), float(rows["steps"].mean()))
        for config, rows in known.groupby("config")
    }
    return _counted(done), _counted(frame[bad]), cost


def _counted(frame: pd.DataFrame) -> dict[str, int]:
    return {str(config): int(count) for config, count in frame.groupby("config")["trial"].nunique().items()}


def _hits(hits: int, n: int, cost: tuple[int, float, float] | None, level: float) -> dict[str, Any]:
    low, high = _wilson(hits, n, level)
    costed, seconds, steps = cost or (0, math.nan, math.nan)
    return {
        "n_global": hits,
        "p_global": hits / n,
        "p_global_low": low,
        "p_global_high": high,
        "n_costed": costed,
        "seconds": seconds,
        "steps": steps,
        "seconds_per_global": _over(seconds, hits / n),
        "seconds_per_global_low": _over(seconds, high),
        "seconds_per_global_high": _over(seconds, low),
    }


def _over(cost: float, probability: float) -> float:
    return cost / probability if probability > 0 else (math.nan if math.isnan(cost) else math.inf)


def _wilson(hits: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval; its ends at 0 and n hits are 0 and 1 but for rounding."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits, n, alpha=1 - level, method="wilson")
    return (0.0 if hits == 0 else float(low)), (1.0 if hits == n else float(high))


def _shares(chosen: pd.DataFrame, summary: pd.DataFrame, level: float) -> pd.DataFrame:
    from statsmodels.stats.proportion import multinomial_proportions_confint

    rows: list[dict[str, Any]] = []
    lowest = chosen.groupby("class_id")["objective"].min()
    for item in summary.to_dict("records"):
        inside = chosen["landscape"] == item["landscape"]
        classes = sorted(set(chosen.loc[inside, "class_id"]), key=lambda name: (lowest[name], name))
        mine = chosen.loc[inside & (chosen["config"] == item["config"]), "class_id"].value_counts()
        n = int(item["n_trials"])
        times = [int(mine.get(name, 0)) for name in classes]
        counts = [*times, n - sum(times)]
        both = multinomial_proportions_confint(counts, alpha=1 - level, method="goodman")
        for name, count, (below, above) in zip([*classes, None], counts, both, strict=True):
            low, high = _wilson(count, n, level)
            rows.append(
                {
                    **{key: item[key] for key in ("landscape", "config", "label", "n_trials")},
                    "class_id": name,
                    "objective": float(lowest[name]) if name is not None else math.nan,
                    "times": count,
                    "share": count / n,
                    "low": low,
                    "high": high,
                    "simultaneous_low": min(max(float(below), 0.0), count / n),
                    "simultaneous_high": max(min(float(above), 1.0), count / n),
                }
            )
    return pd.DataFrame(rows, columns=list(_SHARES))


def _pairs(summary: pd.DataFrame, shares: pd.DataFrame, resamples: int, rng: np.random.Generator) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    counts = {
        str(config): part["times"].to_numpy(dtype=np.int64) for config, part in shares.groupby("config", sort=False)
    }
    for key, part in summary.groupby("landscape", sort=True):
        for a, b in combinations(part.to_dict("records"), 2):
            named = {"landscape": key, "config_a": a["config"], "config_b": b["config"]}
            named |= {"label_a": a["label"], "label_b": b["label"]}
            rows.append({**named, "question": "global", **_fisher(a, b)})
            both = np.array([counts[a["config"]], counts[b["config"]]])
            rows.append({**named, "question": "classes", **same_classes(both, resamples, rng)})
    frame = pd.DataFrame(rows, columns=list(_PAIRS))
    frame["p_holm"] = np.nan
    for question in ("global", "classes"):
        of = (frame["question"] == question) & frame["p"].notna()
        p_values = {str(row): float(p) for row, p in frame.loc[of, "p"].items()}
        frame.loc[of, "p_holm"] = holm(p_values)["p_holm"].to_numpy()
    return frame


def _fisher(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> dict[str, Any]:
    from scipy.stats import fisher_exact

    table = np.array([[item["n_global"], item["n_trials"] - item["n_global"]] for item in (a, b)], dtype=np.int64)
    return {"difference": a["p_global"] - b["p_global"], "p": float(fisher_exact(table).pvalue), "note": ""}


def same_classes(table: NDArray[np.int64], resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """{difference, p, note} of (2, classes) counts of two configurations: ``classes`` in ``compare_algorithms``."""
    from scipy.stats import random_table

    used = table[:, table.sum(axis=0) > 0]
    shares = used / used.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if used.shape[1] < 2:
        return {"difference": distance, "p": math.nan, "note": "all trials of both end alike: nothing to test"}
    expected = used.sum(axis=1, keepdims=True) * used.sum(axis=0) / used.sum()
    drawn = random_table(used.sum(axis=1), used.sum(axis=0)).rvs(resamples, random_state=rng)
    statistic, observed = (((t - expected) ** 2 / expected).sum(axis=(-2, -1)) for t in (drawn, used))
    hits = int((statistic >= observed * (1 - 1e-9)).sum())
    return {"difference": distance, "p": (1 + hits) / (1 + resamples), "note": ""}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    values = table.astype(object).where(table.notna() & ~table.isin([math.inf, -math.inf]), None)
    return [{str(key): value for key, value in row.items()} for row in values.to_dict("records")]
