"""The Hessian of a multilayer perceptron's objective in closed form, for many networks at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.activations import ACTIVATIONS, KINKED
from landsweep.workers.architecture import Architecture

CACHED_BYTES = 2**21  # of what is summed over samples
Layers = list[tuple[Tensor, Tensor]]  # (W (B, out, in), b (B, out)) of each


@dataclass(frozen=True)
class _Pass:
    """One forward and backward pass over all samples. m counts layers from 0; the last is the output."""

    layers: Layers
    inputs: list[Tensor]  # x_{m−1} of each layer (B, N, in)
    slopes: Layers  # (φ′, φ″) at the hidden pre-activations (B, N, width)
    outputs: Tensor  # z (B, N, c)
    deltas: list[Tensor]  # δ_m = ∂ℓ/∂a_m (B, N, out)
    pulled: list[Tensor]  # W_{m+1}ᵀδ_{m+1} of each hidden layer


@dataclass(frozen=True)
class MlpHessian:
    """Called with thetas (B, n), gives the Hessians (B, n, n) of the mean loss + λ/2·‖θ‖².

    Per sample, with a_m the pre-activations of layer m, x_m = φ(a_m), δ_m = ∂ℓ/∂a_m, P_ml = ∂a_m/∂a_l and
    Q_ml = ∂δ_m/∂a_l (m ≥ l):

        P_ll = I,  P_ml = W_m φ′(a_{m−1}) P_{m−1,l};   Q_top,l = ∇²ℓ P_top,l,
        Q_ml = φ′(a_m) W_{m+1}ᵀ Q_{m+1,l} + diag(φ″(a_m) ∘ W_{m+1}ᵀδ_{m+1}) P_ml,
        H[(m,i,j),(l,p,q)] = Σ Q_ml[i,p] x_{m−1,j} x_{l−1,q} + δ_{m,i} φ′(a_{m−1})_j P_{m−1,l}[j,p] x_{l−1,q},

    the second term for m > l and j a weight (not the bias, whose x is 1). This is the Hessian backpropagation of
    Bishop (1992, *Exact calculation of the Hessian matrix for the multilayer perceptron*) in matrix form; it costs a
    few matrix products where automatic differentiation needs n Hessian-vector products.
    """

    network: Architecture
    inputs: Tensor  # (N, d)
    labels: Tensor  # (N,)
    loss: str  # cross_entropy | mse
    weight_decay: float  # λ

    def __call__(self, thetas: Tensor) -> Tensor:
        """The Hessians (B, n, n)."""
        done = self._pass(thetas)
        depth = len(done.layers)
        blocks: dict[tuple[int, int], Tensor] = {}
        for column in range(depth):
            for row, block in self._column(done, column):
                blocks[row, column] = block
                if row > column:
                    blocks[column, row] = block.mT
        rows = [torch.cat([blocks[row, column] for column in range(depth)], 2) for row in range(depth)]
        full = torch.cat(rows, 1)
        full.diagonal(dim1=1, dim2=2).add_(self.weight_decay)
        return full

    @property
    def temporaries(self) -> int:
        """Bytes of one Hessian at its peak: its blocks, and what is kept of each sample and pair of units, or two
        copies of the whole when blocks are joined."""
        widths, square = self.network.widths[1:], self.network.dim**2
        units = max(width * (width + 2 * widths[-1]) for width in widths)
        return 8 * (square + max(len(self.inputs) * units, 2 * square))

    def _pass(self, thetas: Tensor) -> _Pass:
        function, derivatives = {**ACTIVATIONS, **KINKED}[self.network.activation]
        layers = self.network.layers(thetas)
        inputs = [self.inputs.unsqueeze(0).expand(thetas.shape[0], -1, -1)]
        slopes = []
        for weight, bias in layers[:-1]:
            before = inputs[-1] @ weight.mT + bias.unsqueeze(1)
            inputs.append(function(before))
            slopes.append(derivatives(before))
        weight, bias = layers[-1]
        outputs = inputs[-1] @ weight.mT + bias.unsqueeze(1)
        deltas, pulled = [self._residual(outputs)], list[Tensor]()
        for (above, _), (first, _) in zip(layers[:0:-1], slopes[::-1], strict=True):
            pulled.insert(0, deltas[0] @ above)
            deltas.insert(0, first * pulled[0])
        return _Pass(layers, inputs, slopes, outputs, deltas, pulled)

    def _residual(self, outputs: Tensor) -> Tensor:
        """∂ℓ/∂z (B, N, c), the mean's 1/N included."""
        one_hot = functional.one_hot(self.labels, outputs.shape[-1]).to(outputs.dtype)
        if self.loss == "mse":
            return (outputs - one_hot) * (2.0 / one_hot.numel())
        return (torch.softmax(outputs, -1) - one_hot) / len(self.labels)

    def _curvature(self, outputs: Tensor, matrix: Tensor) -> Tensor:
        """∇²ℓ·M for M (B, N, c, p)."""
        if self.loss == "mse":
            return matrix * (2.0 / (len(self.labels) * outputs.shape[-1]))
        p = torch.softmax(outputs, -1).unsqueeze(-1)
        weighted = p * matrix
        return (weighted - p * weighted.sum(-2, keepdim=True)) / len(self.labels)

    def _column(self, done: _Pass, column: int) -> list[tuple[int, Tensor]]:
        """The blocks (m, l) of one l, for m ≥ l."""
        depth, width = len(done.layers), done.layers[column][0].shape[-2]
        identity = torch.eye(width, dtype=done.outputs.dtype, device=done.outputs.device)
        p = {column: identity.expand(*done.outputs.shape[:2], width, width)}
        for m in range(column + 1, depth):
            p[m] = done.layers[m][0].unsqueeze(1) @ (done.slopes[m - 1][0].unsqueeze(-1) * p[m - 1])
        q = self._curvature(done.outputs, p[depth - 1])
        result = []
        for m in range(depth - 1, column - 1, -1):
            if m < depth - 1:
                first, second = done.slopes[m]
                q = first.unsqueeze(-1) * (done.layers[m + 1][0].mT.unsqueeze(1) @ q)
                q = q + (second * done.pulled[m]).unsqueeze(-1) * p[m]
            if m == column == depth - 1 and self.loss == "cross_entropy":
                result.append((m, _softmax_block(done.outputs, done.inputs[m])))
                continue
            if m == column:
                result.append((m, _diagonal_block(q, done.inputs[m])))
                continue
            inner = done.slopes[m - 1][0].unsqueeze(-1) * p[m - 1]  # ∂x_{m−1}/∂a_l (B, N, j, p)
            result.append((m, _block(q, done.inputs[m], done.inputs[column], done.deltas[m], inner)))
        return result


