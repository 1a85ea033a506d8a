"""Where a training is, as arrays: what a checkpoint keeps and what a resumed training goes on from.

Files, clocks and intervals are the caller's: a :class:`Keeper` says when to save and holds what is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Position:
    """A training after ``step`` steps, all it depends on beside its settings."""

    step: int
    theta: Tensor  # (B, n) in the dtype of training
    state: dict[str, Tensor]  # of the optimiser, each (B, …)
    snapshots: tuple[Tensor, ...]  # each (B, n) float64, those taken so far
    following: tuple[Tensor, ...]  # each (B, n) float64, one step after each snapshot

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of all of it, by name: training goes on in its own tensors."""
        tensors = {"theta": self.theta, **{f"state.{name}": value for name, value in self.state.items()}}
        tensors["snapshots"] = torch.stack(self.snapshots)
        if self.following:
            tensors["following"] = torch.stack(self.following)
        return {name: value.cpu().numpy().copy() for name, value in tensors.items()}


def restored(step: int, arrays: Arrays, begin: Position, wanted: tuple[int, ...]) -> Position | None:
    """The position that ``arrays`` hold, or None where they are not of the training that starts at ``begin``.

    ``wanted`` are the steps of its snapshots. Names, shapes, dtypes and the very start have to agree.
    """
    taken, followed = sum(at <= step for at in wanted), sum(at < step for at in wanted)
    if not 0 < step <= wanted[-1]:
        return None
    shape = begin.theta.shape
    expected = {name: (array.shape, array.dtype) for name, array in begin.arrays().items()}
    expected["snapshots"] = ((taken, *shape), np.dtype(np.float64))
    expected["following"] = ((followed, *shape), np.dtype(np.float64))
    if {name: (array.shape, array.dtype) for name, array in arrays.items()} != expected:
        return None
    tensors = {name: torch.from_numpy(array).to(begin.theta.device) for name, array in arrays.items()}
    if not torch.equal(tensors["snapshots"][0], begin.snapshots[0]):
        return None
    state = {name: tensors[f"state.{name}"] for name in begin.state}
    return Position(step, tensors["theta"], state, tuple(tensors["snapshots"]), tuple(tensors["following"]))


class Keeper(Protocol):
    """Keeps the latest arrays of one training."""

    def load(self) -> tuple[int, Arrays] | None:
        """The step and arrays kept last, None where there are none that can be trusted."""
        ...

    def due(self, ended: bool) -> bool:
        """Whether to save now; ``ended``: after the last step."""
        ...

    def save(self, step: int, arrays: Arrays) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """One training's checkpoint; without a keeper none is kept."""

    keeper: Keeper | None

    def resumed(self, begin: Position, wanted: tuple[int, ...]) -> Position:
        """Where to go on: the kept position, or ``begin``."""
        kept = self.keeper.load() if self.keeper and wanted[-1] > 0 else None
        return (restored(*kept, begin, wanted) if kept else None) or begin

    def offered(self, position: Position, ended: bool) -> None:
        """Save ``position`` where it is time to."""
        if self.keeper and self.keeper.due(ended):
            self.keeper.save(position.step, position.arrays())


NONE = Checkpoint(None)
