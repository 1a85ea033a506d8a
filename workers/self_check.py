"""Searches and classification measured on the reference landscapes, where the truth is known."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landsweep.workers import search, symmetry
from landsweep.workers.algebra import Dense
from landsweep.workers.classify import Classified
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.landscape import KnownClass, Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference.catalogue import REFERENCES
from landsweep.workers.trust_region import TrustRegionNewton

TOLERANCE = 1e-8
BUDGET = 300
LONGEST_DESCENT = 300  # gradient steps before a search
DESCENT_RATE = 0.2  # relative to 1/‖H‖₂ at the start
SAME_OBJECTIVE = 1e-8
NONDEGENERATE = ("minimum", "maximum", "saddle")


@dataclass(frozen=True)
class Case:
    """A reference landscape and what theory says of it."""

    label: str
    name: str  # of REFERENCES
    options: dict[str, object] = field(default_factory=dict)
    complete: bool = True  # whether every stationary point has a known class

    def build(self) -> Landscape:
        return REFERENCES[self.name](**self.options)


CASES = (
    Case("linear autoencoder 16-4-16", "linear_autoencoder"),
    Case("linear autoencoder 5-2-5", "linear_autoencoder", {"k": 5, "p": 2}),
    Case("matrix factorisation 8×3", "matrix_factorisation"),
    Case("deep linear 3-3-3-3", "deep_factorisation"),
    Case("phase retrieval, n = 10", "phase_retrieval"),
    Case("ICA, n = 8", "ica"),
    Case("orthogonal tensor, n = 6", "tensor_decomposition"),
    Case("spherical 2-spin, n = 10", "spherical_spin"),
    Case("spherical 3-spin, n = 4", "spherical_spin", {"p": 3, "n": 4}),
    Case("random field, n = 2", "random_field"),
    Case("random field, n = 3", "random_field", {"n": 3, "waves": 8, "confinement": 0.5}),
    Case("ReLU student–teacher 6-6", "student_teacher", complete=False),
    Case("Himmelblau", "himmelblau"),
    Case("six-hump camel", "six_hump_camel"),
    Case("Müller–Brown", "muller_brown"),
)


@dataclass(frozen=True)
class Row:
    """What became of the searches on one landscape."""

    landscape: str
    dim: int
    searches: int = 0
    critical: int = 0  # starts from which a critical point was reached
    minima: int = 0
    saddles: int = 0
    maxima: int = 0
    degenerate: int = 0  # degenerate_minimum or degenerate_saddle
    undetermined: int = 0
    certified: int = 0
    wrong: int = 0  # minimum, maximum or saddle that is another kind, index, number of zeros or objective
    false_minima: int = 0
    unknown: int = 0  # of no class that theory gives (there are such points only where theory is incomplete)
    local_minima: int = 0  # minima above the global one
    classes: int = 0  # distinct known classes met
    seconds: float = 0.0


def check(case: Case, starts: int) -> Row:
    """``starts`` points spread over descents, each searched for a point of any index and for a minimum."""
    begun = time.monotonic()
    landscape = case.build()
    landscape = dataclasses.replace(landscape, symmetries=symmetry.checked(landscape))
    theta, scale = spread(landscape, starts)
    ends = [any_index(landscape, theta, scale), minima(landscape, theta, scale)]
    row = Row(case.label, landscape.dim)
    met: set[str] = set()
    for where, points in ends:
        known = [landscape.known_class(t) if landscape.known_class else None for t in where]
        row = _counted(row, landscape, case, points, landscape.objective(where), known)
        met |= {k.name for k in known if k is not None}
    return dataclasses.replace(row, classes=len(met), seconds=time.monotonic() - begun)


def spread(landscape: Landscape, starts: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Starts (S, n) after 0 … 300 gradient steps from draws of ``init``, log-uniform, and ‖H‖₂ at the draws (S,)."""
    draws = [landscape.init(torch.Generator().manual_seed(seed + k)) for k in range(starts)]
    theta = landscape.retracted(torch.stack(draws).to(torch.float64))
    scale = Dense().norm(landscape, theta)
    steps = torch.linspace(0, math.log1p(LONGEST_DESCENT), starts, dtype=torch.float64).expm1().round()
    for step in range(LONGEST_DESCENT):
        rows = torch.nonzero(steps > step).flatten()
        rate = (DESCENT_RATE / scale[rows]).unsqueeze(1)
        theta[rows] = landscape.retracted(theta[rows] - rate * landscape.gradient(theta[rows]))
    return theta, scale


