"""Training rates: seed·steps a second of many nets at once, momentum SGD on minibatches of 128 digits.

``python -m tests.benchmarks.training CONTENDER MODEL SEEDS STEPS`` measures one and prints JSON. CONTENDER is
landsweep, jax (vmap, jit and scan), torch (one seed after another) or peak (the steps that the core could take if a
step were its matrix products alone, each as fast as large ones); MODEL is one of MODELS. All train the same net on the
same 1,200 standardised images with the same loss, weight decay and learning rate: a new random order every epoch, its
last minibatch ragged. Compilation and imports are not in the rates, nor landsweep's and torch's first steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landsweep.workers import builtin, execution, training
from landsweep.workers.data import Dataset, Options, prepare
from tests.benchmarks.contest import OURS, Contest, process
from tests.benchmarks.whole_jax import BATCH, DECAY, LR, MOMENTUM, TRAIN
from tests.benchmarks.whole_torch import descended
from tests.digits import SAMPLES
from tests.trained import section

CLASSES = 10
MODULE = "tests.benchmarks.training"


@dataclass(frozen=True)
class Model:
    """A net on square images."""

    said: str
    landscape: dict[str, Any]  # as a sweep's section names it
    side: int


MODELS = {
    "mlp": Model("64-25-10", {"name": "mlp", "hidden": [25]}, 8),
    "wide": Model("784-100-10", {"name": "mlp", "hidden": [100]}, 28),
    "cnn": Model("eight 3×3 kernels, 2×2 mean pooling, 10 outputs", {"name": "cnn", "channels": [8]}, 8),
}


def data(side: int) -> Dataset:
    """The digits, or invented images of another side: only time is measured on them."""
    if side == 8:
        return prepare(SAMPLES, Options())
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(TRAIN, side, side, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 10, (TRAIN,), generator=random)
    return Dataset(inputs, labels, inputs[:10], labels[:10], 10)


def arrays(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The training images (N, side, side) float32 and their labels (N,)."""
    found = data(side)
    return found.train_inputs.numpy().astype(np.float32), found.train_labels.numpy()


def by_landsweep(model: Model, seeds: int, steps: int) -> dict[str, float]:
    """One batch of one worker."""
    device = execution.prepare(1)
    options = dict(model.landscape)
    landscape = builtin.SUPERVISED[options.pop("name")](data(model.side), weight_decay=DECAY, **options)
    start = training.initial_parameters(landscape, "key", list(range(seeds)), device)

    def train(count: int) -> Tensor:
        settings = section("sgd", lr=LR, momentum=MOMENTUM, batch_size=BATCH, dtype="float32", steps=count, snapshots=2)
        h = training.hyperparameters(settings, DECAY, seeds, device)
        keys = training.Streams.of("key", list(range(seeds)), device)
        return training.train(landscape, settings, start, keys, h).final

    train(5)
    begun = time.perf_counter()
    final = train(steps)
    seconds = time.perf_counter() - begun
    return {"rate": seeds * steps / seconds, "objective": float(landscape.objective(final).mean())}


