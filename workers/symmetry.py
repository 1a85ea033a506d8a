"""Continuous symmetries: tangent fields, their check at random points, their span at a point."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vjp, vmap

from landsweep.workers.landscape import Field, Landscape, padded

RANK_CUTOFF = 1e-6  # singular values of the normalised tangents below this do not count


def residuals(landscape: Landscape, field: Field, thetas: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """How far ``field`` v is from a symmetry at each θ: |g·v|/(‖g‖‖v‖) and ‖Hv + (Dv)ᵀg‖/(‖H‖‖v‖+‖Dv‖‖g‖). (B,), (B,).

    Both vanish identically for an exact symmetry: the first says that L does not change along v, the second is its
    derivative. For v = Aθ, (Dv)ᵀg = Aᵀg. ‖H‖ is estimated by ‖Hz‖ with one random sign vector z.
    """
    tangent = padded(vmap(field), thetas)

    def transposed(theta: Tensor, cotangent: Tensor) -> Tensor:
        return vjp(field, theta)[1](cotangent)[0]  # type: ignore[no-any-return]

    pulled = padded(vmap(transposed), thetas, gradient)
    draw = torch.rand(thetas.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sign = torch.where(draw < 0.5, -1.0, 1.0).to(thetas).expand_as(thetas)
    curvature, probe = landscape.hvp(thetas, torch.stack([tangent, sign], 2)).unbind(2)
    norms = [t.norm(dim=1) for t in (gradient, tangent, pulled, probe)]
    tiny = torch.finfo(thetas.dtype).tiny
    first = (gradient * tangent).sum(1).abs() / (norms[0] * norms[1] + tiny)
    return first, (curvature + pulled).norm(dim=1) / (norms[3] * norms[1] + norms[2] + tiny)


def checked(
    landscape: Landscape, tolerance: float = 1e-8, draws: int = 3, device: torch.device | None = None
) -> tuple[Field, ...]:
    """The declared fields that are symmetries at ``draws`` random θ; the others are rejected with a warning."""
    if not landscape.symmetries:
        return ()
    generators = [torch.Generator().manual_seed(draw) for draw in range(draws)]
    thetas = torch.stack([landscape.init(g) + 0.1 * torch.randn(landscape.dim, generator=g) for g in generators])
    thetas = thetas.to(device=device, dtype=torch.float64)
    gradient = landscape.gradient(thetas)
    accepted = []
    for position, field in enumerate(landscape.symmetries):
        worst = float(torch.cat(residuals(landscape, field, thetas, gradient)).max())  # NaN stays NaN
        if worst <= tolerance:
            accepted.append(field)
        else:
            message = (
                f"symmetry {position} of landscape {landscape.name!r} rejected: residual {worst:.1e} > {tolerance:.0e}"
            )
            warnings.warn(message, stacklevel=2)
    return tuple(accepted)


def basis(fields: Sequence[Field], thetas: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the tangents' span at each θ, zero-padded: Q (B, n, m), and its rank (B,).

    Tangents are normalised; one that vanishes at θ (Aθ = 0, up to 1e-6·(1+‖θ‖) since θ is near a point where it does)
    spans nothing.
    """
    rows, dim = thetas.shape
    if not fields:
        return thetas.new_zeros(rows, dim, 0), torch.zeros(rows, dtype=torch.int64, device=thetas.device)
    tangents = torch.stack([padded(vmap(field), thetas) for field in fields], dim=2)
    lengths = tangents.norm(dim=1, keepdim=True)
    floor = RANK_CUTOFF * (1 + thetas.norm(dim=1))[:, None, None]
    unit = torch.where(lengths > floor, tangents / lengths.clamp_min(1e-300), torch.zeros_like(tangents))
    left, values, _ = torch.linalg.svd(unit, full_matrices=False)
    kept = values > RANK_CUTOFF
    return left * kept.unsqueeze(1), kept.sum(1)


def project_out(span: Tensor, vectors: Tensor) -> Tensor:
    """v − Q Qᵀ v for each row. ``span`` (B, n, m), ``vectors`` (B, n) → (B, n)."""
    if span.shape[2] == 0:
        return vectors
    coefficients = (span * vectors.unsqueeze(2)).sum(1)
    return vectors - (span * coefficients.unsqueeze(1)).sum(2)
