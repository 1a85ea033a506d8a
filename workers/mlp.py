"""The landscape of a multilayer perceptron on a classification set, with its symmetries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from landsweep.workers.architecture import Architecture
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.mlp_hessian import MlpHessian
from landsweep.workers.supervised import supervised_landscape


def _basis_field(dim: int, positions: Sequence[int]) -> Field:
    def field(theta: Tensor) -> Tensor:
        tangent = torch.zeros(dim, dtype=theta.dtype, device=theta.device)
        tangent[list(positions)] = 1.0
        return tangent + 0.0 * theta

    return field


def symmetries(network: Architecture, inputs: Tensor, loss: str, weight_decay: float) -> tuple[Field, ...]:
    """The continuous symmetries: softmax shift, and weights on inputs that are always 0. Weight decay removes both."""
    if weight_decay > 0:
        return ()
    fields = []
    first_in, first_out = network.widths[0], network.widths[1]
    for j in torch.nonzero((inputs == 0).all(0)).flatten().tolist():
        fields += [_basis_field(network.dim, [k * first_in + j]) for k in range(first_out)]
    if loss == "cross_entropy":
        fan_in, classes = network.widths[-2:]
        start = network.dim - classes * (fan_in + 1)
        columns = [[start + c * fan_in + j for c in range(classes)] for j in range(fan_in)]
        biases = [start + classes * fan_in + c for c in range(classes)]
        fields += [_basis_field(network.dim, positions) for positions in [*columns, biases]]
    return tuple(fields)


def mlp(
    dataset: Dataset,
    *,
    hidden: Sequence[int],
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of a multilayer perceptron on a classification set."""
    inputs, labels = dataset.train_inputs, dataset.train_labels
    network = Architecture((inputs.shape[1], *hidden, dataset.classes), activation)
    widest = max(network.widths[1:])
    return supervised_landscape(
        name="mlp",
        dim=network.dim,
        model=network,
        init=lambda generator: network.initialise(generator, initialisation, init_scale),
        train=(inputs, labels),
        test=(dataset.test_inputs, dataset.test_labels),
        loss=loss,
        weight_decay=weight_decay,
        symmetries=symmetries(network, inputs, loss, weight_decay),
        closed_hessian=MlpHessian(network, inputs, labels, loss, weight_decay),
        hessian_bytes=8 * (2 * network.dim**2 + 3 * len(inputs) * widest * widest * (max(network.widths[:-1]) + 1)),
    )
