"""Convolution and mean pooling of images (N, H, W, C) as slices and matrix products.

torch's conv2d under vmap becomes a grouped convolution, whose kernels (weight gradients above all) depend on the number
of groups: a quarter of gradients differ in the last bits between a trial alone and one among others. Matrix products do
not, see ``execution``.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional


def channels_last(images: Tensor) -> Tensor:
    """(N, H, W) or (N, C, H, W) → (N, H, W, C)."""
    return images.unsqueeze(-1) if images.dim() == 3 else images.movedim(1, -1)


def output_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """Places along a side: ⌊(side + 2·padding − kernel)/stride⌋ + 1."""
    return (side + 2 * padding - kernel) // stride + 1


def patches(images: Tensor, kernel: int, stride: int = 1, padding: int = 0) -> Tensor:
    """The windows that a kernel sees, zeros around the image: (N, H, W, C) → (N, H′, W′, kernel·kernel·C)."""
    around = functional.pad(images, (0, 0, padding, padding, padding, padding)) if padding else images
    height, width = (output_side(side, kernel, stride, padding) for side in images.shape[1:3])
    views = [
        around[:, row : row + stride * (height - 1) + 1 : stride, column : column + stride * (width - 1) + 1 : stride]
        for row, column in product(range(kernel), repeat=2)
    ]
    return torch.cat(views, -1)


def convolve(images: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """y[n,h,w,o] = Σ_{c,i,j} weight[o,c,i,j]·x[n, s·h+i−p, s·w+j−p, c], torch's conv2d. (N, H, W, C) → (N, H′, W′, O).

    ``weight`` (O, C, k, k), s = ``stride``, p = ``padding`` zeros.
    """
    kernel = weight.shape[-1]
    return patches(images, kernel, stride, padding) @ weight.permute(2, 3, 1, 0).flatten(0, 2)


def mean_pool(images: Tensor, size: int) -> Tensor:
    """Means over size × size blocks, a remainder at the far edge left out: (N, H, W, C) → (N, ⌊H/s⌋, ⌊W/s⌋, C)."""
    if size == 1:
        return images
    height, width = (side // size * size for side in images.shape[1:3])
    corners = product(range(size), repeat=2)
    total = sum((images[:, row:height:size, column:width:size] for row, column in corners), images.new_zeros(()))
    return total / size**2
