"""Autoencoders: nets that are trained to give back their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.activations import ACTIVATIONS, KINKED, LINEAR
from landsweep.workers.architecture import dense, dense_blocks, layers_of
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import CHUNK_BYTES, Field, Landscape
from landsweep.workers.models import symmetries
from landsweep.workers.models.initialisation import Block
from landsweep.workers.models.landscapes import model_landscape
from landsweep.workers.models.network import Network, Weights
from landsweep.workers.models.two_layer_hessian import TwoLayerHessian


@dataclass(frozen=True)
class Autoencoder(Network):
    """z = W_{2k} φ(… φ(W_1 x + b_1) …) + b_{2k}, widths d, h_1, …, h_k, …, h_1, d.

    θ holds W_1, b_1, …, as the perceptron does; where ``tied``, the decoder's W_{2k+1−l} = W_lᵀ are not in it.
    """

    widths: tuple[int, ...]  # of the encoder: inputs, hidden …, code
    activation: str
    tied: bool
    bias: bool

    @property
    def depth(self) -> int:
        """k, the encoder's layers of weights."""
        return len(self.widths) - 1

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        whole = dense_blocks((*self.widths, *self.widths[-2::-1]), self.bias)
        mirrored = {f"W{layer}" for layer in range(self.depth + 1, 2 * self.depth + 1)} if self.tied else set()
        return tuple(block for block in whole if block.name not in mirrored)

    def complete(self, weights: Weights) -> Weights:
        """With the decoder's weights, where they are tied."""
        mirrored = range(1, self.depth + 1) if self.tied else ()
        return {**weights, **{f"W{2 * self.depth + 1 - layer}": weights[f"W{layer}"].mT for layer in mirrored}}

    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        return dense(self.complete(weights), inputs, 2 * self.depth, self.activation)


def _symmetries(network: Autoencoder, inputs: Tensor, weight_decay: float) -> list[Field]:
    """Without φ, GL of every hidden layer (of a tied code its rotations) and constants that the next bias takes back;
    with relu the scale of every hidden unit (of a tied code none); and weights that only meet zeros, in a decoder of
    their own. Weight decay leaves rotations.
    """
    fields = _groups(network, weight_decay > 0) if network.activation == LINEAR else []
    if weight_decay > 0:
        return fields
    if network.activation == LINEAR and network.bias:
        fields += _translations(network)
    if network.activation in KINKED:
        fields += _rescalings(network) if network.tied else symmetries.relu_rescaling(network, 2 * network.depth)
    if not network.tied:
        fields += symmetries.dead_inputs(network, "W1", symmetries.always_zero(inputs))
    return fields


def _groups(network: Autoencoder, rotations: bool) -> list[Field]:
    code, widths = network.depth, network.widths
    if not network.tied:
        hidden = [*widths[1:], *widths[-2:0:-1]]
        return [
            one
            for layer, width in enumerate(hidden, start=1)
            for one in symmetries.linear_group(network, layer, width, rotations)
        ]
    fields = symmetries.linear_group(network, code, widths[code], True)
    for layer in range(1, code):
        mirrored = f"b{2 * code - layer}"
        fields += symmetries.linear_group(network, layer, widths[layer], rotations, mirrored)
    return fields


def _translations(network: Autoencoder) -> list[Field]:
    """Hidden units without φ that move by a constant: b_l ↦ e_k, b_{l+1} ↦ −W_{l+1}e_k."""

    def moved(layer: int, unit: int) -> Callable[[Weights], Weights]:
        def tangent(weights: Weights) -> Weights:
            shift = torch.zeros_like(weights[f"b{layer}"])
            shift[unit] = 1.0
            return {f"b{layer}": shift, f"b{layer + 1}": -network.complete(weights)[f"W{layer + 1}"][:, unit]}

        return tangent

    hidden = [*network.widths[1:], *network.widths[-2:0:-1]]
    places = [(layer, unit) for layer, width in enumerate(hidden, start=1) for unit in range(width)]
    return [symmetries.field(network, moved(*place)) for place in places]


def _rescalings(network: Autoencoder) -> list[Field]:
    """Of tied weights, below the code: a unit's incoming weights and bias grow as its outgoing ones and the bias of the
    unit that mirrors it shrink."""
    fields = []
    for layer, width in enumerate(network.widths[1:-1], start=1):
        for unit in range(width):
            signs = [(f"W{layer}", unit, 1), (f"W{layer + 1}", (slice(None), unit), -1)]
            biases = [(f"b{layer}", unit, 1), (f"b{2 * network.depth - layer}", unit, -1)] if network.bias else []
            fields.append(symmetries.scaling(network, [*signs, *biases]))
    return fields


def _closed(network: Autoencoder, inputs: Tensor, loss: str, weight_decay: float) -> dict[str, Any]:
    """The Hessian in closed form, where there is one for the net and what it keeps and holds fits memory."""
    if network.tied or network.depth > 1 or network.activation not in ACTIVATIONS or loss != "mse":
        return {}
    inside = network.widths[1]
    hessian = TwoLayerHessian(inputs, inputs, inside, network.activation, network.bias, weight_decay)
    if max(hessian.kept, hessian.temporaries) > CHUNK_BYTES:
        return {}
    return {"closed_hessian": hessian, "hessian_bytes": hessian.temporaries + hessian.kept}


def autoencoder(
    dataset: Dataset,
    *,
    hidden: Sequence[int],
    tied: bool = False,
    activation: str = "tanh",
    bias: bool = True,
    loss: str = "mse",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of an autoencoder, mean (z − x)² over samples and inputs; labels are not used.

    ``hidden`` are the encoder's widths, the last that of the code; the decoder mirrors them.
    """
    inputs, test_inputs = dataset.train_inputs.flatten(1), dataset.test_inputs.flatten(1)
    network = Autoencoder((inputs.shape[1], *hidden), activation, tied, bias)
    return model_landscape(
        "autoencoder", network, (inputs, inputs), (test_inputs, test_inputs),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=_symmetries(network, inputs, weight_decay),
        layers=layers_of(lambda theta: network.complete(network.split(theta)), 2 * network.depth),
        **_closed(network, inputs, loss, weight_decay),
    )  # fmt: skip