def _with_one(x: Tensor) -> Tensor:
    """x with the bias's input, 1, appended. (B, N, j) → (B, N, j+1)."""
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], -1)


def _ordered(full: Tensor) -> Tensor:
    """(B, i, j+1, p, q+1) → rows and columns ordered as θ is: the weights (i, j), then the biases (i)."""
    rows = torch.cat([full[:, :, :-1].flatten(1, 2), full[:, :, -1]], 1)
    return torch.cat([rows[..., :-1].flatten(2), rows[..., -1]], 2)


def _block(q: Tensor, left: Tensor, right: Tensor, delta: Tensor, inner: Tensor) -> Tensor:
    """Σ_samples of a block off the diagonal, one unit i after the other: q (B,N,i,p), left (B,N,j), right (B,N,q),
    delta (B,N,i), inner (B,N,j,p) → (B, i·j + i, p·q + p)."""
    rows, _, units, count = q.shape
    left_1, right_1 = _with_one(left), _with_one(right)
    full = q.new_empty(rows, units, left_1.shape[-1], count, right_1.shape[-1])

    def tensor(unit: int, some: slice) -> Tensor:
        found = q[:, some, unit, None, :] * left_1[:, some, :, None]  # (B, N, j+1, p)
        found[:, :, :-1].addcmul_(delta[:, some, unit, None, None], inner[:, some])
        return found

    for unit in range(units):
        summed = _summed(right_1, functools.partial(tensor, unit), left_1.shape[-1] * count)
        full[:, unit] = summed.view(rows, -1, left_1.shape[-1], count).movedim(1, 3)
    return _ordered(full)


def _diagonal_block(q: Tensor, inputs: Tensor) -> Tensor:
    """Σ_samples of a block on the diagonal, which is symmetric: q (B,N,i,p), inputs (B,N,j) → (B, i·j + i, i·j + i)."""
    rows, _, units, _ = q.shape
    with_one = _with_one(inputs)
    width = with_one.shape[-1]
    full = q.new_empty(rows, units, width, units, width)

    def tensor(unit: int, some: slice) -> Tensor:
        return q[:, some, unit, unit:, None] * with_one[:, some, None, :]  # (B, N, p, j+1) for p ≥ i

    for unit in range(units):
        summed = _summed(with_one, functools.partial(tensor, unit), (units - unit) * width)
        summed = summed.view(rows, width, units - unit, width)
        full[:, unit, :, unit:] = summed
        full[:, unit:, :, unit] = summed.permute(0, 2, 3, 1)
    return _ordered(full)


def _summed(right: Tensor, left: Callable[[slice], Tensor], width: int) -> Tensor:
    """Σ_samples right ⊗ left, where ``left`` is made of as many samples at a time as a cache holds: right (B, N, q),
    left slice → (B, N, …) of ``width`` elements a sample → (B, q, width)."""
    count = max(1, CACHED_BYTES // (8 * width))
    total = right.new_zeros(len(right), right.shape[2], width)
    for first in range(0, right.shape[1], count):
        some = slice(first, first + count)
        total.baddbmm_(right[:, some].mT, left(some).flatten(2))
    return total


def _softmax_block(outputs: Tensor, left: Tensor) -> Tensor:
    """The last layer's block for cross-entropy, S = diag(p) − ppᵀ: diag_c(Σ p_c x xᵀ) − Σ (p⊗x)(p⊗x)ᵀ, over N."""
    p, left_1 = torch.softmax(outputs, -1), _with_one(left)
    samples, classes, width = left.shape[1], p.shape[-1], left_1.shape[-1]
    product = (p.unsqueeze(3) * left_1.unsqueeze(2)).flatten(2)  # (B, N, c·(j+1))
    full = -(product.mT @ product).view(-1, classes, width, classes, width)
    full.diagonal(dim1=1, dim2=3).add_((product.mT @ left_1).view(-1, classes, width, width).movedim(1, 3))
    return _ordered(full / samples)
