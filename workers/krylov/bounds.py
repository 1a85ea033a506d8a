"""Bounds on λ_min and λ_max that fail with a stated probability over the random start of block Lanczos."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import decompositions
from landsweep.workers.krylov.lanczos import Ritz

FAILURE = 1e-9  # probability that a bound does not hold, over the start


def relative_gap(dim: int, steps: int, columns: int, failure: float = FAILURE) -> float:
    """ε with P(θ_min − λ_min > ε·(λ_max − λ_min)) ≤ ``failure`` after k ``steps`` of Lanczos, in advance.

    Kuczyński & Woźniakowski 1992, theorem 4.2: ≤ 1.648·√n·exp(−√ε·(2k−1)) for one start uniform on the sphere; the
    block's space contains those of its ``columns``, which are independent, so their probabilities multiply.

    >>> round(relative_gap(100_000, 100, 4), 4)
    0.0033
    """
    return ((math.log(1.648 * math.sqrt(dim)) - math.log(failure) / columns) / (2 * steps - 1)) ** 2


def bounds_in_advance(ritz: Ritz, dim: int, failure: float = FAILURE) -> tuple[Tensor, Tensor]:
    """θ_min − εD and θ_max + εD with D = (θ_max − θ_min)/(1 − 2ε) ≥ λ_max − λ_min, for Lanczos that took a number of
    steps fixed in advance. (B,), (B,); infinite where ε ≥ ½."""
    gaps = [relative_gap(dim, int(k), ritz.block, failure / 2) for k in ritz.steps.clamp_min(1).tolist()]
    factor = torch.tensor([e / (1 - 2 * e) if e < 0.5 else math.inf for e in gaps], device=ritz.values.device)
    width = factor.to(ritz.values.dtype) * (ritz.highest - ritz.lowest)
    width = torch.where(ritz.exhausted, 0.0, width)
    rounding = dim * torch.finfo(width.dtype).eps * ritz.norm
    return ritz.lowest - width - rounding, ritz.highest + width + rounding


def bounds(ritz: Ritz, dim: int, failure: float = FAILURE) -> tuple[Tensor, Tensor]:
    """x ≤ λ_min and y ≥ λ_max from what Lanczos saw, whenever it stopped; infinite before the second step. (B,), (B,).

    The overlap c of the i-th start vector with λ_min's eigenvector obeys |c| ≤ 1/|p(λ_min)|, p the i-th Lanczos
    polynomial, 1/|p(x)| = Πβ_j/Π(θ_j − x), which grows with x < θ_1 (van Dorsselaer, Hochstenbach & van der Vorst
    2000). Starts being an orthonormal frame uniform in Rⁿ, all b overlaps are at most t with probability at most
    (t√(2n/π))^b = ``failure``. So x solves max_i 1/|p_i(x)| = t; each of x and y may fail that often.
    """
    threshold = 0.5 * math.log(math.pi / (2 * dim)) + math.log(failure) / ritz.block
    rounding = dim * torch.finfo(ritz.values.dtype).eps * ritz.norm
    lower = _below(ritz, 1.0, threshold) - rounding
    upper = -_below(ritz, -1.0, threshold) + rounding
    seen = ritz.exhausted
    return (
        torch.where(seen, ritz.lowest - ritz.lowest_error, lower),
        torch.where(seen, ritz.highest + ritz.highest_error, upper),
    )


def _below(ritz: Ritz, sign: float, threshold: float) -> Tensor:
    """The x below all ``sign``·θ at which the largest overlap's logarithm is ``threshold``. (B,)."""
    lowest = ritz.lowest if sign > 0 else -ritz.highest
    if ritz.values.shape[1] < 2 * ritz.block:
        return torch.full_like(lowest, -torch.inf)
    theta, couplings, degree = _polynomials(ritz, sign)
    order = torch.arange(theta.shape[1], device=theta.device) < degree.unsqueeze(1)
    numerator = torch.where(order, couplings.log(), 0.0).sum(1)
    spread = ritz.highest - ritz.lowest + ritz.norm
    low, high = torch.full_like(lowest, math.log(1e-18)), torch.full_like(lowest, math.log(1e6))
    for _ in range(60):  # bisection on the logarithm of the distance below the lowest Ritz value
        middle = 0.5 * (low + high)
        x = (lowest - spread * middle.exp()).repeat_interleave(ritz.block).unsqueeze(1)
        distance = (theta - x).clamp_min(torch.finfo(theta.dtype).tiny)
        overlap = numerator - torch.where(order, distance.log(), 0.0).sum(1)
        near = (overlap.reshape(-1, ritz.block) > threshold).any(1)
        low, high = torch.where(near, middle, low), torch.where(near, high, middle)
    return torch.where(ritz.steps >= 2, lowest - spread * high.exp(), -torch.inf)


def _polynomials(ritz: Ritz, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros θ_j (B·b, d), couplings β_j (B·b, d) and degree (B·b,) of each start vector's Lanczos polynomial.

    Within the block's space A acts as diag(θ), and on powers below the last as itself: its degree is steps − 1.
    """
    rows, width = ritz.values.shape
    diagonal = (sign * torch.nan_to_num(ritz.values)).repeat_interleave(ritz.block, 0).unsqueeze(2)
    start = ritz.coefficients[:, : ritz.block].reshape(-1, width, 1)
    keys = torch.zeros(rows * ritz.block, dtype=torch.int64, device=start.device)
    *_, last = decompositions(lambda v: diagonal * v, start, keys, width // ritz.block - 1)
    couplings = torch.cat([torch.diagonal(last.projected, -1, 1, 2), last.coupling[:, 0]], 1)
    degree = (ritz.steps - 1).repeat_interleave(ritz.block)
    beyond = torch.arange(couplings.shape[1], device=start.device) >= degree.unsqueeze(1)
    inside = ~(beyond.unsqueeze(1) | beyond.unsqueeze(2))
    symmetric = torch.where(inside, 0.5 * (last.projected + last.projected.mT), 0.0)
    far = 1 + 2 * symmetric.norm(dim=(1, 2), keepdim=True)[:, 0] * beyond  # sorts what is left out to the end
    return torch.linalg.eigvalsh(symmetric + torch.diag_embed(torch.where(beyond, far, 0.0))), couplings, degree
