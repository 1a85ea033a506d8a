"""Limited-memory BFGS with steps of a given length, as an optimiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.lbfgs import two_loop
from landsweep.workers.optimizers.rule import State, Step

CURVATURE = 1e-10  # a pair with s·y at most this is not kept (torch.optim.LBFGS)


@dataclass(frozen=True)
class LBFGS:
    """θ ← θ − η H g, H the BFGS matrix of the last ``history`` pairs (Nocedal 1980; Liu & Nocedal 1989).

    No line search: the updates are those of ``torch.optim.LBFGS(lr, max_iter=1, history_size)``; the first step is
    −min(1, 1/‖g‖₁) η g. torch's stopping rules are left out.
    """

    history: int
    names: tuple[str, ...] = ("lr",)

    def init(self, theta: Tensor) -> State:
        pairs = theta.new_zeros(len(theta), self.history, theta.shape[1])
        zero = torch.zeros_like(theta)
        return {"gradient": zero, "move": zero, "steps": pairs, "changes": pairs, "inverses": pairs[:, :, 0]}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        gradient = at.gradient(theta)
        if at.number == 0:
            shortened = (1 / gradient.abs().sum(1, keepdim=True)).clamp_max(1.0)
            move = -shortened * at.of("lr") * gradient
            return theta + move, {**state, "gradient": gradient, "move": move}
        pairs = _remembered(state, gradient)
        unit = torch.ones_like(theta[:, 0])
        wanted = two_loop(gradient, pairs["steps"], pairs["changes"], pairs["inverses"], unit)
        move = -at.of("lr") * wanted
        return theta + move, {**pairs, "gradient": gradient, "move": move}


def _remembered(state: State, gradient: Tensor) -> State:
    """With the pair s = the last move, y = g − the last g, in the rows where its curvature is positive."""
    change = gradient - state["gradient"]
    product = (change * state["move"]).sum(1)
    keep = product > CURVATURE
    pair = keep[:, None, None]
    inverse = torch.where(keep, 1 / product, 0.0).unsqueeze(1)
    return {
        "steps": torch.where(pair, _appended(state["steps"], state["move"].unsqueeze(1)), state["steps"]),
        "changes": torch.where(pair, _appended(state["changes"], change.unsqueeze(1)), state["changes"]),
        "inverses": torch.where(keep.unsqueeze(1), _appended(state["inverses"], inverse), state["inverses"]),
    }


def _appended(pairs: Tensor, newest: Tensor) -> Tensor:
    """Without the oldest, with the newest at the end. (B, m, …)."""
    return torch.cat([pairs[:, 1:], newest], 1)
