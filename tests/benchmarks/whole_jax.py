"""The script that one would write with JAX: many seeds of 64-25-10 on the digits, on all cores.

``python -m tests.benchmarks.whole_jax SEEDS STEPS DEVICES`` trains them and prints JSON. The seeds are spread over
DEVICES of the host (``shard_map``), those of a device are one ``vmap`` of a scan over steps, compiled; DEVICES 1 leaves
the cores to XLA's threads. It imports nothing of landsweep, and no torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

TRAIN, BATCH, LR, MOMENTUM, DECAY, HIDDEN = 1200, 128, 0.05, 0.9, 1e-3, 25


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The training images (1200, 64) float32, standardised, and their labels."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:TRAIN]
    chosen = inputs[order]
    spread = chosen.std(0)
    return ((chosen - chosen.mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32), labels[order]


def trainer(x: Any, y: Any, epochs: int) -> Any:
    """key → the objective at the end of training."""
    import jax
    import jax.numpy as jnp

    full = len(y) // BATCH

    def initial(key: Any) -> list[Any]:
        pairs = ((x.shape[1], HIDDEN), (HIDDEN, 10))
        keys = jax.random.split(key)
        drawn = [jax.random.normal(k, pair) * (2 / sum(pair)) ** 0.5 for k, pair in zip(keys, pairs, strict=True)]
        return [drawn[0], jnp.zeros(HIDDEN), drawn[1], jnp.zeros(10)]

    def loss(theta: list[Any], some: Any, classes: Any) -> Any:
        shares = jax.nn.log_softmax(jnp.tanh(some @ theta[0] + theta[1]) @ theta[2] + theta[3])
        chosen = jnp.take_along_axis(shares, classes[:, None], 1)
        return 0.5 * DECAY * sum((part**2).sum() for part in theta) - chosen.mean()

    def step(at: Any, index: Any) -> tuple[Any, None]:
        theta, velocity = at
        gradient = jax.grad(loss)(theta, x[index], y[index])
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
        return (jax.tree.map(lambda t, v: t - LR * v, theta, velocity), velocity), None

    def train(key: Any) -> Any:
        def epoch(at: Any, number: Any) -> tuple[Any, None]:
            order = jax.random.permutation(jax.random.fold_in(key, number), len(y))
            at, _ = jax.lax.scan(step, at, order[: full * BATCH].reshape(full, BATCH))
            return step(at, order[full * BATCH :])

        theta = initial(key)
        (theta, _), _ = jax.lax.scan(epoch, (theta, jax.tree.map(jnp.zeros_like, theta)), jnp.arange(epochs))
        return loss(theta, x, y)

    return train


def main(seeds: int, steps: int, devices: int) -> None:
    if devices > 1:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    x, y = map(jnp.asarray, digits())
    keys = jax.random.split(jax.random.key(0), seeds)
    train = jax.vmap(trainer(x, y, round(steps / -(-TRAIN // BATCH))))
    if devices > 1:
        mesh, spec = jax.make_mesh((devices,), ("seeds",)), PartitionSpec("seeds")
        keys = jax.device_put(keys, NamedSharding(mesh, spec))
        train = jax.shard_map(train, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    begun = time.perf_counter()
    objectives = np.asarray(jax.jit(train)(keys))
    print(
        json.dumps({"objective": float(objectives.mean()), "compiling and training in s": time.perf_counter() - begun})
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
