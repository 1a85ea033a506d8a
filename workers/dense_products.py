"""Hessian-vector products of fully connected nets in closed form, for many nets and vectors at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers import dense_native
from landsweep.workers.activations import ACTIVATIONS, KINKED, LINEAR
from landsweep.workers.architecture import Architecture
from landsweep.workers.landscape import pad_rows
from landsweep.workers.models.network import Weights

LARGE = 2**17  # weights of a layer: memory traffic is what its products take


@dataclass(frozen=True)
class _Pass:
    """What B nets hold of N samples after one forward and backward pass: units are rows, samples columns.

    Of layer m (from 1): x_{m−1}, δ_m = ∂ℓ/∂a_m, and of hidden ones φ′(a_m) and φ″(a_m) ∘ W_{m+1}ᵀδ_{m+1}.
    """

    weights: Weights
    values: list[Tensor]  # x_0 … (B, width, N)
    slopes: list[Tensor]  # φ′ (B, width, N)
    bends: list[Tensor]  # φ″ ∘ Wᵀδ (B, width, N)
    deltas: list[Tensor]  # δ_1 … (B, width, N)
    shares: Tensor  # softmax(z) (B, c, N)

    def repeated(self, count: int) -> _Pass:
        """The first net's, so many times, as views."""

        def spread(tensor: Tensor) -> Tensor:
            return tensor[:1].expand(count, *tensor.shape[1:])

        weights = {name: spread(weight) for name, weight in self.weights.items()}
        values, slopes, bends, deltas = (
            [spread(tensor) for tensor in tensors] for tensors in (self.values, self.slopes, self.bends, self.deltas)
        )
        return _Pass(weights, values, slopes, bends, deltas, spread(self.shares))


def dense_products(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
) -> Callable[[Tensor], Tensor]:
    """v ↦ ∇²ℓ·v, (B, n, k) → (B, n, k), ℓ the mean loss of each net on the same samples: thetas (B, n), inputs (N, d),
    targets (N,) labels for cross_entropy or (N, c) for mse.

    With a_m = W_m x_{m−1} + b_m, x_m = φ(a_m), δ_m = ∂ℓ/∂a_m, and R the derivative along v = (V_m, v_m):

        Ra_m = W_m Rx_{m−1} + V_m x_{m−1} + v_m,  Rx_m = φ′(a_m) ∘ Ra_m,  Rδ_top = ∇²ℓ·Ra_top,
        Rδ_m = φ′(a_m) ∘ (W_{m+1}ᵀ Rδ_{m+1} + V_{m+1}ᵀ δ_{m+1}) + φ″(a_m) ∘ W_{m+1}ᵀδ_{m+1} ∘ Ra_m,

    ∇²ℓ·v has Rδ_m x_{m−1}ᵀ + δ_m Rx_{m−1}ᵀ at W_m and Σ Rδ_m at b_m (Pearlmutter 1994). Each of the
    products is contiguous, whatever the vectors' layout. Where there is a program for it (``dense_native``), that; else
    tensor operations.
    """
    if dense_native.serves(network, thetas):
        return dense_native.Products(network, thetas, inputs, targets, loss)
    done = _pass(network, pad_rows(thetas), inputs, targets, loss)

    def products(vectors: Tensor) -> Tensor:
        rows, _, count = vectors.shape
        if rows == 1 and count > 1:  # its vectors are rows enough: none for the sake of padding
            return _product(network, done.repeated(count), vectors[0].mT, loss).unsqueeze(0).mT
        return torch.stack([_product(network, done, one, loss) for one in pad_rows(vectors).unbind(2)], 1)[:rows].mT

    return products


def _pass(network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str) -> _Pass:
    weights = network.split(thetas)
    values, slopes, bends = [inputs.mT.expand(len(thetas), -1, -1)], list[Tensor](), list[Tensor]()
    for layer in range(1, network.depth + 1):
        outputs = torch.bmm(weights[f"W{layer}"], values[-1])
        if network.bias:
            outputs += weights[f"b{layer}"].unsqueeze(2)
        if layer < network.depth:
            value, slope, bend = _activated(network.activation, outputs)
            values.append(value)
            slopes.append(slope)
            bends.append(bend)
    shares = torch.softmax(outputs, 1) if loss == "cross_entropy" else outputs
    deltas = [_residual(shares, targets, loss)]
    for layer in range(network.depth, 1, -1):
        above = torch.bmm(weights[f"W{layer}"].mT, deltas[0])
        bends[layer - 2] *= above
        deltas.insert(0, above.mul_(slopes[layer - 2]))
    return _Pass(weights, values, slopes, bends, deltas, shares)


def _activated(name: str, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ, φ′ and φ″ at the pre-activations."""
    if name == LINEAR:
        return before, torch.ones_like(before), torch.zeros_like(before)
    if name == "tanh":
        value = torch.tanh(before)
        slope = 1 - value * value
        return value, slope, -2 * value * slope
    function, derivatives = {**ACTIVATIONS, **KINKED}[name]
    return function(before), *derivatives(before)


def _residual(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """∂ℓ/∂z (B, c, N) of the outputs, or of their softmax for cross-entropy."""
    if loss == "mse":
        return (outputs - targets.mT) * (2 / targets.numel())
    return (outputs - functional.one_hot(targets, outputs.shape[1]).mT.to(outputs.dtype)) / len(targets)


def _curved(shares: Tensor, moved: Tensor, loss: str) -> Tensor:
    """∇²ℓ·Rz (B, c, N)."""
    _, classes, samples = moved.shape
    if loss == "mse":
        return moved * (2 / (samples * classes))
    weighted = shares * moved
    return weighted.sub_(shares * weighted.sum(1, keepdim=True)).div_(samples)


def _product(network: Architecture, done: _Pass, vector: Tensor, loss: str) -> Tensor:
    """∇²ℓ·v for one v of each net. (B, n) → (B, n)."""
    vector = vector.contiguous()
    along = network.split(vector)
    before, moved = list[Tensor](), list[Tensor]()  # Ra_1 …, Rx_1 …
    for layer in range(1, network.depth + 1):
        change = torch.bmm(along[f"W{layer}"], done.values[layer - 1])
        if network.bias:
            change += along[f"b{layer}"].unsqueeze(2)
        if layer > 1:
            change.baddbmm_(done.weights[f"W{layer}"], moved[-1])
        before.append(change)
        if layer < network.depth:
            moved.append(change * done.slopes[layer - 1])
    delta, result = _curved(done.shares, before[-1], loss), torch.empty_like(vector)
    parts = network.split(result)
    for layer in range(network.depth, 0, -1):
        _placed(delta, done.values[layer - 1], parts[f"W{layer}"])
        if network.bias:
            torch.sum(delta, 2, out=parts[f"b{layer}"])
        if layer > 1:
            parts[f"W{layer}"] += torch.bmm(done.deltas[layer - 1], moved[layer - 2].mT)
            delta = torch.bmm(done.weights[f"W{layer}"].mT, delta)
            delta.baddbmm_(along[f"W{layer}"].mT, done.deltas[layer - 1])
            delta.mul_(done.slopes[layer - 2]).addcmul_(done.bends[layer - 2], before[layer - 2])
    return result


def _placed(delta: Tensor, values: Tensor, place: Tensor) -> None:
    """δxᵀ (B, out, in) in its place within rows; where it is large, net by net, without another copy of it."""
    if place[0].numel() < LARGE:
        place.copy_(torch.bmm(delta, values.mT))
        return
    for one, value, part in zip(delta, values, place, strict=True):
        torch.mm(one, value.mT, out=part)
