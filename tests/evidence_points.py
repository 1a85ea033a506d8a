"""What is claimed of stationary points, measured in full: ``python -m tests.evidence_points NAME``."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import execution, self_check, symmetry
from landsweep.workers.algebra import Dense
from landsweep.workers.batch import BatchTask, run_batch
from landsweep.workers.classify import Classified
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference.catalogue import REFERENCES
from landsweep.workers.self_check import CASES, Case, Row
from tests.claims import Measured, measured_claims
from tests.digits import CPU, built
from tests.surfaces import ended, found
from tests.test_reference_linear import true_inertia
from tests.test_student_teacher import as_array, exact_hessian

PART = 200  # starts at once


def case(label: str) -> Case:
    return next(chosen for chosen in CASES if chosen.label.startswith(label))


# --- the linear autoencoder --------------------------------------------------------------------------------------
def autoencoder(starts: int = 1000) -> Measured:
    """k = 16, p = 4: one search a start, spread over a descent."""
    landscape = case("linear autoencoder 16").build()
    landscape = dataclasses.replace(landscape, symmetries=symmetry.checked(landscape))
    critical = matched = certified = 0
    classes: set[str] = set()
    for first in range(0, starts, PART):  # 1,000 Hessians and their factors at once would take gigabytes
        begun = self_check.spread(landscape, min(PART, starts - first), seed=first)
        theta, points = self_check.any_index(landscape, *begun)
        right, met = _matched(landscape, theta, points)
        critical, matched = critical + int(points.critical.sum()), matched + right
        certified += sum(points.certificates.certified)
        classes |= met
    text = f"{critical} of {starts} at critical points, {matched} of them in a closed-form class with its loss (1e-8), "
    text += f"index and zero modes; {len(classes)} classes; {certified} certified"
    return text, critical >= 0.99 * starts and matched == critical


def _matched(landscape: Landscape, theta: Tensor, points: Classified) -> tuple[int, set[str]]:
    """How many critical points are in a class (‖W₂W₁ − U_I U_Iᵀ‖ ≤ 1e-6) and what it says they are, and the classes."""
    assert landscape.known_class is not None
    matched, classes = 0, set()
    values = landscape.objective(theta).tolist()
    for row in torch.nonzero(points.critical).flatten().tolist():
        known = landscape.known_class(theta[row])
        if known is None or known.objective is None:
            continue
        same = abs(values[row] - known.objective) <= 1e-8 and known.kind == points.kind[row]
        counts = int(points.signs.index[row]), int(points.signs.n_zero[row])
        matched += same and counts == (known.index, known.n_zero)
        classes.add(known.name)
    return matched, classes


def all_classes(starts: int = 2000) -> Measured:
    """k = 5, p = 2: Levenberg–Marquardt from random starts meets every class."""
    landscape = case("linear autoencoder 5").build()
    generator = torch.Generator().manual_seed(0)
    scale = 10 ** torch.linspace(-2, 0.5, starts, dtype=torch.float64).unsqueeze(1)
    theta = scale * torch.randn(starts, 20, generator=generator, dtype=torch.float64)
    outcome, points = found(landscape, LevenbergMarquardt(1e-8), theta, 300)
    matched, classes = _matched(landscape, outcome.theta, points)
    critical = int(points.critical.sum())
    text = f"{len(classes)} of 16 classes from {starts} starts; {matched} of {critical} critical points as theory says"
    return text, len(classes) == 16 and matched == critical


# --- every reference landscape -----------------------------------------------------------------------------------
def references(starts: int = 350) -> Measured:
    """Each landscape searched for points of any index and for minima."""
    rows = [self_check.check(chosen, starts) for chosen in CASES]
    for row in rows:
        print(f"    {row}", flush=True)
    searches, wrong, false = (sum(getattr(row, name) for row in rows) for name in ("searches", "wrong", "false_minima"))
    least = min(row.critical / row.searches for row in rows)
    unclear = max(row.undetermined / row.searches for row in rows)
    benign = [row for row in rows if row.landscape.startswith(("phase", "ICA", "orthogonal"))]
    text = (
        f"{searches} searches on {len(rows)} landscapes: at least {least:.1%} of a landscape's end at critical points, "
    )
    text += (
        f"{wrong} of a wrong kind, index, number of zeros or objective, {false} false minima, at most {unclear:.1%} "
    )
    text += (
        f"undetermined; phase retrieval, ICA, tensor: {sum(map(_harmful, benign))} local minima or degenerate points"
    )
    good = least >= 0.95 and wrong == 0 and false == 0 and unclear <= 0.01
    return text, good and searches >= 10_000 and sum(map(_harmful, benign)) == 0


def _harmful(row: Row) -> int:
    return row.local_minima + row.degenerate


def incomplete(starts: int = 60) -> Measured:
    """Where theory names no index: the ReLU student–teacher's points against the Hessian from 60-digit differences of
    its loss, the deep linear network's against torch.func.hessian and NumPy."""
    texts, holds = [], True
    for label in ("ReLU", "deep"):
        landscape = case(label).build()
        theta, points = self_check.any_index(landscape, *self_check.spread(landscape, starts))
        rows = [row for row, kind in enumerate(points.kind) if kind in self_check.NONDEGENERATE]
        truth = _exact_indices(theta[rows]) if label == "ReLU" else [t[0] for t in true_inertia(landscape, theta[rows])]
        agree = sum(int(points.signs.index[row]) == index for row, index in zip(rows, truth, strict=True))
        kinds = Counter(points.kind[row] for row in rows)
        texts.append(f"{label}: {agree} of {len(rows)} indices agree ({dict(kinds)})")
        holds = holds and agree == len(rows) >= 0.9 * starts
    return "; ".join(texts), holds


