"""Gaussian random fields in few dimensions: sums of random plane waves whose stationary points are enumerated."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.reference.enumeration import catalogued, stationary_points

LARGEST = 4  # dimensions in which enumeration is affordable


def spectrum(n: int, waves: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Wave vectors (waves, n), amplitudes (waves,) and phases (waves,)."""
    drawn = streams.normal(streams.keys("random_field", [seed], "reference"), 0, waves * (n + 2)).view(waves, n + 2)
    real, imaginary = drawn[:, n], drawn[:, n + 1]
    return drawn[:, :n], torch.hypot(real, imaginary) / waves**0.5, torch.atan2(imaginary, real)


@lru_cache(maxsize=8)
def random_field(n: int = 2, waves: int = 32, confinement: float = 0.25, seed: int = 0) -> Landscape:
    """f(θ) = Σ_j a_j cos(k_j·θ + φ_j) + ½c‖θ‖² on Rⁿ, c = ``confinement``.

    Wave vectors k_j ~ N(0, I), a_j e^{iφ_j} = (α_j + iβ_j)/√waves with α, β ~ N(0, 1): given the k_j, a Gaussian
    field, whose covariance tends to exp(−½‖θ−θ'‖²) with the number of waves (Rahimi & Recht 2007). Stationary points
    have c|θ_i| ≤ Σ_j|a_j k_ji| and are enumerated there; K = Σ|a_j|‖k_j‖³ everywhere. f is coercive, so Σ(−1)^index = 1
    (Morse; Milnor 1963). Starts are N(0, I/c²), about where c·θ = −∇(waves) has its solutions. Raises LandscapeError
    for n outside 1 … 4, waves < 1, c ≤ 0, and where the region is too large to enumerate.
    """
    if not 1 <= n <= LARGEST or waves < 1 or not confinement > 0:
        raise LandscapeError(
            f"random_field: found n = {n}, waves = {waves}, confinement = {confinement}; "
            f"n has to be 1 to {LARGEST}, waves at least 1, confinement above 0"
        )
    vectors, amplitudes, phases = spectrum(n, waves, seed)

    def loss(theta: Tensor) -> Tensor:
        angles = (vectors.to(theta) * theta).sum(1) + phases.to(theta)
        total: Tensor = (amplitudes.to(theta) * torch.cos(angles)).sum() + 0.5 * confinement * (theta * theta).sum()
        return total

    field = Landscape.from_function(
        loss,
        n,
        lambda generator: torch.randn(n, generator=generator, dtype=torch.float64) / confinement,
        hessian_lipschitz=float((amplitudes * vectors.norm(dim=1) ** 3).sum()),
        name="random_field",
    )
    largest = float((amplitudes.unsqueeze(1) * vectors).abs().sum(0).max())  # of any ∂_i of the waves
    return catalogued(field, stationary_points(field, largest / confinement))
