"""Stationary points of the landscapes of matrix products, constructed by NumPy alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]


def conditioned(random: np.random.Generator, size: int) -> Matrix:
    """A random invertible matrix with singular values between e^(−½) and e^(½)."""
    left, _, right = np.linalg.svd(random.normal(size=(size, size)))
    scaled: Matrix = left * np.exp(random.uniform(-0.5, 0.5, size)) @ right
    return scaled


def stacked(layers: Sequence[Matrix]) -> Tensor:
    return torch.from_numpy(np.concatenate([layer.ravel() for layer in layers]))


def on_the_orbit(layers: list[Matrix], random: np.random.Generator) -> Tensor:
    """θ of the layers after a random change of basis at every hidden one."""
    moved = list(layers)
    for place in range(len(layers) - 1):
        basis = conditioned(random, len(layers[place]))
        moved[place], moved[place + 1] = basis @ moved[place], moved[place + 1] @ np.linalg.inv(basis)
    return stacked(moved)


def autoencoder_point(k: int, p: int, chosen: Sequence[int], random: np.random.Generator) -> Tensor:
    """W₁ = C[e_i for i in chosen; 0], W₂ = W₁'s transpose with C⁻¹."""
    first = np.zeros((p, k))
    first[range(len(chosen)), chosen] = 1.0
    return on_the_orbit([first, first.T], random)


def factorisation_point(
    values: Sequence[float], rank: int, chosen: Sequence[int], random: np.random.Generator
) -> Tensor:
    """U = [√μ_i e_i for i in chosen, 0]Q with Q orthogonal."""
    factor = np.zeros((len(values), rank))
    factor[chosen, range(len(chosen))] = np.sqrt(np.array(values)[list(chosen)])
    return torch.from_numpy((factor @ np.linalg.qr(random.normal(size=(rank, rank)))[0]).ravel())


def deep_point(widths: Sequence[int], chosen: Sequence[int], random: np.random.Generator) -> Tensor:
    """A random stationary point with product Σ_{i∈chosen} s_i e_i e_iᵀ, s = (…, 2, 1).

    Beside the chosen directions, which pass through all layers, paths run through some of the layers: the inputs and
    outputs that they connect to are disjoint, those from a direction of Y end two layers before the output, those to
    one begin two layers after the input.
    """
    depth, q = len(widths) - 1, len(chosen)
    rank, share = min(widths[0], widths[-1]), random.random()
    layers = [np.zeros((above, below)) for below, above in itertools.pairwise(widths)]
    for channel, direction in enumerate(chosen):
        places = [direction, *[channel] * (depth - 1), direction]
        for layer, (below, above) in enumerate(itertools.pairwise(places)):
            layers[layer][above, below] = rank - direction if layer == 0 else 1.0
    free = [direction for direction in range(max(widths)) if direction not in chosen]
    random.shuffle(free)
    is_input = random.random(len(free)) < 0.5
    sources = [d for d, side in zip(free, is_input, strict=True) if side and d < widths[0]]
    sinks = [d for d, side in zip(free, is_input, strict=True) if not side and d < widths[-1]]
    begun: dict[int, int] = {}  # channel of the layer above: the layer where its path began; 0 for a direction of Y
    for layer in range(depth):
        before, begun = begun, {}
        if layer == 0:
            candidates = [(d, 0 if d < rank else -1) for d in sources]
        else:
            candidates = [(c, before.get(c, layer)) for c in range(q, widths[layer])]
        targets = sinks if layer == depth - 1 else list(range(q, widths[layer + 1]))
        for channel, start in candidates:
            if not targets or random.random() > share or (start == 0 and layer >= depth - 2):
                continue
            target = int(random.choice(targets))
            if layer == depth - 1 and (start < 0 or (start < 2 and target < rank)):
                continue
            targets.remove(target)
            layers[layer][target, channel] = random.uniform(0.5, 2)
            begun[target] = start
    return on_the_orbit(layers, random)


def whole(widths: Sequence[int]) -> list[float]:
    """Singular values …, 2, 1."""
    return [float(value) for value in range(min(widths[0], widths[-1]), 0, -1)]


def subsets(size: int, largest: int) -> list[tuple[int, ...]]:
    return [chosen for q in range(largest + 1) for chosen in itertools.combinations(range(size), q)]