Maker = Callable[[Tensor], search.Search]  # the rows that are left → the search for them


def _levenberg_marquardt(rows: Tensor) -> search.Search:
    return LevenbergMarquardt(TOLERANCE)


def _descent(rows: Tensor) -> search.Search:
    return TrustRegionNewton(TOLERANCE)


def any_index(landscape: Landscape, theta: Tensor, scale: Tensor) -> tuple[Tensor, Classified]:
    """Levenberg–Marquardt; from the starts where it ends at no critical point, eigenvector following of the start's
    own index, then descent."""
    negatives = Dense().negatives(landscape, theta, scale)

    def following(rows: Tensor) -> search.Search:
        return EigenvectorFollowing(TOLERANCE, negatives[rows])

    return _relayed(landscape, theta, scale, [_levenberg_marquardt, following, _descent])


def minima(landscape: Landscape, theta: Tensor, scale: Tensor) -> tuple[Tensor, Classified]:
    """Descent."""
    return _relayed(landscape, theta, scale, [_descent])


def _relayed(landscape: Landscape, theta: Tensor, scale: Tensor, makers: Sequence[Maker]) -> tuple[Tensor, Classified]:
    """Each search from the starts from which those before it reached no critical point."""
    algebra, keys = Dense(), torch.arange(len(theta))
    end = theta.clone()
    rows = torch.arange(len(theta))
    parts = [torch.zeros(len(theta), dtype=torch.int64) for _ in range(2)] + [
        torch.zeros(len(theta), dtype=theta.dtype)
    ]
    for make in makers:
        found = search.iterate(make(rows), landscape, theta[rows], scale[rows], BUDGET)
        end[rows] = algebra.polished(landscape, found.theta, TOLERANCE)
        for part, values in zip(parts, (found.status, found.iterations, found.flatness), strict=True):
            part[rows] = values
        outcome = search.Outcome(end, *parts)
        points = algebra.classify(landscape, end, outcome, scale, keys, TOLERANCE)
        rows = torch.nonzero(~points.critical).flatten()
        if rows.numel() == 0:
            break
    return end, points


def _counted(
    row: Row, landscape: Landscape, case: Case, points: Classified, objectives: Tensor, known: list[KnownClass | None]
) -> Row:
    """``row`` with these ends counted too."""
    counts = dataclasses.asdict(row)
    counts["searches"] += len(known)
    counts["critical"] += int(points.critical.sum())
    counts["certified"] += sum(
        certified and bool(critical)
        for certified, critical in zip(points.certificates.certified, points.critical, strict=True)
    )
    best = landscape.global_minimum
    for i, (kind, of) in enumerate(zip(points.kind, known, strict=True)):
        counts["minima"] += kind == "minimum"
        counts["saddles"] += kind == "saddle"
        counts["maxima"] += kind == "maximum"
        counts["degenerate"] += kind.startswith("degenerate")
        counts["undetermined"] += kind == "undetermined"
        if kind == "minimum" and best is not None:
            counts["local_minima"] += float(objectives[i]) > best + SAME_OBJECTIVE * (1 + abs(best))
        if kind not in NONDEGENERATE:
            continue
        counts["unknown"] += of is None
        right = of is not None and _agrees(kind, points, i, float(objectives[i]), of)
        if of is not None or case.complete:
            counts["wrong"] += not right
            counts["false_minima"] += kind == "minimum" and not right
    return Row(**counts)


def _agrees(kind: str, points: Classified, i: int, objective: float, of: KnownClass) -> bool:
    """Whether a point is what its class says, as far as it says."""
    found = {"index": int(points.signs.index[i]), "n_zero": int(points.signs.n_zero[i])}
    told = all(getattr(of, name) in (None, value) for name, value in found.items())
    if of.objective is not None:
        told = told and abs(objective - of.objective) <= SAME_OBJECTIVE * (1 + abs(of.objective))
    return told and kind == of.kind
