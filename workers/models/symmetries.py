"""Continuous symmetries of the models, as tangent fields that are affine in θ.

Weight decay λ‖θ‖²/2 leaves those that keep ‖θ‖: the rotations of linear layers. ``symmetry.checked`` tests each field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.landscape import Field
from landsweep.workers.models.network import Network, Weights

Index = Any  # of a tensor; ... is all of it
Sign = tuple[str, Index, int]  # block, its entries, ±1


def field(network: Network, tangent: Callable[[Weights], Weights]) -> Field:
    """θ ↦ the tangent (n,) with the blocks that ``tangent`` gives, 0 elsewhere."""

    def evaluate(theta: Tensor) -> Tensor:
        given = tangent(network.split(theta))
        zero = {block.name: theta.new_zeros(block.size) for block in network.blocks if block.name not in given}
        pieces = [zero[b.name] if b.name in zero else given[b.name].reshape(-1) for b in network.blocks]
        return torch.cat(pieces) + 0.0 * theta  # a function of θ, even where it is constant

    return evaluate


def constant(network: Network, name: str, index: Index) -> Field:
    """The direction that has 1 at ``index`` of one block, whatever θ is."""

    def tangent(weights: Weights) -> Weights:
        unit = weights[name].new_zeros(weights[name].shape)
        unit[index] = 1.0
        return {name: unit}

    return field(network, tangent)


def scaling(network: Network, signs: Sequence[Sign]) -> Field:
    """θ ↦ s∘θ, s being the sum of ``signs`` on the entries that they name, 0 elsewhere."""

    def tangent(weights: Weights) -> Weights:
        factors = {name: weights[name].new_zeros(weights[name].shape) for name, _, _ in signs}
        for name, index, sign in signs:
            factors[name][index] += sign
        return {name: factor * weights[name] for name, factor in factors.items()}

    return field(network, tangent)


def softmax_shift(network: Network, weight: str, bias: str | None) -> list[Field]:
    """log-softmax does not change when all logits of a sample move alike: each column of the last layer's weight
    (classes, in), and its bias. in + 1 fields."""
    shape = next(block.shape for block in network.blocks if block.name == weight)
    fields = [constant(network, weight, (slice(None), column)) for column in range(shape[1])]
    return [*fields, constant(network, bias, slice(None))] if bias else fields


def dead_inputs(network: Network, weight: str, dead: Tensor) -> list[Field]:
    """The entries of ``weight`` (out, *in) whose input is 0 for every training sample: ``dead`` (*in,) bool."""
    units = next(block.shape[0] for block in network.blocks if block.name == weight)
    places = torch.nonzero(dead).tolist()
    return [constant(network, weight, (unit, *place)) for place, unit in product(places, range(units))]


def always_zero(inputs: Tensor) -> Tensor:
    """Which inputs are 0 for every sample. (N, *shape) → (*shape,) bool."""
    return (inputs == 0).all(0)


def relu_rescaling(network: Network, layers: int) -> list[Field]:
    """φ(αa) = αφ(a) for α > 0: a hidden unit's incoming weights and bias grow as its outgoing ones shrink.

    One field for each unit of W1, …, W(layers − 1), fully connected (Dinh, Pascanu, Bengio & Bengio 2017).
    """
    shapes = {block.name: block.shape for block in network.blocks}
    fields = []
    for layer in range(1, layers):
        for unit in range(shapes[f"W{layer}"][0]):
            incoming = [(name, unit, 1) for name in (f"W{layer}", f"b{layer}") if name in shapes]
            fields.append(scaling(network, [*incoming, (f"W{layer + 1}", (slice(None), unit), -1)]))
    return fields


def linear_group(network: Network, layer: int, width: int, rotations: bool, mirrored: str = "") -> list[Field]:
    """GL(width) of hidden units without φ: W_l ↦ EW_l, b_l ↦ Eb_l, W_{l+1} ↦ −W_{l+1}E.

    E runs over the unit matrices, width² fields; with ``rotations`` over the antisymmetric ones, width(width − 1)/2,
    which keep ‖θ‖. Where a net has the transposes of its weights too, the bias ``mirrored`` ↦ −Eᵀ·mirrored.
    """
    entries = combinations(range(width), 2) if rotations else product(range(width), repeat=2)
    fields = []
    for row, column in entries:
        generator = torch.zeros(width, width, dtype=torch.float64)
        generator[row, column] = 1.0
        generator = generator - generator.mT if rotations else generator
        fields.append(field(network, _generated(layer, generator, mirrored)))
    return fields


def _generated(layer: int, generator: Tensor, mirrored: str) -> Callable[[Weights], Weights]:
    below, above, bias = f"W{layer}", f"W{layer + 1}", f"b{layer}"

    def tangent(weights: Weights) -> Weights:
        matrix = generator.to(dtype=weights[below].dtype, device=weights[below].device)
        moved = {below: matrix @ weights[below]}
        if above in weights:
            moved[above] = -(weights[above] @ matrix)
        if bias in weights:
            moved[bias] = (matrix * weights[bias]).sum(1)
        if mirrored in weights:
            moved[mirrored] = -(matrix.mT * weights[mirrored]).sum(1)
        return moved

    return tangent
