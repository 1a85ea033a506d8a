"""Deep linear nets on data: products of matrices, whose Hessian and its Lipschitz constant have a closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.activations import LINEAR
from landsweep.workers.architecture import Architecture, layers_of
from landsweep.workers.data import Dataset
from landsweep.workers.dense_forms import closed_forms
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.models import symmetries
from landsweep.workers.models.landscapes import model_landscape
from landsweep.workers.reference.linear import LinearNetwork


def as_products(widths: tuple[int, ...], inputs: Tensor, targets: Tensor) -> LinearNetwork:
    """The mean of (W_L⋯W_1 x − t)² over samples and outputs as ½‖W_L⋯W_1 X − T‖²_F with few columns.

    With X (d, N), T (c, N) and the QR decomposition of √(2/(Nc))·[Xᵀ Tᵀ], R takes the place of the samples: Q changes
    no norm. ``inputs`` (N, d), ``targets`` (N, c).
    """
    samples, outputs = targets.shape
    stacked = math.sqrt(2 / (samples * outputs)) * torch.cat([inputs, targets], 1)
    triangle = torch.linalg.qr(stacked, mode="r").R.mT.contiguous()  # (d + c, min(N, d + c))
    return LinearNetwork(widths, triangle[: inputs.shape[1]], triangle[inputs.shape[1] :])


def lowest(network: LinearNetwork) -> float:
    """min ½‖WX − T‖²_F over W of rank r = min d_l: ½(‖T‖² − Σ_{i≤r} s_i²), s the singular values of T projected on the
    rows of X (Eckart & Young 1936; Baldi & Hornik 1989)."""
    basis, values, _ = torch.linalg.svd(network.inputs.mT, full_matrices=False)
    kept = basis[:, values > values.max() * max(basis.shape) * torch.finfo(values.dtype).eps]
    fitted = torch.linalg.svdvals(network.targets @ kept)[: min(network.widths)]
    return 0.5 * float((network.targets**2).sum() - (fitted**2).sum())


def _symmetries(network: Architecture, inputs: Tensor, weight_decay: float) -> list[Field]:
    """GL of every hidden layer, of which weight decay leaves the rotations, and weights that only meet zeros."""
    fields = []
    for layer, width in enumerate(network.widths[1:-1], start=1):
        fields += symmetries.linear_group(network, layer, width, weight_decay > 0)
    if weight_decay == 0:
        fields += symmetries.dead_inputs(network, "W1", symmetries.always_zero(inputs))
    return fields


def deep_linear(
    dataset: Dataset,
    *,
    hidden: Sequence[int],
    loss: str = "mse",
    weight_decay: float = 1e-3,
    initialisation: str = "xavier_normal",
    init_scale: float = 1.0,
) -> Landscape:
    """The landscape of z = W_L⋯W_1 x without biases, mean (z − t)² over samples and outputs, t the labels one-hot.

    Its local minima are global and its other stationary points saddles (Baldi & Hornik 1989; Kawaguchi 2016).
    """
    inputs, labels = dataset.train_inputs.flatten(1), dataset.train_labels
    network = Architecture((inputs.shape[1], *hidden, dataset.classes), LINEAR, bias=False)
    targets = functional.one_hot(labels, dataset.classes).to(torch.float64)
    products = as_products(network.widths, inputs, targets)

    def hessian(thetas: Tensor) -> Tensor:
        full = products.hessian(thetas)
        full.diagonal(dim1=1, dim2=2).add_(weight_decay)
        return full

    return model_landscape(
        "deep_linear", network, (inputs, labels), (dataset.test_inputs.flatten(1), dataset.test_labels),
        loss=loss, weight_decay=weight_decay, initialisation=initialisation, init_scale=init_scale,
        symmetries=_symmetries(network, inputs, weight_decay),
        closed_hessian=hessian, hessian_bytes=products.hessian_bytes, hessian_lipschitz=products.lipschitz,
        global_minimum=lowest(products) if weight_decay == 0 else None, layers=layers_of(network.split, network.depth),
        **closed_forms(network),
    )  # fmt: skip
