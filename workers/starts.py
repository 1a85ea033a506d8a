"""Where saddle searches start: snapshots of the trajectory, fresh draws, or noise around snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape
from landsweep.workers.training import Trained

NOISE = (1e-4, 1e-1)  # standard deviations, log-uniform (Dauphin et al. 2014)


@dataclass(frozen=True)
class Starts:
    """Starting points of searches."""

    theta: Tensor  # (P, n)
    trial: Tensor  # (P,) the row of its trial in the batch
    number: list[int]  # k-th of its trial and source
    source: list[str]
    step: list[int | None]  # the training step it was taken from


def searched_trials(seeds: list[int], trials: str | int) -> list[int]:
    """Rows whose trial is searched for saddles: all, or those with seed < ``trials``.

    A rule on the seed alone: what a trial does never depends on which others a sweep asks for.

    >>> searched_trials([3, 4, 5], 5)
    [0, 1]
    """
    return [row for row, seed in enumerate(seeds) if trials == "all" or seed < int(trials)]


def saddle_starts(
    landscape: Landscape, key: str, seeds: list[int], trained: Trained, objectives: Tensor, settings: Mapping[str, Any]
) -> Starts:
    """``per_trial`` starts for every searched trial whose training stayed finite.

    Trajectory snapshots are drawn uniformly in the objective between the trajectory's extremes (the nearest snapshot
    is taken), so that high-lying saddles are looked for as often as low ones. ``objectives`` (K, B).
    """
    sources = settings["starts"]
    sources = [sources] if isinstance(sources, str) else list(sources)
    rows = [row for row in searched_trials(seeds, settings["trials"]) if not bool(trained.diverged[row])]
    thetas, trials, numbers, names, steps = [], [], [], [], []
    for row in rows:
        draws = streams.uniform(streams.keys(key, [seeds[row]], "saddles"), 0, 2 * settings["per_trial"])[0].tolist()
        for number in range(settings["per_trial"]):
            source = sources[number % len(sources)]
            position, spread = draws[2 * number], draws[2 * number + 1]
            stream = f"saddle-{number}"
            if source == "initialisation":
                theta, step = landscape.init(streams.generator(key, seeds[row], stream)).to(trained.initial), None
            else:
                snapshot = _uniform_in_loss(objectives[:, row], position)
                theta, step = trained.snapshots[snapshot, row], trained.steps[snapshot]
            if source == "noise":
                scale = NOISE[0] * (NOISE[1] / NOISE[0]) ** spread
                noise = streams.normal(streams.keys(key, [seeds[row]], stream), 0, landscape.dim)[0]
                theta = theta + scale * noise.to(theta)
            thetas.append(theta)
            trials.append(row)
            numbers.append(number)
            names.append(source)
            steps.append(step)
    empty = trained.initial.new_zeros(0, landscape.dim)
    return Starts(
        torch.stack(thetas) if thetas else empty, torch.tensor(trials, dtype=torch.int64), numbers, names, steps
    )


def _uniform_in_loss(objectives: Tensor, position: float) -> int:
    low, high = float(objectives.min()), float(objectives.max())
    return int((objectives - (low + position * (high - low))).abs().argmin())


def requested_index(negatives: Tensor, keys: Tensor) -> Tensor:
    """The index k asked of each saddle search: log-uniform between 1 and its start's number of negative eigenvalues."""
    most = negatives.clamp_min(1).to(torch.float64)
    draw = streams.uniform(keys, 0, 1)[:, 0]
    return torch.exp(draw * torch.log(most + 1)).floor().clamp_max(most).to(torch.int64)
