"""Elman's recurrent net on sequences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from landsweep.workers.activations import KINKED, activation
from landsweep.workers.data import Dataset
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.models import symmetries
from landsweep.workers.models.initialisation import Block
from landsweep.workers.models.landscapes import model_landscape
from landsweep.workers.models.network import Network, Weights


@dataclass(frozen=True)
class Rnn(Network):
    """h_t = φ(W x_t + U h_{t−1} + b), h_0 = 0; z = V h_T + c (Elman 1990, the last state classified).

    θ holds W (units, features), U (units, units), b, V (classes, units), c. torch's RNN has a second b, which adds
    nothing but a symmetry.
    """

    features: int  # of each step
    units: int
    classes: int
    activation: str

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        inner = [Block("W", (self.units, self.features)), Block("U", (self.units, self.units))]
        outer = [Block("V", (self.classes, self.units)), Block("c", (self.classes,), 0.0)]
        return (*inner, Block("b", (self.units,), 0.0), *outer)

    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        function, recurrent = activation(self.activation), weights["U"].mT
        driven = (inputs @ weights["W"].mT + weights["b"]).unbind(1)  # W x_t + b of each step, (N, units)
        before = [driven[0]]
        for step in driven[1:]:
            before.append(step + function(before[-1]) @ recurrent)
        return function(before[-1]) @ weights["V"].mT + weights["c"], before


def sequences(inputs: Tensor) -> Tensor:
    """(N, T) → (N, T, 1), T steps of one number; (N, T, F) as it is. Raises LandscapeError for other shapes."""
    if inputs.dim() not in (2, 3):
        shape = tuple(inputs.shape[1:])
        raise LandscapeError(
            f"landscape.name: found rnn on inputs of shape {shape}; it needs sequences (steps,) or (steps, features): "
            "take cnn or resnet for colour images"
        )
    return inputs.unsqueeze(-1) if inputs.dim() == 2 else inputs


def _symmetries(network: Rnn, inputs: Tensor, loss: str) -> list[Field]:
    """Without weight decay: features that are always 0, the softmax shift, and with relu the scale of each unit."""
    fields = symmetries.dead_inputs(network, "W", symmetries.always_zero(inputs.flatten(0, 1)))
    if loss == "cross_entropy":
        fields += symmetries.softmax_shift(network, "V", "c")
    if network.activation in KINKED:
        for unit in range(network.units):
            column = (slice(None), unit)
            signs = [("W", unit, 1), ("b", unit, 1), ("U", unit, 1), ("U", column, -1), ("V", column, -1)]
            fields.append(symmetries.scaling(network, signs))
    return fields


def rnn(
    dataset: Dataset,
    *,
    hidden: int = 16,
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of Elman's net: inputs (T,) are T steps of one number, (T, F) T steps of F.

    A grey image is a sequence of its rows. Raises LandscapeError for data of other shapes.
    """
    inputs, test_inputs = sequences(dataset.train_inputs), sequences(dataset.test_inputs)
    network = Rnn(inputs.shape[-1], hidden, dataset.classes, activation)
    return model_landscape(
        "rnn", network, (inputs, dataset.train_labels), (test_inputs, dataset.test_labels),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=[] if weight_decay > 0 else _symmetries(network, inputs, loss),
    )  # fmt: skip
