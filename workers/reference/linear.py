"""Linear networks: loss, derivatives, symmetries and Lipschitz bound of the landscapes of matrix products.

Their stationary points are products over subsets of eigenvectors (Baldi & Hornik 1989), named by ``Subset``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor
from torch.func import grad

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, Scalar

WITHIN = 1e-6  # ‖product − Σ_{i∈I}‖_F up to which a product belongs to the subset I
STATIONARY = 1e-6  # ‖∇L‖ up to which a place counts as stationary


def spectrum(values: Sequence[float], count: int, option: str) -> Tensor:
    """``values`` as a tensor (count,). Raises LandscapeError unless they are
    ``count`` distinct positive numbers."""
    numbers = [float(value) for value in values]
    if len(numbers) != count or len(set(numbers)) != count or min(numbers) <= 0:
        raise LandscapeError(
            f"{option}: found {numbers}; {count} distinct positive numbers are needed, since equal ones make a "
            "continuum of stationary points out of each subset of them"
        )
    return torch.tensor(numbers, dtype=torch.float64)


@dataclass(frozen=True)
class Subset:
    """A subset I of eigenvectors, which names a class of stationary points."""

    numbers: tuple[int, ...]  # ascending; 1 is the eigenvector of the largest eigenvalue

    @staticmethod
    def of(product: Tensor, entries: Tensor, values: Tensor) -> Subset | None:
        """The I with product = Σ_{i∈I} entries_i e_i e_iᵀ within 1e-6, eigenvectors numbered by descending ``values``.

        ``product`` (a, b), ``entries`` and ``values`` (min(a, b),). None where there is no such I.
        """
        chosen = product.diagonal() > 0.5 * entries
        nearest = torch.zeros_like(product)
        nearest.diagonal().copy_(torch.where(chosen, entries, 0.0))
        if not float((product - nearest).norm()) <= WITHIN:
            return None
        rank = torch.argsort(torch.argsort(values, descending=True)) + 1
        return Subset(tuple(sorted(rank[chosen].tolist())))

    @property
    def name(self) -> str:
        """Such as {1,2,4}."""
        return "{" + ",".join(str(number) for number in self.numbers) + "}"

    @property
    def inversions(self) -> int:
        """Σ_{i∈I} #{j∉I : λ_j > λ_i}.

        >>> Subset((2, 5)).inversions
        4
        """
        return sum(number - place for place, number in enumerate(self.numbers, start=1))

    def others(self, values: Tensor) -> Tensor:
        """The ``values`` of the eigenvectors outside I, descending."""
        ordered = torch.sort(values, descending=True).values
        outside = [number not in self.numbers for number in range(1, len(ordered) + 1)]
        return ordered[torch.tensor(outside)]


def stationary(loss: Scalar, theta: Tensor) -> bool:
    """Whether ‖∇L(θ)‖ ≤ 1e-6."""
    return bool(grad(loss)(theta).norm() <= STATIONARY)


@dataclass(frozen=True)
class LinearNetwork:
    """L(θ) = ½‖W_L⋯W_1 X − T‖²_F with θ = (W_1, …, W_L), each W_l (d_l, d_{l−1}) row by row.

    Below, P_ij = W_j⋯W_{i+1} (times X for i = 0, the identity for i = j > 0), A_i = P_iL, B_i = P_{0,i−1} and
    R = W_L⋯W_1 X − T.
    """

    widths: tuple[int, ...]  # d_0, …, d_L
    inputs: Tensor  # X (d_0, m)
    targets: Tensor  # T (d_L, m)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.widths) - 1

    @property
    def dim(self) -> int:
        """n."""
        return sum(above * below for below, above in pairwise(self.widths))

    def layers(self, theta: Tensor) -> list[Tensor]:
        """θ (…, n) → W_1, …, W_L, each (…, d_l, d_{l−1})."""
        shapes = [(above, below) for below, above in pairwise(self.widths)]
        pieces = torch.split(theta, [rows * columns for rows, columns in shapes], dim=-1)
        return [piece.reshape(*theta.shape[:-1], *shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def product(self, theta: Tensor) -> Tensor:
        """W_L⋯W_1. (…, n) → (…, d_L, d_0)."""
        first, *rest = self.layers(theta)
        for weight in rest:
            first = weight @ first
        return first

    def outputs(self, theta: Tensor) -> Tensor:
        """The product's entries, which no symmetry changes. (n,) → (d_L·d_0,)."""
        return self.product(theta).flatten()

    def residual(self, theta: Tensor) -> Tensor:
        """R. (…, n) → (…, d_L, m)."""
        return self.product(theta) @ self._like(self.inputs, theta) - self._like(self.targets, theta)

    def loss(self, theta: Tensor) -> Tensor:
        """L. (n,) → ()."""
        return 0.5 * (self.residual(theta) ** 2).sum()

    def partial_products(self, theta: Tensor) -> dict[tuple[int, int], Tensor]:
        """P_ij for 0 ≤ i ≤ j ≤ L, keyed (i, j), each (…, d_j, d_i), or (…, d_j, m) for i = 0."""
        weights, products = self.layers(theta), dict[tuple[int, int], Tensor]()
        for i, width in enumerate(self.widths):
            start = self.inputs if i == 0 else torch.eye(width)
            products[i, i] = self._like(start, theta).expand(*theta.shape[:-1], -1, -1)
            for j in range(i + 1, len(self.widths)):
                products[i, j] = weights[j - 1] @ products[i, j - 1]
        return products

    def hessian(self, thetas: Tensor) -> Tensor:
        """∇²L at each row, (B, n) → (B, n, n), with entries

        H[(i,a,b),(j,c,d)] = (A_iᵀA_j)_ac (B_iB_jᵀ)_bd + (B_jRᵀA_i)_da (P_{j,i−1})_bc, the second term for i > j:

        ½‖R + Σ A_iD_iB_i + Σ_{i>j} A_iD_iP_{j,i−1}D_jB_j + …‖² to second order in D.
        """
        products, residual, depth = self.partial_products(thetas), self.residual(thetas), self.depth
        blocks: dict[tuple[int, int], Tensor] = {}
        for i in range(1, depth + 1):
            for j in range(1, i + 1):
                left, right = products[i, depth], products[0, i - 1]
                block = _outer(left.mT @ products[j, depth], right @ products[0, j - 1].mT)
                if i > j:
                    inner = products[0, j - 1] @ residual.mT @ left
                    block = block + _outer(inner.mT, products[j, i - 1]).transpose(-1, -2)
                blocks[i, j] = block.flatten(3, 4).flatten(1, 2)
                blocks[j, i] = blocks[i, j].mT
        span = range(1, depth + 1)
        return torch.cat([torch.cat([blocks[i, j] for j in span], 2) for i in span], 1)

    @property
    def hessian_bytes(self) -> int:
        """What one Hessian takes with its blocks and their temporaries."""
        return 8 * 4 * self.dim**2

    def symmetries(self) -> list[Field]:
        """The generators of GL(d_l) at every hidden layer: W_l ↦ E W_l, W_{l+1} ↦ −W_{l+1}E, E = e_a e_bᵀ."""
        fields = []
        for layer, width in enumerate(self.widths[1:-1]):
            for place in range(width**2):
                unit = torch.zeros(width**2, dtype=torch.float64)
                unit[place] = 1.0
                fields.append(self._field(layer, unit.view(width, width)))
        return fields

    def _field(self, layer: int, unit: Tensor) -> Field:
        def field(theta: Tensor) -> Tensor:
            weights, generator = self.layers(theta), self._like(unit, theta)
            moved = [torch.zeros_like(weight) for weight in weights]
            moved[layer] = generator @ weights[layer]
            moved[layer + 1] = -(weights[layer + 1] @ generator)
            return torch.cat([tangent.flatten() for tangent in moved])

        return field

    def lipschitz(self, theta: Tensor, radius: Tensor) -> Tensor:
        """K with ‖H(a) − H(b)‖₂ ≤ K‖a − b‖ for a, b within ``radius`` of θ. (n,), () → ().

        The ball is convex, so K may be any bound there of ‖∇³L‖, which is max |∇³L[v,v,v]| over unit v (Banach 1938).
        With v = (D_1, …, D_L) and (W_L + tD_L)⋯(W_1 + tD_1)X = Σ t^m Π_m, the coefficient of t³ in ½‖R + tΠ_1 + …‖² is

            ∇³L[v,v,v]/6 = ⟨R, Π_3⟩ + ⟨Π_1, Π_2⟩.

        Π_m is a sum over layers l_1 < … < l_m of A_{l_m} D_{l_m} P ⋯ P D_{l_1} B_{l_1}. Let c be the product of the
        spectral norms of its factors other than D. Then the nuclear norm (m ≥ 2) or the spectral norm (m = 1) of a
        summand is ≤ c·∏‖D_l‖_F. By Cauchy–Schwarz, and by Maclaurin's inequality with Σ‖D_l‖²_F = 1, that of Π_m is
        ≤ τ_m = (Σc²)^½ · (binomial(L, m)/L^m)^½, so K = 6(‖R‖₂τ_3 + τ_1τ_2). Over the ball every ‖P_ij‖₂ and ‖R‖₂ is
        at most its value at θ plus ∏(‖W_l‖₂ + radius) − ∏‖W_l‖₂ over its layers (times ‖X‖₂ for i = 0).
        """
        products, depth = self.partial_products(theta), self.depth
        sizes = [_spectral(weight) for weight in self.layers(theta)]
        norms: dict[tuple[int, int], Tensor] = {}
        for (i, j), product in products.items():
            here, there = torch.ones_like(radius), torch.ones_like(radius)
            for size in sizes[i:j]:
                here, there = here * size, there * (size + radius)
            growth = (there - here) * (_spectral(products[0, 0]) if i == 0 else 1.0)
            norms[i, j] = _spectral(product) + growth
            if (i, j) == (0, depth):
                residual = _spectral(self.residual(theta)) + growth

        def bound(order: int) -> Tensor:
            square = torch.zeros_like(radius)
            for chosen in combinations(range(1, depth + 1), order):
                ends = [0, *chosen]
                factors = [norms[below, above - 1] for below, above in pairwise(ends)]
                square = square + torch.stack([norms[chosen[-1], depth], *factors]).prod() ** 2
            return torch.sqrt(square * (math.comb(depth, order) / depth**order))

        return 6 * (residual * bound(3) + bound(1) * bound(2))

    @staticmethod
    def _like(constant: Tensor, theta: Tensor) -> Tensor:
        return constant.to(dtype=theta.dtype, device=theta.device)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """left_ac right_bd. (B, a, c), (B, b, d) → (B, a, b, c, d)."""
    return left[:, :, None, :, None] * right[:, None, :, None, :]


def _spectral(matrix: Tensor) -> Tensor:
    """‖·‖₂. (a, b) → ()."""
    largest: Tensor = torch.linalg.svdvals(matrix)[0]
    return largest
