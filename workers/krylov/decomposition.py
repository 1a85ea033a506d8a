"""The block Krylov decomposition of symmetric operators, many at once: AQ = QT + (next block)·R."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import pad_rows

ENOUGH = 0.5  # of a block's length has to be left by orthogonalisation for one pass to do
SURE = 1e-3  # the shortest direction of a block over the longest, where normalising it does no harm

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

    A block is orthogonalised against the last two, which is what exact arithmetic asks for, and then against all before
    it; a row in which the latter takes away much goes through it again (Daniel, Gragg, Kaufman & Stewart 1976), as it
    does after normalisation where that magnifies rounding. Where a block loses rank (an invariant subspace), a random
    vector from the rest of the space takes the place, uncoupled, so that Q goes on growing until it spans everything.
    The span of ``deflation`` (B, n, s), orthonormal or zero columns, is left out: T is that of A on its complement. The
    tensors of an item are views that the next step overwrites in part.
    """
    rows, dim, block = start.shape
    fixed = pad_rows(start.new_zeros(rows, dim, 0) if deflation is None else deflation).mT.contiguous()
    first, keys = pad_rows(start).mT.contiguous(), pad_rows(keys)
    size = dim - (fixed.norm(dim=2) > 0.5).sum(1)
    basis = start.new_zeros(len(first), steps * block, dim)
    projected = start.new_zeros(len(first), steps * block, steps * block)
    finite = torch.isfinite(first).flatten(1).all(1)
    scale = torch.zeros_like(first[:, 0, 0])
    vectors = _normalised(_cleaned(first, basis[:, :0], fixed)) * _exist(size, 0, block).unsqueeze(2)
    for step in range(steps):
        here, ahead = step * block, (step + 1) * block
        basis[:, here:ahead] = vectors
        image = pad_rows(apply(vectors[:rows].mT.contiguous())).mT.contiguous()
        if not bool(finite.all() & torch.isfinite(image.sum())):  # much sooner known than of each number
            finite = finite & torch.isfinite(image).flatten(1).all(1)
            image = torch.where(finite[:, None, None], image, 0.0)
        image = _outside(image, fixed)
        scale = torch.maximum(scale, image.norm(dim=2).amax(1))
        image, projected[:, :ahead, here:ahead] = _orthogonal(image, basis[:, :ahead], fixed)
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


def _orthogonal(image: Tensor, basis: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """The part of ``image`` (B, b, n) outside both spans, and its coefficients in the ``basis``'s (B, k, b)."""
    near = basis[:, -2 * image.shape[1] :]
    local = image @ near.mT
    image = torch.baddbmm(image, local, near, alpha=-1)
    before = image.norm(dim=2)
    coefficients = image @ basis.mT
    image = _outside(image.baddbmm_(coefficients, basis, alpha=-1), fixed)
    coefficients[:, :, -near.shape[1] :] += local
    again = (image.norm(dim=2) < ENOUGH * before).any(1)[:, None, None]
    if bool(again.any()):
        more = (image @ basis.mT) * again
        image = torch.where(again, _outside(torch.baddbmm(image, more, basis, alpha=-1), fixed), image)
        coefficients += more
    return image, coefficients.mT


def _next_block(
    image: Tensor, basis: Tensor, fixed: Tensor, cutoff: Tensor, exist: Tensor, keys: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Orthonormal V (B, b, n), its vectors as rows, and R (B, b, b) with ``image`` (B, b, n) = RᵀV up to ``cutoff``
    (B,); ``exist`` (B, b) bool."""
    vectors, singular, right = _factors(image)
    broken = (singular <= cutoff.unsqueeze(1)) | ~exist
    unsure = (broken.any(1) | (singular[:, -1] < SURE * singular[:, 0]))[:, None, None]
    if bool(unsure.any()):
        fresh = random_block(keys, vectors.shape[2], vectors.shape[1], step).mT
        mended = _normalised(_cleaned(torch.where(broken.unsqueeze(2), fresh, vectors), basis, fixed))
        vectors = torch.where(unsure, mended * exist.unsqueeze(2), vectors)
    return vectors, torch.where(broken, 0.0, singular).unsqueeze(2) * right


def _factors(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """V (B, b, n) of orthonormal rows, s (B, b) descending and S (B, b, b) with ``image`` = (sS)ᵀV."""
    if image.shape[1] == 1:
        length = image.norm(dim=2)
        tiny = torch.finfo(length.dtype).tiny
        return image / length.clamp_min(tiny).unsqueeze(2), length, torch.ones_like(length).unsqueeze(2)
    orthonormal, triangle = torch.linalg.qr(image.mT)
    left, singular, right = torch.linalg.svd(triangle)
    return left.mT @ orthonormal.mT, singular, right


def _exist(size: Tensor, before: int, block: int) -> Tensor:
    """Which of the next ``block`` columns fit into a space of ``size`` (B,) that has ``before`` already. (B, b)."""
    return torch.arange(before, before + block, device=size.device) < size.unsqueeze(1)


def _outside(vectors: Tensor, span: Tensor) -> Tensor:
    """(I − FᵀF)v, the rows of ``span`` F (B, s, n) orthonormal or zero, the vectors rows too. (B, b, n)."""
    return vectors if span.shape[1] == 0 else torch.baddbmm(vectors, vectors @ span.mT, span, alpha=-1)


def _cleaned(vectors: Tensor, basis: Tensor, fixed: Tensor) -> Tensor:
    """The part outside the span of both, twice, which is enough (Giraud et al. 2005). (B, b, n)."""
    for _ in range(2):
        vectors = _outside(_outside(vectors, basis), fixed)
    return vectors


def _normalised(vectors: Tensor) -> Tensor:
    """Gram–Schmidt from the first row on, signs kept. (B, b, n)."""
    orthonormal, triangle = torch.linalg.qr(vectors.mT)
    sign = torch.diagonal(triangle, dim1=1, dim2=2).sign()
    signed: Tensor = orthonormal.mT * torch.where(sign == 0, 1.0, sign).unsqueeze(2)
    return signed.contiguous()  # the last bits of what follows depend on the layout
