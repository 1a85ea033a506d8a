"""The saddle-free Newton method: Newton steps that descend along negative curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import decompositions
from landsweep.workers.landscape import Landscape, padded
from landsweep.workers.optimizers.rule import State, Step
from landsweep.workers.quadratic import eigh

DAMPINGS = tuple(10.0**-power for power in range(7))  # of ``damping``; those of the paper at damping 1


@dataclass(frozen=True)
class SaddleFreeNewton:
    """θ ← θ − η (|H| + λI)⁻¹ g, |H| having the absolute eigenvalues of H (Dauphin et al. 2014, algorithm 1).

    λ is, at each step and for each trial, the one of ``damping``·(1, 0.1, …, 1e-6) whose step leads to the lowest L.
    Up to ``krylov_dimension`` k parameters H is dense. Beyond, it is its projection on the Krylov space of g,
    span{g, Hg, …, H^{k−1}g}, by Lanczos with full reorthogonalisation; the paper's space starts at a random vector,
    while this one holds g, so that its step tends to the exact one as k grows. Curvature is float64 and full-batch.
    """

    krylov_dimension: int
    names: tuple[str, ...] = ("lr", "damping")

    def init(self, theta: Tensor) -> State:
        return {}

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        here, lr = theta.to(torch.float64), at.of("lr").to(torch.float64)
        gradient = at.landscape.gradient(here)
        values, modes = self._modes(at, here, gradient)
        coefficients = (modes * gradient.unsqueeze(1)).sum(2)
        lowest, best = torch.full_like(here[:, 0], torch.inf), here  # where no step has a finite L, θ stays
        for share in DAMPINGS:
            scaled = coefficients / (values.abs() + share * at.of("damping"))
            proposal = here - lr * (scaled.unsqueeze(2) * modes).sum(1)
            value = at.landscape.objective(proposal)
            chosen = value < lowest
            lowest = torch.where(chosen, value, lowest)
            best = torch.where(chosen.unsqueeze(1), proposal, best)
        return best.to(theta.dtype), state

    def _modes(self, at: Step, theta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues (B, k) of H or of its projection, and their vectors as rows (B, k, n)."""
        if theta.shape[1] <= self.krylov_dimension:
            values, vectors, _ = eigh(at.landscape.hessian(theta))
            return values, vectors.mT
        return _projected(at.landscape, theta, gradient, at.keys, self.krylov_dimension)


def _projected(
    landscape: Landscape, theta: Tensor, start: Tensor, keys: Tensor, dimension: int
) -> tuple[Tensor, Tensor]:
    """Ritz pairs of the Krylov space of ``start``. (B, k), (B, k, n)."""

    def product(vectors: Tensor) -> Tensor:
        return landscape.hvp(theta, vectors)

    for now in decompositions(product, start.unsqueeze(2), keys, dimension):
        last = now
    values, vectors, _ = eigh(last.projected)
    return values, padded(lambda s, q: s.mT @ q, vectors, last.basis)
