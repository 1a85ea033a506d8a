"""Spherical p-spin glasses: p = 2 in closed form, p = 3 in few dimensions by enumeration."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape
from landsweep.workers.reference.enumeration import catalogued, stationary_directions
from landsweep.workers.reference.sphere import on_sphere

WITHIN = 1e-6  # how near θ/‖θ‖ has to be to a known point
LARGEST = 4  # dimensions in which enumeration is affordable


def couplings(p: int, n: int, seed: int) -> Tensor:
    """The symmetric part of J/√n, J_{i…k} ~ N(0, 1) independent. (n, …, n), p axes."""
    drawn = streams.normal(streams.keys(f"spherical_spin {p}", [seed], "reference"), 0, n**p).view((n,) * p)
    orders = list(permutations(range(p)))
    total: Tensor = sum((drawn.permute(order) for order in orders), torch.zeros_like(drawn))
    return total.div(len(orders) * n**0.5)


@lru_cache(maxsize=8)
def spherical_spin(p: int = 2, n: int = 10, seed: int = 0) -> Landscape:
    """f(θ) = n^{−½} Σ J_{i…k} θ_i…θ_k on the unit sphere, the energy per spin of the spherical p-spin glass, for which
    minima gather at −2√((p−1)/p) as n grows (Auffinger, Ben Arous & Černý 2013).

    Raises LandscapeError for p other than 2 and 3, n < 2, and n > 4 at p = 3.
    """
    if p not in (2, 3) or n < 2 or (p == 3 and n > LARGEST):
        raise LandscapeError(
            f"spherical_spin: found p = {p}, n = {n}; p has to be 2 with n ≥ 2, or 3 with n from 2 to {LARGEST}"
        )
    return _matrix(couplings(2, n, seed)) if p == 2 else _cubic(couplings(3, n, seed))


def _matrix(matrix: Tensor) -> Landscape:
    """f = θᵀSθ: the critical points are ± the eigenvectors of S; the k-th, counted from 0, has L = λ_k and index k."""
    n = len(matrix)
    values, vectors = torch.linalg.eigh(matrix)

    def known_class(theta: Tensor) -> KnownClass | None:
        k = int((vectors * theta.unsqueeze(1)).sum(0).abs().argmax())
        gap = torch.minimum((vectors[:, k] - theta).norm(), (vectors[:, k] + theta).norm())
        if float(gap) > WITHIN:
            return None
        kind = "minimum" if k == 0 else "maximum" if k == n - 1 else "saddle"
        return KnownClass(f"eigenvector {k}", kind, k, 1, float(values[k]))

    return on_sphere(
        lambda theta: (matrix.to(theta) * theta.unsqueeze(1) * theta).sum(),
        n, 2, float(matrix.norm()) / 2**0.5,  # ½(λ_max − λ_min) ≤ ‖S‖_F/√2
        name="spherical_spin", known_class=known_class, global_minimum=float(values[0]),
    )  # fmt: skip


def _cubic(tensor: Tensor) -> Landscape:
    """f = T(θ, θ, θ): at most 2ⁿ − 1 pairs ±θ (Cartwright & Sturmfels 2013), found by enumeration."""
    n = len(tensor)
    bound = float(torch.linalg.matrix_norm(tensor.flatten(1), 2))  # |T(θ, θ, θ)| = |θᵀT₁(θ⊗θ)| ≤ ‖T₁‖₂, T₁ n × n²

    def polynomial(theta: Tensor) -> Tensor:
        return (tensor.to(theta) * theta[:, None, None] * theta[:, None] * theta).sum()

    sphere = on_sphere(polynomial, n, 3, bound, name="spherical_spin")
    return catalogued(sphere, stationary_directions(sphere))
