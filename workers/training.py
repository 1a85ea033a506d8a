"""How trials descend: many seeds as one tensor program, with snapshots of their trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from landsweep.workers import optimizers, streams
from landsweep.workers.landscape import Landscape, pad_rows

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SNAPSHOTS = 25


@dataclass(frozen=True)
class Trained:
    """Where the trials of a batch went."""

    initial: Tensor  # (B, n) float64
    final: Tensor  # (B, n) float64, holding NaN or infinity where diverged
    diverged: Tensor  # (B,) bool
    steps: tuple[int, ...]  # (K,) the snapshots' steps; the first is 0, the last the end
    snapshots: Tensor  # (K, B, n) float64


def snapshot_steps(steps: int, count: int = SNAPSHOTS) -> tuple[int, ...]:
    """0, the end, and steps spaced evenly in log(1 + step) between.

    >>> snapshot_steps(100, 5)
    (0, 2, 9, 31, 100)
    """
    if steps == 0:
        return (0,)
    grid = torch.linspace(
        0, float(torch.log1p(torch.tensor(float(steps), dtype=torch.float64))), count, dtype=torch.float64
    )
    return tuple(sorted({round(v) for v in torch.expm1(grid).tolist()}))


def minibatches(order_keys: Tensor, samples: int, size: int, steps: int) -> Iterator[Tensor]:
    """Sample indices of each step, (B, b): a new random order every epoch, the last minibatch of an epoch ragged."""
    epoch, position = -1, samples
    order = order_keys.new_zeros(0)
    for _ in range(steps):
        if position >= samples:
            epoch, position = epoch + 1, 0
            order = streams.permutation(order_keys, epoch, samples)
        yield order[:, position : position + size]
        position += size


def initial_parameters(landscape: Landscape, key: str, seeds: list[int], device: torch.device) -> Tensor:
    """θ₀ of each seed from its own stream. (B, n) float64."""
    draws = [landscape.init(streams.generator(key, seed, "initialisation")) for seed in seeds]
    return torch.stack(draws).to(device=device, dtype=torch.float64)


def train(
    landscape: Landscape,
    settings: Mapping[str, Any],
    initial: Tensor,
    order_keys: Tensor,
    hyperparameters: Mapping[str, Tensor],
) -> Trained:
    """Run ``settings["steps"]`` steps for every trial at once.

    ``initial`` (B, n); ``order_keys`` (B,) drive the data order; ``hyperparameters`` name → (B,). A trial that becomes
    non-finite stays so and never touches the others: no operation mixes rows.
    """
    dtype, steps, rows = DTYPES[settings["dtype"]], settings["steps"], initial.shape[0]
    optimizer, _ = optimizers.build(settings)
    theta = pad_rows(initial).to(dtype)
    keys = pad_rows(order_keys)
    h = {name: pad_rows(value).to(dtype) for name, value in hyperparameters.items()}
    state = optimizer.init(theta)
    wanted = snapshot_steps(steps)
    snapshots = [theta.to(torch.float64)]
    for step, gradient in enumerate(_gradients(landscape, settings, keys, steps)):
        theta, state = optimizer.step(theta, gradient(theta), state, step, h)
        if step + 1 in wanted:
            snapshots.append(theta.to(torch.float64))
    final = snapshots[-1][:rows]
    stacked = torch.stack(snapshots)[:, :rows]
    return Trained(initial, final, ~torch.isfinite(final).all(1), wanted, stacked)


def _gradients(landscape: Landscape, settings: Mapping[str, Any], keys: Tensor, steps: int) -> Iterator[Any]:
    """One function θ (B, n) → ∇ (B, n) a step: of the whole objective, or of that step's minibatches."""
    size = settings["batch_size"]
    if size == "full" or landscape.minibatch_loss is None or size >= landscape.samples:
        full = vmap(grad(landscape.loss))
        for _ in range(steps):
            yield full
        return
    partial = vmap(grad(landscape.minibatch_loss))
    for index in minibatches(keys, landscape.samples, size, steps):
        yield lambda theta, index=index: partial(theta, index)
