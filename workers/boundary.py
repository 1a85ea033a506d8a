"""What a search in a trust region asks of a Hessian, by its factors instead of its eigensystem."""

from __future__ import annotations

import torch
from torch import Tensor

from landsweep.workers.landscape import padded

EASY = 1e-10  # a step that should end on the boundary does so within this share of the radius
HARD = 1e-10  # the share of its lowest value that the model may miss in the hard case
FACTORISATIONS = 60
INVERSE_ITERATIONS = 3


def shifted(hessian: Tensor, shift: Tensor) -> Tensor:
    """H + s·I at each row. (B, n, n), (B,) → (B, n, n)."""
    result = hessian.clone()
    result.diagonal(dim1=1, dim2=2).add_(shift.unsqueeze(1))
    return result


def is_positive(hessian: Tensor, shift: Tensor) -> Tensor:
    """Whether H + s·I is positive definite, by Cholesky's factorisation. (B, n, n), (B,) → (B,) bool."""
    return padded(lambda h, s: torch.eq(torch.linalg.cholesky_ex(shifted(h, s))[1], 0), hessian, shift)


def negative_count(hessian: Tensor, shift: Tensor) -> Tensor:
    """How many eigenvalues of symmetric H + s·I are negative: as many as D has in LDLᵀ (Sylvester), of whose blocks
    those of two rows have one each (Bunch & Kaufman 1977). (B, n, n), (B,) → (B,)."""

    def count(h: Tensor, s: Tensor) -> Tensor:
        factors, pivots, _ = torch.linalg.ldl_factor_ex(shifted(h, s))
        single = (pivots > 0) & (factors.diagonal(dim1=1, dim2=2) < 0)
        return torch.add(single.sum(1), (pivots < 0).sum(1) // 2)

    return padded(count, hessian, shift)


def is_regular(hessian: Tensor, cutoff: Tensor) -> Tensor:
    """Whether symmetric, finite H has no eigenvalue within ±``cutoff``. (B, n, n), (B,) → (B,) bool."""
    return torch.eq(negative_count(hessian, cutoff), negative_count(hessian, -cutoff))


def solved(hessian: Tensor, right: Tensor) -> Tensor:
    """H⁻¹b of symmetric, regular H. (B, n, n), (B, n) → (B, n)."""

    def solve(h: Tensor, b: Tensor) -> Tensor:
        factors, pivots, _ = torch.linalg.ldl_factor_ex(h)
        found: Tensor = torch.linalg.ldl_solve(factors, pivots, b.unsqueeze(2))
        return found.squeeze(2)

    return padded(solve, hessian, right)


def boundary_step(hessian: Tensor, gradient: Tensor, radius: Tensor, least: Tensor) -> Tensor:
    """argmin g·p + ½pᵀHp over ‖p‖ ≤ radius. H (B, n, n) symmetric and finite, g (B, n), radius (B,) → p (B, n).

    p = −(H + sI)⁻¹g with s ≥ 0 and H + sI positive semidefinite, as long as the radius where s > 0: Newton's method
    on 1/‖p(s)‖ = 1/radius, kept between bounds of s, one Cholesky factorisation a step. In the hard case p is short at
    every s that is allowed, and a nearly null vector of H + sI takes it to the boundary, away from g (Moré & Sorensen
    1983; Conn, Gould & Toint 2000, 7.3). ``least`` (B,) is where s begins, H + s·I being positive definite there, and
    ends if p is short: 0 for convex H, something small for a singular one; NaN where H has a negative eigenvalue.
    """
    norm = torch.minimum(hessian.flatten(1).norm(dim=1), hessian.abs().sum(2).amax(1))
    steep = gradient.norm(dim=1) / radius
    low = torch.maximum(steep - norm, -hessian.diagonal(dim1=1, dim2=2).amin(1)).clamp_min(0.0)
    high = torch.fmax(steep + (1 + HARD) * norm, least)  # where −norm is an eigenvalue, there has to be room
    shift = torch.where(torch.isnan(least), _between(low, high), least)
    step, active = torch.zeros_like(gradient), torch.arange(len(gradient), device=gradient.device)
    for turn in range(FACTORISATIONS):
        tried = high if turn == FACTORISATIONS - 1 else shift
        found = padded(_looked_at, hessian[active], gradient[active], tried)
        p, z, (good, slope, lowest) = _parts(found, gradient.shape[1])
        bound, length = radius[active], p.norm(dim=1)
        along, short = (p * z).sum(1), good & (length <= bound)
        missing = bound**2 - length**2
        root = (along**2 + missing.clamp_min(0.0)).sqrt()
        reach = missing / torch.where(along < 0, along - root, along + root)  # ‖p + reach·z‖ = radius, the nearer one
        decrease = tried * bound**2 - (gradient[active] * p).sum(1)  # twice what the model falls by, and more
        hard = short & torch.isnan(least) & (reach**2 * lowest <= HARD * decrease)
        easy = good & ((length - bound).abs() <= EASY * bound)
        done = easy | hard | (short & (tried == least)) | (turn == FACTORISATIONS - 1)
        ends = torch.where((hard & ~easy).unsqueeze(1), p + reach.unsqueeze(1) * z, p)
        onto = (bound / ends.norm(dim=1)).unsqueeze(1)  # what is left of the tolerance
        step[active[done]] = torch.where((easy | hard).unsqueeze(1), ends * onto, ends)[done]
        if bool(done.all()):
            break
        low = torch.where(short, torch.maximum(low, tried - lowest), torch.maximum(low, tried))
        high = torch.where(short, torch.minimum(high, tried), high)
        newton = tried + slope * (length - bound) / bound
        inside = good & (newton > low) & (newton < high)
        shift = torch.where(inside, newton, _between(low, high))
        active, low, high, shift, least = (of[~done] for of in (active, low, high, shift, least))
    return step


def _between(low: Tensor, high: Tensor) -> Tensor:
    return torch.maximum((low * high).sqrt(), low + 0.01 * (high - low))


def _looked_at(hessian: Tensor, gradient: Tensor, shift: Tensor) -> Tensor:
    """p(s), z, whether H + sI is positive definite, ‖p‖²/‖L⁻¹p‖² and zᵀ(H + sI)z, beside each other: p = −(H + sI)⁻¹g,
    z a unit vector near its lowest eigenvector, LLᵀ = H + sI. (B, 2n + 3), zeros where it is not positive definite."""
    factor, info = torch.linalg.cholesky_ex(shifted(hessian, shift))
    good = torch.eq(info, 0)
    factor = torch.where(good[:, None, None], factor, torch.eye(factor.shape[1]).to(factor))
    p = -torch.cholesky_solve(gradient.unsqueeze(2), factor)
    slope = p.square().sum(1) / torch.linalg.solve_triangular(factor, p, upper=False).square().sum(1)
    # a fixed start that no symmetry of a landscape has in its null space
    z = torch.sin(torch.arange(1, p.shape[1] + 1, device=p.device)).to(p).expand_as(p[:, :, 0]).unsqueeze(2)
    for _ in range(INVERSE_ITERATIONS):
        z = torch.cholesky_solve(z, factor)
        z = z / z.norm(dim=1, keepdim=True)
    lowest = (factor.mT @ z).square().sum(1)
    found = torch.cat([p.squeeze(2), z.squeeze(2), good.to(p).unsqueeze(1), torch.nan_to_num(slope), lowest], 1)
    return torch.where(good.unsqueeze(1), found, 0.0)


def _parts(found: Tensor, dim: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    good, slope, lowest = found[:, 2 * dim :].unbind(1)
    return found[:, :dim], found[:, dim : 2 * dim], (good > 0, slope, lowest)