def _exact_indices(thetas: Tensor) -> list[int]:
    size = int(thetas.shape[1] ** 0.5)
    hessians = [as_array(exact_hessian(theta.view(size, size))) for theta in thetas]
    return [int((np.linalg.eigvalsh(hessian) < 0).sum()) for hessian in hessians]


# --- the plane, degenerate points, traps --------------------------------------------------------------------------
def plane(starts: int = 300) -> Measured:
    landscape = REFERENCES["himmelblau"]()
    kinds = _ends(landscape, starts)
    distinct = {known: kind for kind, known, _ in kinds if known}
    signed = sum((-1) ** index for _, index in {(known, index) for _, known, index in kinds if known})
    counted = Counter(distinct.values())
    morse = counted == {"minimum": 4, "saddle": 4, "maximum": 1} and signed == 1
    texts, holds = [f"Himmelblau: {dict(counted)}, Σ(−1)^index = {signed}"], morse
    for name, kind in (("monkey_saddle", "degenerate_saddle"), ("quartic_bowl", "degenerate_minimum")):
        met = Counter(kind for kind, _, _ in _ends(REFERENCES[name](), starts // 10))
        texts.append(f"{name}: {dict(met)}")
        holds = holds and set(met) == {kind}
    trapped = Counter(kind for kind, _, _ in _ends(REFERENCES["gradient_flat_trap"](), starts))
    texts.append(f"trap: {dict(trapped)}")
    return "; ".join(texts), holds and trapped["gradient_flat"] > 0 and set(trapped) <= {"gradient_flat", "minimum"}


def _ends(landscape: Landscape, starts: int) -> list[tuple[str, str | None, int]]:
    """Kind, known class and index where Levenberg–Marquardt goes from draws of ``init``."""
    theta = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(starts)])
    outcome, points = found(landscape, LevenbergMarquardt(1e-8), theta, 300)
    known = [landscape.known_class(t) if landscape.known_class else None for t in outcome.theta]
    names = [of.name if of else None for of in known]
    return list(zip(points.kind, names, points.signs.index.tolist(), strict=True))


