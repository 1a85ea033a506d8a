"""Training for tests: a section complete with defaults, trained from given starts, seen at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers import training
from landsweep.workers.checkpoint import NONE, Arrays, Checkpoint
from landsweep.workers.landscape import Landscape
from landsweep.workers.training import Streams, Trained, hyperparameters, train

CPU = torch.device("cpu")


def section(optimizer: str, **options: Any) -> dict[str, Any]:
    """A ``training`` section in float64, as a sweep file gives it."""
    return OPTIMIZERS[optimizer](optimizer=optimizer, **{"dtype": "float64", **options}).model_dump()


def trained(
    landscape: Landscape,
    settings: Mapping[str, Any],
    starts: Tensor,
    h: Mapping[str, Tensor] | None = None,
    checkpoint: Checkpoint = NONE,
) -> Trained:
    """Train from ``starts`` (B, n), with ``h`` in place of the section's; row b has the streams of seed b."""
    seeds = list(range(len(starts)))
    own = hyperparameters(settings, landscape.weight_decay, len(starts), CPU)
    return train(landscape, settings, starts, Streams.of("key", seeds, CPU), {**own, **(h or {})}, checkpoint)


class Witness:
    """A keeper that saves after every step, and forgets nothing."""

    def __init__(self) -> None:
        self.thetas: list[np.ndarray] = []  # each (rows ≥ 2, n)
        self.steps: list[int] = []

    def load(self) -> tuple[int, Arrays] | None:
        return None

    def due(self, ended: bool) -> bool:
        return True

    def save(self, step: int, arrays: Arrays) -> None:
        self.steps.append(step)
        self.thetas.append(arrays["theta"])


def path(landscape: Landscape, settings: Mapping[str, Any], starts: Tensor) -> Tensor:
    """θ after each step, the start among them. (steps + 1, B, n)."""
    witness = Witness()
    with mock.patch.object(training, "AT_ONCE", 1):  # a step at a time
        trained(landscape, settings, starts, checkpoint=Checkpoint(witness))
    after = [torch.from_numpy(theta[: len(starts)]) for theta in witness.thetas]
    return torch.stack([starts, *after])
