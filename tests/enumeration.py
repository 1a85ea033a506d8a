"""Stationary points recomputed to 50 digits, by formulas and arithmetic of their own (mpmath)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch

DIGITS = 50
STEPS = 8  # of Newton's method from float64: 16, 32, 64 digits and some to spare
System = Callable[[Any], tuple[Any, Any]]  # x → (residual F(x), Jacobian DF(x))


def refined(system: System, start: Any) -> Any:
    """The zero of F near ``start``, by Newton's method at 60 digits; an error where 50 are not reached."""
    x = mpmath.matrix(start)
    for _ in range(STEPS):
        residual, jacobian = system(x)
        step = mpmath.lu_solve(jacobian, -residual)
        x = x + step
    assert mpmath.norm(step) < mpmath.mpf(10) ** -DIGITS
    return x


def negatives(matrix: Any) -> int:
    """How many eigenvalues of a symmetric matrix are negative; an error where one is within 1e-20 of zero."""
    values = mpmath.eigsy(matrix, eigvals_only=True)
    assert min(abs(value) for value in values) > mpmath.mpf(10) ** -20
    return sum(value < 0 for value in values)


def waves(vectors: torch.Tensor, amplitudes: torch.Tensor, phases: torch.Tensor, confinement: float) -> System:
    """∇f and ∇²f of f = Σ a cos(k·θ + φ) + ½c‖θ‖²."""
    terms = list(zip(vectors.tolist(), amplitudes.tolist(), phases.tolist(), strict=True))

    def system(x: Any) -> tuple[Any, Any]:
        gradient, hessian = confinement * x, confinement * mpmath.eye(len(x))
        for vector, amplitude, phase in terms:
            k = mpmath.matrix(vector)
            angle = mpmath.fdot(k, x) + phase
            gradient -= amplitude * mpmath.sin(angle) * k
            hessian -= amplitude * mpmath.cos(angle) * (k * k.T)
        return gradient, hessian

    return system


def contracted(tensor: torch.Tensor, x: Any) -> Any:
    """T(x, ·, ·) of a symmetric tensor (n, n, n), as a matrix."""
    n, entries = len(x), tensor.tolist()
    return mpmath.matrix(n, n) + sum((x[i] * mpmath.matrix(entries[i]) for i in range(n)), mpmath.matrix(n, n))


def eigenpair(tensor: torch.Tensor) -> System:
    """T(x, x, ·) = μx, ‖x‖² = 1 in the unknowns (x, μ)."""

    def system(unknown: Any) -> tuple[Any, Any]:
        n = len(unknown) - 1
        x, mu = unknown[:n], unknown[n]
        matrix = contracted(tensor, x)
        residual, jacobian = mpmath.matrix(n + 1, 1), mpmath.matrix(n + 1, n + 1)
        residual[:n] = matrix * x - mu * x
        residual[n] = (mpmath.fdot(x, x) - 1) / 2
        jacobian[:n, :n] = 2 * matrix - mu * mpmath.eye(n)
        for i in range(n):
            jacobian[i, n], jacobian[n, i] = -x[i], x[i]
        return residual, jacobian

    return system


def index_on_sphere(tensor: torch.Tensor, x: Any, mu: Any) -> int:
    """Negative eigenvalues of 6T(x) − 3μI on the tangent space at x, for f = T(x, x, x) on the unit sphere."""
    n = len(x)
    normal = x * x.T
    projector = mpmath.eye(n) - normal
    return negatives(projector * (6 * contracted(tensor, x) - 3 * mu * mpmath.eye(n)) * projector + normal)


def cubic_angles(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Tangents t of the stationary directions (1, t) of a binary cubic form on the circle, ascending.

    f(1, t)/(1 + t²)^{3/2} with f = a + 3bt + 3ct² + dt³ is stationary where b + (2c − a)t + (d − 2b)t² − ct³ = 0.
    """
    a, b, c, d = (float(tensor[i]) for i in [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)])
    roots = np.roots([-c, d - 2 * b, 2 * c - a, b])
    return np.sort(roots[np.abs(roots.imag) < 1e-9].real)
