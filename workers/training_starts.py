"""Where training begins: the landscape's initial parameters, given ones, or the end of a training on other labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import training
from landsweep.workers.builtin import SUPERVISED
from landsweep.workers.checkpoint import NONE, Checkpoint
from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
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
    """A ``training`` section without what leaves training as it is: idle options, and how often it is looked at.

    >>> plain({"lr": 0.1, "snapshots": 25, "start": {"kind": "initialisation"}})
    {'lr': 0.1}
    """
    schedule, start = settings.get("schedule"), settings.get("start")
    idle = {"schedule": not schedule or (schedule["name"], schedule["warmup"]) == ("constant", 0)}
    idle["start"] = not start or start["kind"] == "initialisation"
    idle["snapshots"] = True
    return {name: value for name, value in settings.items() if not idle.get(name, False)}


@dataclass(frozen=True)
class Trials:
    """Trials of one configuration, for a program that may hold those of others."""

    settings: Mapping[str, Any]  # the ``training`` section
    weight_decay: float  # λ of the configuration's landscape
    key: str  # of the random streams
    seeds: Sequence[int]
    theta: np.ndarray | None = None  # (B, n) float64, in place of the landscape's initial parameters


def program(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the training program of a configuration depends on: those of equal ones may share it.

    Its hyperparameters are rows of tensors; so is λ of a built-in model, where the rule asks for no more of L than its
    gradient.

    >>> training = {"optimizer": "sgd", "nesterov": False, "lr": 0.1, "momentum": 0.9}
    >>> program({"landscape": {"name": "mlp", "weight_decay": 1e-3}, "training": training})
    {'landscape': {'name': 'mlp'}, 'training': {'optimizer': 'sgd', 'nesterov': False}}
    """
    landscape, given = settings["landscape"], settings["training"]
    descent = plain(given) | {name: given[name] for name in ("snapshots",) if name in given}
    numbers = build.hyperparameter_keys(descent)
    decays = landscape["name"] in SUPERVISED and descent["optimizer"] not in build.LOOK_AT_L
    return {
        "landscape": {name: value for name, value in landscape.items() if not (decays and name == "weight_decay")},
        "training": {name: value for name, value in descent.items() if name not in numbers},
    }


def trained(
    landscape: Landscape,
    settings: Mapping[str, Any],
    key: str,
    seeds: list[int],
    device: torch.device,
    *,
    start: Start | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train ``seeds`` from where the section ``settings`` says; ``key`` is that of their random streams."""
    start = start or Start()
    trials = Trials(settings, landscape.weight_decay, key, seeds, start.theta)
    return together(landscape, [trials], device, start.pretraining, checkpoints)[0]


def together(
    landscape: Landscape,
    several: Sequence[Trials],
    device: torch.device,
    pretraining: Landscape | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[Trained]:
    """Train the trials of several configurations as one tensor program, each to the bits of a program of its own.

    The configurations differ in numbers alone: those that ``optimizers.build`` takes as hyperparameters and λ of the
    ``landscape``, which is that of any of them. ``pretraining`` is the same model on other labels.
    """
    checkpoints, settings = checkpoints or Checkpoints(), several[0].settings
    h = _concatenated([_hyperparameters(trials, device) for trials in several])
    initial = torch.cat([_initial(landscape, trials, device) for trials in several])
    if pretraining is not None:
        before = {**settings, "steps": settings["start"]["steps"], "schedule": None}
        decay = torch.full_like(h["weight_decay"], pretraining.weight_decay)
        keys = Streams.cat([Streams.of(one.key, one.seeds, device, "pretraining-") for one in several])
        kept = checkpoints.pretraining
        initial = training.train(pretraining, before, initial, keys, {**h, "weight_decay": decay}, kept).final
    keys = Streams.cat([Streams.of(one.key, one.seeds, device) for one in several])
    whole = training.train(landscape, settings, initial, keys, h, checkpoints.training)
    return whole.split([len(trials.seeds) for trials in several])


def _hyperparameters(trials: Trials, device: torch.device) -> Hyperparameters:
    return training.hyperparameters(trials.settings, trials.weight_decay, len(trials.seeds), device)


def _concatenated(parts: Sequence[Hyperparameters]) -> Hyperparameters:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _initial(landscape: Landscape, trials: Trials, device: torch.device) -> Tensor:
    """θ₀ before any training; what lies between two points of a manifold is put back on it. (B, n) float64."""
    if trials.theta is None:
        return training.initial_parameters(landscape, trials.key, trials.seeds, device)
    return landscape.retracted(torch.from_numpy(np.array(trials.theta, dtype=np.float64)).to(device))
