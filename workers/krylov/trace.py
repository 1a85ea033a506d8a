"""Traces of symmetric operators from products with random vectors: Hutch++."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import Apply, random_block
from landsweep.workers.krylov.student import LEVEL, student_quantile
from landsweep.workers.landscape import pad_rows


@dataclass(frozen=True)
class Trace:
    """Estimates of tr A, one a row."""

    value: Tensor  # (B,)
    standard_error: Tensor  # (B,) over the random vectors; 0 where exact
    error: Tensor  # (B,) half width at LEVEL, and rounding
    products: int  # with A, a row


def trace(apply: Apply, dim: int, keys: Tensor, budget: int) -> Trace:
    """tr A = tr QᵀAQ + tr (I−QQᵀ)A(I−QQᵀ) with Q = orth(AS) exact and the rest by Hutchinson's estimator, a third of
    ``budget`` products each for S, Q and the estimator (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    The standard error is that of the mean over the estimator's normal vectors, the half width by Student's t. With a
    budget of n or more, the diagonal of A is summed.
    """
    if budget >= dim:
        return _exact(apply, dim, keys)
    third = max(3, budget // 3)
    image = pad_rows(apply(random_block(keys, dim, third, 0)))
    span = torch.linalg.qr(image)[0].contiguous()
    inside = pad_rows(apply(span[: len(keys)])).contiguous()
    probes = pad_rows(random_block(keys, dim, third, 1))
    probes = (probes - span @ (span.mT @ probes)).contiguous()
    outside = pad_rows(apply(probes[: len(keys)])).contiguous()
    value = (span * inside).sum((1, 2))
    samples = (probes * outside).sum(1)
    deviation = samples.std(1) / third**0.5
    rounding = dim * torch.finfo(value.dtype).eps * ((span * inside).sum(1).abs().sum(1) + samples.abs().mean(1))
    error = student_quantile(LEVEL, third - 1) * deviation + rounding
    rows = len(keys)
    return Trace((value + samples.mean(1))[:rows], deviation[:rows], error[:rows], 3 * third)


def _exact(apply: Apply, dim: int, keys: Tensor) -> Trace:
    identity = torch.eye(dim, dtype=torch.float64, device=keys.device).expand(len(keys), dim, dim)
    diagonal = torch.diagonal(apply(identity), dim1=1, dim2=2)
    rounding = dim * torch.finfo(diagonal.dtype).eps * diagonal.abs().sum(1)
    return Trace(diagonal.sum(1), torch.zeros_like(rounding), rounding, dim)
