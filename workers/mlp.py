"""Multilayer perceptrons: the model, its initialisations, its symmetries and its Hessian in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.activations import ACTIVATIONS
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.supervised import supervised_landscape

#: name → (uniform?, standard deviation from fan-in and fan-out)
INITIALISATIONS: dict[str, tuple[bool, Callable[[int, int], float]]] = {
    "xavier_normal": (False, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "xavier_uniform": (True, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "he_normal": (False, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    "he_uniform": (True, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
}


@dataclass(frozen=True)
class Architecture:
    """z = W_m φ(… φ(W_1 x + b_1) …) + b_m; θ holds W_1 (row by row), b_1, W_2, …, b_m."""

    widths: tuple[int, ...]  # inputs, hidden …, outputs
    activation: str

    @property
    def dim(self) -> int:
        return sum(fan_out * (fan_in + 1) for fan_in, fan_out in pairwise(self.widths))

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """θ (…, n) → [(W (…, out, in), b (…, out)), …] as views."""
        result, start = [], 0
        for fan_in, fan_out in pairwise(self.widths):
            weight = torch.unflatten(theta[..., start : start + fan_out * fan_in], -1, (fan_out, fan_in))
            start += fan_out * fan_in
            result.append((weight, theta[..., start : start + fan_out]))
            start += fan_out
        return result

    def __call__(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (N, c) of one network on ``inputs`` (N, d)."""
        function, _ = ACTIVATIONS[self.activation]
        hidden = inputs
        *inner, (last_weight, last_bias) = self.layers(theta)
        for weight, bias in inner:
            hidden = function(hidden @ weight.mT + bias)
        return hidden @ last_weight.mT + last_bias

    def initialise(self, generator: torch.Generator, scheme: str, scale: float) -> Tensor:
        """Weights drawn by ``scheme`` times ``scale``, biases 0 (Glorot & Bengio 2010; He et al. 2015). float64."""
        uniform, deviation = INITIALISATIONS[scheme]
        pieces = []
        for fan_in, fan_out in pairwise(self.widths):
            shape = (fan_out * fan_in,)
            if uniform:
                draw = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * math.sqrt(3)
            else:
                draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            pieces += [scale * deviation(fan_in, fan_out) * draw, torch.zeros(fan_out, dtype=torch.float64)]
        return torch.cat(pieces)


