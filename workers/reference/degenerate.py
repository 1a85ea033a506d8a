"""Points that defeat the second-derivative test, and one that only looks stationary to a search on ‖∇L‖."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape, Lipschitz, Scalar
from landsweep.workers.reference.plane import cubic_norm, nearest, uniform


def _at_origin(
    name: str, loss: Scalar, known: KnownClass, lipschitz: Lipschitz, dim: int = 2, minimum: float | None = None
) -> Landscape:
    """A landscape whose only stationary point is the origin, of value 0, with starts uniform in [−1, 1]ⁿ.

    Searches come to a degenerate point slowly and stop short of it, so the class is known within 0.01.
    """
    return Landscape.from_function(
        loss, dim, uniform([-1.0] * dim, [1.0] * dim), global_minimum=minimum, hessian_lipschitz=lipschitz,
        known_class=nearest([[0.0] * dim], [known], within=1e-2), name=name,
    )  # fmt: skip


def monkey_saddle() -> Landscape:
    """f(x, y) = x³ − 3xy²: H = 0 at the origin, f of both signs nearby. D³f is constant, of norm 6."""

    def loss(theta: Tensor) -> Tensor:
        return theta[0] ** 3 - 3 * theta[0] * theta[1] ** 2

    return _at_origin("monkey_saddle", loss, KnownClass("monkey saddle", "degenerate_saddle", 0, 2, 0.0), 6.0)


def _quartic(sign: float) -> tuple[Scalar, Callable[[Tensor, Tensor], Tensor]]:
    """±Σxᵢ⁴, and the norm of D³ = ±diag(24xᵢ) on a ball, 24(maxᵢ|xᵢ| + r)."""
    return lambda theta: sign * (theta**4).sum(), lambda theta, radius: 24 * (theta.abs().amax() + radius)


def quartic_bowl(dim: int = 3) -> Landscape:
    """f(θ) = Σxᵢ⁴: H = 0 at the minimum."""
    loss, lipschitz = _quartic(1.0)
    known = KnownClass("quartic minimum", "degenerate_minimum", 0, dim, 0.0)
    return _at_origin("quartic_bowl", loss, known, lipschitz, dim, minimum=0.0)


def quartic_hill(dim: int = 2) -> Landscape:
    """f(θ) = −Σxᵢ⁴: a degenerate maximum, which no kind names: only descent is found along the zeros."""
    loss, lipschitz = _quartic(-1.0)
    known = KnownClass("quartic maximum", "undetermined", 0, dim, 0.0)
    return _at_origin("quartic_hill", loss, known, lipschitz, dim)


def _gutter(sign: float) -> tuple[Scalar, Callable[[Tensor, Tensor], Tensor]]:
    """x² ± y⁴, whose one third derivative is ±24y."""
    return lambda theta: theta[0] ** 2 + sign * theta[1] ** 4, lambda theta, radius: 24 * (theta[1].abs() + radius)


def quartic_valley() -> Landscape:
    """f(x, y) = x² + y⁴: a minimum with one zero eigenvalue."""
    loss, lipschitz = _gutter(1.0)
    known = KnownClass("valley", "degenerate_minimum", 0, 1, 0.0)
    return _at_origin("quartic_valley", loss, known, lipschitz, minimum=0.0)


def quartic_ridge() -> Landscape:
    """f(x, y) = x² − y⁴: descent along the one zero eigenvector."""
    loss, lipschitz = _gutter(-1.0)
    return _at_origin("quartic_ridge", loss, KnownClass("ridge", "degenerate_saddle", 0, 1, 0.0), lipschitz)


def curved_valley() -> Landscape:
    """f(x, y) = y² − 2x²y + x⁴/2 = (y − x²)² − x⁴/2: least at 0 along every line, yet falling along y = x².

    Third derivatives 12x (xxx) and −4 (xxy); the one fourth derivative is 12. (After Peano 1884.)
    """

    def loss(theta: Tensor) -> Tensor:
        x, y = theta[0], theta[1]
        return y**2 - 2 * x**2 * y + 0.5 * x**4

    def lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
        zero = torch.zeros_like(radius)
        return cubic_norm(12 * theta[0], zero - 4, zero, zero) + 12 * radius

    return _at_origin("curved_valley", loss, KnownClass("curved valley", "degenerate_saddle", 0, 1, 0.0), lipschitz)


def gradient_flat_trap(share: float = 0.5) -> Landscape:
    """L = u⁴/4 + u³/2 + 2u + ½v² with u = (3x + 4y)/5, v = (4x − 3y)/5: a minimum at u = −2 and, at the origin, a local
    minimum of ‖∇L‖² that is no stationary point, its gradient lying in the Hessian's kernel (cf. Frye et al. 2021).

    L_u = u³ + 3u²/2 + 2 = (u + 2)(u² − u/2 + 1) vanishes at u = −2 only, and for u > −1 is least in size at u = 0,
    where L_uu = 0 and L_u = 2. Descent on ‖∇L‖² goes to the minimum from u < −1, into the trap from u > −1. A start
    lies about the trap, |u| < ½, with probability ``share``, else about the minimum, |u + 2| < ½, and |v| < 1.
    L_uuu = 6u + 3 is all of D³L, so its norm is at most |6u + 3| + 6r. Raises LandscapeError unless 0 ≤ share ≤ 1.
    """
    if not 0 <= share <= 1:
        raise LandscapeError(f"share: found {share}; the share of starts about the trap lies between 0 and 1")

    def rotated(theta: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v); a reflection, so its own inverse."""
        return (3 * theta[0] + 4 * theta[1]) / 5, (4 * theta[0] - 3 * theta[1]) / 5

    def loss(theta: Tensor) -> Tensor:
        u, v = rotated(theta)
        return u**4 / 4 + u**3 / 2 + 2 * u + 0.5 * v * v

    def lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
        return (6 * rotated(theta)[0] + 3).abs() + 6 * radius

    draw = uniform((-0.5, -1.0, 0.0), (0.5, 1.0, 1.0))

    def init(generator: torch.Generator) -> Tensor:
        u, v, choice = draw(generator)
        return torch.stack(rotated(torch.stack([torch.where(choice < share, u, u - 2), v])))

    places: Sequence[Sequence[float]] = [(-1.2, -1.6), (0.0, 0.0)]
    classes = [KnownClass("minimum", "minimum", 0, 0, -4.0), KnownClass("trap", "gradient_flat", None, None, 0.0)]
    return Landscape.from_function(
        loss, 2, init, global_minimum=-4.0,
        hessian_lipschitz=lipschitz, known_class=nearest(places, classes, within=1e-4), name="gradient_flat_trap",
    )  # fmt: skip
