"""Convolutional nets with mean pooling and fully connected layers on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from landsweep.workers.activations import KINKED, activation
from landsweep.workers.architecture import dense, dense_blocks
from landsweep.workers.data import Dataset
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.models import symmetries
from landsweep.workers.models.convolution import channels_last, convolve, mean_pool, output_side, patches
from landsweep.workers.models.initialisation import Block
from landsweep.workers.models.landscapes import model_landscape
from landsweep.workers.models.network import Network, Weights

_SAMPLES = 256  # images whose windows are held at once


@dataclass(frozen=True)
class Cnn(Network):
    """x ← pool(φ(K_l ∗ x + c_l)) for each convolution, then fully connected layers on the channels' pixels.

    θ holds K1 (out, in, kernel, kernel), c1, K2, …, then W1, b1, … of the fully connected layers, which read x channel
    by channel, as torch's Flatten gives it.
    """

    shape: tuple[int, int, int]  # channels, height, width of an image
    channels: tuple[int, ...]  # of each convolution
    kernel: int
    stride: int
    padding: int  # zeros on each side
    pool: int  # mean pooling of pool × pool pixels after each φ; 1: none
    hidden: tuple[int, ...]  # units of the fully connected layers before the last
    classes: int
    activation: str

    @cached_property
    def sides(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of what each convolution reads, and at the end of what the fully connected layers read.

        Raises LandscapeError where an image is smaller than a pool, or so small that parts of a kernel never meet it:
        L would not depend on them.
        """
        sides = [self.shape[1:]]
        for layer in range(1, len(self.channels) + 1):
            height, width = (output_side(side, self.kernel, self.stride, self.padding) for side in sides[-1])
            pooled = (height // self.pool, width // self.pool)
            if min(height, width) > 0 and min(pooled) == 0:
                raise _too_small("pool", self.pool, f"what convolution {layer} gives", (height, width))
            if not all(self._meets(side, size * self.pool) for side, size in zip(sides[-1], pooled, strict=True)):
                raise _too_small("kernel", self.kernel, f"what convolution {layer} reads", sides[-1])
            sides.append(pooled)
        return tuple(sides)

    def _meets(self, side: int, places: int) -> bool:
        """Whether each entry of a kernel meets a pixel at one of the ``places`` along a side that are used."""
        first = [self.stride * place - self.padding for place in range(places)]
        return all(any(0 <= start + entry < side for start in first) for entry in range(self.kernel))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        blocks, below = [], self.shape[0]
        for layer, above in enumerate(self.channels, start=1):
            blocks += [Block(f"K{layer}", (above, below, self.kernel, self.kernel)), Block(f"c{layer}", (above,), 0.0)]
            below = above
        return (*blocks, *dense_blocks(self.widths))

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the fully connected layers."""
        height, width = self.sides[-1]
        return (self.channels[-1] * height * width, *self.hidden, self.classes)

    def forward(self, weights: Weights, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        function, images, before = activation(self.activation), channels_last(inputs), list[Tensor]()
        for layer in range(1, len(self.channels) + 1):
            kernel, bias = weights[f"K{layer}"], weights[f"c{layer}"]
            before.append(convolve(images, kernel, self.stride, self.padding) + bias)
            images = mean_pool(function(before[-1]), self.pool)
        outputs, later = dense(weights, images.movedim(-1, 1).flatten(1), len(self.widths) - 1, self.activation)
        return outputs, before + later


def _too_small(key: str, found: int, what: str, side: tuple[int, int]) -> LandscapeError:
    return LandscapeError(
        f"landscape.{key}: found {found}, but {what} has {side[0]}×{side[1]} pixels, too few; take a smaller {key}, "
        "fewer convolutions or larger images"
    )


def image_shape(model: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of an input of ``shape``. Raises LandscapeError where it is no image."""
    if len(shape) not in (2, 3):
        raise LandscapeError(
            f"landscape.name: found {model} on inputs of shape {shape}; it needs images (height, width) or (channels, "
            "height, width): take mlp or rnn, or data with images"
        )
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    return channels, height, width


def dead_taps(inputs: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Which entries of a kernel only ever meet zeros in ``inputs``. → (C, kernel, kernel) bool."""
    images, alive = channels_last(inputs), torch.zeros((), dtype=torch.bool, device=inputs.device)
    for chunk in torch.split(images, _SAMPLES):
        alive = alive | patches(chunk, kernel, stride, padding).ne(0).flatten(0, 2).any(0)
    return ~alive.view(kernel, kernel, images.shape[-1]).movedim(-1, 0)


def _symmetries(network: Cnn, inputs: Tensor, loss: str) -> list[Field]:
    """Without weight decay: kernel entries that only meet zeros, the softmax shift, and with relu the scale of each
    channel and unit."""
    depth = len(network.widths) - 1
    fields = symmetries.dead_inputs(network, "K1", dead_taps(inputs, network.kernel, network.stride, network.padding))
    if loss == "cross_entropy":
        fields += symmetries.softmax_shift(network, f"W{depth}", f"b{depth}")
    if network.activation in KINKED:
        fields += symmetries.relu_rescaling(network, depth)
        for layer, channels in enumerate(network.channels, start=1):
            last = layer == len(network.channels)
            pixels = network.widths[0] // channels
            for channel in range(channels):
                read = slice(channel * pixels, (channel + 1) * pixels) if last else channel
                above = "W1" if last else f"K{layer + 1}"
                signs = [(f"K{layer}", channel, 1), (f"c{layer}", channel, 1), (above, (slice(None), read), -1)]
                fields.append(symmetries.scaling(network, signs))
    return fields


def cnn(
    dataset: Dataset,
    *,
    channels: Sequence[int],
    kernel: int = 3,
    stride: int = 1,
    padding: str = "same",
    pool: int = 2,
    hidden: Sequence[int] = (),
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of a convolutional net on images. ``padding`` same: (kernel − 1)/2 zeros on each side, valid: none.

    Raises LandscapeError where the data are no images or too small for the kernels.
    """
    shape = image_shape("cnn", dataset.shape)
    zeros = (kernel - 1) // 2 if padding == "same" else 0
    network = Cnn(shape, tuple(channels), kernel, stride, zeros, pool, tuple(hidden), dataset.classes, activation)
    train = (dataset.train_inputs, dataset.train_labels)
    return model_landscape(
        "cnn", network, train, (dataset.test_inputs, dataset.test_labels),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=[] if weight_decay > 0 else _symmetries(network, train[0], loss),
    )  # fmt: skip
