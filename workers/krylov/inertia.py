"""How many eigenvalues are negative, zero and positive, from products alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.bounds import FAILURE, bounds
from landsweep.workers.krylov.decomposition import Apply
from landsweep.workers.krylov.lanczos import BLOCK, Ritz, combined, lanczos

STREAM = 0x2545F4914F6CDD1D  # each round draws from streams of its own
ROUNDS = 4  # of looking for more eigenvalues below z on the complement of those found


@dataclass(frozen=True)
class Inertia:
    """Counts of eigenvalues below −z, within ±z, above z, and those that cannot be told; they sum to n. Each (B,).

    ``index`` and ``n_positive`` are lower bounds up to rounding (Cauchy), exact where ``n_undetermined`` is 0.
    """

    index: Tensor
    n_zero: Tensor
    n_positive: Tensor
    n_undetermined: Tensor
    highest_index: Tensor  # no more than these are below −z
    remaining: Tensor  # all eigenvalues but those counted as negative or zero exceed this, unless ``failure``
    norm: Tensor  # max |θ|
    failure: float  # probability that ``remaining`` and what follows from it do not hold


def inertia(
    apply: Apply, dim: int, zero: Tensor, keys: Tensor, steps: int, deflation: Tensor | None = None, block: int = BLOCK
) -> Inertia:
    """Count the eigenvalues of A below −z, z = ``zero`` (B,), and above z, with at most ``steps`` blocks a round.

    Ritz vectors with θ ≤ z are collected, round by round on the complement W^⊥ of those before, until a round from a
    fresh random start finds none; C = A on W^⊥ then exceeds x (:func:`~landsweep.workers.krylov.bounds.bounds`).
    With M = WᵀAW, E = ‖AW − WM‖ and t < x, as many eigenvalues of A as of M − E(C−t)⁻¹Eᵀ lie below t (Haynsworth
    1968), so that the i-th of A is at most μ_i and at least μ_i − ‖E‖²/(x − t).

    ``deflation`` (B, n, s), orthonormal or zero columns, holds directions known to be null; M says whether they are.
    """
    span = keys.new_zeros(len(keys), dim, 0, dtype=torch.float64) if deflation is None else deflation
    remaining, norm = torch.full_like(zero, -torch.inf), torch.zeros_like(zero)
    positive, done = torch.zeros_like(keys), torch.zeros_like(keys, dtype=torch.bool)
    for turn in range(ROUNDS):
        ritz = lanczos(apply, dim, keys ^ (turn * STREAM), steps, block=block, deflation=span)
        below = ritz.values <= zero.unsqueeze(1)
        norm = torch.maximum(norm, torch.nan_to_num(ritz.norm))
        rounding = dim * torch.finfo(zero.dtype).eps * norm
        positive = torch.maximum(positive, (ritz.values > (zero + rounding).unsqueeze(1)).sum(1))
        settled = ~done & ~below.any(1)
        lower = torch.where(ritz.count > 0, bounds(ritz, dim, FAILURE)[0], torch.inf)
        remaining = torch.where(settled, lower, remaining)
        done |= settled
        if bool(done.all()):
            break
        span = torch.cat([span, _vectors(ritz, below & ~done.unsqueeze(1))], 2)
        del ritz  # its basis would be kept beside the next round's
    return _counted(apply, span, zero, remaining, positive, norm)


def _vectors(ritz: Ritz, chosen: Tensor) -> Tensor:
    """Ritz vectors, zero where not ``chosen`` (B, k). (B, n, k)."""
    return combined(ritz.basis, ritz.coefficients * chosen.unsqueeze(1))


def _counted(apply: Apply, span: Tensor, zero: Tensor, remaining: Tensor, positive: Tensor, norm: Tensor) -> Inertia:
    """The counts that M's eigenvalues and ``remaining`` imply."""
    dim = span.shape[1]
    span = span[:, :, (span.norm(dim=1) > 0.5).any(0)]
    mu, correction, rounding = _projected(apply, span, zero, remaining, norm)
    size = torch.isfinite(mu).sum(1)
    lowest = mu - (correction + rounding).unsqueeze(1)
    below, above = mu + rounding.unsqueeze(1) < -zero.unsqueeze(1), lowest < -zero.unsqueeze(1)
    bounded = remaining > -zero
    index = below.sum(1)
    zeros = ((mu + rounding.unsqueeze(1) <= zero.unsqueeze(1)) & ~above & torch.isfinite(mu)).sum(1)
    zeros = torch.where(bounded, zeros, 0)
    under = ((mu + rounding.unsqueeze(1) < zero.unsqueeze(1)) & torch.isfinite(mu)).sum(1)
    decided = (under == size) & (remaining > zero)
    positive = torch.where(decided, dim - size, torch.minimum(positive, dim - index - zeros))
    highest = torch.where(bounded, (above & torch.isfinite(mu)).sum(1), dim - positive)
    rest = dim - index - zeros - positive
    return Inertia(index, zeros, positive, rest, highest, remaining, norm, ROUNDS * FAILURE)


def _projected(
    apply: Apply, span: Tensor, zero: Tensor, remaining: Tensor, norm: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """M's eigenvalues (B, m), infinite for zero columns of W, ‖E‖²/(x + z) (B,) and rounding (B,)."""
    if span.shape[2] == 0:
        return span.new_zeros(len(span), 0), torch.zeros_like(zero), torch.zeros_like(zero)
    image = apply(span)
    matrix = span.mT @ image
    missing = span.norm(dim=1) < 0.5
    far = 1 + 2 * matrix.norm(dim=(1, 2))
    symmetric = 0.5 * (matrix + matrix.mT) + torch.diag_embed(missing * far.unsqueeze(1))
    count = (~missing).sum(1, keepdim=True)
    order = torch.arange(span.shape[2], device=span.device)
    mu = torch.linalg.eigvalsh(symmetric).masked_fill(order >= count, torch.inf)
    square = (image - span @ matrix).norm(dim=(1, 2)) ** 2
    correction = square / (remaining + zero).clamp_min(torch.finfo(zero.dtype).tiny)
    rounding = span.shape[1] * torch.finfo(zero.dtype).eps * norm + 0.5 * (matrix - matrix.mT).norm(dim=(1, 2))
    return mu, correction, rounding
