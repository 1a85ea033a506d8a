"""Symmetric matrix factorisation: every stationary point is a set of eigenvectors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, KnownClass, Landscape
from landsweep.workers.reference.linear import Subset, spectrum, stationary


def matrix_factorisation(n: int = 8, rank: int = 3, eigenvalues: Sequence[float] | None = None) -> Landscape:
    """L = ¼‖UUᵀ − M‖²_F, θ = U [n×r] row by row, r = ``rank``, M = diag(eigenvalues), diag(n, …, 1) by default.

    Up to O(r) the stationary points are the sets I of q ≤ r eigenvectors v_i of M, UUᵀ = Σ_{i∈I} μ_i v_i v_iᵀ (Ge, Jin
    & Zheng 2017; Chi, Lu & Chen 2019). At U = [√μ_i v_i, 0] the Hessian ⟨UUᵀ − M, DDᵀ⟩ + ½‖DUᵀ + UDᵀ‖² is diagonal in
    the entries D_ac of D = Σ D_ac v_a e_cᵀ but for pairs inside I: μ_i − μ_j at (j∉I, i∈I), −μ_j at (j∉I, c>q), 0 at
    (i∈I, c>q), 2μ_i at (i, i), and {μ_i + μ_k, 0} at {(i, k), (k, i)}. So

        L = ¼ Σ_{j∉I} μ_j²,   index = Σ_{i∈I} #{j∉I : μ_j > μ_i} + (r − q)(n − q),   zeros: q(q − 1)/2 + q(r − q),

    the zeros being the tangents of the orbit of O(r). The r largest give the minimum, the empty set (U = 0) a maximum,
    all others saddles; names number the eigenvectors by descending eigenvalue. Raises LandscapeError unless
    1 ≤ rank ≤ n and the eigenvalues are n distinct positive numbers.
    """
    if not 1 <= rank <= n:
        raise LandscapeError(f"rank: found {rank} with n = {n}; the factor needs 1 ≤ rank ≤ n columns")
    values = spectrum(range(n, 0, -1) if eigenvalues is None else eigenvalues, n, "eigenvalues")
    matrix, scale = torch.diag(values), math.sqrt(float(values.mean()) / rank)

    def factor(theta: Tensor) -> Tensor:
        return theta.reshape(*theta.shape[:-1], n, rank)

    def residual(theta: Tensor) -> Tensor:
        u = factor(theta)
        return u @ u.mT - matrix.to(dtype=theta.dtype, device=theta.device)

    def loss(theta: Tensor) -> Tensor:
        return 0.25 * (residual(theta) ** 2).sum()

    def closed_hessian(thetas: Tensor) -> Tensor:
        """H[(a,c),(b,d)] = R_ab δ_cd + δ_ab (UᵀU)_cd + U_ad U_bc with R = UUᵀ − M."""
        u, eye = factor(thetas), torch.eye(n, dtype=thetas.dtype, device=thetas.device)
        full = residual(thetas)[:, :, None, :, None] * eye[:rank, None, :rank]
        full = full + eye[:, None, :, None] * (u.mT @ u)[:, None, :, None, :]
        full = full + u[:, :, None, None, :] * u.mT[:, None, :, :, None]
        return full.flatten(3, 4).flatten(1, 2)

    def lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
        """K = 6(‖U‖₂ + radius): ∇³L[D,D,D] = 6⟨UDᵀ, DDᵀ⟩ ≤ 6‖U‖₂‖D‖³_F, with equality for D = the product of the first
        singular vectors; a bound of it over a ball bounds the Hessian's Lipschitz constant there (Banach 1938)."""
        largest: Tensor = torch.linalg.svdvals(factor(theta))[0]
        return 6 * (largest + radius)

    def outputs(theta: Tensor) -> Tensor:
        """UUᵀ, flattened."""
        return (factor(theta) @ factor(theta).mT).flatten()

    def init(generator: torch.Generator) -> Tensor:
        """U with E[UUᵀ] = tr(M)/n · I."""
        return scale * torch.randn(n * rank, generator=generator, dtype=torch.float64)

    def known_class(theta: Tensor) -> KnownClass | None:
        place = theta.detach().cpu().double()
        subset = Subset.of(residual(place) + matrix, values, values)
        if subset is None or not stationary(loss, place):
            return None
        q = len(subset.numbers)
        index, zeros = subset.inversions + (rank - q) * (n - q), q * (q - 1) // 2 + q * (rank - q)
        kind = ("saddle" if q else "maximum") if index else "minimum"
        return KnownClass(subset.name, kind, index, zeros, 0.25 * float((subset.others(values) ** 2).sum()))

    landscape = Landscape.from_function(
        loss, n * rank, init, symmetries=[_rotation(n, rank, a, b) for a, b in combinations(range(rank), 2)],
        hessian_lipschitz=lipschitz, known_class=known_class, outputs=outputs,
        global_minimum=0.25 * float((values.sort().values[: n - rank] ** 2).sum()), name="matrix_factorisation",
    )  # fmt: skip
    return dataclasses.replace(landscape, closed_hessian=closed_hessian, hessian_bytes=8 * 4 * (n * rank) ** 2)


def _rotation(n: int, rank: int, a: int, b: int) -> Field:
    """U ↦ U(e_a e_bᵀ − e_b e_aᵀ), the generator of rotations of columns a and b."""
    generator = torch.zeros(rank, rank, dtype=torch.float64)
    generator[a, b], generator[b, a] = 1.0, -1.0

    def field(theta: Tensor) -> Tensor:
        return (theta.view(n, rank) @ generator.to(dtype=theta.dtype, device=theta.device)).flatten()

    return field
