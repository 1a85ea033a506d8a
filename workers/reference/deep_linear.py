"""Deep linear networks: every stationary product is a set of singular directions, at some the Hessian is degenerate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape
from landsweep.workers.reference.linear import LinearNetwork, Subset, spectrum, stationary
from landsweep.workers.symmetry import basis

SINGULAR = 1e-3  # singular values of a layer above which it surely is invertible
ROUNDING = 1e-9  # curvatures relative to s_1 that count as zero


def deep_linear(widths: Sequence[int] = (3, 3, 3, 3), singular_values: Sequence[float] | None = None) -> Landscape:
    """L = ½‖W_L⋯W_1 − Y‖²_F, W_l [d_l×d_{l−1}], Y = diag(singular_values) [d_L×d_0], evenly spaced to 1 by default.

    The stationary products are Σ_{i∈I} s_i u_i v_iᵀ over sets I of q ≤ r = min d_l singular directions (Kawaguchi 2016;
    Achour, Malgouyres & Gerchinovitz 2022), with L = ½ Σ_{j∉I} s_j². What theory says of their curvature is in
    ``DeepLinearClasses``. Names number the directions by descending singular value. With equal widths and standard
    normal starts, as by default, searches meet mostly points that are regular up to the hidden GL(d_l); bottlenecks and
    small starts lead to degenerate ones. Raises LandscapeError unless there are at least two layers and the singular
    values are min(d_0, d_L) distinct positive numbers.
    """
    if len(widths) < 3 or min(widths) < 1:
        raise LandscapeError(
            f"widths: found {list(widths)}; input, output and at least one hidden width ≥ 1 are needed"
        )
    rank = min(widths[0], widths[-1])
    spaced = [(i + 1) / rank for i in reversed(range(rank))]
    values = spectrum(spaced if singular_values is None else singular_values, rank, "singular_values")
    target = torch.zeros(widths[-1], widths[0], dtype=torch.float64)
    target.diagonal().copy_(values)
    network = LinearNetwork(tuple(widths), inputs=torch.eye(widths[0], dtype=torch.float64), targets=target)
    best = values.sort(descending=True).values[min(widths) :]

    def init(generator: torch.Generator) -> Tensor:
        return torch.randn(network.dim, generator=generator, dtype=torch.float64)

    landscape = Landscape.from_function(
        network.loss, network.dim, init, symmetries=network.symmetries(),
        hessian_lipschitz=network.lipschitz, known_class=DeepLinearClasses(network, values), outputs=network.outputs,
        global_minimum=0.5 * float((best**2).sum()), name="deep_linear",
    )  # fmt: skip
    return dataclasses.replace(landscape, closed_hessian=network.hessian, hessian_bytes=network.hessian_bytes)


@dataclass(frozen=True)
class DeepLinearClasses:
    """θ ↦ what theory knows of the stationary point θ with product Σ_{i∈I} s_i u_i v_iᵀ, q = |I|, r = min d_l.

    *q = r*: the product map is a submersion onto the matrices of rank r there, on which ½‖· − Y‖² has the curvatures
    1 ± s_j/s_i at each pair (i∈I, j∉I) and 1 elsewhere. So index = Σ_{i∈I} #{j∉I : s_j > s_i} and n − r(d_0 + d_L − r)
    zeros at every representative.

    *q < r, all layers but two invertible*: with the others taken into these as new coordinates, they are a network of
    two layers, of hidden width p. So, as for the autoencoder, index = Σ_{i∈I} #{j∉I : s_j > s_i}
    + (p − q)(min(d_0, d_L) − q), with q² + (p − q)(2q + |d_0 − d_L|) zeros and d_l² more for each invertible layer.

    In these two cases the zeros are tangents of the orbit of the hidden GL(d_l) where all d_l are r, or d_0 = d_L
    respectively; elsewhere the kind is degenerate at the representatives whose orbit has fewer dimensions.

    *q < r otherwise*: a saddle, strict unless I is the q largest and for every two layers i > j the inner product
    C = W_{i−1}⋯W_{j+1} has rank q or M = (W_{j−1}⋯W_1) Rᵀ (W_L⋯W_{i+1}) vanishes, R = product − Y (after Achour et al.
    2022, definition 6 and theorem 7). Then H ≥ 0 (index 0, kind degenerate_saddle), as at the origin, where H = 0: the
    second-order terms tr(M D_i C D_j) of the pairs with M ≠ 0 pass through the q directions of C alone, and sum to
    what ‖ΣA_iD_iB_i‖² outweighs. A pair with M ≠ 0 and rank C > q has a D_i or D_j that no first-order term sees.
    The index and zeros of other saddles depend on the representative: both are None, and kind ``saddle`` leaves open
    whether symmetries explain all zeros.
    """

    network: LinearNetwork
    values: Tensor  # (min(d_0, d_L),) singular values s of Y

    def __call__(self, theta: Tensor) -> KnownClass | None:
        place = theta.detach().cpu().double()
        subset = Subset.of(self.network.product(place), self.values, self.values)
        if subset is None or not stationary(self.network.loss, place):
            return None
        kind, index, zeros = self._curvature(subset, place)
        return KnownClass(subset.name, kind, index, zeros, 0.5 * float((subset.others(self.values) ** 2).sum()))

    def _curvature(self, subset: Subset, theta: Tensor) -> tuple[str, int | None, int | None]:
        """Kind, index, zeros."""
        q, widths, singular = len(subset.numbers), self.network.widths, self._singular_layers(theta)
        first, last = widths[0], widths[-1]
        if q == min(widths):
            index, zeros = subset.inversions, self.network.dim - q * (first + last - q)
            explained = max(widths[1:-1]) == q
        elif len(singular) == 2:
            width = widths[singular[0] + 1]
            index = subset.inversions + (width - q) * (min(first, last) - q)
            others = self.network.dim - width * (first + last)
            zeros, explained = q**2 + (width - q) * (2 * q + abs(first - last)) + others, first == last
        elif subset.inversions == 0 and not self._strict(q, theta):
            return "degenerate_saddle", 0, None
        else:
            return "saddle", None, None
        kind = "saddle" if index else "minimum"
        explained = explained or int(basis(self.network.symmetries(), theta.unsqueeze(0))[1]) == zeros
        return kind if explained else f"degenerate_{kind}", index, zeros

    def _singular_layers(self, theta: Tensor) -> list[int]:
        """Which layers are not square or have a singular value up to ``SINGULAR``, counted from 0."""
        layers = self.network.layers(theta)
        return [
            place for place, weight in enumerate(layers)
            if weight.shape[0] != weight.shape[1] or float(torch.linalg.svdvals(weight)[-1]) <= SINGULAR
        ]  # fmt: skip

    def _strict(self, q: int, theta: Tensor) -> bool:
        """Whether some two layers have M ≠ 0 and rank C > q: whether ‖M‖₂σ_{q+1}(C) is above rounding."""
        products, residual = self.network.partial_products(theta), self.network.residual(theta)
        depth, scale = self.network.depth, float(self.values.max())
        curvatures = []
        for j, i in combinations(range(1, depth + 1), 2):
            coupling = products[0, j - 1] @ residual.mT @ products[i, depth]
            inner = torch.linalg.svdvals(products[j, i - 1])
            curvatures.append(float(torch.linalg.svdvals(coupling)[0] * inner[q]))
        return max(curvatures) > ROUNDING * scale