def by_jax(model: Model, seeds: int, steps: int) -> dict[str, float]:
    """vmap over seeds of a scan over steps, compiled."""
    import jax
    import jax.numpy as jnp

    inputs, labels = arrays(model.side)
    x, y = jnp.asarray(inputs), jnp.asarray(labels)
    size, full, ragged = model.side**2, len(labels) // BATCH, len(labels) % BATCH

    def xavier(key: Any, *shape: int) -> Any:
        fan = sum(shape) if len(shape) == 2 else (shape[0] + shape[1]) * shape[2] * shape[3]
        return jax.random.normal(key, shape) * (2 / fan) ** 0.5

    def initial(key: Any) -> list[Any]:
        first, second = jax.random.split(key)
        if "channels" in model.landscape:
            pooled = 8 * (model.side // 2) ** 2
            return [xavier(first, 8, 1, 3, 3), jnp.zeros(8), xavier(second, pooled, 10), jnp.zeros(10)]
        (hidden,) = model.landscape["hidden"]
        return [xavier(first, size, hidden), jnp.zeros(hidden), xavier(second, hidden, 10), jnp.zeros(10)]

    def outputs(theta: list[Any], some: Any) -> Any:
        if "channels" not in model.landscape:
            return jnp.tanh(some.reshape(-1, size) @ theta[0] + theta[1]) @ theta[2] + theta[3]
        maps = jax.lax.conv_general_dilated(some[:, None], theta[0], (1, 1), "SAME") + theta[1][:, None, None]
        summed = jax.lax.reduce_window(jnp.tanh(maps), 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return (summed / 4).reshape(len(some), -1) @ theta[2] + theta[3]

    def loss(theta: list[Any], some: Any, classes: Any) -> Any:
        shares = jax.nn.log_softmax(outputs(theta, some))
        chosen = jnp.take_along_axis(shares, classes[:, None], 1)
        return 0.5 * DECAY * sum((part**2).sum() for part in theta) - chosen.mean()

    def step(at: Any, index: Any) -> tuple[Any, None]:
        theta, velocity = at
        gradient = jax.grad(loss)(theta, x[index], y[index])
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
        return (jax.tree.map(lambda t, v: t - LR * v, theta, velocity), velocity), None

    def epoch(key: Any) -> Any:
        def run(at: Any, number: Any) -> tuple[Any, None]:
            order = jax.random.permutation(jax.random.fold_in(key, number), len(labels))
            at, _ = jax.lax.scan(step, at, order[: full * BATCH].reshape(full, BATCH))
            return step(at, order[full * BATCH :])[0] if ragged else at, None

        return run

    def train(key: Any) -> Any:
        theta = initial(key)
        start = (theta, jax.tree.map(jnp.zeros_like, theta))
        (theta, _), _ = jax.lax.scan(epoch(key), start, jnp.arange(epochs))
        return loss(theta, x, y)

    per_epoch = full + bool(ragged)
    epochs = max(1, round(steps / per_epoch))
    keys = jax.random.split(jax.random.key(0), seeds)
    begun = time.perf_counter()
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    compilation = time.perf_counter() - begun
    begun = time.perf_counter()
    objectives = jax.block_until_ready(compiled(keys))
    seconds = time.perf_counter() - begun
    rate = seeds * epochs * per_epoch / seconds
    return {"rate": rate, "objective": float(objectives.mean()), "compilation in s": compilation}


def by_torch(model: Model, seeds: int, steps: int) -> dict[str, float]:
    """One seed after another, torch.nn and torch.optim; ``seeds`` of them."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x, y = map(torch.from_numpy, arrays(model.side))

    def train(seed: int, count: int) -> float:
        torch.manual_seed(seed)
        if "channels" in model.landscape:
            layers = [nn.Unflatten(1, (1, model.side)), nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)]
            net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * (model.side // 2) ** 2, 10))
        else:
            (hidden,) = model.landscape["hidden"]
            net = nn.Sequential(nn.Flatten(), nn.Linear(model.side**2, hidden), nn.Tanh(), nn.Linear(hidden, 10))
        return descended(net, x, y, count)

    train(0, 5)
    begun = time.perf_counter()
    objectives = [train(seed, steps) for seed in range(seeds)]
    return {"rate": seeds * steps / (time.perf_counter() - begun), "objective": float(np.mean(objectives))}


def products(model: Model) -> float:
    """Floating-point operations of the matrix products of a step of one seed, averaged over an epoch whose last
    minibatch is ragged: W₁x and W₂φ, both gradients of weights, and W₂ᵀδ, 2·b·(2dh + 3hc)."""
    (hidden,), inputs, samples = model.landscape["hidden"], model.side**2, len(data(model.side).train_labels)
    return 2 * samples / -(-samples // BATCH) * hidden * (2 * inputs + 3 * CLASSES)


def by_peak(model: Model, seeds: int, steps: int) -> dict[str, float]:
    """Products of large float32 matrices alone: the fastest of some sizes, each timed a few times."""
    torch.set_num_threads(1)
    fastest = 0.0
    for size in (512, 1024, 2048):
        matrix = torch.randn(size, size)
        torch.mm(matrix, matrix)
        for _ in range(3):
            begun = time.perf_counter()
            for _ in range(2**13 // size):
                torch.mm(matrix, matrix)
            fastest = max(fastest, 2**13 // size * 2 * size**3 / (time.perf_counter() - begun))
    return {"rate": fastest / products(model), "GFLOP/s": fastest / 1e9}


CONTENDERS = {OURS: by_landsweep, "jax": by_jax, "torch": by_torch, "peak": by_peak}


def contests() -> list[Contest]:
    """Rates on one core each."""
    found = []
    for name, seeds, steps in (("mlp", 64, 3000), ("mlp", 256, 1000), ("wide", 64, 200), ("cnn", 64, 300)):
        pair = {who: process(MODULE, who, name, seeds, steps) for who in (OURS, "jax")}
        work = f"{MODELS[name].said}, {seeds} seeds, {steps} steps, one core"
        found.append(Contest(f"training {name} {seeds}", work, "seed·steps/s", 1.0, pair))
    near = {who: process(MODULE, who, "wide", 64, 200) for who in (OURS, "peak")}
    work = f"{MODELS['wide'].said}, 64 seeds, 200 steps, against products of large matrices alone, one core"
    found.append(Contest("training wide peak", work, "seed·steps/s", 0.6, near))
    one = {OURS: process(MODULE, OURS, "mlp", 256, 1000), "torch": process(MODULE, "torch", "mlp", 2, 1000)}
    work = "64-25-10, 256 seeds at once, against one seed after another, one core"
    return [*found, Contest("training one by one", work, "seed·steps/s", 40.0, one)]


if __name__ == "__main__":
    contender, model, *numbers = sys.argv[1:]
    if contender == "jax":
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    print(json.dumps(CONTENDERS[contender](MODELS[model], *map(int, numbers))))
