"""Do local minima generalise like global ones? From the points of a sweep to a verdict, with what stands against it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pandas as pd

from landsweep.analysis import details as beside
from landsweep.analysis.bootstrap import RESAMPLES
from landsweep.analysis.equivalence import Sample, hedges_g
from landsweep.analysis.groups import Groups, Reference, gather, landscape_keys
from landsweep.analysis.judgement import LEAST_GROUP, LEAST_SPLITS, Judgement, judge_splits, judge_strata
from landsweep.analysis.power import nominal_alpha
from landsweep.analysis.strata import stratify
from landsweep.analysis.summary import summarise
from landsweep.workers.errors import QueryError

#: What a verdict can be about.
METRICS = ("test_loss", "test_error", "test_loss_trained", "test_error_trained", "gap", "error_gap")
#: The grid key that makes splits the outer unit.
SPLIT_COLUMN = "landscape.split_seed"
#: The share of excluded trials above which they could carry the result.
MOST_EXCLUDED = 0.05


@dataclass(frozen=True)
class VerdictOptions:
    """What is asked.

    metric: one of ``METRICS``. alpha: level of each one-sided test, in (0, 0.5). margin: the largest difference that
    does not matter, in the metric's unit (None: 0.02 for losses, 0.01 for errors). band: how far above the reference a
    minimum still counts as global, in units of the objective (None: max(1e-6, 1e-4·|reference|)). reference: the
    objective of the global minimum (None: the known one, else the lowest found).

    Raises QueryError where one of them cannot be used.
    """

    metric: str = "test_loss"
    alpha: float = 0.05
    margin: float | None = None
    band: float | None = None
    reference: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise QueryError(f"metric {self.metric!r} is unknown: a verdict is about one of {', '.join(METRICS)}")
        if not 0 < self.alpha < 0.5:
            raise QueryError(f"alpha is {self.alpha}: it must lie between 0 and 0.5, both excluded")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise QueryError(f"margin is {self.margin}: it must be a positive number, in units of {self.metric}")
        if self.band is not None and not 0 <= self.band < math.inf:
            raise QueryError(f"band is {self.band}: it must be 0 or a positive number, in units of the objective")
        if self.reference is not None and not math.isfinite(self.reference):
            raise QueryError(f"reference is {self.reference}: it must be a finite objective")

    @property
    def chosen_margin(self) -> float:
        """``margin``, or the default of the metric."""
        return self.margin if self.margin is not None else (0.01 if "error" in self.metric else 0.02)


@dataclass(frozen=True)
class Verdict:
    """The answer, its numbers (None: could not be estimated) and, in ``details``, what is reported beside it."""

    verdict: str  # equivalent | different | inconclusive
    reason: str
    metric: str
    estimate: float | None  # mean(local) − mean(global), in the metric's unit
    ci_low: float | None  # 1−2α: what equivalence is judged on
    ci_high: float | None
    diff_low: float | None  # 1−α: what a difference is judged on
    diff_high: float | None
    margin: float
    alpha: float  # the level used: what earlier looks left of the level asked for
    p_equivalence: float | None
    p_difference: float | None
    n_global: int  # trials that the estimate rests on
    n_local: int
    n_configs: int  # strata that the estimate rests on
    heterogeneity_p: float | None
    reference: float | dict[str, float] | None  # by landscape where there are several
    reference_source: str  # given | known | found | none, joined by "and"
    band: float | dict[str, float] | None
    effect_size: float | None  # Hedges' g
    tau: float | None
    tau_low: float | None
    tau_high: float | None
    trials_needed: int | None  # in all; only where the verdict is inconclusive
    excluded: dict[str, int]  # trials by reason
    exploratory: bool
    splits: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain Python values; numbers that are not finite are None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def to_json(self) -> str:
        """The fields as one JSON object, without NaN or infinity."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def summary(self) -> str:
        """At most 25 lines of plain text: question, trials, reference, estimate, verdict and why, what to do."""
        return summarise(self.as_dict())


#: The keys of ``landsweep verdict --json``, ``details`` aside.
KEYS = tuple(item.name for item in fields(Verdict) if item.name != "details")


