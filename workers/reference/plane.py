"""Functions of two variables whose stationary points are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landsweep.workers.landscape import KnownClass, Landscape


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


def himmelblau() -> Landscape:
    """f(x, y) = (x² + y − 11)² + (x + y² − 7)² (Himmelblau 1972): four minima of value 0, four saddles, one maximum."""
    saddles = [
        (-3.073025751002651, -0.08135304429092892), (-0.127961346730688, -1.9537149802445177),
        (0.08667750456420503, 2.8842547011136213), (3.3851541836016065, 0.07385187983692164),
    ]  # fmt: skip
    minima = [
        (3.0, 2.0), (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.283185991286170), (3.584428340330492, -1.848126526964404),
    ]  # fmt: skip
    classes = [KnownClass(f"minimum {k}", "minimum", 0, 0, 0.0) for k in range(4)]
    classes += [KnownClass(f"saddle {k}", "saddle", 1, 0) for k in range(4)] + [KnownClass("maximum", "maximum", 2, 0)]

    def loss(theta: Tensor) -> Tensor:
        x, y = theta[0], theta[1]
        return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2

    return Landscape.from_function(
        loss, 2, uniform((-6.0, -6.0), (6.0, 6.0)), global_minimum=0.0,
        known_class=nearest([*minima, *saddles, (-0.2708445906694438, -0.9230385564799752)], classes),
        name="himmelblau",
    )  # fmt: skip
