"""Where training begins: the landscape's initial parameters, given ones, or the end of a training on other labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import training
from landsweep.workers.checkpoint import NONE, Checkpoint
from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers.rule import Hyperparameters
from landsweep.workers.training import Streams, Trained


@dataclass(frozen=True)
class Start:
    """What takes the place of the landscape's initial parameters; nothing where both are None."""

    theta: np.ndarray | None = None  # (B, n) float64, one row a trial
    pretraining: Landscape | None = None  # the same model on other labels


@dataclass(frozen=True)
class Checkpoints:
    """Of the two trainings that a trial may have."""

    pretraining: Checkpoint = NONE
    training: Checkpoint = NONE


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A ``training`` section without the options that leave training as it is without them.

    >>> plain({"lr": 0.1, "start": {"kind": "initialisation"}})
    {'lr': 0.1}
    """
    schedule, start = settings.get("schedule"), settings.get("start")
    idle = {"schedule": not schedule or (schedule["name"], schedule["warmup"]) == ("constant", 0)}
    idle["start"] = not start or start["kind"] == "initialisation"
    return {name: value for name, value in settings.items() if not idle.get(name, False)}


def trained(
    landscape: Landscape,
    settings: Mapping[str, Any],
    key: str,
    seeds: list[int],
    device: torch.device,
    *,
    hyperparameters: Hyperparameters | None = None,
    start: Start | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train ``seeds`` from where the section ``settings`` says; ``key`` is that of their random streams.

    ``hyperparameters`` (name → (B,)) replace those of the section.
    """
    start, checkpoints = start or Start(), checkpoints or Checkpoints()
    h = hyperparameters or training.hyperparameters(settings, len(seeds), device)
    initial = _initial(landscape, key, seeds, device, start)
    if start.pretraining is not None:
        before = {**settings, "steps": settings["start"]["steps"], "schedule": None}
        keys = Streams.of(key, seeds, device, "pretraining-")
        initial = training.train(start.pretraining, before, initial, keys, h, checkpoints.pretraining).final
    return training.train(landscape, settings, initial, Streams.of(key, seeds, device), h, checkpoints.training)


def _initial(landscape: Landscape, key: str, seeds: list[int], device: torch.device, start: Start) -> Tensor:
    """θ₀ before any training; what lies between two points of a manifold is put back on it. (B, n) float64."""
    if start.theta is None:
        return training.initial_parameters(landscape, key, seeds, device)
    return landscape.retracted(torch.from_numpy(np.array(start.theta, dtype=np.float64)).to(device))
