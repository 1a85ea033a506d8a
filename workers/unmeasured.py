"""What a point is where its gradient alone decides: not critical, with no look at its curvature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.certificate import Certificates
from landsweep.workers.classify import Classified, Signs, other_kind
from landsweep.workers.curvature import Curvature
from landsweep.workers.landscape import Landscape


def unsearched(theta: Tensor) -> search.Outcome:
    """What became of ``theta`` (P, n) where no step is taken: the budget, none, is spent."""
    none = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    return search.Outcome(theta, torch.full_like(none, search.BUDGET), none, torch.zeros_like(theta[:, 0]))


def unmeasured(landscape: Landscape, theta: Tensor, gradient: Tensor, tolerance: float) -> Classified:
    """Classify rows of ``theta`` (P, n) with finite ``gradient`` (P, n), ‖g‖ > ``tolerance``, that nothing searched.

    A point is gradient-flat only where a search stagnated; these are ``not_converged``. What is not measured is NaN.
    """
    norm, status = gradient.norm(dim=1), search.STATUS[search.BUDGET]
    nan = math.nan
    said = [
        other_kind(landscape, row, True, status, length, nan, nan, nan, tolerance)
        for row, length in zip(theta, norm.tolist(), strict=True)
    ]
    unknown, vectors = torch.full_like(norm, nan), torch.full_like(theta, nan)
    no = torch.zeros_like(norm, dtype=torch.bool)
    none = torch.zeros_like(norm, dtype=torch.int64)
    curvature = Curvature(norm, unknown, ~no, none, unknown, vectors, vectors, unknown, unknown, unknown)
    certificates = Certificates(unknown, unknown, no.tolist(), [""] * len(theta), unknown)
    kinds, reasons = [kind for kind, _ in said], [reason for _, reason in said]
    signs = Signs(none, none, none, none)
    return Classified(kinds, list(reasons), no, signs, curvature, unknown, unknown, certificates)
