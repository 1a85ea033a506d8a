"""What MLflow is told: the tree of runs of a sweep, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from landsweep.cluster.prepare import Plan
from landsweep.workers import record

FEW_TRIALS = 500  # tracking.trials: auto logs a run per trial up to here
_TRIAL_METRICS = [
    "objective",
    "train_loss",
    "test_loss",
    "gap",
    "train_error",
    "test_error",
    "eig_min",
    "eig_max",
    "grad_norm",
    "polish_distance",
    "test_loss_trained",
]


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run."""

    key: str  # hash(store, sweep, config[, trial]): the same run however often it is sent
    name: str
    parent: str | None  # the parent's key
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)  # file name → content
    failed: bool = False

    @property
    def content(self) -> str:
        """A hash of everything that is sent, to know what a server has already."""
        sizes = {name: record.content_hash(content.hex()) for name, content in self.artifacts.items()}
        return record.content_hash(
            [self.name, dict(self.params), dict(self.metrics), dict(self.tags), sizes, self.failed]
        )


def run_tree(
    planned: Plan,
    points: pd.DataFrame,
    trials: pd.DataFrame,
    verdict: Mapping[str, Any],
    artifacts: Mapping[str, bytes],
    configuration_artifacts: Mapping[str, Mapping[str, bytes]],
) -> list[TrackedRun]:
    """Parent, a child a configuration, and a grandchild a trial where ``tracking.trials`` says so; parents first."""
    sweep, store = planned.sweep, planned.store.uri
    parent = _key(store, sweep.name)
    totals = {
        "trials": float(len(trials)),
        "points": float(len(points)),
        "configurations": float(len(planned.configurations)),
    }
    numbers = ("estimate", "ci_low", "ci_high", "margin", "p_equivalence", "p_difference", "n_global", "n_local")
    metrics = totals | {f"verdict.{name}": verdict.get(name) for name in numbers} | _kinds(points)
    tags = {"landsweep.level": "sweep", "verdict": str(verdict.get("verdict")), "landsweep.version": record.VERSION}
    tags |= {"seeds": f"{sweep.seeds.start}..{sweep.seeds.stop - 1}"}  # a tag: a param could not grow with the sweep
    runs = [TrackedRun(parent, sweep.name, None, {"store": store}, _finite(metrics), tags, artifacts)]
    wanted = sweep.tracking.trials
    per_trial = planned.total <= FEW_TRIALS if wanted == "auto" else bool(wanted)
    by_config = dict(iter(points.groupby("config")))
    trials_by_config = dict(iter(trials.groupby("config")))
    for configuration in planned.configurations:
        mine = by_config.get(configuration.id, points.iloc[:0])
        key = _key(store, sweep.name, configuration.id)
        grid = {name: _text(value) for name, value in configuration.grid.items()} or {"configuration": configuration.id}
        name = record.configuration_label(configuration.grid) or sweep.name
        files = configuration_artifacts.get(configuration.id, {})
        tags = {"landsweep.level": "configuration", "landsweep.config": configuration.id}
        runs.append(TrackedRun(key, name[:200], parent, grid, _finite(_aggregates(mine)), tags, files))
        if per_trial:
            rows = trials_by_config.get(configuration.id, trials.iloc[:0])
            runs += _trial_runs(store, sweep.name, key, grid, rows, mine)
    return runs


def _trial_runs(
    store: str, sweep: str, parent: str, grid: Mapping[str, str], trials: pd.DataFrame, points: pd.DataFrame
) -> list[TrackedRun]:
    trained = points[points["source"] == "training"].set_index("trial") if len(points) else points
    runs = []
    for row in trials.to_dict("records"):
        trial = row["trial"]
        tags = {"landsweep.level": "trial", "landsweep.trial": trial, "status": row["status"]}
        metrics: dict[str, Any] = {"final_objective": row["final_objective"]}
        if trial in trained.index:
            point = trained.loc[trial]
            tags["kind"] = str(point["kind"])
            metrics |= {name: point[name] for name in _TRIAL_METRICS}
        params = {**grid, "seed": str(row["seed"])}
        key = _key(store, sweep, row["config"], trial)
        failed = row["status"] == "failed"
        runs.append(TrackedRun(key, f"seed {row['seed']}", parent, params, _finite(metrics), tags, failed=failed))
    return runs


def _aggregates(points: pd.DataFrame) -> dict[str, Any]:
    """Aggregates over a configuration's points: counts by kind, and statistics of its minima."""
    minima = points[points["kind"].isin(["minimum", "degenerate_minimum"]) & (points["source"] == "training")]
    metrics: dict[str, Any] = _kinds(points)
    for name in ("objective", "train_loss", "test_loss", "gap", "test_error"):
        column = minima[name].astype(float)
        metrics |= {f"{name}.mean": column.mean(), f"{name}.min": column.min(), f"{name}.std": column.std()}
    return metrics


def _kinds(points: pd.DataFrame) -> dict[str, Any]:
    return {f"kind.{kind}": float(count) for kind, count in points["kind"].value_counts().items()}


def _key(*parts: str) -> str:
    return record.content_hash(list(parts))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else record.canonical_json(value)


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Only numbers: MLflow's databases refuse what is null, and a NaN says nothing."""
    numbers = {name: float(value) for name, value in metrics.items() if value is not None and not pd.isna(value)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
