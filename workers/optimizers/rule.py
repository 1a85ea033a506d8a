"""What an optimiser is: functions on many trials at once, init → state, step → (parameters, state)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape

State = dict[str, Tensor]  # name → (B, …): rows first, so that a trial's state is its own
Hyperparameters = Mapping[str, Tensor]  # name → (B,): trials with different values share one program


@dataclass(frozen=True)
class Step:
    """What an optimiser may ask of one step of training."""

    number: int  # from 0
    h: Hyperparameters  # of this step: the schedule is in them
    keys: Tensor  # (B,) int64 of each trial's noise
    gradient: Callable[[Tensor], Tensor]  # (B, n) → (B, n): of the whole objective or of this step's mini-batches
    landscape: Landscape  # L on the full training set, for rules that need more than a gradient

    def of(self, name: str) -> Tensor:
        """A hyperparameter as a column. (B, 1)."""
        return self.h[name].unsqueeze(1)

    def normal(self, theta: Tensor) -> Tensor:
        """Standard normal noise shaped as θ: a function of each trial's key and the step's number. (B, n)."""
        dim = theta.shape[1]
        return streams.normal(self.keys, self.number * dim, dim).to(theta)


class Optimizer(Protocol):
    """One update rule. No operation mixes rows. ``step`` may work in place, on the θ and the state that it is given."""

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters it takes."""
        ...

    def init(self, theta: Tensor) -> State: ...

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]: ...
