"""How time grows: with seeds in training, with n in products with the Hessian, with trials in a sweep.

``python -m tests.benchmarks.growth [seeds] [products] [trials]`` measures and prints; exit 1 where what is wanted is
not reached. Slopes are those of log time against log size by least squares over the upper half of the range, where what
does not grow no longer counts; the time at a size is the least of three.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

from landsweep.workers import builtin, execution, training
from landsweep.workers.landscape import Landscape
from tests.benchmarks import orchestration
from tests.benchmarks.contest import ONE_PRIORITY, OURS, process
from tests.benchmarks.training import BATCH, DECAY, LR, MOMENTUM, data
from tests.trained import section

REPEATED = 3
STEPS = 100
SEEDS = [2**k for k in range(4, 13)]
WIDTHS = {100: 1, 1_000: 13, 10_000: 133, 100_000: 1333, 1_000_000: 13333}  # n ≈ 75 · width
TRIALS = [2**k for k in range(13, 18)]


@dataclass(frozen=True)
class Growth:
    """What was measured at each size, what of it counts, and what is wanted of that, at most."""

    name: str
    work: str
    measured: Mapping[int, float]  # size → seconds, or a ratio
    found: float
    wanted: float

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted

    def lines(self) -> list[str]:
        """For people."""
        points = ", ".join(f"{size:,}: {value:.3g}" for size, value in self.measured.items())
        word = "reached" if self.reached else "NOT REACHED"
        return [f"{self.name}: {self.work}", f"    {points}", f"    {self.found:.3g}, wanted ≤ {self.wanted:g}: {word}"]

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self) | {"reached": self.reached}


def slope(measured: Mapping[int, float]) -> float:
    """That of log value against log size by least squares, over the upper half of the sizes.

    >>> round(slope({1: 50.0, 10: 50.0, 100: 100.0, 1000: 1000.0}), 6)
    1.0
    """
    upper = sorted(measured)[len(measured) // 2 :]
    sizes, values = np.log(upper), np.log([measured[size] for size in upper])
    return float(np.polyfit(sizes, values, 1)[0])


def least(action: Callable[[], object]) -> float:
    """Seconds of the fastest of a few repetitions."""
    taken = []
    for _ in range(REPEATED):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def net(width: int) -> Landscape:
    return builtin.SUPERVISED["mlp"](data(8), weight_decay=DECAY, hidden=[width])


def seeds() -> Growth:
    """A few steps of many seeds as one program, on one core."""
    device, landscape = execution.prepare(1), net(25)
    settings = section("sgd", lr=LR, momentum=MOMENTUM, batch_size=BATCH, dtype="float32", steps=STEPS, snapshots=2)
    start = training.initial_parameters(landscape, "key", list(range(SEEDS[-1])), device)

    def train(count: int) -> None:
        h = training.hyperparameters(settings, DECAY, count, device)
        keys = training.Streams.of("key", list(range(count)), device)
        training.train(landscape, settings, start[:count], keys, h)

    train(SEEDS[0])
    measured = {count: least(lambda count=count: train(count)) for count in SEEDS}  # type: ignore[misc]
    work = f"seconds of {STEPS} steps of 64-25-10 against seeds, one core; slope"
    return Growth("growth in seeds", work, measured, slope(measured), 1.05)


def products() -> Growth:
    """A product with the Hessian against a gradient, both of two nets on the full training set."""
    execution.prepare(1)
    measured = {}
    for width in WIDTHS.values():
        landscape = net(width)
        draws = [landscape.init(torch.Generator().manual_seed(seed)).to(torch.float64) for seed in range(2)]
        theta = torch.stack(draws)
        vector = torch.ones_like(theta).unsqueeze(2)
        landscape.gradient(theta), landscape.hvp(theta, vector)
        product, gradient = least(lambda: landscape.hvp(theta, vector)), least(lambda: landscape.gradient(theta))  # noqa: B023
        measured[landscape.dim] = product / gradient
    work = "seconds of a product with the Hessian over those of a gradient, against n; the largest"
    return Growth("growth in n", work, measured, max(measured.values()), 3.0)


def trials() -> Growth:
    """No-op trials through Ray to committed tables, on all cores."""
    measured = {count: count / process(orchestration.MODULE, OURS, count, cores=None)()["rate"] for count in TRIALS}
    work = "seconds of a sweep of no-op trials against their number, all cores; slope"
    return Growth("growth in trials", work, measured, slope(measured), 1.05)


GROWTHS: dict[str, Callable[[], Growth]] = {"seeds": seeds, "products": products, "trials": trials}


def main(names: list[str]) -> int:
    """Print for people, then JSON on the last line."""
    os.environ.update(ONE_PRIORITY)
    found = []
    for name in names or GROWTHS:
        found.append(GROWTHS[name]())
        print("\n".join(found[-1].lines()), flush=True)
    print(json.dumps([growth.as_dict() for growth in found]))
    return 0 if all(growth.reached for growth in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
