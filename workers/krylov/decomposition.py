"""The block Krylov decomposition of symmetric operators, many at once: AQ = QT + (next block)·R."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import pad_rows

Apply = Callable[[Tensor], Tensor]  # a symmetric linear map for each of B problems: (B, n, m) → (B, n, m)


@dataclass(frozen=True)
class Decomposition:
    """AQ = QT + VR with [Q V] orthonormal: Q has the columns that exist, V is the next block."""

    basis: Tensor  # (B, k, n) the rows are Q's columns; zero where the space is exhausted
    whole: Tensor  # (B, steps·b, n) the same, and zeros for the steps not taken yet
    projected: Tensor  # (B, k, k) T as computed, not symmetrised
    coupling: Tensor  # (B, b, b) R
    count: Tensor  # (B,) columns of Q that exist
    exhausted: Tensor  # (B,) bool: Q spans the whole space
    finite: Tensor  # (B,) bool: all products were finite
    steps: int  # k = steps·b


def random_block(keys: Tensor, dim: int, block: int, step: int) -> Tensor:
    """Standard normal vectors of step ``step`` of each key's stream. (B, n, b)."""
    return streams.normal(keys, step * dim * block, dim * block).reshape(-1, dim, block)


def decompositions(
    apply: Apply, start: Tensor, keys: Tensor, steps: int, deflation: Tensor | None = None
) -> Iterator[Decomposition]:
    """Block Lanczos with full reorthogonalisation (Golub & Underwood 1977) from ``start`` (B, n, b); one item a step.

    Blocks are orthogonalised against all before them twice (Giraud et al. 2005: twice is enough), before and after
    their normalisation. Where a block loses rank (an invariant subspace), a random vector from the rest of the space
    takes the place, uncoupled, so that Q goes on growing until it spans everything. The span of ``deflation``
    (B, n, s), orthonormal or zero columns, is left out: T is that of A on its complement. The tensors of an item are
    views that the next step overwrites in part.
    """
    rows, dim, block = start.shape
    fixed = pad_rows(start.new_zeros(rows, dim, 0) if deflation is None else deflation)
    start, keys = pad_rows(start), pad_rows(keys)
    size = dim - (fixed.norm(dim=1) > 0.5).sum(1)
    basis = start.new_zeros(len(start), steps * block, dim)
    projected = start.new_zeros(len(start), steps * block, steps * block)
    finite = torch.isfinite(start).flatten(1).all(1)
    scale = torch.zeros_like(start[:, 0, 0])
    vectors = _normalised(_cleaned(start, basis[:, :0], fixed)) * _exist(size, 0, block).unsqueeze(1)
    for step in range(steps):
        here, ahead = step * block, (step + 1) * block
        basis[:, here:ahead] = vectors.mT
        image = pad_rows(apply(vectors[:rows])).contiguous()
        finite = finite & torch.isfinite(image).flatten(1).all(1)
        image = _outside(torch.where(finite[:, None, None], image, 0.0), fixed)
        scale = torch.maximum(scale, image.norm(dim=1).amax(1))
        for _ in range(2):
            coefficients = basis[:, :ahead] @ image
            image = _outside(image - basis[:, :ahead].mT @ coefficients, fixed)
            projected[:, :ahead, here:ahead] += coefficients
        cutoff = dim * torch.finfo(start.dtype).eps * scale
        exist = _exist(size, ahead, block)
        vectors, coupling = _next_block(image, basis[:, :ahead], fixed, cutoff, exist, keys, step + 1)
        count = size.clamp_max(ahead)
        yield Decomposition(
            basis[:rows, :ahead], basis[:rows], projected[:rows, :ahead, :ahead], coupling[:rows], count[:rows],
            (count == size)[:rows], finite[:rows], step + 1,
        )  # fmt: skip
        if step + 1 < steps:
            projected[:, ahead : ahead + block, here:ahead] = coupling


def _next_block(
    image: Tensor, basis: Tensor, fixed: Tensor, cutoff: Tensor, exist: Tensor, keys: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Orthonormal V (B, n, b) and R (B, b, b) with ``image`` = VR up to ``cutoff`` (B,); ``exist`` (B, b) bool."""
    orthonormal, triangle = torch.linalg.qr(image)
    left, singular, right = torch.linalg.svd(triangle)
    broken = (singular <= cutoff.unsqueeze(1)) | ~exist
    vectors = orthonormal @ left
    if bool(broken.any()):
        fresh = random_block(keys, vectors.shape[1], vectors.shape[2], step)
        vectors = torch.where(broken.unsqueeze(1), fresh, vectors)
    vectors = _normalised(_cleaned(vectors, basis, fixed)) * exist.unsqueeze(1)
    return vectors, torch.where(broken, 0.0, singular).unsqueeze(2) * right


def _exist(size: Tensor, before: int, block: int) -> Tensor:
    """Which of the next ``block`` columns fit into a space of ``size`` (B,) that has ``before`` already. (B, b)."""
    return torch.arange(before, before + block, device=size.device) < size.unsqueeze(1)


def _outside(vectors: Tensor, fixed: Tensor) -> Tensor:
    """(I − FFᵀ)v. (B, n, b)."""
    return vectors - fixed @ (fixed.mT @ vectors)


def _cleaned(vectors: Tensor, basis: Tensor, fixed: Tensor) -> Tensor:
    """The part outside the span of both, twice. (B, n, b)."""
    for _ in range(2):
        vectors = _outside(vectors - basis.mT @ (basis @ vectors), fixed)
    return vectors


def _normalised(vectors: Tensor) -> Tensor:
    """Gram–Schmidt from the first column on, signs kept. (B, n, b)."""
    orthonormal, triangle = torch.linalg.qr(vectors)
    sign = torch.diagonal(triangle, dim1=1, dim2=2).sign()
    signed: Tensor = orthonormal * torch.where(sign == 0, 1.0, sign).unsqueeze(1)
    return signed.contiguous()  # the last bits of what follows depend on the layout
