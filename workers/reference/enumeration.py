"""All stationary points in a cube, by branch and bound: boxes are excluded by a bound on the gradient, and resolved by
the Newton–Kantorovich theorem; nothing is sampled."""

from __future__ import annotations

import dataclasses
from collections import Counter

import torch
from torch import Tensor
from torch.func import vmap

from landsweep.workers.certificate import newton_kantorovich
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape, padded
from landsweep.workers.quadratic import LocalModel, eigh, in_eigenbasis
from landsweep.workers.reference.plane import nearest

SLACK = 1e-10  # margin for rounding, relative to ‖g‖ + ‖H‖(1 + ‖θ‖); rounding itself is near n·eps
LEVELS = 40  # halvings: one that does not end before meets a degenerate point
BOXES = 2**18  # boxes alive at once
CHUNK = 2**13  # boxes judged at once: their derivatives fit the cache
SIGN = 1e-9  # relative to ‖H‖: far below what ``stationary_points`` leaves, far above rounding
HALF = 0.49  # h of the Newton–Kantorovich theorem, below ½ so that convergence is quadratic
NEWTON_STEPS = 10  # from h = 0.49, eight reach rounding
SAME = 1e-9  # distance, relative to 1 + ‖θ‖, within which two refined points are one


def stationary_points(landscape: Landscape, half_width: float) -> Tensor:
    """Every θ ∈ [−w, w]ⁿ with ∇L = 0, and possibly some just outside. (P, n), refined to rounding.

    A box with centre c and circumradius r holds none if some eigenpair (λ, u) of H(c) has |u·g| > |λ|r + ½Kr²: a zero
    at c + d needs u·g + λu·d = −u·R with ‖R‖ ≤ ½Kr². It holds at most one if 2rβK ≤ 1, for g is then injective on the
    ball of radius 2r; that ball holds one, to which Newton's method goes from c, if h = βηK < ½ and the theorem's
    radius is at most 2r (Kantorovich 1948; Ortega & Rheinboldt 1970, 12.6.2). K is that of the ball; other boxes are
    halved. Needs an exact ``hessian_lipschitz``. Raises LandscapeError where that does not end: a point is degenerate
    to rounding, or the cube is too large.
    """
    centres, half = torch.zeros(1, landscape.dim, dtype=torch.float64), half_width
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64)] * landscape.dim)
    corners = corners.view(-1, landscape.dim)
    starts = []
    for _ in range(LEVELS):
        parts = [judged(landscape, chunk, half * landscape.dim**0.5) for chunk in torch.split(centres, CHUNK)]
        empty, single = (torch.cat(flags) for flags in zip(*parts, strict=True))
        starts.append(centres[single & ~empty])
        centres = centres[~single & ~empty]
        if len(centres) == 0:
            return distinct(newton(landscape, torch.cat(starts)))
        if len(centres) * len(corners) > BOXES:
            break
        centres = (centres.unsqueeze(1) + half * corners).flatten(0, 1)
        half = 0.5 * half
    raise LandscapeError(
        f"{landscape.name}: {len(centres)} boxes of half-width {half:.1e} may still hold stationary points; one is "
        "degenerate, or the region is too large to enumerate: take fewer dimensions, another seed or more confinement"
    )


def stationary_directions(landscape: Landscape) -> Tensor:
    """Every unit θ with ∇L = 0, for L(θ) = f(θ/‖θ‖) with f even or odd on the sphere. (P, n), with θ also −θ.

    L does not change along θ, so it is stationary at θ exactly if it is so within the face θ_i = ±1 of a cube that the
    ray through θ crosses; by the symmetry of f the n faces θ_i = 1 suffice.
    """
    rays = []
    for face in range(landscape.dim):
        inside = stationary_points(_restricted(landscape, face), 1.0)
        rays.append(torch.cat([inside[:, :face], torch.ones_like(inside[:, :1]), inside[:, face:]], 1))
    units = landscape.retracted(torch.cat(rays))
    return distinct(torch.cat([units, -units]))


