"""The linear autoencoder: every stationary point is a set of principal directions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape
from landsweep.workers.reference.linear import LinearNetwork, Subset, spectrum, stationary


def linear_autoencoder(k: int = 16, p: int = 4, variances: Sequence[float] | None = None) -> Landscape:
    """L = ½ tr((I − W₂W₁) Σ (I − W₂W₁)ᵀ), θ = (W₁ [p×k], W₂ [k×p]), Σ = diag(variances), diag(1, …, k) by default.

    Baldi & Hornik (1989): up to GL(p) the stationary points are the sets I of q ≤ p eigenvectors of Σ, W₂W₁ being the
    projector onto them, with

        L = ½ Σ_{j∉I} λ_j,   index = Σ_{i∈I} #{j∉I : λ_j > λ_i} + (p − q)(k − q),   zeros: q² + 2q(p − q).

    The zeros are the tangents of the orbit of GL(p), whose stabiliser is GL(p − q); the index is the same all over it
    (Sylvester). The p largest give the minimum; a set of fewer keeps (p − q)(k − q) > 0 directions of descent and as
    many of ascent, so all others are saddles. k=16, p=4 has 2517 classes. Their names number the eigenvectors by
    descending variance. Raises LandscapeError unless 1 ≤ p < k and the variances are k distinct positive numbers.
    """
    if not 1 <= p < k:
        raise LandscapeError(f"p: found {p} with k = {k}; the autoencoder's bottleneck needs 1 ≤ p < k")
    values = spectrum(list(range(1, k + 1)) if variances is None else variances, k, "variances")
    root = torch.diag(values.sqrt())
    network = LinearNetwork((k, p, k), inputs=root, targets=root)

    def init(generator: torch.Generator) -> Tensor:
        """Entries N(0, 1/fan-in), which keep the size of what a layer passes on."""
        first, second = torch.randn(2, k * p, generator=generator, dtype=torch.float64)
        return torch.cat([first / math.sqrt(k), second / math.sqrt(p)])

    def known_class(theta: Tensor) -> KnownClass | None:
        place = theta.detach().cpu().double()
        subset = Subset.of(network.product(place), torch.ones_like(values), values)
        if subset is None or not stationary(network.loss, place):
            return None
        q = len(subset.numbers)
        index, zeros = subset.inversions + (p - q) * (k - q), q**2 + 2 * q * (p - q)
        objective = 0.5 * float(subset.others(values).sum())
        return KnownClass(subset.name, "saddle" if index else "minimum", index, zeros, objective)

    landscape = Landscape.from_function(
        network.loss, network.dim, init, symmetries=network.symmetries(),
        hessian_lipschitz=network.lipschitz, known_class=known_class, outputs=network.outputs,
        global_minimum=0.5 * float(values.sort().values[: k - p].sum()), name="linear_autoencoder",
    )  # fmt: skip
    return dataclasses.replace(landscape, closed_hessian=network.hessian, hessian_bytes=network.hessian_bytes)
