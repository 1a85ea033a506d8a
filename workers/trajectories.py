"""The rows of the table trajectories: what is measured at the snapshots of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landsweep.workers import record, streams
from landsweep.workers.classify import ZERO, Classified
from landsweep.workers.krylov.lanczos import lanczos, memory_bytes
from landsweep.workers.landscape import CHUNK_BYTES, Landscape
from landsweep.workers.measure import null_where_not_finite
from landsweep.workers.mode import is_dense
from landsweep.workers.points import Candidates
from landsweep.workers.quadratic import eigh, in_eigenbasis
from landsweep.workers.training import Trained

if TYPE_CHECKING:
    from landsweep.workers.batch import BatchTask, Columns

TOLERANCE = 1e-8  # of Ritz values, relative to ‖H‖
SADDLES = ("saddle", "degenerate_saddle")
Measured = dict[str, Tensor]  # column → (K, B), NaN where not measured


def rows(task: BatchTask, landscape: Landscape, trained: Trained) -> tuple[Columns, Tensor]:
    """The columns that every trajectory has, snapshot after snapshot, and the objectives (K, B)."""
    count, trials = trained.snapshots.shape[:2]
    flat = trained.snapshots.flatten(0, 1)
    parts = [_losses(landscape, part) for part in torch.split(flat, _rows_at_once(landscape, flat))]
    measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    measured["distance"] = (trained.snapshots - trained.initial).norm(dim=2).flatten()
    value = measured["objective"]
    columns: Columns = {
        "trial": [record.trial_id(task.config, seed) for seed in task.seeds] * count,
        "config": [task.config] * (count * trials),
        "seed": list(task.seeds) * count,
        "step": [step for step in trained.steps for _ in range(trials)],
    }
    columns |= {name: null_where_not_finite(tensor) for name, tensor in measured.items()}
    return columns, value.view(count, trials)


def _rows_at_once(landscape: Landscape, thetas: Tensor) -> int:
    """As many as a core's cache nearly holds; no row's values depend on it."""
    return landscape.cached_rows(min(landscape.samples, landscape.chunk_samples)) if thetas.is_cpu else len(thetas)


def _losses(landscape: Landscape, thetas: Tensor) -> Measured:
    """Objective, losses and ‖∇L‖ at each row (B, n). Name → (B,).

    Of a sum of data loss and regulariser the data loss is evaluated once for both, L and the training loss.
    """
    nothing = torch.full_like(thetas[:, 0], torch.nan)
    if landscape.minibatch_loss is not None and landscape.train_loss is not None:
        train, slope = landscape.unregularised().value_and_gradient(thetas)
        value = train + landscape.map(landscape.regulariser, thetas)
        gradient = slope + landscape.weight_decay * thetas
    else:
        value, gradient = landscape.value_and_gradient(thetas)
        train = landscape.map(landscape.train_loss, thetas) if landscape.train_loss else nothing
    test = landscape.map(landscape.test_loss, thetas) if landscape.test_loss else nothing
    return {"objective": value, "train_loss": train, "test_loss": test, "grad_norm": gradient.norm(dim=1)}


def details(
    task: BatchTask, landscape: Landscape, trained: Trained, objectives: Tensor, scale: Tensor,
    found: Candidates, points: Classified | None,
) -> Columns:  # fmt: skip
    """The columns that ``measure.trajectory`` asks for (see :func:`curvature`, :func:`prediction`, :func:`approach`).

    ``objectives`` (K, B) are those at the snapshots, ``scale`` (B,) is ‖H‖₂ at each trial's start, ``found`` and
    ``points`` (None: there is none) are the batch's points. What is not asked for is null.
    """
    settings = task.settings["measure"]
    asked: Sequence[str] = settings.get("trajectory", ())
    measured: Measured = {}
    if "curvature" in asked or "alignment" in asked:
        dense = is_dense(task.settings, landscape.dim)
        both = curvature(landscape, trained, scale) if dense else ends(landscape, trained, settings["lanczos_steps"])
        measured |= {name: values for name, values in both.items() if _group(name) in asked}
    if "prediction" in asked:
        measured |= prediction(landscape, trained, objectives)
    if "approach" in asked and points is not None:
        saddles = [row for row, kind in enumerate(points.kind) if kind in SADDLES]
        measured["saddle_distance"] = approach(trained.snapshots, found.theta[saddles], found.trial[saddles])
    nulls: list[Any] = [None] * objectives.numel()
    columns: Columns = dict.fromkeys(record.TRAJECTORY_DETAILS, nulls)
    columns |= {name: null_where_not_finite(values.flatten()) for name, values in measured.items()}
    columns["index"] = [None if value is None else int(value) for value in columns["index"]]
    return columns


def _group(column: str) -> str:
    """The name in ``measure.trajectory`` that a column of :func:`curvature` belongs to."""
    return "alignment" if column.startswith("aligned_") else "curvature"


def update(trained: Trained) -> Tensor:
    """Δ, the training step taken from each snapshot; NaN for the last, from which none was. (K, B, n)."""
    last = torch.full_like(trained.snapshots[-1:], torch.nan)
    return torch.cat([trained.following - trained.snapshots[:-1], last])


def curvature(landscape: Landscape, trained: Trained, scale: Tensor) -> Measured:
    """λ_min, λ_max, the index, and the shares ‖P_s Δ‖²/‖Δ‖² of the update Δ in three spaces of the Hessian's
    eigenvectors: stable λ > z, unstable λ < −z, centre |λ| ≤ z, with z = 1e-7·max(‖H(θ)‖₂, ‖H‖₂ at the start).

    The names are those of the gradient flow θ' = −g: where λ > 0 it comes nearer to a stationary point. Gradient
    descent moves along the top eigenvectors (Gur-Ari, Roberts & Dyer 2018); near a saddle along the unstable ones.
    """
    parts = [
        _curvature(landscape, theta, step, scale)
        for theta, step in zip(trained.snapshots, update(trained), strict=True)
    ]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def _curvature(landscape: Landscape, theta: Tensor, step: Tensor, scale: Tensor) -> Measured:
    """:func:`curvature` at one snapshot of each trial, (B, n). Column → (B,)."""
    values, vectors, finite = eigh(landscape.hessian(theta))
    zero = (ZERO * torch.maximum(values.abs().amax(1), scale)).unsqueeze(1)
    unstable, stable = values < -zero, values > zero
    square = in_eigenbasis(vectors, step).square()
    columns = {"eig_min": values[:, 0], "eig_max": values[:, -1], "index": unstable.sum(1).to(values)}
    spaces = {"stable": stable, "unstable": unstable, "centre": ~(stable | unstable)}
    columns |= {f"aligned_{name}": (square * space).sum(1) / square.sum(1) for name, space in spaces.items()}
    known = finite & torch.isfinite(theta).all(1)  # a constant Hessian is finite everywhere
    return {name: torch.where(known, column, torch.nan) for name, column in columns.items()}


def ends(landscape: Landscape, trained: Trained, steps: int) -> Measured:
    """λ_min, λ_max by block Lanczos of at most ``steps`` steps, where whole Hessians are not used. Column → (K, B)."""
    count, trials, dim = trained.snapshots.shape
    key = streams.keys("trajectories", [0], "lanczos", trained.snapshots.device)  # the same start everywhere

    def found(theta: Tensor) -> Tensor:
        keys = key.expand(len(theta)).contiguous()
        ritz = lanczos(lambda v: landscape.hvp(theta, v), dim, keys, steps, tolerance=TOLERANCE)
        return torch.where(torch.isfinite(theta).all(1), torch.stack([ritz.lowest, ritz.highest]), torch.nan)

    size = max(1, CHUNK_BYTES // memory_bytes(1, dim, min(steps, dim)))
    parts = [found(theta) for theta in torch.split(trained.snapshots.flatten(0, 1), size)]
    lowest, highest = torch.cat(parts, 1).view(2, count, trials)
    return {"eig_min": lowest, "eig_max": highest}


def prediction(landscape: Landscape, trained: Trained, objectives: Tensor) -> Measured:
    """g·Δ + ½ΔᵀHΔ, the change of L over the training step Δ by Taylor's polynomial of second order, and
    L(θ+Δ) − L(θ), both of the full objective, whatever the step's minibatch was. Column → (K, B)."""
    step = update(trained)[:-1]
    theta, moved = trained.snapshots[:-1].flatten(0, 1), step.flatten(0, 1)
    slope = (landscape.gradient(theta) * moved).sum(1)
    bend = (landscape.hvp(theta, moved.unsqueeze(2)).squeeze(2) * moved).sum(1)
    predicted = (slope + 0.5 * bend).view(step.shape[:2])
    actual = landscape.objective(trained.following.flatten(0, 1)).view(step.shape[:2]) - objectives[:-1]
    last = torch.full_like(objectives[-1:], torch.nan)
    return {"predicted_change": torch.cat([predicted, last]), "actual_change": torch.cat([actual, last])}


def approach(snapshots: Tensor, saddles: Tensor, trial: Tensor) -> Tensor:
    """min_s ‖θ − s‖₂ over the ``saddles`` (S, n) of the snapshot's own trial, ``trial`` (S,) being its row; NaN where
    the trial has none. (K, B).

    The distance is between parameters: a saddle's images under symmetries (permuted units, say) may lie nearer.
    """
    nearest = torch.full_like(snapshots[:, :, 0], torch.inf)
    for k, theta in enumerate(snapshots):
        distance = (theta[trial] - saddles).norm(dim=1)
        nearest[k] = nearest[k].scatter_reduce(0, trial, distance, "amin")
    return torch.where(torch.isfinite(nearest), nearest, torch.nan)
