"""From samples to a judgement: the t form, the bootstrap beside it, heterogeneity, and splits as the outer unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from landsweep.analysis.bootstrap import RESAMPLES, Pivot, bootstrap_mean, bootstrap_strata
from landsweep.analysis.equivalence import (
    HETEROGENEITY_LEVEL,
    Estimate,
    Interval,
    Sample,
    cochran_q,
    combine,
    decide,
    inside,
    mean_of,
)
from landsweep.analysis.power import scale_needed

#: Trials that each group must have in all.
LEAST_GROUP = 10
#: Splits from which on the splits are the outer unit.
LEAST_SPLITS = 5
#: Splits from which on their bootstrap says anything: a studentised resample of fewer values has next to no spread.
LEAST_SPLITS_BOOTSTRAP = 10


@dataclass(frozen=True)
class Judgement:
    """What the intervals say, and what stands against them."""

    estimate: Estimate
    ci: Interval  # 1−2α
    diff: Interval  # 1−α
    verdict: str  # of the t form, before the objections
    objections: tuple[str, ...]  # each of them alone makes the verdict inconclusive
    heterogeneity_p: float | None
    strata_agree: bool
    bootstrap_ci: Interval | None
    bootstrap_diff: Interval | None
    bootstrap_verdict: str | None
    estimate_at: Callable[[float], Estimate]  # as it would be with that many times the trials
    limits: tuple[float, float]  # margin, alpha
    least_scale: float  # times the present trials: the fewest that any verdict needs

    def scale_needed(self) -> float | None:
        """How many times the present trials give 80 % power at a true difference of 0; None where no number does."""
        if self.estimate.standard_error == 0:
            return None  # nothing varies: more of the same would change nothing
        return scale_needed(self.estimate_at, *self.limits, self.least_scale)


def judge_strata(
    samples: Sequence[Sample], *, margin: float, alpha: float, resamples: int = RESAMPLES, seed: int = 0
) -> Judgement:
    """Trials are the unit, samples the strata (at least one); their order matters to the bootstrap's draws alone."""
    count = min(sum(len(sample.local) for sample in samples), sum(len(sample.best) for sample in samples))
    smallest = min(min(len(sample.local), len(sample.best)) for sample in samples)
    return _judge(
        lambda factor: combine(samples, factor),
        [combine([sample]) for sample in samples],
        bootstrap_strata(samples, resamples=resamples, seed=seed),
        (margin, alpha),
        least=max(LEAST_GROUP / count, 2 / smallest),
    )


def judge_splits(
    samples: Sequence[Sample],
    splits: Sequence[Hashable],
    cells: Sequence[Hashable],
    *,
    margin: float,
    alpha: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """Splits are the unit: t over the split-wise stratified estimates, which a split's own luck enters as a whole.

    ``splits`` and ``cells`` name the split and the rest of the configuration of every sample. Whether effects differ is
    asked of the cells, each with its own t over splits: that splits differ is what the outer unit is for.
    """
    values = [combine(group).value for group in _grouped(samples, splits)]
    inner = [mean_of([sample.difference for sample in group]) for group in _grouped(samples, cells) if len(group) > 1]
    whole = mean_of(values)
    enough = len(values) >= LEAST_SPLITS_BOOTSTRAP
    return _judge(
        lambda factor: Estimate(whole.value, whole.standard_error / math.sqrt(factor), factor * len(values) - 1),
        inner,
        bootstrap_mean(values, resamples=resamples, seed=seed) if enough else None,
        (margin, alpha),
        least=LEAST_SPLITS / len(values),
    )


def _grouped(samples: Sequence[Sample], labels: Sequence[Hashable]) -> list[list[Sample]]:
    groups: dict[Hashable, list[Sample]] = {}
    for sample, label in zip(samples, labels, strict=True):
        groups.setdefault(label, []).append(sample)
    return list(groups.values())


def _judge(
    estimate_at: Callable[[float], Estimate],
    strata: Sequence[Estimate],
    pivot: Pivot | None,
    limits: tuple[float, float],
    least: float,
) -> Judgement:
    margin, alpha = limits
    estimate = estimate_at(1.0)
    ci, diff = estimate.interval(alpha), estimate.interval(alpha / 2)
    heterogeneity = cochran_q(strata)
    differ = heterogeneity is not None and heterogeneity < HETEROGENEITY_LEVEL
    agree = not differ or all(inside(stratum.interval(alpha), margin) for stratum in strata)
    verdict = decide(ci, diff, margin, strata_agree=agree)
    boot = (pivot.interval(alpha), pivot.interval(alpha / 2)) if pivot else None
    boot_verdict = decide(*boot, margin, strata_agree=agree) if boot else None
    objections: tuple[str, ...] = ()
    if boot and boot_verdict != verdict and verdict != "inconclusive":
        objections = (f"the t intervals say {verdict}, the studentised bootstrap says {boot_verdict}",)
    return Judgement(
        estimate=estimate,
        ci=ci,
        diff=diff,
        verdict=verdict,
        objections=objections,
        heterogeneity_p=heterogeneity,
        strata_agree=agree,
        bootstrap_ci=boot[0] if boot else None,
        bootstrap_diff=boot[1] if boot else None,
        bootstrap_verdict=boot_verdict,
        estimate_at=estimate_at,
        limits=limits,
        least_scale=least,
    )
