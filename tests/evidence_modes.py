"""Measures that execution modes agree, the compiled program and tensor operations: ``python -m tests.evidence_modes``.

Within a mode a seed's result is the same to the bit. Across modes last bits differ, and training magnifies them: what
has to agree is what points are, from equal starts, and how trained nets are distributed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from landsweep.workers import compiled, dense_native, execution, search, streams, symmetry
from landsweep.workers.algebra import Dense
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.training import Streams, hyperparameters, initial_parameters, train
from tests.claims import Measured, measured_claims
from tests.digits import built
from tests.trained import CPU, section

MODES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "compiled": nullcontext,
    "tensor operations": dense_native.tensor_operations,
}
SMALL = {"name": "mlp", "data": "digits", "hidden": [3], "resize": 4, "train_size": 300, "weight_decay": 1e-3}
TWO = {**SMALL, "hidden": [2], "weight_decay": 1e-2}
LARGE = {"name": "mlp", "data": "digits", "hidden": [25], "train_size": 1200, "weight_decay": 1e-3}
TOLERANCE, BUDGET, SEARCH, LEVEL = 1e-8, 200, 500, 0.01  # LEVEL of the two-sample test
Sort = tuple[str, int]  # a point's kind and index; index −1 where it is not critical


def landscape(options: dict[str, Any]) -> Landscape:
    plain = built(options)
    return dataclasses.replace(plain, symmetries=symmetry.checked(plain))


def ends(given: Landscape, seeds: Sequence[int], steps: int) -> Tensor:
    """Of SGD with momentum in float32, as sweeps train. (B, n) float64."""
    settings = section("sgd", lr=0.1, momentum=0.9, batch_size=32, dtype="float32", steps=steps)
    start = initial_parameters(given, "modes", seeds, CPU)
    h = hyperparameters(settings, given.weight_decay, len(seeds), CPU)
    return train(given, settings, start, Streams.of("modes", seeds, CPU), h).final.double()


def sorts(given: Landscape, starts: Tensor, scale: Tensor, descend: bool) -> tuple[list[Sort], Tensor]:
    """What the points are that are polished from the starts, with a descent before that or without, and L there."""
    algebra = Dense()
    outcome = algebra.minima(given, starts, scale, TOLERANCE, BUDGET if descend else 0)
    theta = algebra.polished(given, outcome.theta, TOLERANCE)
    keys = streams.keys("modes", list(range(len(starts))), "classify", CPU)
    found = algebra.classify(given, theta, outcome, scale, keys, TOLERANCE)
    index = torch.where(found.critical, found.signs.index, -1).tolist()
    return list(zip(found.kind, index, strict=True)), given.objective(theta)


def points(minima: int, saddles: int, large: int) -> Measured:
    """Minima and saddles of small nets, minima of larger ones."""
    small, two, big = map(landscape, (SMALL, TWO, LARGE))
    early, spread = ends(two, range(saddles), 60), norms(two, saddles)
    near = search.iterate(LevenbergMarquardt(TOLERANCE), two, early, spread, SEARCH).theta
    cases = {
        "ends of training": (small, ends(small, range(minima), 600), norms(small, minima), True),
        "ends of searches for points of any index": (two, near, spread, False),
        f"ends of training, n = {big.dim:,}": (big, ends(big, range(large), 20_000), norms(big, large), True),
    }
    said, agree, kinds = [], True, Counter[str]()
    for name, case in cases.items():
        found = {}
        for mode, inside in MODES.items():
            with inside():
                found[mode] = sorts(*case)
        (ours, values), (theirs, others) = found.values()
        same, apart = sum(a == b for a, b in zip(ours, theirs, strict=True)), float((values - others).abs().max())
        here = Counter(kind for kind, _ in ours)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(here.items()))
        said.append(f"{name}: {same} of {len(ours)} of the same kind and index ({counts}), L within {apart:.1e}")
        agree, kinds = agree and same == len(ours), kinds + here
    return "; ".join(said), agree and kinds["minimum"] > 0 and kinds["saddle"] > 0


def norms(given: Landscape, count: int) -> Tensor:
    """‖H‖₂ at the start of each seed's training. (count,)."""
    return Dense().norm(given, initial_parameters(given, "modes", range(count), CPU))


def training(seeds: int) -> Measured:
    """Kolmogorov and Smirnov's test between nets trained in one mode and others trained in the other."""
    given, found = landscape(SMALL), {}
    assert given.test_loss is not None
    for first, (mode, inside) in zip((0, seeds), MODES.items(), strict=True):
        with inside():
            theta = ends(given, range(first, first + seeds), 400)
            found[mode] = {"objective": given.objective(theta), "test loss": given.map(given.test_loss, theta)}
    one, two = found.values()
    levels = {name: float(ks_2samp(one[name].numpy(), two[name].numpy()).pvalue) for name in one}
    text = ", ".join(f"p = {level:.2f} for the {name}" for name, level in levels.items())
    return f"{seeds} seeds in each mode: {text}", min(levels.values()) > LEVEL


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "modes_points": (
        "polished and classified from equal starts, points are of the same kind and index in every execution mode",
        lambda: points(minima=256, saddles=128, large=4),
    ),
    "modes_training": (
        "nets trained in one execution mode are distributed as those trained in another (two-sample test)",
        lambda: training(1024),
    ),
}


if __name__ == "__main__":
    execution.prepare(1)
    if compiled.library("dense") is None:
        sys.exit("no C++ compiler: there is one execution mode here")
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
