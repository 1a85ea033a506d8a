"""From candidates to the rows of the points table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landsweep.workers import measure, record, streams
from landsweep.workers.classify import Classified
from landsweep.workers.escape import escape_times
from landsweep.workers.landscape import Landscape
from landsweep.workers.measures.included import measured
from landsweep.workers.search import Outcome
from landsweep.workers.training import Trained

if TYPE_CHECKING:
    from landsweep.workers.batch import BatchTask, Columns

ESCAPE = "escape_time"  # the measure that needs a saddle's lowest mode
ESCAPED = 1e-2, (1e-5,)  # radius that counts as away, distance of the start, in units of θ
EXTREMES = 32  # eigenvalues kept in the column ``spectrum``


@dataclass(frozen=True)
class Candidates:
    """Where searches ended, and where they came from."""

    theta: Tensor  # (P, n)
    trial: Tensor  # (P,) the row of its trial in the batch
    number: list[int]
    source: list[str]
    step: list[int | None]
    outcome: Outcome

    def at(self, theta: Tensor) -> Candidates:
        """The same, moved."""
        return dataclasses.replace(self, theta=theta)


def point_columns(
    task: BatchTask, landscape: Landscape, key: str, found: Candidates, points: Classified | None, trained: Trained
) -> tuple[Columns, Columns, Tensor]:
    """Columns of ``points`` and ``spectra``, and the parameters (P, n), ordered by seed, source and number.

    Trials whose training diverged have one row, kind ``diverged``, and no parameters. ``points`` is None where nothing
    was found.
    """
    rows = [] if points is None else _rows(task, landscape, key, found, points, trained)
    for trial in torch.nonzero(trained.diverged).flatten().tolist():
        reason = f"training became non-finite within {trained.steps[-1]} steps"
        rows.append({"trial": trial, "source": "training", "number": 0, "step": trained.steps[-1],
                     "kind": "diverged", "reason": reason, "certified": False})  # fmt: skip
    sources = record.SOURCES
    order = sorted(
        range(len(rows)), key=lambda i: (rows[i]["trial"], sources.index(rows[i]["source"]), rows[i]["number"])
    )
    ordered = [rows[i] for i in order]
    kept = [i for i in order if i < len(found.theta)]
    positions = iter(range(len(kept)))
    for place, row in zip(order, ordered, strict=True):
        _identify(row, task, next(positions) if place < len(found.theta) else None)
    spectra = {
        name: [r[name] for r in ordered if r.get("eigenvalues")] for name in ("point", "config", "seed", "eigenvalues")
    }
    names = [field.name for field in record.schema("points")] + list(task.grid)
    return {name: [r.get(name) for r in ordered] for name in names}, spectra, found.theta[kept]


def places(found: Candidates) -> zip[tuple[int, str, int]]:
    """Each candidate's trial (row in the batch), source and number."""
    return zip(found.trial.tolist(), found.source, found.number, strict=True)


def _identify(row: dict[str, Any], task: BatchTask, position: int | None) -> None:
    """Ids and grid values; ``trial`` turns from a row number into the trial's id."""
    seed = task.seeds[row["trial"]]
    point = point_id(task, row["trial"], row["source"], row["number"])
    trial = record.trial_id(task.config, seed)
    row |= {"sweep": task.sweep, "config": task.config, "batch": task.batch, "seed": seed, "trial": trial}
    row |= {"point": point, "parameters_row": position, **task.grid}


def point_id(task: BatchTask, trial: int, source: str, number: int) -> str:
    """``<trial>-<source>-<k>``; ``trial`` is its row in the batch."""
    return f"{record.trial_id(task.config, task.seeds[trial])}-{source}-{number}"


