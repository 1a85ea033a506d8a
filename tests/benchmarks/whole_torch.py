"""What one would write with PyTorch: one seed after another of 64-25-10 on the digits, alone or as trials of Ray Tune.

``python -m tests.benchmarks.whole_torch SEEDS STEPS`` trains them in a loop, ``… SEEDS STEPS tune`` by Ray Tune, one
trial a seed, and prints JSON: the mean ``objective``, and the ``seconds`` of the trainings (with Tune, of the whole
``fit`` on a Ray that runs already). It imports nothing of landsweep.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch
from torch import nn

from tests.benchmarks.whole_jax import BATCH, DECAY, HIDDEN, LR, MOMENTUM, digits


def trained(x: torch.Tensor, y: torch.Tensor, seed: int, steps: int) -> float:
    """The objective at the end of a training."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10))
    return descended(net, x, y, steps)


def descended(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    """The objective after so many steps of ``net`` from a Xavier start, a new random order every epoch."""
    for parameter in net.parameters():
        nn.init.xavier_normal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    order = iter(())
    for _ in range(steps):
        index = next(order, None)
        if index is None:
            order = iter(torch.randperm(len(x)).split(BATCH))
            index = next(order)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
    square = sum(float((parameter**2).sum()) for parameter in net.parameters())
    return float(nn.functional.cross_entropy(net(x), y)) + 0.5 * DECAY * square


def in_a_loop(seeds: int, steps: int) -> dict[str, float]:
    torch.set_num_threads(1)  # faster than two on matrices of this size
    x, y = map(torch.from_numpy, digits())
    begun = time.perf_counter()
    objectives = [trained(x, y, seed, steps) for seed in range(seeds)]
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


if __name__ == "__main__":
    print(json.dumps((by_tune if sys.argv[3:] == ["tune"] else in_a_loop)(*map(int, sys.argv[1:3]))))
