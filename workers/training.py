"""How trials descend: many seeds as one tensor program, with snapshots of their trajectories."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.checkpoint import NONE, Checkpoint, Position
from landsweep.workers.landscape import Descent, Landscape, pad_rows
from landsweep.workers.optimizers import build
from landsweep.workers.optimizers.first_order import SGD
from landsweep.workers.optimizers.rule import Hyperparameters, Optimizer, Step
from landsweep.workers.optimizers.schedules import factors, scheduled

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SNAPSHOTS = 25
#: Multiplications of the steps that are taken without coming back, some seconds of a core: a training can be stopped.
AT_ONCE = 2 * 10**10
Gradient = Callable[[slice, Tensor], Tensor]  # rows, their θ (B, n) → (B, n)


@dataclass(frozen=True)
class Trained:
    """Where the trials of a batch went."""

    initial: Tensor  # (B, n) float64
    final: Tensor  # (B, n) float64, holding NaN or infinity where diverged
    diverged: Tensor  # (B,) bool
    steps: tuple[int, ...]  # (K,) the snapshots' steps; the first is 0, the last the end
    snapshots: Tensor  # (K, B, n) float64
    following: Tensor  # (K − 1, B, n) float64: one step after each snapshot but the last

    def split(self, sizes: list[int]) -> list[Trained]:
        """The first ``sizes[0]`` trials, those that follow, …"""
        parts = zip(
            *(torch.split(tensor, sizes) for tensor in (self.initial, self.final, self.diverged)),
            *(torch.split(tensor, sizes, dim=1) for tensor in (self.snapshots, self.following)),
            strict=True,
        )
        return [
            Trained(initial, final, diverged, self.steps, snapshots, following)
            for initial, final, diverged, snapshots, following in parts
        ]


@dataclass(frozen=True)
class Streams:
    """Keys of what training draws, one a trial."""

    order: Tensor  # (B,) of the mini-batches
    noise: Tensor  # (B,) of the optimiser

    @staticmethod
    def of(key: str, seeds: Sequence[int], device: torch.device, prefix: str = "") -> Streams:
        """The streams of ``seeds``; ``prefix`` tells those of another training of the same trials."""
        order, noise = (streams.keys(key, seeds, prefix + name, device) for name in ("order", "training-noise"))
        return Streams(order, noise)

    @staticmethod
    def cat(parts: Sequence[Streams]) -> Streams:
        """Those of several configurations' trials, one after the other."""
        return Streams(torch.cat([part.order for part in parts]), torch.cat([part.noise for part in parts]))


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


