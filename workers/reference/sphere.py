"""Functions on the unit sphere: L(θ) = f(θ/‖θ‖), the radius a declared symmetry, with an exact bound on its third
derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landsweep.workers.landscape import KnownClass, Landscape, Scalar


def radial(theta: Tensor) -> Tensor:
    """v(θ) = θ, along which f(θ/‖θ‖) does not change. (n,) → (n,)."""
    return theta * 1.0


def normalised(theta: Tensor) -> Tensor:
    """θ/‖θ‖, by products and sums. (n,) → (n,)."""
    return theta / (theta * theta).sum().sqrt()


def uniform_on_sphere(dim: int) -> Callable[[torch.Generator], Tensor]:
    """Starts uniform on the unit sphere."""
    return lambda generator: normalised(torch.randn(dim, generator=generator, dtype=torch.float64))


def third_derivative(degree: int, half_range: float) -> float:
    """A bound on ‖D³L‖ at unit θ for a polynomial f of ``degree`` d with |f − c| ≤ ``half_range`` M on the sphere.

    For unit v = αθ + βu, u ⊥ θ, the line θ + tv stays in the plane of θ and u, where L(θ + tv) = h(φ(t)) with
    h(φ) = f(θ cos φ + u sin φ) and φ(t) = Im log(1 + (α + iβ)t). So φ' = β, φ'' = −2αβ, φ''' = 2 Im (α + iβ)³ and
    D³L[v, v, v] = h'''φ'³ + 3h''φ'φ'' + h'φ''' ≤ m₃ + (4/√3)m₂ + 2m₁, where |h⁽ᵏ⁾| ≤ m_k, as |α|β² ≤ 2/(3√3). h − c is
    a trigonometric polynomial of degree d, so m_k = dᵏM (Bernstein 1912; Zygmund 2002, X.3.13). The norm of a symmetric
    trilinear form is its largest value on equal arguments (Banach 1938).

    >>> third_derivative(1, 1.0) < 1 + 4 / 3**0.5 + 2 + 1e-12
    True
    """
    return half_range * (degree**3 + 4 / 3**0.5 * degree**2 + 2 * degree)


def lipschitz(degree: int, half_range: float) -> Callable[[Tensor, Tensor], Tensor]:
    """K(θ, r) = ‖D³L‖₁/(‖θ‖ − r)³ on the ball of radius r around θ, infinite if the ball reaches the origin.

    L is homogeneous of degree 0, so D³L(θ) = D³L(θ/‖θ‖)/‖θ‖³; ‖D³L‖₁ is the bound on the unit sphere.
    """
    unit = third_derivative(degree, half_range)

    def constant(theta: Tensor, radius: Tensor) -> Tensor:
        nearest = ((theta * theta).sum().sqrt() - radius).clamp_min(0.0)
        return unit / nearest**3

    return constant


def on_sphere(
    polynomial: Scalar,
    dim: int,
    degree: int,
    half_range: float,
    *,
    name: str,
    known_class: Callable[[Tensor], KnownClass | None] | None = None,
    global_minimum: float | None = None,
) -> Landscape:
    """L(θ) = f(θ/‖θ‖) for a polynomial f of ``degree`` whose values on the sphere span at most 2·``half_range``.

    Critical points of f on the sphere are rays of critical points of L; Hθ = 0 there, explained by the radius.
    ``known_class`` is given unit θ.
    """

    def of_unit(theta: Tensor) -> KnownClass | None:
        return known_class(normalised(theta.detach().cpu().to(torch.float64))) if known_class else None

    return Landscape.from_function(
        lambda theta: polynomial(normalised(theta)),
        dim,
        uniform_on_sphere(dim),
        symmetries=[radial],
        hessian_lipschitz=lipschitz(degree, half_range),
        known_class=of_unit if known_class else None,
        global_minimum=global_minimum,
        outputs=normalised,
        retraction=normalised,
        name=name,
    )
