"""MINRES: least-squares solutions of Ax = b for symmetric, possibly singular and indefinite A, from products alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.symmetry import project_out

Apply = Callable[[Tensor], Tensor]  # (B, n, 1) → (B, n, 1), symmetric in each row

RUNNING, SOLVED, LEAST_SQUARES, BUDGET, NON_FINITE = range(5)

KERNEL = 1e-6  # a residual with ‖Ar‖ below this share of ‖A‖‖r‖ lies in the kernel as far as one can see
BREAKDOWN = 64  # Lanczos has found an invariant subspace when β_{k+1} is below this many roundings of ‖A‖


@dataclass(frozen=True)
class Minres:
    """The minimum-norm least-squares solution of Ax = b in each row, off the deflated directions."""

    x: Tensor  # (B, n)
    residual: Tensor  # (B, n) r = b − Ax, by recurrence
    residual_norm: Tensor  # (B,) ‖r‖
    normal_residual_norm: Tensor  # (B,) ‖Ar‖
    norm: Tensor  # (B,) a lower bound of ‖A‖₂, from the columns of Lanczos' tridiagonal
    curvature: Tensor  # (B,) lowest r'ᵀAr'/r'ᵀr' of the residuals r' on the way: negative iff Lanczos' T_k is not ≥ 0
    direction: Tensor  # (B, n) the unit residual that has it
    iterations: Tensor  # (B,) int64
    status: Tensor  # (B,) SOLVED, LEAST_SQUARES (Ar = 0 but r ≠ 0), BUDGET or NON_FINITE


@dataclass(frozen=True)
class _Recurrence:
    """Where MINRES stands before its k-th iteration; names as in Choi, Paige & Saunders 2011, table 2.

    Lanczos: Av_k = β_k v_{k−1} + α_k v_k + β_{k+1} v_{k+1}; a product of reflections turns its tridiagonal T into R.
    """

    x: Tensor  # (B, n) x_{k−1}
    residual: Tensor  # (B, n) r_{k−1}
    previous: Tensor  # (B, n) v_{k−1}
    vector: Tensor  # (B, n) v_k
    old_step: Tensor  # (B, n) d_{k−2}
    step: Tensor  # (B, n) d_{k−1}
    beta: Tensor  # (B,) β_k, 0 for k = 1
    cosine: Tensor  # (B,) c_{k−1}
    sine: Tensor  # (B,) s_{k−1}
    delta: Tensor  # (B,) δ_k⁽¹⁾
    epsilon: Tensor  # (B,) ε_k⁽¹⁾
    phi: Tensor  # (B,) ‖r_{k−1}‖
    norm: Tensor  # (B,) of T's columns so far, the largest

    def where(self, rows: Tensor, other: _Recurrence) -> _Recurrence:
        """``self`` in ``rows`` (B,) bool, ``other`` elsewhere."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return _Recurrence(*(torch.where(rows if a.dim() == 1 else rows[:, None], a, b) for a, b in pairs))


def _begun(b: Tensor, deflation: Tensor) -> _Recurrence:
    off = project_out(deflation, project_out(deflation, b))
    rounding = off.norm(dim=1) <= BREAKDOWN * torch.finfo(b.dtype).eps * b.norm(dim=1)  # all of b is deflated
    b = torch.where(rounding.unsqueeze(1), 0.0, off)
    phi = b.norm(dim=1)
    zero, none = torch.zeros_like(phi), torch.zeros_like(b)
    vector = _scaled(b, phi)
    return _Recurrence(none, b, none, vector, none, none, zero, zero - 1, zero, zero, zero, phi, zero)


def _scaled(vector: Tensor, length: Tensor) -> Tensor:
    """v/‖v‖, 0 for 0."""
    return vector / torch.where(length > 0, length, 1.0).unsqueeze(1)


