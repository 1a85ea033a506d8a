"""Schedules of the learning rate: a factor for each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.optimizers.rule import Hyperparameters


def factor(schedule: Mapping[str, Any], step: int, steps: int) -> float:
    """What the learning rate of ``step`` (of ``steps``, from 0) is multiplied with.

    The first w = ``warmup`` steps rise linearly, (step + 1)/(w + 1). Then ``constant`` is 1, and ``cosine`` is
    f + (1 − f)(1 + cos(π s/S))/2 at the s-th of the S = steps − w steps, f = ``final`` (Loshchilov & Hutter 2017,
    equation 5, without restarts; torch's CosineAnnealingLR with T_max = S).

    >>> [round(factor({"name": "cosine", "warmup": 1, "final": 0.0}, step, 5), 3) for step in range(5)]
    [0.5, 1.0, 0.854, 0.5, 0.146]
    """
    warmup = schedule["warmup"]
    if step < warmup:
        return float((step + 1) / (warmup + 1))
    if schedule["name"] == "constant":
        return 1.0
    final, share = schedule["final"], (step - warmup) / (steps - warmup)
    return float(final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))


def factors(schedule: Mapping[str, Any] | None, some: Iterable[int], steps: int) -> Tensor:
    """:func:`factor` at some steps, 1 without a schedule. (S,) float64."""
    found = [1.0 if schedule is None else factor(schedule, step, steps) for step in some]
    return torch.tensor(found, dtype=torch.float64)


def scheduled(h: Hyperparameters, schedule: Mapping[str, Any] | None, step: int, steps: int) -> Hyperparameters:
    """``h`` at ``step``; without a schedule as it is."""
    return h if schedule is None else {**h, "lr": h["lr"] * factor(schedule, step, steps)}
