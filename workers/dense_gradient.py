"""Gradients of fully connected nets by backpropagation in matrix form, each net on samples of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from landsweep.workers.activations import activation, pulled_back
from landsweep.workers.architecture import Architecture


def dense_gradient(network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """∇ of the mean loss of each net on its own samples: thetas (B, n), inputs (B, b, d), targets (B, b) labels for
    cross_entropy or (B, b, c) for mse → (B, n).

    With a_m = W_m x_{m−1} + b_m, x_m = φ(a_m) and δ_m = ∂ℓ/∂a_m: δ_m = φ′(a_m) ∘ W_{m+1}ᵀδ_{m+1},
    ∂ℓ/∂W_m = δ_m x_{m−1}ᵀ, ∂ℓ/∂b_m = Σ δ_m (Rumelhart, Hinton & Williams 1986). Units are rows and samples columns:
    the samples, which are many, are contiguous in every product, sum and softmax.
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
    return torch.cat([found[block.name].flatten(1) for block in network.blocks], 1)


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