def _advanced(apply: Apply, deflation: Tensor, at: _Recurrence) -> tuple[_Recurrence, Tensor, Tensor, Tensor]:
    """The next recurrence, ‖Ar_{k−1}‖, the curvature r_{k−1}ᵀAr_{k−1}/‖r_{k−1}‖² (Liu & Roosta 2022, 3.1) and γ_k."""
    product = project_out(deflation, apply(at.vector.unsqueeze(2)).squeeze(2)) - at.beta.unsqueeze(1) * at.previous
    alpha = (at.vector * product).sum(1)
    product = project_out(deflation, product - alpha.unsqueeze(1) * at.vector)
    beta = product.norm(dim=1)
    norm = torch.maximum(at.norm, (at.beta**2 + alpha**2 + beta**2).sqrt())
    beta = torch.where(beta > BREAKDOWN * torch.finfo(beta.dtype).eps * norm, beta, 0.0)  # else v_{k+1} is rounding
    vector = project_out(deflation, torch.where((beta > 0).unsqueeze(1), _scaled(product, beta), 0.0))
    second = at.cosine * at.delta + at.sine * alpha  # δ_k⁽²⁾
    gamma = at.sine * at.delta - at.cosine * alpha  # γ_k⁽¹⁾
    delta = -at.cosine * beta
    diagonal = torch.hypot(gamma, beta)  # γ_k⁽²⁾
    divisor = torch.where(diagonal > 0, diagonal, 1.0)
    cosine, sine = gamma / divisor, beta / divisor
    step = at.vector - second.unsqueeze(1) * at.step - at.epsilon.unsqueeze(1) * at.old_step
    step = step / divisor.unsqueeze(1)
    x = at.x + (cosine * at.phi).unsqueeze(1) * step
    phi = sine * at.phi
    residual = (sine**2).unsqueeze(1) * at.residual - (phi * cosine).unsqueeze(1) * vector
    after = _Recurrence(
        x, residual, at.vector, vector, at.step, step, beta, cosine, sine, delta, at.sine * beta, phi, norm
    )
    return after, at.phi * torch.hypot(gamma, delta), -at.cosine * gamma, diagonal


@dataclass(frozen=True)
class _Best:
    """The iterate with the lowest ‖Ar‖, to which a row goes back when later ones have left the range of A."""

    x: Tensor  # (B, n)
    residual: Tensor  # (B, n)
    phi: Tensor  # (B,) ‖r‖
    root: Tensor  # (B,) ‖Ar‖

    def updated(self, at: _Recurrence, root: Tensor, rows: Tensor) -> _Best:
        """With the iterates of ``rows`` (B,) bool in their places."""
        chosen = rows.unsqueeze(1)
        x, residual = torch.where(chosen, at.x, self.x), torch.where(chosen, at.residual, self.residual)
        return _Best(x, residual, torch.where(rows, at.phi, self.phi), torch.where(rows, root, self.root))


def _lifted(x: Tensor, residual: Tensor, rows: Tensor) -> Tensor:
    """x − (xᵀr/rᵀr)·r in ``rows``: where Ar = 0, MINRES' x differs from A⁺b along r alone (Liu, Milzarek & Roosta 2023,
    theorem 1)."""
    share = (x * residual).sum(1) / (residual * residual).sum(1).clamp_min(torch.finfo(x.dtype).tiny)
    return torch.where(rows.unsqueeze(1), x - share.unsqueeze(1) * residual, x)