def mlp_hessian(
    network: Architecture, inputs: Tensor, labels: Tensor, loss: str, weight_decay: float
) -> Callable[[Tensor], Tensor]:
    """The Hessian of the mean loss + λ/2·‖θ‖² in closed form, for many networks at once: (B, n) → (B, n, n).

    Per sample, with a_m the pre-activations of layer m, x_m = φ(a_m), δ_m = ∂ℓ/∂a_m, P_ml = ∂a_m/∂a_l and
    Q_ml = ∂δ_m/∂a_l (m ≥ l):

        P_ll = I,  P_ml = W_m φ′(a_{m−1}) P_{m−1,l};   Q_top,l = ∇²ℓ P_top,l,
        Q_ml = φ′(a_m) W_{m+1}ᵀ Q_{m+1,l} + diag(φ″(a_m) ∘ W_{m+1}ᵀδ_{m+1}) P_ml,
        H[(m,i,j),(l,p,q)] = Σ Q_ml[i,p] x_{m−1,j} x_{l−1,q} + δ_{m,i} φ′(a_{m−1})_j P_{m−1,l}[j,p] x_{l−1,q},

    the second term for m > l and j a weight (not the bias, whose x is 1). This is the Hessian backpropagation of
    Bishop (1992, *Exact calculation of the Hessian matrix for the multilayer perceptron*) in matrix form; it costs a
    few matrix products where automatic differentiation needs n Hessian-vector products.
    """
    _, derivatives = ACTIVATIONS[network.activation]
    function, _ = ACTIVATIONS[network.activation]
    samples, classes = len(inputs), network.widths[-1]
    one_hot = functional.one_hot(labels, classes).to(torch.float64)

    def top(outputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """∂ℓ/∂z (B, N, c) and M ↦ ∇²ℓ·M for M (B, N, c, p)."""
        if loss == "mse":
            factor = 2.0 / (samples * classes)
            return (outputs - one_hot) * factor, lambda matrix: matrix * factor
        p = torch.softmax(outputs, -1)

        def curvature(matrix: Tensor) -> Tensor:
            weighted = p.unsqueeze(-1) * matrix
            return (weighted - p.unsqueeze(-1) * weighted.sum(-2, keepdim=True)) / samples

        return (p - one_hot) / samples, curvature

    def forward(thetas: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], list[Tensor], Tensor]:
        """Layers, the inputs x_{m−1} of each, the hidden pre-activations, the outputs."""
        layers = network.layers(thetas)
        hidden = [inputs.unsqueeze(0).expand(thetas.shape[0], -1, -1)]
        pre: list[Tensor] = []
        for weight, bias in layers:
            pre.append(hidden[-1] @ weight.mT + bias.unsqueeze(1))
            hidden.append(function(pre[-1]))
        return layers, hidden[:-1], pre[:-1], pre[-1]

    def backward(
        layers: list[tuple[Tensor, Tensor]], slopes: list[tuple[Tensor, Tensor]], residual: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """δ_m for every layer, and W_{m+1}ᵀδ_{m+1} for every hidden one."""
        deltas, pulled = [residual], list[Tensor]()
        for (weight, _), (first, _) in zip(layers[:0:-1], slopes[::-1], strict=True):
            pulled.insert(0, deltas[0] @ weight)
            deltas.insert(0, first * pulled[0])
        return deltas, pulled

    def ordered(full: Tensor) -> Tensor:
        """(B, i, j+1, p, q+1) → rows and columns ordered as θ is: the weights (i, j), then the biases (i)."""
        rows = torch.cat([full[:, :, :-1].flatten(1, 2), full[:, :, -1]], 1)
        return torch.cat([rows[..., :-1].flatten(2), rows[..., -1]], 2)

    def block(q: Tensor, left: Tensor, right: Tensor, cross: Tensor | None) -> Tensor:
        """Σ_samples of a block: q (B,N,i,p), left (B,N,j), right (B,N,q), cross (B,N,i,j,p) → (B, i·j + i, p·q + p)."""
        rows, _, count_i, count_p = q.shape
        ones = left.new_ones(*left.shape[:2], 1)
        left_1, right_1 = torch.cat([left, ones], -1), torch.cat([right, ones], -1)
        tensor = q.unsqueeze(3) * left_1[:, :, None, :, None]
        if cross is not None:
            tensor[..., :-1, :] += cross
        flat = tensor.flatten(2).mT @ right_1  # (B, i·(j+1)·p, q+1)
        return ordered(flat.view(rows, count_i, left_1.shape[-1], count_p, right_1.shape[-1]))

    def softmax_block(outputs: Tensor, left: Tensor) -> Tensor:
        """The last layer's block for cross-entropy, S = diag(p) − ppᵀ: diag_c(Σ p_c x xᵀ) − Σ (p⊗x)(p⊗x)ᵀ, over N."""
        p = torch.softmax(outputs, -1)
        left_1 = torch.cat([left, left.new_ones(*left.shape[:2], 1)], -1)
        product = (p.unsqueeze(3) * left_1.unsqueeze(2)).flatten(2)  # (B, N, c·(j+1))
        width = left_1.shape[-1]
        full = -(product.mT @ product).view(-1, classes, width, classes, width)
        full.diagonal(dim1=1, dim2=3).add_((product.mT @ left_1).view(-1, classes, width, width).movedim(1, 3))
        return ordered(full / samples)

    def evaluate(thetas: Tensor) -> Tensor:
        layers, hidden, pre, outputs = forward(thetas)
        slopes = [derivatives(a) for a in pre]
        residual, curvature = top(outputs)
        deltas, pulled = backward(layers, slopes, residual)
        depth = len(layers)
        blocks: list[list[Tensor | None]] = [[None] * depth for _ in range(depth)]
        for l in range(depth):  # noqa: E741  (the layer index of the formula)
            width = layers[l][0].shape[-2]
            identity = torch.eye(width, dtype=thetas.dtype, device=thetas.device)
            p = [identity.expand(thetas.shape[0], samples, width, width)]
            for m in range(l + 1, depth):
                p.append(layers[m][0].unsqueeze(1) @ (slopes[m - 1][0].unsqueeze(-1) * p[-1]))
            q = curvature(p[-1])
            for m in range(depth - 1, l - 1, -1):
                if m < depth - 1:
                    first, second = slopes[m]
                    q = first.unsqueeze(-1) * (layers[m + 1][0].mT.unsqueeze(1) @ q)
                    q = q + (second * pulled[m]).unsqueeze(-1) * p[m - l]
                cross = None
                if m > l:
                    inner = slopes[m - 1][0].unsqueeze(-1) * p[m - 1 - l]  # ∂x_{m−1}/∂a_l (B, N, j, p)
                    cross = deltas[m][:, :, :, None, None] * inner.unsqueeze(2)
                last = m == l == depth - 1 and loss == "cross_entropy"
                blocks[m][l] = softmax_block(outputs, hidden[m]) if last else block(q, hidden[m], hidden[l], cross)
                blocks[l][m] = blocks[m][l].mT if m > l else blocks[m][l]  # type: ignore[union-attr]
        full = torch.cat([torch.cat([b for b in row if b is not None], 2) for row in blocks], 1)
        full.diagonal(dim1=1, dim2=2).add_(weight_decay)
        return full

    return evaluate


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
        closed_hessian=mlp_hessian(network, inputs, labels, loss, weight_decay),
        hessian_bytes=8 * (2 * network.dim**2 + 3 * len(inputs) * widest * widest * (max(network.widths[:-1]) + 1)),
    )
