"""The Hessian of two-layer nets with a squared loss in closed form, for many nets at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from landsweep.workers.activations import ACTIVATIONS


@dataclass(frozen=True)
class TwoLayerHessian:
    """Called with thetas (B, n), gives the Hessians (B, n, n) of mean (z − t)² + λ/2·‖θ‖², z = Vφ(Ux), θ = (U, V).

    Where there are biases, x and h = φ(Ux) end in 1, and U and V in the biases' column. With r = z − t, c = 2/(N·o) for
    o outputs, sums over samples, i, k outputs, p, s hidden units, j, l entries of h, q, u of x:

        H[U_pq, U_su] = c Σ ((VᵀV)_ps φ′_p φ′_s + δ_ps (Vᵀr)_p φ″_p) x_q x_u
        H[V_ij, U_pq] = c (V_ip Σ h_j φ′_p x_q + δ_jp Σ r_i φ′_p x_q)
        H[V_ij, V_kl] = c δ_ik Σ h_j h_l

    (Bishop 1992). The products x_q x_u, q ≤ u, are the same for all nets, so that the first block is one matrix product
    a net, of all pairs p ≤ s with all pairs q ≤ u.
    """

    inputs: Tensor  # (N, d)
    targets: Tensor  # (N, o)
    hidden: int
    activation: str  # a smooth one
    bias: bool
    weight_decay: float  # λ

    def __call__(self, thetas: Tensor) -> Tensor:
        """The Hessians (B, n, n)."""
        rows, units, outputs = len(thetas), self.hidden, self.targets.shape[1]
        scale = 2.0 / self.targets.numel()
        x, entries = self._x.expand(rows, -1, -1), units + self.bias
        first, second = self._layers(thetas)
        h, slope, bend = self._activations(first @ x.mT)
        residual = second @ h - self.targets.mT
        weights = second[:, :, :units]
        top, low = torch.triu_indices(units, units, device=thetas.device)
        pairs = (weights.mT @ weights)[:, top, low].unsqueeze(2) * slope[:, top] * slope[:, low]
        pairs[:, top == low] += (weights.mT @ residual) * bend
        corner = scale * (pairs @ self._squares.expand(rows, -1, -1))  # (B, pairs of units, pairs of inputs)
        corner = corner[:, _places(units, thetas)][..., _places(x.shape[2], thetas)]  # (B, p, s, q, u)
        left = torch.cat([h, residual], 1).unsqueeze(2) * slope.unsqueeze(1)
        sums = scale * (left.flatten(1, 2) @ x).view(rows, entries + outputs, units, -1)
        cross = weights[:, :, None, :, None] * sums[:, None, :entries]  # (B, i, j, p, q)
        cross[:, :, :units].diagonal(dim1=2, dim2=3).add_(sums[:, entries:].permute(0, 1, 3, 2))
        last = thetas.new_zeros(rows, outputs, entries, outputs, entries)
        last.diagonal(dim1=1, dim2=3).copy_((scale * (h @ h.mT)).unsqueeze(3))
        return self._joined(corner.transpose(2, 3), cross, last)

    @property
    def temporaries(self) -> int:
        """Bytes of one Hessian at its peak: what is held over samples, the blocks and two copies of the whole."""
        units, outputs, inputs = self.hidden, self.targets.shape[1], self._x.shape[1]
        sampled = 2 * units * (units + 1) + 2 * (units + outputs + 1) * units + 8 * (units + outputs)
        return 8 * (len(self.inputs) * sampled + 2 * (units * inputs) ** 2 + 4 * len(self._order) ** 2)

    @property
    def kept(self) -> int:
        """Bytes of the products of pairs of inputs, which stay."""
        width = self.inputs.shape[1] + self.bias
        return 8 * len(self.inputs) * width * (width + 1) // 2

    def _layers(self, thetas: Tensor) -> tuple[Tensor, Tensor]:
        """U (B, units, d) and V (B, o, units), with the biases' columns."""
        ordered = thetas.index_select(1, self._order.argsort().to(thetas.device))
        first = self.hidden * self._x.shape[1]
        shapes = (len(thetas), self.hidden, -1), (len(thetas), self.targets.shape[1], -1)
        return ordered[:, :first].reshape(shapes[0]), ordered[:, first:].reshape(shapes[1])

    def _activations(self, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h (B, entries, N), φ′ and φ″ (B, units, N) at pre-activations (B, units, N)."""
        function, derivatives = ACTIVATIONS[self.activation]
        values = function(before)
        if self.bias:
            values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
        return values, *derivatives(before)

    def _joined(self, corner: Tensor, cross: Tensor, last: Tensor) -> Tensor:
        """The blocks as one matrix in θ's order."""
        below = cross.flatten(3, 4).flatten(1, 2)
        above = torch.cat([corner.flatten(3, 4).flatten(1, 2), below.mT], 2)
        whole = torch.cat([above, torch.cat([below, last.flatten(3, 4).flatten(1, 2)], 2)], 1)
        if self.bias:
            order = self._order.to(whole.device)
            whole = whole.index_select(1, order).index_select(2, order)
        whole.diagonal(dim1=1, dim2=2).add_(self.weight_decay)
        return whole

    @cached_property
    def _x(self) -> Tensor:
        """The inputs (N, d), with the bias's 1."""
        ones = torch.ones_like(self.inputs[:, :1])
        return torch.cat([self.inputs, ones], 1) if self.bias else self.inputs

    @cached_property
    def _squares(self) -> Tensor:
        """x_q x_u for q ≤ u. (N, pairs)."""
        left, right = torch.triu_indices(self._x.shape[1], self._x.shape[1], device=self._x.device)
        return self._x[:, left] * self._x[:, right]

    @cached_property
    def _order(self) -> Tensor:
        """Where each parameter of θ, weights before biases in each layer, stands in (U, V) row by row. (n,)."""
        begun, places = 0, []
        for units, width in ((self.hidden, self.inputs.shape[1]), (self.targets.shape[1], self.hidden)):
            grid = begun + torch.arange(units * (width + self.bias)).view(units, -1)
            places += [grid[:, :width].flatten(), grid[:, width:].flatten()]
            begun += grid.numel()
        return torch.cat(places)


def _places(count: int, like: Tensor) -> Tensor:
    """The place of each pair in the upper triangle taken row by row. (count, count)."""
    row, column = torch.triu_indices(count, count, device=like.device)
    places = torch.zeros(count, count, dtype=torch.int64, device=like.device)
    places[row, column] = torch.arange(len(row), device=like.device)
    places[column, row] = places[row, column]
    return places
