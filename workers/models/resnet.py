"""Residual nets without normalisation (Zhang, Dauphin & Ma 2019), shaped as He et al. (2016) do for CIFAR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.activations import KINKED, activation
from landsweep.workers.data import Dataset
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.models import symmetries
from landsweep.workers.models.cnn import dead_taps, image_shape
from landsweep.workers.models.convolution import channels_last, convolve
from landsweep.workers.models.initialisation import Block
from landsweep.workers.models.landscapes import model_landscape
from landsweep.workers.models.network import Network, Weights

KERNEL, PADDING = 3, 1
STAGES = 3
SMALLEST = 5  # pixels a side


@dataclass(frozen=True)
class Resnet(Network):
    """3 stages of n = (depth − 2)/6 blocks with width, 2·width, 4·width channels, the image halved before the last two:

        x ← φ(K0 ∗ x + c0);   x ← φ(m·(K2 ∗ (φ(K1 ∗ (x + a1) + a2) + a3)) + a4 + shortcut(x));   z = W(mean x + a) + b,

    with 3×3 kernels, scalar biases a, a1 … a4, c0 and a scalar multiplier m a block (Zhang, Dauphin & Ma 2019, section
    3.2, rule 3). The shortcut is x or, where a stage begins, every second pixel of x + a1 with zero channels appended
    (option A of He et al. 2016, as in the authors' code). Normalised weights would, under weight decay, have no
    stationary point: L does not change with their length, which weight decay shrinks for ever.
    """

    channels: int  # of an image
    classes: int
    depth: int  # layers of weights, 6n + 2
    width: int  # channels of the first stage
    activation: str

    @cached_property
    def steps(self) -> tuple[tuple[str, int, int], ...]:
        """(name, channels in, channels out) of each residual block."""
        widths = [self.width * 2**stage for stage in range(STAGES) for _ in range((self.depth - 2) // 6)]
        below = [self.width, *widths[:-1]]
        return tuple((f"B{i}", *pair) for i, pair in enumerate(zip(below, widths, strict=True), start=1))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        window, damping = (KERNEL, KERNEL), len(self.steps) ** -0.5
        blocks = [Block("K0", (self.width, self.channels, *window)), Block("c0", (1,), 0.0)]
        for name, below, above in self.steps:
            blocks += [Block(f"{name}.a1", (1,), 0.0), Block(f"{name}.K1", (above, below, *window), damping=damping)]
            blocks += [Block(f"{name}.a2", (1,), 0.0), Block(f"{name}.a3", (1,), 0.0)]
            blocks += [Block(f"{name}.K2", (above, above, *window), damping=0.0)]
            blocks += [Block(f"{name}.m", (1,), 1.0), Block(f"{name}.a4", (1,), 0.0)]
        top = Block("W", (self.classes, 4 * self.width), damping=0.0)
        return (*blocks, Block("a", (1,), 0.0), top, Block("b", (self.classes,), 0.0))

    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        function = activation(self.activation)
        before = [convolve(channels_last(inputs), weights["K0"], 1, PADDING) + weights["c0"]]
        x = function(before[0])
        for name, below, above in self.steps:
            entered, stride = x + weights[f"{name}.a1"], 1 if below == above else 2
            inner = convolve(entered, weights[f"{name}.K1"], stride, PADDING) + weights[f"{name}.a2"]
            branch = convolve(function(inner) + weights[f"{name}.a3"], weights[f"{name}.K2"], 1, PADDING)
            shortcut = x if stride == 1 else functional.pad(entered[:, ::2, ::2], (0, above - below))
            joined = branch * weights[f"{name}.m"] + weights[f"{name}.a4"] + shortcut
            before += [inner, joined]
            x = function(joined)
        return (x.mean((1, 2)) + weights["a"]) @ weights["W"].mT + weights["b"], before


def _symmetries(network: Resnet, inputs: Tensor, loss: str) -> list[Field]:
    """Without weight decay: kernel entries that only meet zeros, the softmax shift, the constant that a adds and b
    takes back, the scale that m gives and K2 takes back; with relu the scale within each block and that of x."""
    fields = symmetries.dead_inputs(network, "K0", dead_taps(inputs, KERNEL, 1, PADDING))
    if loss == "cross_entropy":
        fields += symmetries.softmax_shift(network, "W", "b")
    fields.append(symmetries.field(network, _constant_below_the_top))
    names = [name for name, _, _ in network.steps]
    fields += [symmetries.scaling(network, _whole(name, ["m"], ["K2"])) for name in names]
    if network.activation not in KINKED:
        return fields
    along = [*_whole("", ["K0", "c0", "a"], ["W"])]
    for name in names:
        fields.append(symmetries.scaling(network, _whole(name, ["K1", "a2", "a3"], ["K2"])))
        along += _whole(name, ["a1", "m", "a4"], ["K1"])
    return [*fields, symmetries.scaling(network, along)]


def _whole(block: str, growing: list[str], shrinking: list[str]) -> list[symmetries.Sign]:
    """Tensors of a residual block (of the net, for "") that are scaled as a whole."""
    prefix = f"{block}." if block else ""
    return [(f"{prefix}{name}", ..., 1) for name in growing] + [(f"{prefix}{name}", ..., -1) for name in shrinking]


def _constant_below_the_top(weights: Weights) -> Weights:
    """W(x + a) + b = W(x + a + t) + b − tW1."""
    return {"a": torch.ones_like(weights["a"]), "b": -weights["W"].sum(1)}


def resnet(
    dataset: Dataset,
    *,
    depth: int = 8,
    width: int = 16,
    activation: str = "silu",
    loss: str = "cross_entropy",
    weight_decay: float = 1e-3,
    initialisation: str = "fixup",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of a residual net on images. Raises LandscapeError where the data are no images."""
    channels, height, side = image_shape("resnet", dataset.shape)
    if min(height, side) < SMALLEST:
        raise LandscapeError(
            f"landscape.resize: found images of {height}×{side} pixels; resnet halves them twice and needs at least "
            f"{SMALLEST}×{SMALLEST}, or parts of its last kernels would meet no pixel"
        )
    network = Resnet(channels, dataset.classes, depth, width, activation)
    train = (dataset.train_inputs, dataset.train_labels)
    return model_landscape(
        "resnet", network, train, (dataset.test_inputs, dataset.test_labels),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=[] if weight_decay > 0 else _symmetries(network, train[0], loss),
    )  # fmt: skip
