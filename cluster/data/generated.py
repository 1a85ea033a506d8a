"""Data sets drawn from a known distribution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from landsweep.cluster.data.source import refusal
from landsweep.workers.samples import Array, Samples


def teacher_student(inputs: int, hidden: Sequence[int], classes: int, samples: int, seed: int) -> Samples:
    """x ~ N(0, I); the label is the largest output of a tanh net with weights N(0, 1/fan-in) and no biases.

    Each output is centred over the examples, so that no class is much larger than another. Refused where a class has
    no example.
    """
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, inputs))
    weights = [
        random.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)
        for fan_in, fan_out in pairwise((inputs, *hidden, classes))
    ]
    values = x
    for weight in weights[:-1]:
        values = np.tanh(values @ weight)
    outputs = values @ weights[-1]
    labels = (outputs - outputs.mean(0)).argmax(1)
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        found = f"the teacher of seed {seed} gives class {counts.argmin()} to none of {samples} examples"
        raise refusal("teacher_student", found, "choose another seed, fewer classes or more samples")
    return Samples("teacher_student", x, labels, classes)


def gaussian_mixture(classes: int, dimension: int, separation: float, samples: int, seed: int) -> Samples:
    """x = μ_c + N(0, I), classes c equally often; any two centres μ are ``separation`` apart, at a random rotation.

    Two classes overlap with the Bayes error Φ(−separation/2).
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(samples) % classes)
    centres = simplex(classes, dimension, random) * separation
    return Samples("gaussian_mixture", centres[labels] + random.standard_normal((samples, dimension)), labels, classes)


def simplex(points: int, dimension: int, random: np.random.Generator) -> Array:
    """``points`` ≤ dimension + 1 points about 0, any two at distance 1, randomly rotated. (points, dimension)"""
    corners = (np.eye(points) - 1 / points) / np.sqrt(2)  # at distance 1, in a space of dimension points − 1
    basis = np.linalg.svd(corners)[2][: points - 1]
    rotation, upper = np.linalg.qr(random.standard_normal((dimension, dimension)))
    rotation = rotation * np.sign(np.diag(upper))  # Haar-distributed (Mezzadri 2007)
    placed: Array = corners @ basis.T @ rotation[: points - 1]
    return placed
