"""What one would write with PyTorch: one seed after another of 64-25-10 on the digits, alone or as trials of Ray Tune.

``python -m tests.benchmarks.whole_torch HOW SEEDS STEPS`` trains them and prints JSON: the mean ``objective``, and the
``seconds`` of the trainings (with Tune, of the whole ``fit`` on a Ray that runs already). HOW is torch (a loop over
seeds, minibatches cut from tensors by index, which is as fast as it gets), loader (the same by a shuffling
``DataLoader``, as most scripts have it) or tune (Ray Tune, one trial a seed). It imports nothing of landsweep.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.whole_jax import BATCH, DECAY, HIDDEN, LR, MOMENTUM, digits

Minibatches = Iterator[tuple[torch.Tensor, torch.Tensor]]
Batching = Callable[[torch.Tensor, torch.Tensor], Minibatches]  # (inputs, labels) → minibatches without end


def by_index(x: torch.Tensor, y: torch.Tensor) -> Minibatches:
    """A new random order every epoch, cut from the tensors."""
    while True:
        for index in torch.randperm(len(x)).split(BATCH):
            yield x[index], y[index]


def by_loader(x: torch.Tensor, y: torch.Tensor) -> Minibatches:
    """A new random order every epoch, by a DataLoader in this process."""
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    while True:
        yield from loader


def trained(x: torch.Tensor, y: torch.Tensor, seed: int, steps: int, batching: Batching = by_index) -> float:
    """The objective at the end of a training."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10))
    return descended(net, x, y, steps, batching)


def descended(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, batching: Batching = by_index) -> float:
    """The objective after so many steps of ``net`` from a Xavier start."""
    for parameter in net.parameters():
        nn.init.xavier_normal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    for inputs, labels in itertools.islice(batching(x, y), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    with torch.no_grad():
        square = sum(float((parameter**2).sum()) for parameter in net.parameters())
        return float(nn.functional.cross_entropy(net(x), y)) + 0.5 * DECAY * square


def in_a_loop(batching: Batching, seeds: int, steps: int) -> dict[str, float]:
    torch.set_num_threads(1)  # faster than two on matrices of this size
    x, y = map(torch.from_numpy, digits())
    begun = time.perf_counter()
    objectives = [trained(x, y, seed, steps, batching) for seed in range(seeds)]
    return {"objective": sum(objectives) / seeds, "seconds": time.perf_counter() - begun}


def by_tune(seeds: int, steps: int) -> dict[str, float]:
    """One trial a seed, workers kept from trial to trial, no checkpoints."""
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    import ray
    from ray import tune

    data = tuple(map(torch.from_numpy, digits()))

    def trainable(config: dict[str, Any], data: tuple[torch.Tensor, torch.Tensor]) -> None:
        torch.set_num_threads(1)
        tune.report({"objective": trained(*data, config["seed"], steps)})

    ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, data=data), {"cpu": 1}),
            param_space={"seed": tune.grid_search(list(range(seeds)))},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        begun = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - begun
    ray.shutdown()
    if len(results) != seeds or results.errors:
        raise RuntimeError(f"{len(results)} of {seeds} trials, errors: {results.errors[:1]}")
    return {"objective": sum(result.metrics["objective"] for result in results) / seeds, "seconds": seconds}


HOW: dict[str, Callable[[int, int], dict[str, float]]] = {
    "torch": functools.partial(in_a_loop, by_index),
    "loader": functools.partial(in_a_loop, by_loader),
    "tune": by_tune,
}


if __name__ == "__main__":
    print(json.dumps(HOW[sys.argv[1]](*map(int, sys.argv[2:4]))))