# --- networks ----------------------------------------------------------------------------------------------------
def trained(
    seeds: int, steps: int, spectrum: str = "dense", lanczos_steps: int = 75, **options: object
) -> dict[str, list[Any]]:
    """The points that training a perceptron with six hidden units reaches on 60 digits at 4×4 pixels."""
    mlp = {"name": "mlp", "data": "digits", "hidden": [6], "resize": 4, "train_size": 60, **options}
    training = {"optimizer": "adam", "lr": 0.02, "betas": (0.9, 0.999), "epsilon": 1e-8, "batch_size": "full"}
    settings = {
        "landscape": mlp,
        "training": {**training, "steps": steps, "dtype": "float32"},
        "search": {"tolerance": 1e-8, "minima": True, "minima_iterations": 100, "saddles": None},
        "measure": {"spectrum": spectrum, "lanczos_steps": lanczos_steps},
    }
    task = BatchTask("evidence", "batch", "config", settings, {}, tuple(range(seeds)))
    return run_batch(task, built(mlp), CPU).tables["points"]


def separable(seeds: int = 16) -> Measured:
    points = trained(seeds, 1500, weight_decay=0.0)
    said = [kind == "not_converged" and "no finite minimum" in str(reason)
            for kind, reason in zip(points["kind"], points["reason"], strict=True)]  # fmt: skip
    return f"{sum(said)} of {seeds} not_converged for having no finite minimum; {Counter(points['kind'])}", all(said)


def kinks(seeds: int = 16) -> Measured:
    """A ReLU network on digits, and one landscape whose exact K would certify it if the kink were not minded."""
    points = trained(seeds, 600, activation="relu", weight_decay=1e-2)
    near = [float(str(value)) for value in points["kink_distance"] if value is not None]
    certified = sum(bool(value) for value in points["certified"])
    smooth = Landscape.from_function(
        lambda t: 0.5 * (torch.relu(t[0]) - 1e-9) ** 2 + 0.5 * t[1] ** 2, 2, lambda g: torch.randn(2, generator=g),
        hessian_lipschitz=0.0,
    )  # fmt: skip
    beside = torch.tensor([[1e-9, 0.0]], dtype=torch.float64)
    minded, unminded = (
        Dense().classify(landscape, beside, ended(beside), torch.ones(1).double(), torch.arange(1), 1e-8)
        for landscape in (dataclasses.replace(smooth, kink_distance=lambda t: t[0].abs()), smooth)
    )
    text = f"{certified} of {seeds} ReLU points certified, kinks {min(near):.1e} … {max(near):.1e} away: "
    text += f"{Counter(points['kind'])}; a minimum 1e-9 beside a kink, exact K: {minded.certificates.certified[0]} "
    text += f"(were the kink not minded: {unminded.certificates.certified[0]})"
    told = minded.certificates.certified == [False] and unminded.certificates.certified == [True]
    return text, certified == 0 and len(near) == seeds and told


CLAIMS: dict[str, tuple[str, Callable[..., Measured]]] = {
    "autoencoder": (
        "linear autoencoder 16-4-16, 1,000 starts over a descent: ≥ 99 % critical, all as the closed form says",
        autoencoder,
    ),
    "classes16": ("linear autoencoder 5-2-5: all 16 classes found", all_classes),
    "references": (
        "every reference landscape: ≥ 95 % critical, all minima, maxima and saddles right, ≤ 1 % undetermined, no "
        "false minimum in 10,000; phase retrieval, ICA, tensor: minima global, saddles strict",
        references,
    ),
    "exact": ("indices that theory does not give agree with an independent Hessian", incomplete),
    "plane": (
        "Himmelblau 4 + 4 + 1 and Σ(−1)^index = 1; monkey saddle, quartic bowl and gradient-flat trap told",
        plane,
    ),
    "separable": ("cross-entropy without weight decay on separable data ends not_converged, saying so", separable),
    "kinks": ("a ReLU net next to a kink is not certified", kinks),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
