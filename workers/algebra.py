"""How a configuration's points are found and measured: with whole Hessians, or from products with them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from landsweep.workers import classify, classify_krylov, search
from landsweep.workers.classify import Classified
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.landscape import Landscape
from landsweep.workers.lbfgs import GradientNormMinimisation
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.mode import is_dense
from landsweep.workers.newton_cg import TrustRegionNewtonCG
from landsweep.workers.newton_mr import NewtonMr
from landsweep.workers.quadratic import eigh
from landsweep.workers.saddle_dynamics import HighIndexSaddleDynamics
from landsweep.workers.search import Outcome, Search
from landsweep.workers.trust_region import TrustRegionNewton

UNKNOWN_INDEX = 8  # the highest index asked for where the number of negative eigenvalues at a start is not counted
LARGE = 512  # parameters from which on a product with H takes much less time than H and its factors
NORM_STEPS, NORM_ERROR = 60, 1e-6  # of Lanczos for ‖H‖₂ there: steps at most, relative error
NEGATIVE = 1e-7  # eigenvalues below −NEGATIVE·‖H‖₂ count as negative at a start


class Algebra(Protocol):
    """The linear algebra that searches, polishing and classification stand on."""

    @property
    def default_method(self) -> str:
        """What ``search.saddles.method: auto`` means."""
        ...

    def norm(self, landscape: Landscape, thetas: Tensor) -> Tensor:
        """‖H‖₂ at each row."""
        ...

    def negatives(self, landscape: Landscape, thetas: Tensor, scale: Tensor) -> Tensor:
        """How many eigenvalues are negative at each row, or what stands for it when an index is asked for."""
        ...

    def minima(self, landscape: Landscape, starts: Tensor, scale: Tensor, tolerance: float, budget: int) -> Outcome:
        """Where each of the ``starts`` (B, n) descends to in at most ``budget`` steps of a search."""
        ...

    def polished(self, landscape: Landscape, thetas: Tensor, tolerance: float) -> Tensor: ...

    def classify(
        self, landscape: Landscape, theta: Tensor, outcome: Outcome, scale: Tensor, keys: Tensor, tolerance: float
    ) -> Classified: ...


@dataclass(frozen=True)
class Dense:
    """Eigensystems of whole Hessians: O(n²) memory, O(n³) work."""

    default_method: str = "eigenvector_following"

    def norm(self, landscape: Landscape, thetas: Tensor) -> Tensor:
        if landscape.dim < LARGE:
            return eigh(landscape.hessian(thetas))[0].abs().amax(1)
        return classify_krylov.spectral_norm(landscape, thetas, NORM_STEPS, NORM_ERROR)

    def negatives(self, landscape: Landscape, thetas: Tensor, scale: Tensor) -> Tensor:
        return (eigh(landscape.hessian(thetas))[0] < -NEGATIVE * scale.unsqueeze(1)).sum(1)

    def minima(self, landscape: Landscape, starts: Tensor, scale: Tensor, tolerance: float, budget: int) -> Outcome:
        """From ``LARGE`` parameters on by conjugate gradients first; what these leave undone is done by factors, in as
        many steps again."""
        exact = TrustRegionNewton(tolerance)
        if landscape.dim < LARGE or budget == 0:
            return search.iterate(exact, landscape, starts, scale, budget)
        near = search.iterate(TrustRegionNewtonCG(tolerance), landscape, starts, scale, budget)
        outcome = search.iterate(exact, landscape, near.theta, scale, budget)
        taken, flat = near.iterations + outcome.iterations, torch.maximum(near.flatness, outcome.flatness)
        return Outcome(outcome.theta, outcome.status, taken, flat)

    def polished(self, landscape: Landscape, thetas: Tensor, tolerance: float) -> Tensor:
        return search.polished(landscape, thetas, tolerance, landscape.symmetries)

    def classify(
        self, landscape: Landscape, theta: Tensor, outcome: Outcome, scale: Tensor, keys: Tensor, tolerance: float
    ) -> Classified:
        return classify.classify(landscape, theta, outcome, scale, keys, tolerance, landscape.symmetries)


@dataclass(frozen=True)
class Krylov:
    """Hessian–vector products: O(n) memory a vector kept."""

    steps: int  # block-Lanczos steps at most
    spectrum: bool = True  # whether spectra are measured where the kind of a point does not need them
    default_method: str = "saddle_dynamics"

    def norm(self, landscape: Landscape, thetas: Tensor) -> Tensor:
        return classify_krylov.spectral_norm(landscape, thetas)

    def negatives(self, landscape: Landscape, thetas: Tensor, scale: Tensor) -> Tensor:
        return torch.full_like(scale, min(UNKNOWN_INDEX, landscape.dim), dtype=torch.int64)

    def minima(self, landscape: Landscape, starts: Tensor, scale: Tensor, tolerance: float, budget: int) -> Outcome:
        return search.iterate(TrustRegionNewtonCG(tolerance), landscape, starts, scale, budget)

    def polished(self, landscape: Landscape, thetas: Tensor, tolerance: float) -> Tensor:
        return search.polished(landscape, thetas, tolerance, newton=classify_krylov.newton_steps)

    def classify(
        self, landscape: Landscape, theta: Tensor, outcome: Outcome, scale: Tensor, keys: Tensor, tolerance: float
    ) -> Classified:
        return classify_krylov.classify(landscape, theta, outcome, scale, keys, tolerance, self.steps, self.spectrum)


def chosen(settings: Mapping[str, Any], dim: int) -> Algebra:
    """The algebra of a configuration of ``dim`` parameters."""
    measure = settings["measure"]
    return Dense() if is_dense(settings, dim) else Krylov(measure["lanczos_steps"], measure["spectrum"] != "none")


def saddle_search(method: str, tolerance: float, index: Tensor) -> Search:
    """The search for stationary points of any index by this name; ``index`` (B,) is asked of those that take one."""
    if method == "eigenvector_following":
        return EigenvectorFollowing(tolerance, index)
    if method == "saddle_dynamics":
        return HighIndexSaddleDynamics(tolerance, index)
    searches: dict[str, type[LevenbergMarquardt | NewtonMr | GradientNormMinimisation]] = {
        "levenberg_marquardt": LevenbergMarquardt,
        "newton_mr": NewtonMr,
        "gradient_norm": GradientNormMinimisation,
    }
    return searches[method](tolerance)
