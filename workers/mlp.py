"""The landscape of a multilayer perceptron on a classification set, with its symmetries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.activations import ACTIVATIONS, KINKED
from landsweep.workers.architecture import Architecture, layers_of
from landsweep.workers.data import Dataset
from landsweep.workers.dense_forms import closed_forms
from landsweep.workers.landscape import CHUNK_BYTES, Field, Landscape
from landsweep.workers.mlp_hessian import MlpHessian
from landsweep.workers.models import symmetries
from landsweep.workers.models.landscapes import model_landscape

#: What one Hessian may hold while samples are summed; where all of them hold more, they are taken in parts.
PART_BYTES = 2 * CHUNK_BYTES


def _symmetries(network: Architecture, inputs: Tensor, loss: str) -> list[Field]:
    """Without weight decay: weights on inputs that are always 0, the softmax shift, with relu each unit's scale."""
    fields = symmetries.dead_inputs(network, "W1", symmetries.always_zero(inputs))
    if loss == "cross_entropy":
        last = network.depth
        fields += symmetries.softmax_shift(network, f"W{last}", f"b{last}" if network.bias else None)
    return fields + symmetries.relu_rescaling(network, network.depth) if network.activation in KINKED else fields


def _closed(network: Architecture, inputs: Tensor, labels: Tensor, loss: str, weight_decay: float) -> dict[str, Any]:
    """The Hessian in closed form, where φ is smooth; without biases it is that part of the Hessian with biases 0."""
    if network.activation not in ACTIVATIONS:
        return {}
    whole = replace(network, bias=True)
    count = -(-MlpHessian(whole, inputs, labels, loss, weight_decay).temporaries // PART_BYTES)
    pairs = zip(*(torch.split(tensor, -(-len(inputs) // count)) for tensor in (inputs, labels)), strict=True)
    parts = [MlpHessian(whole, some, theirs, loss, weight_decay) for some, theirs in pairs]
    hessian = parts[0] if count == 1 else _weighted(parts)
    closed = hessian if network.bias else _of_weights(whole, hessian)
    return {"closed_hessian": closed, "hessian_bytes": parts[0].temporaries + (count > 1) * 8 * whole.dim**2}


def _weighted(parts: Sequence[MlpHessian]) -> Callable[[Tensor], Tensor]:
    """The mean of the Hessians on parts of the samples, each weighted by its share of them."""
    samples = sum(len(part.inputs) for part in parts)

    def evaluate(thetas: Tensor) -> Tensor:
        total = thetas.new_zeros(len(thetas), thetas.shape[1], thetas.shape[1])
        for part in parts:
            total.add_(part(thetas), alpha=len(part.inputs) / samples)
        return total

    return evaluate


def _of_weights(whole: Architecture, hessian: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``hessian`` of a net with biases, at biases 0, its rows and columns of weights alone."""
    is_weight = torch.cat([torch.full((block.size,), block.constant is None) for block in whole.blocks])
    kept = torch.nonzero(is_weight).flatten()

    def evaluate(thetas: Tensor) -> Tensor:
        place = kept.to(thetas.device)
        padded = thetas.new_zeros(len(thetas), whole.dim).index_copy(1, place, thetas)
        return hessian(padded)[:, place][:, :, place]

    return evaluate


def mlp(
    dataset: Dataset,
    *,
    hidden: Sequence[int],
    activation: str = "tanh",
    bias: bool = True,
    loss: str = "cross_entropy",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of a multilayer perceptron on a classification set, each input read as a row of numbers."""
    inputs, labels = dataset.train_inputs.flatten(1), dataset.train_labels
    network = Architecture((inputs.shape[1], *hidden, dataset.classes), activation, bias)
    return model_landscape(
        "mlp", network, (inputs, labels), (dataset.test_inputs.flatten(1), dataset.test_labels),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=[] if weight_decay > 0 else _symmetries(network, inputs, loss),
        layers=layers_of(network.split, network.depth), **closed_forms(network),
        **_closed(network, inputs, labels, loss, weight_decay),
    )  # fmt: skip
