"""The local quadratic model of L at many points: gradients, Hessians' eigensystems, Newton steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.landscape import Field, Landscape, padded
from landsweep.workers.symmetry import basis, project_out


def eigh(hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (B, n), eigenvectors (B, n, n) of the symmetric part, and which rows were finite (B,).

    LAPACK refuses NaN; such rows get the identity and are marked.
    """
    finite = torch.isfinite(hessian).flatten(1).all(1)
    identity = torch.eye(hessian.shape[1], dtype=hessian.dtype, device=hessian.device)
    symmetric = torch.where(finite[:, None, None], 0.5 * (hessian + hessian.mT), identity)
    values, vectors = torch.linalg.eigh(symmetric)
    return values, vectors, finite


def restricted(hessian: Tensor, span: Tensor) -> Tensor:
    """PHP + cT with T the projection on the symmetries' tangents and P = I − T: what counts for a step. (B, n, n).

    Off a critical point the tangents v = Aθ are no null vectors, Hv = −Aᵀg: H⁺g may lie along them however far the
    point is (on a sphere Hθ = −g exactly). PHP has no such part; c = ‖H‖_F/√n > 0 keeps it regular on the tangents,
    where g has no component.
    """
    return hessian if span.shape[2] == 0 else padded(_restricted, hessian, span)


def _restricted(hessian: Tensor, span: Tensor) -> Tensor:
    """H − QYᵀ − YQᵀ with T = QQᵀ and Y = HQ − ½QQᵀHQ − ½cQ: products of n×n by n×m matrices only."""
    size = hessian.flatten(1).norm(dim=1) / hessian.shape[1] ** 0.5
    image = hessian @ span
    image = image - 0.5 * (span @ (span.mT @ image) + size[:, None, None] * span)
    half = span @ image.mT
    result: Tensor = hessian - half - half.mT
    return result


def convex_newton(hessian: Tensor, gradient: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """−H⁻¹g where all eigenvalues of H exceed ``floor`` (B,) ≥ 0, elsewhere 0, and where they do. (B, n), (B,) bool.

    H (B, n, n) symmetric. Two Cholesky factorisations, of H − floor·I and H, take a tenth of an eigensystem's time.
    """
    certain = padded(_exceeds, hessian, floor)
    step, rows = torch.zeros_like(gradient), torch.nonzero(certain).flatten()
    if rows.numel():
        step[rows] = padded(_solved, hessian[rows], -gradient[rows])
    return step, certain


def _exceeds(hessian: Tensor, floor: Tensor) -> Tensor:
    finite = torch.isfinite(hessian).flatten(1).all(1)
    shifted = torch.where(finite[:, None, None], hessian, 0.0)
    shifted.diagonal(dim1=1, dim2=2).sub_(floor.unsqueeze(1))
    return torch.logical_and(finite, torch.linalg.cholesky_ex(shifted)[1] == 0)


def _solved(hessian: Tensor, right: Tensor) -> Tensor:
    factor, _ = torch.linalg.cholesky_ex(hessian)
    return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)


def in_eigenbasis(vectors: Tensor, x: Tensor) -> Tensor:
    """Vᵀx row by row, by a product and a sum whose result does not depend on the number of rows. (B, n)."""
    return (vectors * x.unsqueeze(2)).sum(1)


def from_eigenbasis(vectors: Tensor, c: Tensor) -> Tensor:
    """V c row by row. (B, n)."""
    return (vectors * c.unsqueeze(1)).sum(2)


def newton_coefficients(eigenvalues: Tensor, coefficients: Tensor, cutoff: Tensor) -> Tensor:
    """−H⁺g in the eigenbasis: −c/λ where |λ| > cutoff, else 0. (B, n)."""
    regular = eigenvalues.abs() > cutoff.unsqueeze(1)
    return torch.where(regular, -coefficients / torch.where(regular, eigenvalues, torch.ones_like(eigenvalues)), 0.0)