def _rows(
    task: BatchTask, landscape: Landscape, key: str, found: Candidates, points: Classified, trained: Trained
) -> list[dict[str, Any]]:
    """One dictionary a candidate, in the candidates' order."""
    settings = task.settings["measure"]
    draws = [streams.keys(key, [task.seeds[t]], f"measure-{s}-{k}", found.theta.device) for t, s, k in places(found)]
    include = list(settings.get("include", ()))
    columns = measured(landscape, found.theta, torch.cat(draws), [name for name in include if name != ESCAPE])
    if ESCAPE in include:
        columns |= _escape_times(landscape, found.theta, points)
    columns |= _losses(landscape, found.theta)
    columns |= _training_columns(landscape, found, trained)
    columns |= _curvature(points, settings)
    columns["kink_distance"] = measure.optional(landscape, landscape.kink_distance, found.theta)
    columns["param_norm"] = found.theta.norm(dim=1)
    columns["init_distance"] = (found.theta - trained.initial[found.trial]).norm(dim=1)
    prints = measure.fingerprints(landscape, found.theta, points.signs.index, points.signs.n_zero)
    curvature, critical = points.curvature, points.critical.tolist()
    lists = {name: measure.null_where_not_finite(tensor) for name, tensor in columns.items()}
    radius = measure.null_where_not_finite(points.certificates.radius)
    known = landscape.known_class
    rows = []
    for i, (trial, source, number) in enumerate(places(found)):
        row: dict[str, Any] = {"trial": trial, "source": source, "number": number, "step": found.step[i]}
        row |= {"kind": points.kind[i], "reason": points.reason[i]}
        row |= {name: column[i] for name, column in lists.items()}
        row["certified"] = points.certificates.certified[i] and critical[i]
        if critical[i]:
            row |= {
                name: int(getattr(points.signs, name)[i])
                for name in ("index", "n_positive", "n_zero", "n_undetermined")
            }
            row |= {"n_symmetry": int(curvature.n_symmetry[i]), "certificate": points.certificates.certificate[i]}
            row |= {"radius": radius[i], "fingerprint": prints[i].tolist()}
            of = known(found.theta[i]) if known else None
            row["known_class"] = of.name if of else None
        if source == "training":
            row["same_basin"] = bool(columns["same_basin"][i])
        if settings["spectrum"] != "none" and bool(curvature.finite[i]):
            values = curvature.eigenvalues[i].tolist()
            row |= {"eigenvalues": values if curvature.whole else None, "spectrum": extremes(values)}
        rows.append(row)
    return rows


def _escape_times(landscape: Landscape, theta: Tensor, points: Classified) -> dict[str, Tensor]:
    """The gradient flow's time from 1e-5 along a saddle's lowest mode to 1e-2 away, and ln(1000)/|λ_min|."""
    names = "escape_time", "escape_time_predicted"
    columns = {name: torch.full_like(theta[:, 0], torch.nan) for name in names}
    saddles = [row for row, kind in enumerate(points.kind) if kind == "saddle"]
    if not saddles or not points.curvature.whole:
        return columns
    rows = torch.tensor(saddles, dtype=torch.int64, device=theta.device)
    lowest = points.curvature.eigenvalues[rows, 0]
    times = escape_times(landscape, theta[rows], points.curvature.lowest[rows], lowest, *ESCAPED)
    columns["escape_time"][rows], columns["escape_time_predicted"][rows] = times.measured[:, 0], times.predicted[:, 0]
    return columns


def extremes(values: list[float]) -> list[float]:
    """At most 32 of the ascending ``values``: the lowest and highest 16.

    >>> len(extremes([float(i) for i in range(40)]))
    32
    """
    half = EXTREMES // 2
    return values if len(values) <= EXTREMES else values[:half] + values[-half:]


def _losses(landscape: Landscape, theta: Tensor) -> dict[str, Tensor]:
    train, test = (measure.optional(landscape, f, theta) for f in (landscape.train_loss, landscape.test_loss))
    train_error, test_error = (
        measure.optional(landscape, f, theta) for f in (landscape.train_error, landscape.test_error)
    )
    return {
        "objective": landscape.objective(theta),
        "train_loss": train,
        "test_loss": test,
        "gap": test - train,
        "train_error": train_error,
        "test_error": test_error,
        "error_gap": test_error - train_error,
    }


def _training_columns(landscape: Landscape, found: Candidates, trained: Trained) -> dict[str, Tensor]:
    """What only the points polished from the end of training have; NaN for the others."""
    nothing = torch.full_like(found.theta[:, 0], torch.nan)
    columns = {
        name: nothing.clone() for name in ("test_loss_trained", "test_error_trained", "polish_distance", "same_basin")
    }
    rows = torch.tensor(
        [i for i, s in enumerate(found.source) if s == "training"], dtype=torch.int64, device=found.trial.device
    )
    if len(rows):
        ends = trained.final[found.trial[rows]]
        columns["test_loss_trained"][rows] = measure.optional(landscape, landscape.test_loss, ends)
        columns["test_error_trained"][rows] = measure.optional(landscape, landscape.test_error, ends)
        columns["polish_distance"][rows] = (found.theta[rows] - ends).norm(dim=1)
        columns["same_basin"][rows] = measure.same_basin(landscape, ends, found.theta[rows]).to(nothing)
    return columns


def _curvature(points: Classified, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    curvature = points.curvature
    columns = {"grad_norm": curvature.gradient_norm, "newton_step": curvature.newton_length}
    if settings["spectrum"] == "none":
        return columns
    return columns | {
        "eig_min": curvature.eigenvalues[:, 0],
        "eig_max": curvature.eigenvalues[:, -1],
        "trace": curvature.trace,
        "trace_error": curvature.trace_error,
        "frobenius": curvature.frobenius,
        "zero_tolerance": points.zero_tolerance,
        "eig_error": points.error,
    }