def verdict(
    points: pd.DataFrame,
    options: VerdictOptions | None = None,
    *,
    trials: pd.DataFrame | None = None,
    landscape_key: pd.Series | None = None,
    known_minimum: float | Mapping[str, float | None] | None = None,
    exploratory: bool = False,
    alpha_spent: float = 0.0,
    information_fraction: float = 1.0,
    split_column: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Test whether local minima have the same mean metric as global ones, within ± margin.

    points: columns of the points table, and one per grid key. trials: the trials table, for those that failed.
    landscape_key: on the index of ``points``; equal keys share one landscape and one reference (None: sweep and the
    ``landscape.…`` grid values). known_minimum: the objective of the global minimum, or one per landscape key
    (None: the column of that name in ``trials``).
    alpha_spent: what earlier looks at this sweep used; information_fraction: the share of the planned trials that is
    in. Together they set the level of this look (``nominal_alpha``); where nothing is left the verdict is exploratory
    and uses alpha. split_column: the grid key of the test split (None: ``landscape.split_seed`` where it is there).
    seed, resamples: of the bootstrap.

    What cannot be compared is ``inconclusive`` with the reason; QueryError is for requests that mean nothing.
    """
    options = options or VerdictOptions()
    alpha, spent_out = _level(options.alpha, information_fraction, alpha_spent)
    split_column = _split_column(points, split_column)
    landscape = landscape_keys(points, landscape_key)
    groups = gather(
        points,
        metric=options.metric,
        trials=trials,
        landscape=landscape,
        known_minimum=known_minimum,
        reference=options.reference,
        band=options.band,
        split_column=split_column,
    )
    margin = options.chosen_margin
    samples, dropped = stratify(groups.chosen, "value")
    judgement, splits = _judge(groups, samples, (margin, alpha), bool(split_column), (resamples, seed))
    objections = [*_objections(groups, samples, options.metric), *(judgement.objections if judgement else ())]
    word = judgement.verdict if judgement and not objections else "inconclusive"
    trend, extra = beside.collect(points, groups, samples, dropped, judgement, options.metric, landscape, margin, alpha)
    spending = {
        "alpha_requested": options.alpha,
        "alpha_spent": alpha_spent,
        "information_fraction": information_fraction,
        "alpha_spent_after": alpha_spent if spent_out else alpha_spent + alpha,
    }
    return Verdict(
        verdict=word,
        reason="; ".join(objections) if objections else _reason(judgement, margin, alpha),
        metric=options.metric,
        **_numbers(judgement, margin),
        margin=margin,
        alpha=alpha,
        n_global=sum(len(sample.best) for sample in samples),
        n_local=sum(len(sample.local) for sample in samples),
        n_configs=len(samples),
        reference=_one({key: item.value for key, item in groups.references.items()}),
        reference_source=_source(groups.references),
        band=_one({key: item.band for key, item in groups.references.items()}),
        effect_size=hedges_g(samples) if samples else None,
        tau=trend.value if trend else None,
        tau_low=trend.low if trend else None,
        tau_high=trend.high if trend else None,
        trials_needed=_needed(judgement, groups) if word == "inconclusive" else None,
        excluded=groups.excluded,
        exploratory=exploratory or spent_out,
        splits=splits,
        details={**extra, **spending},
    )


def _level(alpha: float, information_fraction: float, alpha_spent: float) -> tuple[float, bool]:
    """The level of this look, and whether earlier looks left nothing (then it is alpha, and exploratory)."""
    if not 0 < information_fraction <= 1:
        raise QueryError(f"information_fraction is {information_fraction}: it is a share of the trials, in (0, 1]")
    if not 0 <= alpha_spent < math.inf:
        raise QueryError(f"alpha_spent is {alpha_spent}: it must be 0 or a positive number")
    left = nominal_alpha(alpha, information_fraction, alpha_spent)
    return (left, False) if left > 0 else (alpha, True)


def _split_column(points: pd.DataFrame, asked: str | None) -> str | None:
    if asked is None:
        return SPLIT_COLUMN if SPLIT_COLUMN in points.columns else None
    if asked not in points.columns:
        raise QueryError(f"the points have no column {asked!r} for the splits: name a grid key of the sweep")
    return asked


def _judge(
    groups: Groups, samples: list[Sample], limits: tuple[float, float], by_split: bool, draws: tuple[int, int]
) -> tuple[Judgement | None, str]:
    """The judgement (None without strata) and what it is conditional on."""
    margin, alpha = limits
    resamples, seed = draws
    of = groups.chosen.drop_duplicates("config").set_index("config")
    splits = [str(of["split"][sample.name]) for sample in samples]
    count = len(set(splits))
    if by_split and count >= LEAST_SPLITS:
        cells = [str(of["cell"][sample.name]) for sample in samples]
        text = f"{count} splits decide: Student's t over their estimates"
        return judge_splits(samples, splits, cells, margin=margin, alpha=alpha, resamples=resamples, seed=seed), text
    text = f"conditional on {count} splits" if by_split and count > 1 else "conditional on one split"
    if not samples:
        return None, text
    return judge_strata(samples, margin=margin, alpha=alpha, resamples=resamples, seed=seed), text


def _objections(groups: Groups, samples: list[Sample], metric: str) -> list[str]:
    """Why no test can decide, before any test."""
    n_local, n_global = sum(len(sample.local) for sample in samples), sum(len(sample.best) for sample in samples)
    found = []
    if not groups.n_trials:
        return ["there are no trials"]
    left_out = sum(groups.excluded.values())
    if not samples:
        found.append(_nothing_to_compare(groups))
    elif min(n_local, n_global) < LEAST_GROUP:
        name, count = ("local", n_local) if n_local < n_global else ("global", n_global)
        found.append(f"only {count} {name} minima in configurations that have both kinds; {LEAST_GROUP} are needed")
    if left_out > MOST_EXCLUDED * groups.n_trials:
        share = left_out / groups.n_trials
        text = f"{left_out} of {groups.n_trials} trials ({share:.1%}) are excluded, more than {MOST_EXCLUDED:.0%}"
        worst = beside.worst_case(groups, samples, metric)
        tail = f": in the worst case the difference lies in [{worst['low']:.4g}, {worst['high']:.4g}]" if worst else ""
        found.append(text + tail)
    return found


def _nothing_to_compare(groups: Groups) -> str:
    n_local = int(groups.chosen["local"].sum())
    n_global = len(groups.chosen) - n_local
    if not len(groups.chosen):
        return "no trial ended in a minimum with a finite value of the metric"
    if not n_local:
        return f"all {n_global} minima are global: there is nothing to compare them with"
    if not n_global:
        return f"all {n_local} minima are local: none is within the band of the reference"
    return f"no configuration has 2 trials in each group ({n_local} local, {n_global} global in all)"


def _numbers(judgement: Judgement | None, margin: float) -> dict[str, Any]:
    if judgement is None:
        names = "estimate ci_low ci_high diff_low diff_high p_equivalence p_difference heterogeneity_p"
        return dict.fromkeys(names.split())
    return {
        "estimate": judgement.estimate.value,
        "ci_low": judgement.ci[0],
        "ci_high": judgement.ci[1],
        "diff_low": judgement.diff[0],
        "diff_high": judgement.diff[1],
        "p_equivalence": judgement.estimate.p_equivalence(margin),
        "p_difference": judgement.estimate.p_difference(),
        "heterogeneity_p": judgement.heterogeneity_p,
    }


def _reason(judgement: Judgement | None, margin: float, alpha: float) -> str:
    """In words, for a judgement without objections."""
    assert judgement is not None  # without one there is an objection
    ci, diff = f"{100 * (1 - 2 * alpha):.4g} %", f"{100 * (1 - alpha):.4g} %"
    blocked = f"Cochran's Q has p = {judgement.heterogeneity_p or 0:.2g} and not every configuration's interval does"
    if judgement.verdict == "equivalent":
        return f"the {ci} interval lies inside ± {margin:g}"
    if judgement.verdict == "different":
        inside = max(abs(judgement.ci[0]), abs(judgement.ci[1])) < margin
        tail = f", although the {ci} interval lies inside ± {margin:g}: {blocked}" if inside else ""
        worse = "worse" if judgement.estimate.value > 0 else "better"
        return f"local minima are {worse}: the {diff} interval excludes 0 and equivalence is not shown{tail}"
    if not judgement.strata_agree and max(abs(judgement.ci[0]), abs(judgement.ci[1])) < margin:
        return f"effects differ between configurations: the {ci} interval lies inside ± {margin:g}, but {blocked}"
    return f"the {ci} interval reaches beyond ± {margin:g} and the {diff} interval holds 0"


def _needed(judgement: Judgement | None, groups: Groups) -> int | None:
    scale = judgement.scale_needed() if judgement else None
    return None if scale is None else math.ceil(scale * groups.n_trials * (1 - 1e-9))


def _one(values: dict[str, float]) -> float | dict[str, float] | None:
    """The value that all landscapes share, or one for each."""
    distinct = set(values.values())
    return values if len(distinct) > 1 else next(iter(distinct), None)


def _source(references: dict[str, Reference]) -> str:
    return " and ".join(sorted({item.source for item in references.values()})) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
