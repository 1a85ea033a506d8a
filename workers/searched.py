"""From a batch's trained trials to its candidates, and what each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landsweep.workers import mode, search, streams
from landsweep.workers.algebra import Algebra, Dense, saddle_search
from landsweep.workers.classify import Classified
from landsweep.workers.connected import connected, no_connections
from landsweep.workers.curvature import joined
from landsweep.workers.execution import MINIMUM_ROWS
from landsweep.workers.landscape import Landscape
from landsweep.workers.points import Candidates, places
from landsweep.workers.starts import requested_index, saddle_starts
from landsweep.workers.training import Trained
from landsweep.workers.unmeasured import unmeasured, unsearched

if TYPE_CHECKING:
    from landsweep.workers.batch import BatchTask, Columns


def searched(
    task: BatchTask, landscape: Landscape, algebra: Algebra, key: str, trained: Trained, objectives: Tensor,
    scale: Tensor,
) -> tuple[Candidates, Classified | None, Columns]:  # fmt: skip
    """Candidates of every source, what they are (None: there is none), and the rows of the table connections.

    ``objectives`` (K, B) are those at the snapshots, ``scale`` (B,) is ‖H‖₂ at each trial's start, where it is
    looked at.
    """
    settings, saddles = task.settings["search"], task.settings["search"]["saddles"]
    ended = torch.nonzero(~trained.diverged).flatten()
    if not mode.looks_everywhere(task.settings):
        return (*_as_they_stand(task, landscape, algebra, key, trained, ended), no_connections())
    parts = [_minima(settings, landscape, algebra, trained, ended, scale[ended])]
    if saddles is not None:
        parts.append(_saddles(task, landscape, algebra, key, trained, objectives, scale))
    found = joined(parts)
    if len(found.theta) == 0:
        return found, None, no_connections()
    found = found.at(algebra.polished(landscape, found.theta, settings["tolerance"]))
    points = _classified(task, landscape, algebra, found, scale[found.trial], key)
    if saddles is None or not saddles["connections"] or not isinstance(algebra, Dense):
        return found, points, no_connections()
    ends, columns = connected(task, landscape, found, points, scale)
    if len(ends.theta) == 0:
        return found, points, columns
    return (
        joined([found, ends]),
        joined([points, _classified(task, landscape, algebra, ends, scale[ends.trial], key)]),
        columns,
    )


def _as_they_stand(
    task: BatchTask, landscape: Landscape, algebra: Algebra, key: str, trained: Trained, ended: Tensor
) -> tuple[Candidates, Classified | None]:
    """The rows ``ended`` of the training where it left them, for nothing is searched.

    Hessians are looked at only where the gradient is small enough for a critical point, of a few rows at a time: how
    many there are is not known beforehand.
    """
    settings, theta = task.settings["search"], trained.final[ended]
    if len(ended) == 0:
        return _minima(settings, landscape, algebra, trained, ended, theta.new_zeros(0)), None
    gradient = landscape.gradient(theta)
    far = torch.isfinite(gradient).all(1) & (gradient.norm(dim=1) > settings["tolerance"])
    parts = []
    for rows in torch.split(ended[~far], MINIMUM_ROWS) if not bool(far.all()) else ():
        scale = algebra.norm(landscape, trained.initial[rows])
        found = _minima(settings, landscape, algebra, trained, rows, scale)
        found = found.at(algebra.polished(landscape, found.theta, settings["tolerance"]))
        parts.append((found, _classified(task, landscape, algebra, found, scale, key)))
    if bool(far.any()):
        points = unmeasured(landscape, theta[far], gradient[far], settings["tolerance"])
        parts.append((_ends(trained, ended[far], unsearched(theta[far])), points))
    return joined([found for found, _ in parts]), joined([points for _, points in parts])


def _classified(
    task: BatchTask, landscape: Landscape, algebra: Algebra, found: Candidates, scale: Tensor, key: str
) -> Classified:
    """``scale`` (P,) is ‖H‖₂ at the start of each candidate's trial."""
    draws = [streams.keys(key, [task.seeds[t]], f"point-{s}-{k}") for t, s, k in places(found)]
    keys = torch.cat(draws).to(found.theta.device)
    tolerance = task.settings["search"]["tolerance"]
    return algebra.classify(landscape, found.theta, found.outcome, scale, keys, tolerance)


def _minima(
    settings: Mapping[str, Any], landscape: Landscape, algebra: Algebra, trained: Trained, rows: Tensor, scale: Tensor
) -> Candidates:
    """The ends of training in ``rows``, which are finite, polished; ``scale`` is ‖H‖₂ at their trials' starts."""
    budget = settings["minima_iterations"] if settings["minima"] else 0
    theta, outcome = trained.final[rows], search.Outcome.empty(trained.final[:0])
    if len(rows):
        outcome = algebra.minima(landscape, theta, scale, settings["tolerance"], budget)
    return _ends(trained, rows, outcome)


def _ends(trained: Trained, rows: Tensor, outcome: search.Outcome) -> Candidates:
    """The candidates that came of the ends of training in ``rows``."""
    steps: list[int | None] = [trained.steps[-1]] * len(rows)
    return Candidates(outcome.theta, rows, [0] * len(rows), ["training"] * len(rows), steps, outcome)


def _saddles(
    task: BatchTask, landscape: Landscape, algebra: Algebra, key: str, trained: Trained, objectives: Tensor,
    scale: Tensor,
) -> Candidates:  # fmt: skip
    """Stationary points of any index near the trajectories."""
    settings, seeds = task.settings["search"], list(task.seeds)
    saddles = settings["saddles"]
    starts = saddle_starts(landscape, key, seeds, trained, objectives, saddles)
    rows = starts.trial.to(trained.initial.device)
    outcome = search.Outcome.empty(starts.theta)
    if len(rows):
        negatives = algebra.negatives(landscape, starts.theta, scale[rows])
        pairs = zip(starts.trial.tolist(), starts.number, strict=True)
        draws = torch.cat([streams.keys(key, [seeds[row]], f"index-{number}") for row, number in pairs]).to(rows.device)
        method = algebra.default_method if saddles["method"] == "auto" else saddles["method"]
        finder = saddle_search(method, settings["tolerance"], requested_index(negatives, draws))
        outcome = search.iterate(finder, landscape, starts.theta, scale[rows], saddles["max_iterations"])
    return Candidates(outcome.theta, rows, starts.number, starts.source, starts.step, outcome)
