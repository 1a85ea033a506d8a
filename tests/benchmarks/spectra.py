"""Spectra a second: all eigenvalues of Hessians, the ends of spectra with bounds of the index, spectral densities.

``python -m tests.benchmarks.spectra CONTENDER CONTEST MODELS`` measures one and prints JSON; a rate counts models. The
models are trained for a while on 1,200 standardised digits; training, imports and what is made once a model (a graph of
its gradient, an operator) are not in the rates. Each contender's result is held against a reference, and its process
fails where it is further from it than the contest allows.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landsweep.workers import execution, streams, training
from landsweep.workers.architecture import Architecture
from landsweep.workers.dense_products import dense_products
from landsweep.workers.krylov.density import smoothed, spectral_density
from landsweep.workers.krylov.lanczos import lanczos
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.models.landscapes import model_landscape
from tests.benchmarks.contest import OURS, Contest, process
from tests.digits import digits
from tests.trained import section

MODULE = "tests.benchmarks.spectra"
CPU = torch.device("cpu")
DECAY, TRAINING_STEPS = 1e-3, 300
DENSE, ENDS = (25,), (120, 20)  # hidden units: n = 1,885 and 10,430
DENSE_ERROR, ENDS_ERROR = 1e-10, 1e-6  # of an eigenvalue, over the largest modulus of any
ZERO = 1e-7  # of the largest modulus: eigenvalues below −z count for the index
SIDE, SAMPLES, STEPS, PROBES = 25, 50, 64, 2  # each pixel enlarged to 25×25: n = 1,000,285
WIDTH, DENSITY_ERROR = 0.02, 1e-3  # of the smoothing, over the spectrum's range; ∫|φ − exact|

Found = dict[str, float]


@functools.cache
def landscape(hidden: tuple[int, ...]) -> Landscape:
    """64-…-10 with tanh on the digits."""
    return mlp(digits(), hidden=hidden, weight_decay=DECAY)


def trained(hidden: tuple[int, ...], models: int, steps: int = TRAINING_STEPS) -> Tensor:
    """Models after a few epochs of SGD. (models, n)."""
    settings = section("sgd", lr=0.1, momentum=0.9, batch_size=128, dtype="float32", steps=steps)
    given, seeds = landscape(hidden), list(range(models))
    start = training.initial_parameters(given, "key", seeds, CPU)
    h = training.hyperparameters(settings, DECAY, models, CPU)
    return training.train(given, settings, start, training.Streams.of("key", seeds, CPU), h).final.double()


def module(hidden: tuple[int, ...], theta: Tensor, inputs: int = 64) -> nn.Sequential:
    """The net of ``theta`` (n,) as torch.nn has it, whose parameters are in the same order."""
    widths, layers = (inputs, *hidden, 10), list[nn.Module]()
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, dtype=torch.float64), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    nn.utils.vector_to_parameters(theta, net.parameters())
    return net


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


def accurate(found: Found, allowed: float) -> Found:
    """``found``, whose error is no larger than allowed."""
    if not found["error"] <= allowed:
        raise AssertionError(f"error {found['error']:.2e}, allowed {allowed:.0e}")
    return found


def relative(found: Tensor, reference: Tensor) -> float:
    """max |λ − reference| over the largest |reference|."""
    return float((found - reference).abs().max() / reference.abs().max())


# all eigenvalues ------------------------------------------------------------------------------------------------------


def columns(theta: Tensor) -> Tensor:
    """The Hessian (n, n), a column at a time by double backward."""
    data, net = digits(), module(DENSE, theta)
    parameters = tuple(net.parameters())
    loss = nn.functional.cross_entropy(net(data.train_inputs), data.train_labels)
    gradient = nn.utils.parameters_to_vector(torch.autograd.grad(loss, parameters, create_graph=True))
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in gradient]
    hessian = torch.stack([nn.utils.parameters_to_vector(row) for row in rows])
    hessian.diagonal().add_(DECAY)
    return hessian


def dense_by_landsweep(models: int) -> Found:
    """All Hessians, then all eigenvalues."""
    given, thetas = landscape(DENSE), trained(DENSE, models)
    given.hessian(thetas[:1])
    values, seconds = timed(lambda: torch.linalg.eigvalsh(given.hessian(thetas)))
    error = relative(values[-1], torch.from_numpy(np.linalg.eigvalsh(columns(thetas[-1]).numpy())))
    return accurate({"rate": models / seconds, "error": error}, DENSE_ERROR)


read_once = functools.cache(digits)


def loss(theta: Tensor) -> Tensor:
    """L of 64-25-10 as one writes it in torch."""
    data = read_once()
    first, bias, second, last = theta.split([1600, 25, 250, 10])
    outputs = torch.tanh(data.train_inputs @ first.view(25, 64).T + bias) @ second.view(10, 25).T + last
    return nn.functional.cross_entropy(outputs, data.train_labels) + 0.5 * DECAY * (theta * theta).sum()


def dense_by_torch(models: int) -> Found:
    """torch.func.hessian and torch.linalg.eigvalsh (as fast as numpy's here), one model after another."""
    thetas = trained(DENSE, models)

    def spectra() -> list[Tensor]:
        return [torch.linalg.eigvalsh(torch.func.hessian(loss)(theta)) for theta in thetas]

    values, seconds = timed(spectra)
    error = relative(values[-1], torch.from_numpy(np.linalg.eigvalsh(columns(thetas[-1]).numpy())))
    return accurate({"rate": models / seconds, "error": error}, DENSE_ERROR)


# both ends ------------------------------------------------------------------------------------------------------------


def ends_error(thetas: Tensor, found: Sequence[Tensor]) -> float:
    """The largest of the first two models, against block Lanczos far beyond what is asked for."""
    some, keys = thetas[:2], streams.keys("spectra", [0, 1], "reference", CPU)
    long = lanczos(landscape(ENDS).products(some), some.shape[1], keys, 100, lowest=2, highest=2, tolerance=1e-11)
    if not bool(long.converged.all()):
        raise AssertionError("the reference has not converged")
    references = torch.stack([long.lowest, long.highest], 1)
    return max(relative(one, reference) for one, reference in zip(found, references, strict=False))


def ends_by_landsweep(models: int) -> Found:
    """Lanczos on one model after another, as a batch goes on until its last has converged, with what the Ritz values
    prove of the index by interlacing."""
    given, thetas = landscape(ENDS), trained(ENDS, models)
    keys = streams.keys("spectra", list(range(models)), "ends", CPU)

    def ends(some: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ritz = lanczos(given.products(some), given.dim, theirs, 150, tolerance=ENDS_ERROR, block=1)
        if not bool(ritz.converged.all()):
            raise AssertionError("Lanczos has not converged")
        zero = (ZERO * ritz.norm).unsqueeze(1)
        return torch.stack([ritz.lowest, ritz.highest], 1), (ritz.values < -zero).sum(1), (ritz.values > zero).sum(1)

    given.hvp(thetas[:2], thetas[:2].unsqueeze(2))
    batches = list(zip(thetas.split(1), keys.split(1), strict=True))
    found, seconds = timed(lambda: [ends(some, theirs) for some, theirs in batches])
    values, negative, positive = map(torch.cat, zip(*found, strict=True))
    told = {"index at least": float(negative[0]), "index at most": float(given.dim - positive[0])}
    return accurate({"rate": models / seconds, "error": ends_error(thetas, list(values)), **told}, ENDS_ERROR)


def ends_by_curvlinops(models: int, at_once: bool) -> Found:
    """scipy's eigsh on curvlinops' Hessian, one model after another: which='SA' and which='LA', or both ends
    ``at_once`` by which='BE'. Its tolerance is of residuals, whose squares bound errors: 1e-2 of them suffices."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    data, thetas = digits(), trained(ENDS, models)
    pairs = [(data.train_inputs, data.train_labels)]
    operators = []
    for theta in thetas:
        net = module(ENDS, theta)
        hessian = HessianLinearOperator(
            net, nn.CrossEntropyLoss(), list(net.parameters()), pairs, check_deterministic=False
        )
        operators.append(hessian.to_scipy())

    def ends(operator: LinearOperator) -> Tensor:
        asked = [("BE", 2)] if at_once else [("SA", 1), ("LA", 1)]
        values = [eigsh(operator, k=k, which=which, tol=1e-2, return_eigenvectors=False) for which, k in asked]
        return torch.from_numpy(np.sort(np.concatenate(values))) + DECAY

    operators[0] @ np.ones(thetas.shape[1])
    values, seconds = timed(lambda: [ends(operator) for operator in operators])
    return accurate({"rate": models / seconds, "error": ends_error(thetas, values)}, ENDS_ERROR)


# densities ------------------------------------------------------------------------------------------------------------


def enlarged(images: Tensor) -> Tensor:
    """Each pixel as a square of SIDE×SIDE, of the same norm. (…, 64) → (…, 64·SIDE²)."""
    squares = images.unflatten(-1, (8, 8)).repeat_interleave(SIDE, -1).repeat_interleave(SIDE, -2)
    return squares.flatten(-2) / SIDE


def large(theta: Tensor) -> Tensor:
    """The net that does on enlarged images what 64-25-10 does on the digits. (1885,) → (n,)."""
    return torch.cat([enlarged(theta[:1600].view(25, 64)).flatten(), theta[1600:]])


def density_error(theta: Tensor, nodes: Tensor, weights: Tensor) -> float:
    """∫|φ − exact| of the density that nodes and weights (PROBES, k) estimate.

    Images and weights lie in the span of the 64 orthonormal squares, so that the eigenvalues are those of the small
    net, and zeros.
    """
    data = digits()
    small = mlp(
        dataclasses.replace(data, train_inputs=data.train_inputs[:SAMPLES], train_labels=data.train_labels[:SAMPLES]),
        hidden=DENSE, weight_decay=0.0,
    )  # fmt: skip
    values = torch.linalg.eigvalsh(small.hessian(theta.unsqueeze(0)))[0]
    dim = small.dim + 1600 * (SIDE**2 - 1)
    exact_nodes = torch.cat([values, values.new_zeros(1)])
    exact_weights = torch.cat([torch.full_like(values, 1 / dim), values.new_full((1,), 1 - small.dim / dim)])
    span = values[-1] - values[0]
    width = (WIDTH * span).view(1)
    grid = torch.linspace(float(values[0] - 6 * width), float(values[-1] + 6 * width), 4000, dtype=torch.float64)
    exact = smoothed(exact_nodes.view(1, 1, -1), exact_weights.view(1, 1, -1), grid.unsqueeze(0), width)
    found = smoothed(nodes.unsqueeze(0), weights.unsqueeze(0), grid.unsqueeze(0), width)
    return float((found.mean(1) - exact[:, 0]).abs().sum() * (grid[1] - grid[0]))


def density_by_landsweep(models: int) -> Found:
    """Lanczos quadrature with closed products, all probes at once."""
    data, small = digits(), trained(DENSE, 1)[0]
    network = Architecture((64 * SIDE**2, *DENSE, 10), "tanh")
    split = enlarged(data.train_inputs[:SAMPLES]), data.train_labels[:SAMPLES]
    given = model_landscape(
        "large", network, split, split, loss="cross_entropy", weight_decay=0.0, initialisation="xavier_normal",
        init_scale=1.0, symmetries=[], products=functools.partial(dense_products, network),
    )  # fmt: skip
    apply, keys = given.products(large(small).unsqueeze(0)), streams.keys("spectra", [0], "density", CPU)
    density, seconds = timed(lambda: spectral_density(apply, given.dim, keys, probes=PROBES, steps=STEPS))
    error = density_error(small, density.nodes[0], density.weights[0])
    return accurate({"rate": models / seconds, "error": error}, DENSITY_ERROR)


def density_by_pyhessian(models: int) -> Found:
    """PyHessian 0.1 as published, in float64 and on the CPU; torch.eig, which it calls, is gone from torch: eigh."""
    torch.set_default_dtype(torch.float64)  # of its T, too

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.eig = eig
    from pyhessian import hessian

    torch.manual_seed(0)
    data, small = digits(), trained(DENSE, 1)[0]
    split = enlarged(data.train_inputs[:SAMPLES]), data.train_labels[:SAMPLES]
    given = hessian(module(DENSE, large(small), 64 * SIDE**2), nn.CrossEntropyLoss(), data=split, cuda=False)
    (nodes, weights), seconds = timed(lambda: given.density(iter=STEPS, n_v=PROBES))
    error = density_error(small, torch.tensor(nodes), torch.tensor(weights))
    return accurate({"rate": models / seconds, "error": error}, DENSITY_ERROR)


CONTENDERS: dict[tuple[str, str], Callable[[int], Found]] = {
    (OURS, "dense"): dense_by_landsweep,
    ("torch", "dense"): dense_by_torch,
    (OURS, "ends"): ends_by_landsweep,
    ("curvlinops", "ends"): functools.partial(ends_by_curvlinops, at_once=False),
    ("curvlinops BE", "ends"): functools.partial(ends_by_curvlinops, at_once=True),
    (OURS, "density"): density_by_landsweep,
    ("PyHessian", "density"): density_by_pyhessian,
}


def contests() -> list[Contest]:
    """Rates on one core each."""
    asked = [
        ("dense", 2.0, "all eigenvalues, 64-25-10, n = 1,885", {OURS: 4, "torch": 1}),
        ("ends", 5.0, "λ_min, λ_max, bounds of the index, 64-120-20-10, n = 10,430",
         {OURS: 16, "curvlinops": 2, "curvlinops BE": 2}),
        ("density", 3.0, f"spectral density, n = 1,000,285, {STEPS} steps, {PROBES} probes", {OURS: 1, "PyHessian": 1}),
    ]  # fmt: skip
    found = []
    for name, reach, work, sizes in asked:
        contenders = {who: process(MODULE, who, name, models) for who, models in sizes.items()}
        found.append(Contest(f"spectra {name}", f"{work}, one core", "models/s", reach, contenders))
    return found


if __name__ == "__main__":
    who, contest, models = sys.argv[1:]
    execution.prepare(1)
    print(json.dumps(CONTENDERS[who, contest](int(models))))