def newton_step(hessian: Tensor, gradient: Tensor, safe: float) -> Tensor:
    """−H⁺g, H (B, n, n) symmetric, eigenvalues at rounding level left out; NaN where H is not finite. (B, n).

    By Cholesky factors where all eigenvalues exceed ``safe``·‖H‖_F, else from the eigensystem.
    """
    step, certain = convex_newton(hessian, gradient, safe * hessian.flatten(1).norm(dim=1))
    rows = torch.nonzero(~certain).flatten()
    if rows.numel():
        values, vectors, finite = eigh(hessian[rows])
        cutoff = gradient.shape[1] * torch.finfo(gradient.dtype).eps * values.abs().amax(1)
        coefficients = newton_coefficients(values, in_eigenbasis(vectors, gradient[rows]), cutoff)
        step[rows] = torch.where(finite.unsqueeze(1), from_eigenbasis(vectors, coefficients), torch.nan)
    return step


def flatness(eigenvalues: Tensor, coefficients: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Frye et al. 2021: r = ‖Hp+g‖/(‖H‖_F‖p‖+‖g‖) with p the minimum-norm least-squares solution of Hp = −g, and
    ‖H(Hp+g)‖/(‖H‖_F‖Hp+g‖). (B,), (B,)."""
    p = newton_coefficients(eigenvalues, coefficients, cutoff)
    residual = torch.where(eigenvalues.abs() > cutoff.unsqueeze(1), torch.zeros_like(p), coefficients)
    frobenius, length = eigenvalues.norm(dim=1), residual.norm(dim=1)
    tiny = torch.finfo(eigenvalues.dtype).tiny
    r = length / (frobenius * p.norm(dim=1) + coefficients.norm(dim=1) + tiny)
    return r, (eigenvalues * residual).norm(dim=1) / (frobenius * length + tiny)


@dataclass(frozen=True)
class LocalModel:
    """L(θ + p) ≈ L + g·p + ½pᵀHp at each row, with the Newton step on the complement of the symmetry directions."""

    gradient: Tensor  # (B, n)
    eigenvalues: Tensor  # (B, n) ascending
    eigenvectors: Tensor  # (B, n, n) columns
    inside: Tensor  # (B, n) eigenvalues of PHP + cT (see ``restricted``)
    modes: Tensor  # (B, n, n) its eigenvectors
    asymmetry: Tensor  # (B,) ‖H − Hᵀ‖_F as computed
    span: Tensor  # (B, n, m) orthonormal tangents of the symmetries, zero-padded
    n_symmetry: Tensor  # (B,) their rank
    newton_step: Tensor  # (B, n) −H⁺g; 0 where not finite
    newton_length: Tensor  # (B,) ρ = ‖H⁺g‖; infinite where not finite
    finite: Tensor  # (B,) bool

    @property
    def norm(self) -> Tensor:
        """‖H‖₂. (B,)."""
        return self.eigenvalues.abs().amax(1)

    @staticmethod
    def at(landscape: Landscape, theta: Tensor, fields: tuple[Field, ...] = ()) -> LocalModel:
        """The model at each row of ``theta`` (B, n)."""
        span, rank = basis(fields, theta)
        gradient, hessian = landscape.gradient(theta), landscape.hessian(theta)
        values, vectors, finite = eigh(hessian)
        inside, modes, _ = (values, vectors, finite) if span.shape[2] == 0 else eigh(restricted(hessian, span))
        rounding = theta.shape[1] * torch.finfo(theta.dtype).eps * values.abs().amax(1)
        coefficients = in_eigenbasis(modes, project_out(span, gradient))
        step = project_out(span, from_eigenbasis(modes, newton_coefficients(inside, coefficients, rounding)))
        usable = finite & torch.isfinite(step).all(1)
        length = torch.where(usable, step.norm(dim=1), torch.inf)
        step = torch.where(usable.unsqueeze(1), step, 0.0)
        asymmetry = (hessian - hessian.mT).norm(dim=(1, 2))
        return LocalModel(gradient, values, vectors, inside, modes, asymmetry, span, rank, step, length, usable)
