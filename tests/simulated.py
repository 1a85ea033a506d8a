"""Data sets with a known truth: strata of two groups, for the level and the power of a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from landsweep.analysis.equivalence import Estimate, Sample, combine, inside
from landsweep.analysis.judgement import LEAST_GROUP, judge_strata

Array = np.ndarray[Any, np.dtype[np.float64]]
ALPHA = 0.05


def _lognormal(sigma: float) -> Callable[[np.random.Generator, int], Array]:
    mean, spread = math.exp(sigma**2 / 2), math.sqrt((math.exp(sigma**2) - 1) * math.exp(sigma**2))
    return lambda rng, n: (rng.lognormal(0.0, sigma, n) - mean) / spread


#: Standard distributions: mean 0, variance 1.
SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "log-normal 0.5": _lognormal(0.5),
    "log-normal 1": _lognormal(1.0),
    "Student t, 3 degrees": lambda rng, n: rng.standard_t(3, n) / math.sqrt(3),
}


@dataclass(frozen=True)
class Setting:
    """A population of data sets; every configuration has its own offset, spreads and sizes."""

    shape: str
    strata: tuple[int, int]  # configurations, drawn uniformly
    sizes: tuple[int, int]  # trials in the smaller group, drawn uniformly
    ratio: float  # of the larger group to the smaller one: uniform in [1, ratio], either may be the larger
    claimed: bool  # whether the level is claimed here, or measured only
    spread: float = 2.0  # a group's standard deviation: log-uniform in [1/spread, spread]
    worst: bool = (
        False  # instead: local always the smaller group by the ratio, its spread the largest, the other's least
    )

    @property
    def name(self) -> str:
        shape = f"{self.shape}, all against" if self.worst else self.shape
        return f"{shape} | {_range(self.strata)} | {_range(self.sizes)} | {self.ratio:g} | {self.spread**4:g}"


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


@dataclass(frozen=True)
class Drawn:
    """One data set without a difference, and the true standard error of its estimate."""

    samples: list[Sample]
    error: float

    def shifted(self, by: float) -> list[Sample]:
        """The same with a true difference of ``by`` in every configuration."""
        return [Sample(sample.name, sample.local + by, sample.best) for sample in self.samples]


def draw(setting: Setting, rng: np.random.Generator) -> Drawn:
    shape = SHAPES[setting.shape]
    samples, variances = [], []
    for k in range(int(rng.integers(setting.strata[0], setting.strata[1] + 1))):
        small = int(rng.integers(setting.sizes[0], setting.sizes[1] + 1))
        sizes = [small, round(small * rng.uniform(1, setting.ratio))]
        rng.shuffle(sizes)
        spreads = np.exp(rng.uniform(-1, 1, 2) * math.log(setting.spread))
        if setting.worst:
            sizes, spreads = [small, round(small * setting.ratio)], np.array([setting.spread, 1 / setting.spread])
        offset = 10 * rng.standard_normal()
        local, best = (offset + s * shape(rng, n) for s, n in zip(spreads, sizes, strict=True))
        samples.append(Sample(str(k), local, best))
        variances.append(sum(s**2 / n for s, n in zip(spreads, sizes, strict=True)))
    weights = np.array([sample.weight for sample in samples])
    return Drawn(samples, math.sqrt(float(weights**2 @ np.array(variances))) / float(weights.sum()))


def says(wanted: str, samples: list[Sample], margin: float, *, resamples: int, seed: int) -> bool:
    """Whether the verdict on complete samples is ``wanted``, by its rules: t form, bootstrap, Cochran's Q, group sizes.

    The rules can only take a word of the t intervals away, so they are asked only where the t intervals have it.
    """
    if min(sum(len(s.local) for s in samples), sum(len(s.best) for s in samples)) < LEAST_GROUP:
        return False
    if not _intervals_allow(wanted, combine(samples), margin):
        return False
    judged = judge_strata(samples, margin=margin, alpha=ALPHA, resamples=resamples, seed=seed)
    return judged.verdict == wanted and not judged.objections


def _intervals_allow(wanted: str, estimate: Estimate, margin: float) -> bool:
    if wanted == "equivalent":
        return inside(estimate.interval(ALPHA), margin)
    low, high = estimate.interval(ALPHA / 2)
    return low > 0 or high < 0


#: Where the level is claimed, and where it is measured only.
SETTINGS = (
    Setting("normal", (1, 30), (5, 10), 4, True),
    Setting("normal", (1, 30), (5, 5), 1, True),
    Setting("normal", (1, 1), (10, 20), 10, True),
    Setting("normal", (2, 2), (5, 5), 10, True),
    Setting("normal", (30, 30), (5, 40), 10, True),
    Setting("log-normal 0.5", (1, 30), (50, 100), 2, True),
    Setting("log-normal 0.5", (1, 1), (50, 50), 2, True),
    Setting("log-normal 0.5", (30, 30), (50, 50), 2, True),
    Setting("normal", (2, 2), (5, 5), 10, True, worst=True),
    Setting("log-normal 0.5", (1, 1), (50, 50), 2, True, worst=True),
    Setting("log-normal 0.5", (30, 30), (50, 50), 2, True, worst=True),
    Setting("log-normal 0.5", (1, 1), (10, 10), 1, False),
    Setting("log-normal 0.5", (1, 1), (10, 10), 10, False),
    Setting("log-normal 0.5", (1, 30), (5, 10), 4, False),
    Setting("log-normal 0.5", (1, 1), (50, 100), 10, False),
    Setting("log-normal 1", (1, 1), (10, 10), 4, False),
    Setting("log-normal 1", (1, 1), (50, 100), 2, False),
    Setting("log-normal 1", (1, 30), (10, 20), 4, False),
    Setting("log-normal 0.5", (1, 1), (10, 10), 10, False, worst=True),
    Setting("log-normal 1", (1, 1), (10, 10), 10, False, worst=True),
    Setting("log-normal 1", (30, 30), (10, 10), 10, False, worst=True),
    Setting("Student t, 3 degrees", (1, 1), (10, 10), 4, False),
    Setting("Student t, 3 degrees", (1, 30), (10, 20), 4, False),
)


@dataclass(frozen=True)
class Level:
    """Shares of wrong answers at the edge of what each claims."""

    above: float  # ``equivalent`` at a true difference of + margin
    below: float  # ``equivalent`` at a true difference of − margin
    different: float  # ``different`` at 0

    @property
    def largest(self) -> float:
        return max(self.above, self.below, self.different)


def level(setting: Setting, sets: int, resamples: int, seed: int = 0) -> Level:
    """Where errors are likeliest: a margin of 10 standard errors, or one too small to hide a difference."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(3)
    for index in range(sets):
        data = draw(setting, rng)
        margin = 10 * data.error
        edges = [
            ("equivalent", data.shifted(margin), margin),
            ("equivalent", data.shifted(-margin), margin),
            ("different", data.samples, 0.1 * data.error),
        ]
        wrong += [says(*edge, resamples=resamples, seed=index) for edge in edges]
    above, below, different = (wrong / sets).tolist()
    return Level(above, below, different)