def minibatches(order_keys: Tensor, samples: int, size: int, steps: int, first: int = 0) -> Iterator[Tensor]:
    """Sample indices of the steps from ``first`` on, (B, b): a new random order every epoch, the last minibatch of an
    epoch ragged."""
    per_epoch = -(-samples // size)
    order = order_keys.new_zeros(0)
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == first:
            order = streams.permutation(order_keys, epoch, samples)
        yield order[:, position * size : (position + 1) * size]


def initial_parameters(landscape: Landscape, key: str, seeds: Sequence[int], device: torch.device) -> Tensor:
    """θ₀ of each seed from its own stream. (B, n) float64."""
    draws = [landscape.init(streams.generator(key, seed, "initialisation")) for seed in seeds]
    return torch.stack(draws).to(device=device, dtype=torch.float64)


def hyperparameters(
    settings: Mapping[str, Any], weight_decay: float, trials: int, device: torch.device
) -> dict[str, Tensor]:
    """Those of a ``training`` section and λ of the landscape, the same for each trial. Name → (B,)."""
    values = {**build.hyperparameters(settings), "weight_decay": weight_decay}
    return build.per_trial(values, trials, DTYPES[settings["dtype"]], device)


def train(
    landscape: Landscape,
    settings: Mapping[str, Any],
    initial: Tensor,
    keys: Streams,
    hyperparameters: Hyperparameters,
    checkpoint: Checkpoint = NONE,
) -> Trained:
    """Run ``settings["steps"]`` steps for every trial at once, from the ``checkpoint`` where it holds one.

    ``initial`` (B, n); ``hyperparameters`` name → (B,), those of the rule and ``weight_decay``, λ of the objective that
    descends. Where the landscape lies on a manifold, θ goes back to it after every step. A trial that becomes
    non-finite stays so and never touches the others: no operation mixes rows.
    """
    rows, steps = len(initial), settings["steps"]
    optimizer, wanted = build.optimizer(settings), snapshot_steps(steps, settings.get("snapshots", SNAPSHOTS))
    theta = pad_rows(initial).to(DTYPES[settings["dtype"]])
    begin = Position(0, theta, optimizer.init(theta), (theta.to(torch.float64),), ())
    at = resumed = checkpoint.resumed(begin, wanted)
    for at in _positions(landscape, settings, optimizer, keys, hyperparameters, resumed, wanted):
        checkpoint.offered(at, ended=at.step == steps)
    following = torch.stack(at.following) if at.following else at.snapshots[0].new_zeros(0, *theta.shape)
    snapshots = torch.stack(at.snapshots)[:, :rows]
    return Trained(
        initial, snapshots[-1], ~torch.isfinite(snapshots[-1]).all(1), wanted, snapshots, following[:, :rows]
    )


def _positions(
    landscape: Landscape, settings: Mapping[str, Any], optimizer: Optimizer, keys: Streams, h: Hyperparameters,
    at: Position, wanted: tuple[int, ...],
) -> Iterator[Position]:  # fmt: skip
    """Training as it goes on from ``at``, at each snapshot and after each step from one; θ and the state are those of
    this step until the next."""
    h = {name: pad_rows(value).to(at.theta.dtype) for name, value in h.items()}
    keys = Streams(pad_rows(keys.order), pad_rows(keys.noise))
    snapshots, following = at.snapshots, at.following
    theta, state = at.theta.clone(), {name: value.clone() for name, value in at.state.items()}
    several = _descent(landscape, settings, optimizer, theta)
    if several is not None:
        taken = _several(landscape, settings, several, keys, h, at.step, wanted, state["velocity"])
    else:
        taken = _single(landscape, settings, optimizer, keys, h, at.step, theta, state)
    for step in taken:
        if step - 1 in wanted:
            following = (*following, theta.to(torch.float64, copy=True))
        if step in wanted:
            snapshots = (*snapshots, theta.to(torch.float64, copy=True))
        yield Position(step, theta, state, snapshots, following)


def _descent(
    landscape: Landscape, settings: Mapping[str, Any], optimizer: Optimizer, theta: Tensor
) -> Callable[[Descent], None] | None:
    """What takes several steps at once, where there is such a program for them."""
    minibatches = not _whole(landscape, settings["batch_size"]) and landscape.retraction is None
    if landscape.closed_descent is None or not minibatches or not isinstance(optimizer, SGD):
        return None
    return landscape.closed_descent(theta)


def _several(
    landscape: Landscape, settings: Mapping[str, Any], run: Callable[[Descent], None], keys: Streams,
    h: Hyperparameters, first: int, wanted: tuple[int, ...], velocities: Tensor,
) -> Iterator[int]:  # fmt: skip
    """Take the steps from ``first`` on, several at once; yields how many are done."""
    steps, size, samples = settings["steps"], settings["batch_size"], landscape.samples
    per_epoch, order = -(-samples // size), keys.order.new_zeros(0)
    most = max(1, AT_ONCE // (6 * size * velocities.numel()))
    looks = {*wanted, *(step + 1 for step in wanted)}
    step = first
    while step < steps:
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == first:
            order = streams.permutation(keys.order, epoch, samples)
        last = min(step + most, step - position + per_epoch, *(look for look in looks if look > step))
        rates = h["lr"] * factors(settings.get("schedule"), range(step, last), steps).to(h["lr"]).unsqueeze(1)
        index = order[:, position * size : (position + last - step) * size]
        run(Descent(velocities, index, size, rates, h["momentum"], h["weight_decay"], bool(settings.get("nesterov"))))
        yield (step := last)


def _single(
    landscape: Landscape, settings: Mapping[str, Any], optimizer: Optimizer, keys: Streams, h: Hyperparameters,
    first: int, theta: Tensor, state: dict[str, Tensor],
) -> Iterator[int]:  # fmt: skip
    """Take the steps from ``first`` on, one after the other; yields how many are done."""
    steps, schedule, decay = settings["steps"], settings.get("schedule"), h["weight_decay"].unsqueeze(1)
    groups = _groups(landscape, settings, theta)
    for step, gradient in enumerate(_gradients(landscape, settings, keys.order, decay, first), first):
        now = scheduled(h, schedule, step, steps)
        for rows in groups:
            here = Step(step, _of(now, rows), keys.noise[rows], functools.partial(gradient, rows), landscape)
            part, places = theta[rows], _of(state, rows)
            moved, after = optimizer.step(part, places, here)
            _written(part, landscape.retracted(moved))
            for name, value in after.items():
                _written(places[name], value)
        yield step + 1


def _groups(landscape: Landscape, settings: Mapping[str, Any], theta: Tensor) -> list[slice]:
    """The rows that take a step together: as many as a cache holds, where nothing is gained by more."""
    size, rows = settings["batch_size"], len(theta)
    if landscape.closed_minibatch_gradient and not _whole(landscape, size) and theta.device.type == "cpu":
        rows = landscape.cached_rows(size)
    return [slice(first, first + rows) for first in range(0, len(theta), rows)]


def _written(place: Tensor, value: Tensor) -> None:
    """Put ``value`` where it belongs, unless it was made there."""
    if value is not place:
        place.copy_(value)


def _of(tensors: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in tensors.items()}


def _whole(landscape: Landscape, size: int | str) -> bool:
    """Whether a step takes all samples."""
    return size == "full" or landscape.minibatch_loss is None or int(size) >= landscape.samples


def _gradients(
    landscape: Landscape, settings: Mapping[str, Any], keys: Tensor, decay: Tensor, first: int
) -> Iterator[Gradient]:
    """One function (rows, θ of these rows) → ∇ a step: of the whole objective, or of that step's minibatches.

    The regulariser's λθ, ``decay`` (B, 1) being λ, is added to the data loss's, so that trials of different λ share one
    program.
    """
    size, steps, data = settings["batch_size"], settings["steps"], landscape.unregularised()
    if _whole(landscape, size):
        for _ in range(first, steps):
            yield lambda rows, theta: torch.addcmul(data.gradient(theta), decay[rows], theta)
        return
    for index in minibatches(keys, landscape.samples, size, steps, first):
        yield functools.partial(_on, data, index, decay)


def _on(data: Landscape, index: Tensor, decay: Tensor, rows: slice, theta: Tensor) -> Tensor:
    return data.minibatch_gradient(theta, index[rows]).addcmul_(decay[rows], theta)
