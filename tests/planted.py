"""Sweeps with a planted truth, as points tables, and what a verdict on each has to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.verdict import Verdict
from landsweep.workers.record import schema

SPREAD = 0.02  # of the test loss within a group; the margin is 0.02 too, so that each configuration tells on its own
WORSE = 0.05


def cell(
    rng: np.random.Generator, config: str, n_local: int, n_global: int, level: float, effect: float, **grid: Any
) -> pd.DataFrame:
    """One configuration: global minima with test loss ``level``, local ones above them and worse by ``effect``."""
    count = n_local + n_global
    local = rng.permutation(np.arange(count) < n_local)
    frame = pd.DataFrame({name: pd.Series([None] * count, dtype=object) for name in schema("points").names})
    frame = frame.assign(sweep="planted", config=config, seed=range(count), source="training", kind="minimum", **grid)
    frame["trial"] = [f"{config}-{seed}" for seed in range(count)]
    frame["point"] = [f"{trial}-training-0" for trial in frame["trial"]]
    frame["objective"] = np.where(local, 0.1 + rng.uniform(0.05, 0.5, count), 0.1 + rng.uniform(0, 1e-9, count))
    frame["test_loss"] = level + effect * local + SPREAD * rng.standard_normal(count)
    return frame


def _together(cells: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(cells, ignore_index=True)


def worse(rng: np.random.Generator) -> pd.DataFrame:
    sizes = rng.integers(30, 60, (4, 2))
    return _together([cell(rng, f"c{k}", *sizes[k], rng.normal(0.4, 0.1), WORSE) for k in range(4)])


def equal(rng: np.random.Generator) -> pd.DataFrame:
    sizes = rng.integers(30, 60, (4, 2))
    return _together([cell(rng, f"c{k}", *sizes[k], rng.normal(0.4, 0.1), 0.0) for k in range(4)])


def confounded(rng: np.random.Generator) -> pd.DataFrame:
    """Narrow nets end in local minima more often and generalise worse; within a width nothing differs."""
    cells = []
    for k, (width, n_local, level) in enumerate([(10.0, 160, 0.6), (25.0, 100, 0.5), (50.0, 40, 0.4)]):
        cells.append(cell(rng, f"c{k}", n_local, 200 - n_local, level, 0.0, **{"landscape.hidden": width}))
    return _together(cells)


def opposite(rng: np.random.Generator) -> pd.DataFrame:
    return _together([cell(rng, f"c{k}", 60, 60, 0.4, WORSE * (-1) ** k) for k in range(4)])


def lucky(rng: np.random.Generator) -> pd.DataFrame:
    """Over splits nothing differs on average, yet each split favours one side; only one of them was run."""
    return _together([cell(rng, f"c{k}", 60, 60, 0.4, WORSE) for k in range(2)])


def lucky_among(rng: np.random.Generator) -> pd.DataFrame:
    """The same with eight splits in the grid, of which one is lucky: a large effect in it and none in the others."""
    return _together(
        [cell(rng, f"c{k}", 60, 60, 0.4, 0.08 * (k == 0), **{"landscape.split_seed": float(k)}) for k in range(8)]
    )


def naive(points: pd.DataFrame) -> float:
    """The p-value of Welch's test over all minima together, whatever their configuration."""
    from scipy.stats import ttest_ind

    local = points["objective"] > 0.11
    values = points["test_loss"].astype(float)
    return float(ttest_ind(values[local], values[~local], equal_var=False).pvalue)


@dataclass(frozen=True)
class Truth:
    """A sweep and what is right to say about it."""

    text: str
    draw: Callable[[np.random.Generator], pd.DataFrame]
    right: Callable[[Verdict, pd.DataFrame], bool]


TRUTHS = {
    "worse": Truth(
        f"local minima worse by {WORSE}: different, by that much",
        worse,
        lambda found, _: found.verdict == "different" and abs((found.estimate or 0) - WORSE) < 0.015,
    ),
    "equal": Truth("equal: equivalent", equal, lambda found, _: found.verdict == "equivalent"),
    "confounded": Truth(
        "confounded by width: equivalent, where the pooled test says different",
        confounded,
        lambda found, points: found.verdict == "equivalent" and naive(points) < 0.05,
    ),
    "opposite": Truth(
        "opposite effects that cancel: not equivalent, and the reason names it",
        opposite,
        lambda found, _: found.verdict != "equivalent" and (found.heterogeneity_p or 1) < 0.05,
    ),
    "lucky": Truth(
        "one lucky split alone: the result is conditional on it",
        lucky,
        lambda found, _: found.splits == "conditional on one split" and found.splits in found.summary(),
    ),
    "lucky among": Truth(
        "one lucky split of eight: the splits decide, and it makes no difference",
        lucky_among,
        lambda found, _: found.splits.startswith("8 splits decide") and found.verdict == "inconclusive",
    ),
}


def share_right(name: str, draws: int, resamples: int, seed: int = 0) -> float:
    """The share of draws on which the public ``verdict`` is right."""
    from landsweep.analysis.verdict import verdict

    truth, rng, count = TRUTHS[name], np.random.default_rng(seed), 0
    for _ in range(draws):
        points = truth.draw(rng)
        count += truth.right(verdict(points, resamples=resamples), points)
    return count / draws