def minres(
    apply: Apply,
    b: Tensor,
    tolerance: Tensor | float,
    singular: float,
    max_iterations: int,
    deflation: Tensor | None = None,
    size: Tensor | None = None,
) -> Minres:
    """x = A⁺b in each row, by MINRES (Paige & Saunders 1975). b (B, n); each row is frozen when it is done.

    A row is solved when ‖r‖ ≤ ``tolerance``·‖b‖ or ‖r‖ ≤ √n·eps·‖A‖·(‖x‖ + ``size``): what rounding leaves of Ax, and
    of a b that is a gradient at ‖θ‖ = ``size`` (B,). It is a least-squares solution when ‖Ar‖ ≤ ``singular``·‖A‖·‖r‖,
    or when x goes on by more than 2‖r‖/(``singular``·‖A‖) ≥ 2‖A⁺r‖ from where ‖Ar‖ was lowest, so into the kernel; of
    these the shortest is returned. ``deflation`` (B, n, s), orthonormal and zero-padded, is projected out of A and b.

    >>> a = torch.diag(torch.tensor([2.0, -4.0, 0.0], dtype=torch.float64))
    >>> b = torch.tensor([[2.0, 8.0, 5.0]], dtype=torch.float64)
    >>> minres(lambda v: a @ v, b, 1e-12, 1e-12, 10).x.round(decimals=9).tolist()
    [[1.0, -2.0, 0.0]]
    """
    deflation = b.new_zeros(*b.shape, 0) if deflation is None else deflation
    size = torch.zeros_like(b[:, 0]) if size is None else size
    at = _begun(b, deflation)
    rounding, target = b.shape[1] ** 0.5 * torch.finfo(b.dtype).eps, tolerance * at.phi
    status = torch.full_like(at.phi, RUNNING, dtype=torch.int64)
    iterations = torch.zeros_like(status)
    best = _Best(at.x, at.residual, at.phi, torch.full_like(at.phi, torch.inf))
    curvature, direction = torch.full_like(at.phi, torch.inf), torch.zeros_like(b)
    for iteration in range(max_iterations + 1):
        running = status == RUNNING
        if not bool(running.any()):
            break
        after, root, rayleigh, diagonal = _advanced(apply, deflation, at)
        finite = torch.isfinite(after.x).all(1) & torch.isfinite(after.norm)
        lost = singular * after.norm * (at.x - best.x).norm(dim=1) > 2 * best.phi
        solved = at.phi <= torch.maximum(target, rounding * after.norm * (at.x.norm(dim=1) + size))
        codes = torch.full_like(status, BUDGET if iteration == max_iterations else RUNNING)
        codes[(root <= singular * after.norm * at.phi) | (diagonal == 0)] = LEAST_SQUARES
        codes[solved] = SOLVED
        codes[lost] = LEAST_SQUARES
        codes[~finite] = NON_FINITE
        best = best.updated(at, root, running & finite & ~lost & (solved | (root < best.root)))
        lower = running & finite & ~solved & (rayleigh < curvature)
        curvature = torch.where(lower, rayleigh, curvature)
        direction = torch.where(lower.unsqueeze(1), _scaled(at.residual, at.residual.norm(dim=1)), direction)
        iterations = torch.where(running, iteration, iterations)
        status = torch.where(running, codes, status)
        norm = torch.where(running & finite, after.norm, at.norm)
        at = dataclasses.replace(after.where(status == RUNNING, at), norm=norm)
    kernel = (status != SOLVED) & (best.root <= KERNEL * at.norm * best.phi)
    x = _lifted(best.x, best.residual, kernel)
    return Minres(x, best.residual, best.phi, best.root, at.norm, curvature, direction, iterations, status)


def newton_length(landscape: Landscape, theta: Tensor, gradient: Tensor, span: Tensor, tolerance: float) -> Tensor:
    """The length of :func:`newton_step`. (B,)."""
    return newton_step(landscape, theta, gradient, span, tolerance)[1]


def newton_step(
    landscape: Landscape, theta: Tensor, gradient: Tensor, span: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """−H⁺g at each row off the directions ``span`` (B, n, m), 0 where not finite, and ρ = ‖H⁺g‖, infinite there.
    (B, n), (B,).

    Eigenvalues at rounding level (n·eps·‖H‖) are left out, as where the eigensystem is known. A solve that runs out of
    iterations has resolved the larger part of H⁺g only.
    """
    dim = theta.shape[1]
    solution = minres(
        landscape.products(theta),
        gradient,
        tolerance,
        (dim + 10) * torch.finfo(theta.dtype).eps,
        min(4 * dim + 20, 2000),
        span,
        theta.norm(dim=1),
    )
    finite = solution.status != NON_FINITE
    step = torch.where(finite.unsqueeze(1), -solution.x, 0.0)
    return step, torch.where(finite, step.norm(dim=1), torch.inf)