def _restricted(landscape: Landscape, face: int) -> Landscape:
    """L on the face θ_i = 1, as a function of the other n − 1 parameters."""
    known = landscape.hessian_lipschitz
    assert callable(known), "a landscape on a sphere bounds its Hessian's change ball by ball"

    def lifted(y: Tensor) -> Tensor:
        return torch.cat([y[:face], torch.ones_like(y[:1]), y[face:]])

    def constant(y: Tensor, radius: Tensor) -> Tensor:
        theta = lifted(y)
        beyond = (theta * theta).sum().sqrt() - 1  # the face is no nearer to the origin than 1
        return known(theta, torch.minimum(radius, beyond))

    return Landscape.from_function(
        lambda y: landscape.loss(lifted(y)),
        landscape.dim - 1,
        lambda generator: torch.zeros(landscape.dim - 1, dtype=torch.float64),
        hessian_lipschitz=constant,
        name=f"{landscape.name} on a face",
    )


def catalogued(landscape: Landscape, points: Tensor) -> Landscape:
    """``landscape`` knowing ``points`` (P, n), all its stationary points, nondegenerate up to its symmetries: classes
    "minimum 0", "minimum 1", … by ascending objective, and the global minimum."""
    objective, values = landscape.objective(points), torch.linalg.eigvalsh(landscape.hessian(points))
    order = torch.argsort(objective).tolist()
    index = (values < -SIGN * values.abs().amax(1, keepdim=True)).sum(1).tolist()
    free = len(landscape.symmetries)
    kinds = ["minimum" if k == 0 else "maximum" if k == landscape.dim - free else "saddle" for k in index]
    met: Counter[str] = Counter()
    classes = []
    for row in order:
        kind = kinds[row]
        classes.append(KnownClass(f"{kind} {met[kind]}", kind, index[row], free, float(objective[row])))
        met[kind] += 1
    of_nearest = nearest(points[order].tolist(), classes)
    back = landscape.retraction or (lambda theta: theta)
    return dataclasses.replace(
        landscape,
        known_class=lambda theta: of_nearest(back(theta.detach().cpu().to(torch.float64))),
        global_minimum=float(objective.min()),
    )


def judged(landscape: Landscape, centres: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Whether the balls of ``radius`` around ``centres`` (B, n) certainly hold no stationary point, and whether they
    hold at most one and Newton's method goes from the centre to a stationary point nearby. (B,) bool each."""
    reach = torch.full_like(centres[:, 0], 2 * radius)
    constant = _constant(landscape, centres, reach)
    gradient = landscape.gradient(centres)
    values, vectors, _ = eigh(landscape.hessian(centres))
    size = values.abs()
    slack = SLACK * (gradient.norm(dim=1) + size.amax(1) * (1 + centres.norm(dim=1)))
    components = in_eigenbasis(vectors, gradient).abs()
    bound = size * radius + (0.5 * constant * radius**2 + slack).unsqueeze(1)
    beta = 1 / (size.amin(1) - slack).clamp_min(1e-300)
    eta = (components / size.clamp_min(1e-300)).norm(dim=1) + beta * slack
    h, near = newton_kantorovich(beta, eta, constant)
    return (components > bound).any(1), (h < HALF) & (near <= reach) & (beta * constant * reach <= 1)


def _constant(landscape: Landscape, centres: Tensor, reach: Tensor) -> Tensor:
    """K on the balls of radius ``reach`` (B,) around ``centres`` (B, n). (B,)."""
    known = landscape.hessian_lipschitz
    assert known is not None, "without an exact bound nothing can be excluded"
    return padded(vmap(known), centres, reach) if callable(known) else torch.full_like(reach, known)


def newton(landscape: Landscape, thetas: Tensor) -> Tensor:
    """Newton's method on ∇L from starts where the Newton–Kantorovich theorem holds. (B, n)."""
    for _ in range(NEWTON_STEPS if len(thetas) else 0):
        thetas = thetas + LocalModel.at(landscape, thetas).newton_step
    return thetas


def distinct(thetas: Tensor) -> Tensor:
    """One of each group of equal points, in order of appearance. (B, n) → (P, n)."""
    kept, rest = [thetas[:0]], thetas
    while len(rest):
        same = (rest - rest[0]).norm(dim=1) <= SAME * (1 + rest[0].norm())
        kept.append(rest[:1])
        rest = rest[~same]
    return torch.cat(kept)
