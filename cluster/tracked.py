"""What MLflow is told: the tree of runs of a sweep, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from landsweep.cluster.files import absolute
from landsweep.cluster.prepare import Plan
from landsweep.workers import record

FEW_TRIALS = 500  # tracking.trials: auto logs a run per trial up to here
FEW_CONFIGURATIONS = 50  # up to here a configuration's run gets its points and plot as artifacts
_AGGREGATED = ["objective", "train_loss", "test_loss", "gap", "test_error"]
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
#: the columns that ``configuration_runs`` reads
POINT_COLUMNS = ["trial", "config", "source", "kind", *_TRIAL_METRICS]
TRIAL_COLUMNS = ["trial", "config", "seed", "status", "attempt", "final_objective"]

Artifacts = Mapping[str, bytes]  # file name → content


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run."""

    key: str  # hash(store, sweep, config[, trial]): the same run however often it is sent
    name: str
    parent: str | None  # the parent's key
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    status: str = "FINISHED"  # or FAILED, RUNNING

    @property
    def content(self) -> str:
        """A hash of everything that is sent, to know what a server has already."""
        sizes = {name: record.content_hash(content.hex()) for name, content in self.artifacts.items()}
        return record.content_hash(
            [self.name, dict(self.params), dict(self.metrics), dict(self.tags), sizes, self.status]
        )


@dataclass(frozen=True)
class TrackedSweep:
    """What the runs of a sweep need of its plan; JSON can hold it."""

    name: str
    location: str  # <store>/<name>
    store: str
    seeds: tuple[int, int]  # first, behind the last
    grids: Mapping[str, Mapping[str, Any]]  # configuration → grid key → value
    per_trial: bool  # a run a trial

    @classmethod
    def of(cls, planned: Plan) -> TrackedSweep:
        sweep, wanted = planned.sweep, planned.sweep.tracking.trials
        per_trial = planned.total <= FEW_TRIALS if wanted == "auto" else bool(wanted)
        grids = {configuration.id: dict(configuration.grid) for configuration in planned.configurations}
        seeds = (sweep.seeds.start, sweep.seeds.stop)
        return cls(sweep.name, planned.store.uri, sweep.store, seeds, grids, per_trial)

    def key(self, *parts: str) -> str:
        """The key of the sweep's run, or with a configuration, or a configuration and a trial, of theirs."""
        return record.content_hash([absolute(self.location), self.name, *parts])


def begun(sweep: TrackedSweep, sweep_text: str) -> TrackedRun:
    """The sweep's run while it runs."""
    files, params = {"sweep.yaml": sweep_text.encode()}, {"store": absolute(sweep.location)}
    return TrackedRun(sweep.key(), sweep.name, None, params, {}, _sweep_tags(sweep), files, "RUNNING")


def ended(
    sweep: TrackedSweep, kinds: Mapping[str, int], trials: int, verdict: Mapping[str, Any], artifacts: Artifacts
) -> TrackedRun:
    """The sweep's run with its totals, verdict and artifacts. ``kinds``: points by kind."""
    numbers = ("estimate", "ci_low", "ci_high", "margin", "p_equivalence", "p_difference", "n_global", "n_local")
    metrics: dict[str, Any] = {"trials": trials, "points": sum(kinds.values()), "configurations": len(sweep.grids)}
    metrics |= {f"kind.{kind}": count for kind, count in kinds.items()}
    metrics |= {f"verdict.{name}": verdict.get(name) for name in numbers}
    tags = _sweep_tags(sweep) | {"verdict": str(verdict.get("verdict"))}
    params = {"store": absolute(sweep.location)}
    return TrackedRun(sweep.key(), sweep.name, None, params, _finite(metrics), tags, artifacts)


def _sweep_tags(sweep: TrackedSweep) -> dict[str, str]:
    first, stop = sweep.seeds  # a tag: a param could not grow with the sweep
    return {"landsweep.level": "sweep", "landsweep.version": record.VERSION, "seeds": f"{first}..{stop - 1}"}


