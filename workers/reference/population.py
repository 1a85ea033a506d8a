"""Population losses of signal recovery whose stationary points are known and whose minima are all global."""

from __future__ import annotations

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Field, KnownClass, Landscape
from landsweep.workers.reference.sphere import on_sphere

WITHIN = 1e-6  # how near a point of a class has to be, relative to the signal


def phase_retrieval(n: int = 10, norm: float = 1.0) -> Landscape:
    """f(z) = ¼E[((a·z)² − (a·x)²)²] = (3‖z‖⁴ + 3‖x‖⁴ − 2‖z‖²‖x‖² − 4(z·x)²)/4, a ~ N(0, I), ‖x‖ = ``norm``.

    ∇f = (3‖z‖² − ‖x‖²)z − 2(z·x)x vanishes at 0, a maximum; at ±x, the global minima; and for z ⊥ x with
    ‖z‖² = ‖x‖²/3, where H = 6zzᵀ − 2xxᵀ: a sphere of saddles of index 1 (Sun, Qu & Wright 2018, for real signals).
    D³f[v, v, v] = 18‖v‖²(z·v), so K = 18(‖θ‖ + r) on a ball. The symmetries are the rotations that leave x, which is
    proportional to (1, 2, …, n). Raises LandscapeError for n < 2 or ``norm`` ≤ 0.
    """
    if n < 2 or not norm > 0:
        raise LandscapeError(f"phase_retrieval: found n = {n}, norm = {norm}; n has to be at least 2, norm above 0")
    direction = torch.arange(1, n + 1, dtype=torch.float64)
    direction = direction / direction.norm()
    signal, square = norm * direction, norm**2

    def loss(theta: Tensor) -> Tensor:
        length, overlap = (theta * theta).sum(), (theta * signal.to(theta)).sum()
        value: Tensor = 0.25 * (3 * length**2 + 3 * square**2 - 2 * length * square - 4 * overlap**2)
        return value

    classes = {
        "origin": KnownClass("origin", "maximum", n, 0, 0.75 * square**2),
        "signal": KnownClass("signal", "minimum", 0, 0, 0.0),
        "orthogonal": KnownClass("orthogonal", "saddle", 1, n - 2, 2 / 3 * square**2),
    }

    def known_class(theta: Tensor) -> KnownClass | None:
        place = theta.detach().cpu().to(torch.float64) / norm
        along = float((place * direction).sum())
        across = float((place - along * direction).norm())
        places = {"origin": (0.0, 0.0), "signal": (1.0, 0.0), "orthogonal": (0.0, 3**-0.5)}
        near = [key for key, (a, b) in places.items() if abs(abs(along) - a) <= WITHIN and abs(across - b) <= WITHIN]
        return classes[near[0]] if near else None

    return Landscape.from_function(
        loss,
        n,
        lambda generator: norm * n**-0.5 * torch.randn(n, generator=generator, dtype=torch.float64),
        symmetries=_rotations_about(direction),
        hessian_lipschitz=lambda theta, radius: 18 * ((theta * theta).sum().sqrt() + radius),
        known_class=known_class,
        global_minimum=0.0,
        outputs=lambda theta: torch.stack([(theta * signal.to(theta)).sum(), (theta * theta).sum()]),
        name="phase_retrieval",
    )


def _rotations_about(direction: Tensor) -> list[Field]:
    """v(z) = b_i(b_j·z) − b_j(b_i·z), i < j, for an orthonormal basis b of the complement of ``direction`` (n,)."""
    complement = torch.linalg.qr(torch.cat([direction.unsqueeze(1), torch.eye(len(direction)).to(direction)], 1))[0]
    vectors = complement.mT[1:]

    def rotation(first: Tensor, second: Tensor) -> Field:
        def field(theta: Tensor) -> Tensor:
            p, q = first.to(theta), second.to(theta)
            return p * (q * theta).sum() - q * (p * theta).sum()

        return field

    return [rotation(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]


def ica(n: int = 8, seed: int = 0) -> Landscape:
    """Independent components of equal kurtosis κ = −1 on the sphere: f = ¼Σκ(a_i·θ)⁴ (Delfosse & Loubaton 1995).

    a_i is the orthonormal basis of a random rotation, drawn from ``seed``; classes as in ``tensor_decomposition`` at
    order 4. Every minimum ±a_i is global and every saddle strict (Ge, Huang, Jin & Yuan 2015).
    """
    return _orthogonal("ica", n, 4, seed)


def tensor_decomposition(n: int = 6, order: int = 6, seed: int = 0) -> Landscape:
    """Orthogonal tensor decomposition on the sphere, f = −(1/d)Σ(a_i·θ)ᵈ, d = ``order`` even (Anandkumar et al. 2014;
    Ge, Huang, Jin & Yuan 2015).

    With c_i = a_i·θ, a critical point has c_i^{d−1} = μc_i, so |c_i| = s^{−1/2} on a set of s components, 0 elsewhere,
    for each of the 3ⁿ − 1 choices of set and signs. There f = −s^{1−d/2}/d and, on the sphere's tangent space, H is
    −(d−2)s^{1−d/2} within the set (s − 1 dimensions) and s^{1−d/2} outside (n − s): index s − 1. Raises LandscapeError
    for n < 2 and for orders below 4 or odd, where −Σa_i/√n is a minimum with f > 0.
    """
    return _orthogonal("tensor_decomposition", n, order, seed)


def _orthogonal(name: str, n: int, order: int, seed: int) -> Landscape:
    if n < 2 or order < 4 or order % 2:
        raise LandscapeError(
            f"{name}: found n = {n}, order = {order}; n has to be at least 2, and the order even and at least 4: an "
            "odd one has minima that are not global, order 2 is constant on the sphere"
        )
    components = rotation(n, seed)

    def polynomial(theta: Tensor) -> Tensor:
        return -((components.to(theta) * theta).sum(1) ** order).sum() / order

    def known_class(theta: Tensor) -> KnownClass | None:
        weights = (components * theta).sum(1).abs()
        member = weights > 0.5 * n**-0.5
        size = int(member.sum())
        if float((weights - member * size**-0.5).abs().max()) > WITHIN:
            return None
        kind = "minimum" if size == 1 else "maximum" if size == n else "saddle"
        return KnownClass(f"{size} of {n} components", kind, size - 1, 1, -(size ** (1 - order / 2)) / order)

    half_range = (1 - n ** (1 - order / 2)) / (2 * order)  # f lies between the values at s = 1 and s = n
    return on_sphere(
        polynomial, n, order, half_range, name=name, known_class=known_class, global_minimum=-1 / order
    )  # fmt: skip


def rotation(n: int, seed: int) -> Tensor:
    """A random orthogonal matrix, uniform (Stewart 1980), drawn from ``seed``. (n, n), rows orthonormal."""
    drawn = streams.normal(streams.keys("rotation", [seed], "reference"), 0, n * n).view(n, n)
    orthogonal, triangular = torch.linalg.qr(drawn)
    rows: Tensor = orthogonal * triangular.diagonal().sign()
    return rows
