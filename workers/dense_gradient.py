"""Gradients of fully connected nets by backpropagation in matrix form, each net on samples of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from landsweep.workers import dense_native
from landsweep.workers.activations import activation, pulled_back
from landsweep.workers.architecture import Architecture


def dense_gradient(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, index: Tensor, loss: str
) -> Tensor:
    """∇ of the mean loss of each net on its own samples: thetas (B, n), inputs (N, d), targets (N,) labels for
    cross_entropy or (N, c) for mse, of which ``index`` (B, b) names each net's → (B, n).

    With a_m = W_m x_{m−1} + b_m, x_m = φ(a_m) and δ_m = ∂ℓ/∂a_m: δ_m = φ′(a_m) ∘ W_{m+1}ᵀδ_{m+1},
    ∂ℓ/∂W_m = δ_m x_{m−1}ᵀ, ∂ℓ/∂b_m = Σ δ_m (Rumelhart, Hinton & Williams 1986). Where there is a program for it
    (``dense_native``), that; else tensor operations.
    """
    if dense_native.serves(network, thetas):
        return dense_native.gradient(network, thetas, inputs, targets, index, loss)
    return backpropagated(network, thetas, _rows(inputs, index), _rows(targets, index), loss)[1]


def dense_value_and_gradient(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
) -> tuple[Tensor, Tensor]:
    """The mean loss of each net and its ∇, all on the same samples: thetas (B, n), inputs (N, d), targets (N,) labels
    for cross_entropy or (N, c) for mse → (B,), (B, n). By the formulas of :func:`dense_gradient`."""
    if dense_native.serves(network, thetas):
        return dense_native.evaluate(network, thetas, inputs, targets, loss)
    rows = len(thetas)
    inputs, targets = (whole.expand(rows, *whole.shape) for whole in (inputs, targets))
    outputs, gradient = backpropagated(network, thetas, inputs, targets, loss)
    if loss == "mse":
        return (outputs - targets.mT).square_().mean((1, 2)), gradient
    chosen = torch.log_softmax(outputs, 1).gather(1, targets.unsqueeze(1))
    return chosen.mean((1, 2)).neg_(), gradient


def _rows(data: Tensor, index: Tensor) -> Tensor:
    """data[index]. (N, …), (B, b) → (B, b, …), by index_select, which takes a quarter of the time."""
    return data.index_select(0, index.reshape(-1)).view(*index.shape, *data.shape[1:])


def backpropagated(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
) -> tuple[Tensor, Tensor]:
    """Outputs (B, c, b) and gradient (B, n) of each net on inputs (B, b, d) and targets (B, b) or (B, b, c) of its own.
    Units are rows and samples columns: the samples, which are many, are contiguous in every product, sum and softmax.
    """
    weights, function = network.split(thetas), activation(network.activation)
    values, before = [inputs.mT], list[Tensor]()  # x_m (B, width, b); a_m of the hidden layers
    for layer in range(1, network.depth + 1):
        outputs = _affine(weights[f"W{layer}"], weights.get(f"b{layer}"), values[-1])
        if layer < network.depth:
            before.append(outputs)
            values.append(function(outputs))
    delta = _residual(outputs, targets, loss)
    found: dict[str, Tensor] = {}
    for layer in range(network.depth, 0, -1):
        found[f"W{layer}"] = torch.bmm(delta, values[layer - 1].mT)
        found[f"b{layer}"] = delta.sum(2)
        if layer > 1:
            above = torch.bmm(weights[f"W{layer}"].mT, delta)
            delta = pulled_back(network.activation, above, before[layer - 2], values[layer - 1])
    return outputs, torch.cat([found[block.name].flatten(1) for block in network.blocks], 1)


def _affine(weight: Tensor, bias: Tensor | None, values: Tensor) -> Tensor:
    """W x + b. (B, out, in), (B, out), (B, in, b) → (B, out, b)."""
    return torch.bmm(weight, values) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, values)


def _residual(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """∂ℓ/∂z of the mean over b samples (and c outputs). (B, c, b) → (B, c, b)."""
    rows, classes, samples = outputs.shape
    if loss == "mse":
        return (outputs - targets.mT) * (2 / (samples * classes))
    shares = torch.softmax(outputs, 1)
    chosen = targets.unsqueeze(1)
    return shares.scatter_add_(1, chosen, shares.new_full((), -1.0).expand(rows, 1, samples)).div_(samples)
