"""Functions of two variables whose stationary points are all known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landsweep.workers.landscape import KnownClass, Landscape, Scalar

Place = tuple[float, float]
Box = tuple[Place, Place]  # the corners of least and greatest coordinates
Stationary = tuple[Sequence[Place], Sequence[Place], Sequence[Place]]  # minima, saddles, maxima

INDEXED = ("minimum", "saddle", "maximum")  # the kind of a point of index 0, 1, 2


def uniform(low: Sequence[float], high: Sequence[float]) -> Callable[[torch.Generator], Tensor]:
    """Starts drawn uniformly from a box."""
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in (low, high))

    def init(generator: torch.Generator) -> Tensor:
        return lower + (upper - lower) * torch.rand(len(lower), generator=generator, dtype=torch.float64)

    return init


def nearest(
    places: Sequence[Sequence[float]], classes: Sequence[KnownClass], within: float = 1e-6
) -> Callable[[Tensor], KnownClass | None]:
    """The class of the nearest of ``places``, None where none is within ``within``."""
    table = torch.tensor(places, dtype=torch.float64)

    def known_class(theta: Tensor) -> KnownClass | None:
        distance = (table - theta.detach().cpu()).norm(dim=1)
        closest = int(distance.argmin())
        return classes[closest] if float(distance[closest]) <= within else None

    return known_class


def cubic_norm(xxx: Tensor, xxy: Tensor, xyy: Tensor, yyy: Tensor) -> Tensor:
    """A bound of ‖D³f‖₂ = max |D³f[u,u,u]| over unit u, at most √2 times it, from the four third derivatives. ().

    With u = (cos t, sin t) the form is A cos(t − α) + B cos(3t − β), where A = ¾‖(xxx + xyy, xxy + yyy)‖ and
    B = ¼‖(xxx − 3xyy, 3xxy − yyy)‖; the bound is A + B ≤ √2·√(A² + B²). A symmetric form takes its norm at equal
    arguments (Banach 1938), so this also bounds max ‖D³f[u]‖₂, the rate at which the Hessian changes.
    """
    low = 0.75 * torch.hypot(xxx + xyy, xxy + yyy)
    return low + 0.25 * torch.hypot(xxx - 3 * xyy, 3 * xxy - yyy)


#: Minima, saddles and maxima of each function, the exact places rounded to float64.
HIMMELBLAU: Stationary = (
    (
        (3.0, 2.0), (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.2831859912861696), (3.5844283403304917, -1.8481265269644036),
    ),
    (
        (-3.0730257507643897, -0.08135304428796751), (-0.12796134673068008, -1.9537149802445763),
        (0.08667750455539636, 2.884254701174776), (3.385154183607021, 0.07385187983774928),
    ),
    ((-0.2708445906673476, -0.9230385564799815),),
)  # fmt: skip
SIX_HUMP_CAMEL: Stationary = (
    (
        (0.08984201310031806, -0.7126564030207396), (-0.08984201310031806, 0.7126564030207396),
        (1.703606714969981, -0.7960835686726251), (-1.703606714969981, 0.7960835686726251),
        (1.6071047529201972, 0.5686514548841314), (-1.6071047529201972, -0.5686514548841314),
    ),
    (
        (0.0, 0.0),
        (1.1092053368047865, -0.7682680925095399), (-1.1092053368047865, 0.7682680925095399),
        (1.6380679841897785, 0.22867406904439408), (-1.6380679841897785, -0.22867406904439408),
        (1.2960702671671092, 0.6050843880386585), (-1.2960702671671092, -0.6050843880386585),
    ),
    ((1.2302298765166526, 0.16233458445899496), (-1.2302298765166526, -0.16233458445899496)),
)  # fmt: skip
MULLER_BROWN: Stationary = (
    (
        (-0.5582236346330243, 1.4417258418046686), (0.6234994049308765, 0.028037758528685664),
        (-0.050010822998206056, 0.4666941048719721),
    ),
    ((-0.8220015587327321, 0.6243128028148713), (0.212486582000662, 0.2929883251073678)),
    (),
)  # fmt: skip


def known_surface(
    name: str, loss: Scalar, box: Box, lipschitz: Callable[[Tensor, Tensor], Tensor], stationary: Stationary
) -> Landscape:
    """A landscape with starts uniform in ``box`` and the places of all its stationary points, none degenerate."""
    places, classes = [], []
    for index, kind in enumerate(INDEXED):
        for number, place in enumerate(stationary[index]):
            value = float(loss(torch.tensor(place, dtype=torch.float64)))
            places.append(place)
            classes.append(KnownClass(f"{kind} {number}", kind, index, 0, value))
    lowest = min(known.objective for known in classes if known.objective is not None)
    return Landscape.from_function(
        loss, 2, uniform(*box), global_minimum=lowest, hessian_lipschitz=lipschitz,
        known_class=nearest(places, classes), name=name,
    )  # fmt: skip


def himmelblau() -> Landscape:
    """f(x, y) = (x² + y − 11)² + (x + y² − 7)² (Himmelblau 1972): four minima of value 0, four saddles, one maximum.

    Third derivatives 24x, 4, 4, 24y; fourth ones 24 (xxxx and yyyy), of norm 24. So ‖D³f‖ ≤ its value at θ + 24r.
    """

    def loss(theta: Tensor) -> Tensor:
        x, y = theta[0], theta[1]
        return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2

    def lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
        four = torch.full_like(radius, 4.0)
        return cubic_norm(24 * theta[0], four, four, 24 * theta[1]) + 24 * radius

    return known_surface("himmelblau", loss, ((-6.0, -6.0), (6.0, 6.0)), lipschitz, HIMMELBLAU)


def six_hump_camel() -> Landscape:
    """f(x, y) = (4 − 2.1x² + x⁴/3)x² + xy + (4y² − 4)y² (Dixon & Szegő 1978): six minima, two of them global, seven
    saddles, two maxima.

    f_x = 0 gives y = −8x + 8.4x³ − 2x⁵, which makes of f_y = 0 a polynomial of degree 15 in x; its 15 roots are real,
    so these are all. D³f has the entries p(x) = 40x³ − 50.4x (xxx) and 96y (yyy) alone, so its norm is the larger, and
    |p| on [x − r, x + r] is largest at an end or at a turning point x² = 0.42, where it is 33.6·√0.42.
    """

    def loss(theta: Tensor) -> Tensor:
        x, y = theta[0], theta[1]
        return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2

    def lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
        low, high, turn = theta[0] - radius, theta[0] + radius, 0.42**0.5
        inside = ((low <= turn) & (turn <= high)) | ((low <= -turn) & (-turn <= high))
        at_ends = torch.maximum((40 * low**3 - 50.4 * low).abs(), (40 * high**3 - 50.4 * high).abs())
        along_x = torch.where(inside, at_ends.clamp_min(33.6 * turn), at_ends)
        return torch.maximum(along_x, 96 * (theta[1].abs() + radius))

    return known_surface("six_hump_camel", loss, ((-2.0, -1.2), (2.0, 1.2)), lipschitz, SIX_HUMP_CAMEL)


#: A, a, b, c, x₀, y₀ of A·exp(a(x−x₀)² + b(x−x₀)(y−y₀) + c(y−y₀)²) (Müller & Brown 1979, footnote 7)
MULLER_BROWN_TERMS = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)


def muller_brown() -> Landscape:
    """The sum of four terms A·exp(q), q a quadratic (Müller & Brown 1979): three minima and two saddles.

    The last q is positive definite, so f is coercive, and 3 − 2 = 1 agrees with Morse's count; branch and bound finds
    no other in [−3, 3]². Starts are drawn in the usual window, where ‖H‖ is some 1e3 and ‖∇f‖ has minima that are
    no stationary points: Levenberg–Marquardt's method ends in them from three starts in five.

    For g = ∇q and Q = ∇²q, D³[u³] = Σ A·exp(q)·((g·u)³ + 3(g·u)Q[u²]) at θ, and on the ball
    ‖D⁴‖ ≤ Σ|A|·exp(q̄)·(G⁴ + 6‖Q‖G² + 3‖Q‖²) with G = ‖g‖ + ‖Q‖r, q̄ = q + ‖g‖r + ½λ_max(Q)⁺r², and q̄ ≤ 0 where Q is
    negative definite.
    """

    def loss(theta: Tensor) -> Tensor:
        total = torch.zeros_like(theta[0])
        for height, a, b, c, x0, y0 in MULLER_BROWN_TERMS:
            x, y = theta[0] - x0, theta[1] - y0
            total = total + height * torch.exp(a * x * x + b * x * y + c * y * y)
        return total

    return known_surface("muller_brown", loss, ((-1.5, -0.2), (1.2, 2.0)), _muller_brown_lipschitz, MULLER_BROWN)


def _muller_brown_lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
    third, fourth = [torch.zeros_like(radius)] * 4, torch.zeros_like(radius)
    for height, a, b, c, x0, y0 in MULLER_BROWN_TERMS:
        x, y = theta[0] - x0, theta[1] - y0
        gx, gy, exponent = 2 * a * x + b * y, b * x + 2 * c * y, a * x * x + b * x * y + c * y * y
        terms = (gx**3 + 6 * a * gx, gx**2 * gy + 2 * a * gy + 2 * b * gx,
                 gx * gy**2 + 2 * c * gx + 2 * b * gy, gy**3 + 6 * c * gy)  # fmt: skip
        third = [total + height * torch.exp(exponent) * term for total, term in zip(third, terms, strict=True)]
        spread, slope = ((a - c) ** 2 + b**2) ** 0.5, torch.hypot(gx, gy)
        bend, highest = abs(a + c) + spread, a + c + spread  # ‖Q‖ and Q's larger eigenvalue
        peak = exponent + slope * radius + 0.5 * max(highest, 0.0) * radius**2
        grown = torch.exp(peak if highest > 0 else peak.clamp_max(0.0))
        reach = slope + bend * radius
        fourth = fourth + abs(height) * grown * (reach**4 + 6 * bend * reach**2 + 3 * bend**2)
    return cubic_norm(*third) + fourth * radius