def configuration_runs(
    sweep: TrackedSweep,
    configs: Iterable[str],
    points: pd.DataFrame,
    trials: pd.DataFrame,
    artifacts: Mapping[str, Artifacts],
) -> list[TrackedRun]:
    """A run for each of ``configs`` and, where the sweep wants them, for its trials; parents first.

    ``points`` has POINT_COLUMNS and ``trials`` TRIAL_COLUMNS of these configurations.
    """
    last = _latest(trials)
    aggregates, points_of = _aggregates(points, last), dict(iter(points.groupby("config")))
    trials_of = dict(iter(last.groupby("config"))) if sweep.per_trial else {}
    runs = []
    for config in configs:
        values = sweep.grids[config]
        key, grid = sweep.key(config), {name: _text(value) for name, value in values.items()}
        name = record.configuration_label(values) or sweep.name
        tags = {"landsweep.level": "configuration", "landsweep.config": config}
        metrics, files = _finite(aggregates.get(config, {})), artifacts.get(config, {})
        params = grid or {"configuration": config}
        runs.append(TrackedRun(key, name[:200], sweep.key(), params, metrics, tags, files))
        if config in trials_of:
            runs += _trial_runs(sweep, key, params, trials_of[config], points_of.get(config, points.iloc[:0]))
    return runs


def _trial_runs(
    sweep: TrackedSweep, parent: str, grid: Mapping[str, str], trials: pd.DataFrame, points: pd.DataFrame
) -> list[TrackedRun]:
    trained = points[points["source"] == "training"].set_index("trial")
    runs = []
    for row in trials.sort_values("seed").to_dict("records"):
        trial = row["trial"]
        tags = {"landsweep.level": "trial", "landsweep.trial": trial, "status": row["status"]}
        metrics: dict[str, Any] = {"final_objective": row["final_objective"]}
        if trial in trained.index:
            point = trained.loc[trial]
            tags["kind"] = str(point["kind"])
            metrics |= {name: point[name] for name in _TRIAL_METRICS}
        params, status = {**grid, "seed": str(row["seed"])}, "FAILED" if row["status"] == "failed" else "FINISHED"
        key = sweep.key(row["config"], trial)
        runs.append(TrackedRun(key, f"seed {row['seed']}", parent, params, _finite(metrics), tags, status=status))
    return runs


def _aggregates(points: pd.DataFrame, trials: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Configuration → its trials, its points by kind, and statistics of its minima at the end of training."""
    ends = trials.assign(failed=trials["status"] == "failed").groupby("config")
    sums = ends.agg(trials=("trial", "size"), failed=("failed", "sum"), final_objective=("final_objective", "mean"))
    found: dict[str, dict[str, Any]] = {
        config: {"trials": row.trials, "failed": row.failed, "final_objective.mean": row.final_objective}
        for config, row in zip(sums.index, sums.itertuples(index=False), strict=True)
    }
    counts = points.groupby(["config", "kind"]).size().reset_index(name="count")
    for config, kind, count in counts.itertuples(index=False):
        found.setdefault(config, {})[f"kind.{kind}"] = count
    minima = points[points["kind"].isin(["minimum", "degenerate_minimum"]) & (points["source"] == "training")]
    figures = minima.groupby("config")[_AGGREGATED].agg(["mean", "min", "std"])
    names = [".".join(column) for column in figures.columns]
    for config, values in zip(figures.index, figures.to_numpy(float), strict=True):
        found[config] |= dict(zip(names, values, strict=True))
    return found


def _latest(trials: pd.DataFrame) -> pd.DataFrame:
    """Of a trial that was tried again its highest attempt."""
    return trials.sort_values("attempt", kind="stable").drop_duplicates("trial", keep="last")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else record.canonical_json(value)


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Only numbers: MLflow's databases refuse what is null, and a NaN says nothing."""
    numbers = {name: float(value) for name, value in metrics.items() if value is not None and not pd.isna(value)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
