"""Measures that equal points share a class and different ones do not: ``python -m tests.evidence_classes``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from landsweep.analysis.classes import assign_classes
from landsweep.workers import measure
from landsweep.workers.classify import Classified
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.trust_region import TrustRegionNewton
from tests.claims import measured_claims
from tests.surfaces import VARIANCES, K, P, found, linear_autoencoder, normal

INPUTS = 2
SAME, DISTINCT = 1e-6, 1e-3  # distances of parameters, up to symmetry, of one minimum and of two


# --- a network -----------------------------------------------------------------------------------------------------
def regression(hidden: int, samples: int) -> Landscape:
    """Random targets of standard deviation 0.3, a 2-hidden-1 tanh network, mean squared error, weight decay 1e-4."""
    inputs, targets = normal(samples, INPUTS, seed=7), normal(samples, 1, seed=8, scale=0.3)

    def make() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(INPUTS, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))

    data = (inputs, targets)
    return Landscape.from_module(make, train=data, test=data, loss="mse", weight_decay=1e-4)


def units(theta: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """(incoming weights, bias, outgoing weight) of each hidden unit (B, hidden, 4), and the output's bias (B,)."""
    first, bias, outgoing, last = torch.split(theta, [INPUTS * hidden, hidden, hidden, 1], dim=1)
    shaped = [first.view(-1, hidden, INPUTS), bias.unsqueeze(2), outgoing.unsqueeze(2)]
    return torch.cat(shaped, 2), last.squeeze(1)


def parameters(unit: Tensor, last: Tensor) -> Tensor:
    """The inverse of ``units``. (B, n)."""
    parts = (unit[:, :, :INPUTS].flatten(1), unit[:, :, INPUTS], unit[:, :, INPUTS + 1], last.unsqueeze(1))
    return torch.cat(parts, 1)


def images(theta: Tensor, hidden: int, seed: int) -> Tensor:
    """Each row with its hidden units in a random order and their signs flipped at random: the same function. (B, n)."""
    unit, last = units(theta, hidden)
    order = normal(len(theta), hidden, seed).argsort(1)
    signs = torch.where(normal(len(theta), hidden, seed + 1) > 0, 1.0, -1.0).to(theta.dtype)
    return parameters(unit.gather(1, order.unsqueeze(2).expand_as(unit)) * signs.unsqueeze(2), last)


def orbit_distance(first: Tensor, second: Tensor, hidden: int) -> np.ndarray:
    """The least ‖θ − sθ'‖ over all orders and signs s of hidden units, by assignment: independent of outputs. (B,)."""
    (u, c), (v, d) = units(first, hidden), units(second, hidden)
    difference = ((u.unsqueeze(2) - v.unsqueeze(1)) ** 2).sum(3)
    cost = torch.minimum(difference, ((u.unsqueeze(2) + v.unsqueeze(1)) ** 2).sum(3)).numpy()
    units_apart = [table[linear_sum_assignment(table)].sum() for table in cost]
    return np.asarray(np.sqrt(np.array(units_apart) + ((c - d) ** 2).numpy()))


# --- classes ---------------------------------------------------------------------------------------------------------
def class_ids(landscape: Landscape, theta: Tensor, kinds: Classified) -> np.ndarray:
    """As the pipeline assigns them: from the fingerprints, over all points together."""
    prints = measure.fingerprints(landscape, theta, kinds.signs.index, kinds.signs.n_zero)
    points = pd.DataFrame({"fingerprint": list(prints.numpy())})
    return assign_classes(points, pd.Series("landscape", index=points.index)).to_numpy(dtype=object)


def permuted(hidden: int = 3, samples: int = 30, starts: int = 40, copies: int = 200) -> tuple[str, bool]:
    """Minima and saddles under random orders and signs of the hidden units, found anew from beside each image."""
    landscape = regression(hidden, samples)
    begin = normal(starts, landscape.dim, seed=1, scale=1.5)
    chosen = []
    for kind, finder in (("minimum", TrustRegionNewton(1e-8)), ("saddle", LevenbergMarquardt(1e-8))):
        outcome, kinds = found(landscape, finder, begin)
        rows = [row for row, what in enumerate(kinds.kind) if what == kind]
        codes = class_ids(landscape, outcome.theta[rows], _take(kinds, rows))
        chosen.append(outcome.theta[rows][np.unique(codes, return_index=True)[1][:4]])
    originals = torch.cat(chosen)
    near = images(originals.repeat(copies, 1), hidden, seed=2)
    near = near * (1 + 1e-5 * normal(len(near), landscape.dim, seed=4))
    outcome, kinds = found(landscape, LevenbergMarquardt(1e-8), torch.cat([originals, near]))
    codes = class_ids(landscape, outcome.theta, kinds).reshape(copies + 1, -1)
    wrong = int((codes != codes[0]).sum())
    text = (
        f"{wrong} of {copies * len(originals)} images of {len(chosen[0])} minima and {len(chosen[1])} saddles under "
        f"random orders and signs of {hidden} hidden units have another class than theirs, which are "
        f"{len(set(codes[0]))} classes"
    )
    return text, wrong == 0 and len(set(codes[0])) == len(originals) and min(map(len, chosen)) >= 2


def _take(kinds: Classified, rows: list[int]) -> Classified:
    signs = dataclasses.replace(kinds.signs, index=kinds.signs.index[rows], n_zero=kinds.signs.n_zero[rows])
    return dataclasses.replace(kinds, signs=signs)


def distinct(
    hidden: int = 6, samples: int = 40, starts: int = 1500, within: float = 1e-4, least: int = 1000
) -> tuple[str, bool]:
    """Minima of a tanh network whose objectives agree: one class where they are one up to symmetry, else two."""
    landscape = regression(hidden, samples)
    outcome, kinds = found(landscape, TrustRegionNewton(1e-8), normal(starts, landscape.dim, seed=1, scale=1.5))
    rows = [row for row, kind in enumerate(kinds.kind) if kind == "minimum"]
    theta, codes = outcome.theta[rows], class_ids(landscape, outcome.theta[rows], _take(kinds, rows))
    i, j = _pairs(landscape.objective(theta).numpy(), within)
    apart = orbit_distance(theta[i], theta[j], hidden)
    share = codes[i] == codes[j]
    two, one = apart > DISTINCT, apart < SAME
    names = np.stack([codes[i], codes[j]]).astype(str)[:, two & ~share]
    pairs = len({tuple(pair) for pair in np.sort(names, axis=0).T.tolist()})
    text = (
        f"{len(rows)} minima in {len(set(codes))} classes; of {pairs} pairs of distinct minima with objectives within "
        f"{within:g} ({int(two.sum())} pairs of points more than {DISTINCT:g} apart), {int((two & share).sum())} pairs "
        f"of points share a class; of {int(one.sum())} pairs nearer than {SAME:g}, {int((one & ~share).sum())} do not; "
        f"{int((~one & ~two).sum())} lie between"
    )
    return text, pairs >= least and not bool((two & share).any()) and not bool((one & ~share).any())


def _pairs(values: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """All i, j with |values[i] − values[j]| ≤ within."""
    order = np.argsort(values)
    last = np.searchsorted(values[order], values[order] + within, side="right")
    counts = last - np.arange(len(values)) - 1
    first = np.repeat(np.arange(len(values)), counts)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first], order[first + 1 + offset]


# --- an orbit of a continuous group --------------------------------------------------------------------------------
def orbit(places: int = 200) -> tuple[str, bool]:
    """W₂ = E_I, W₁ = W₂ᵀ met at W₂G⁻¹, GW₁ for random G of condition ≤ 4: one class for each I, |I| = 2."""
    first_size = P * K

    def product(theta: Tensor) -> Tensor:
        return (theta[first_size:].view(K, P) @ theta[:first_size].view(P, K)).reshape(-1)

    landscape = dataclasses.replace(linear_autoencoder(), outputs=product)
    subsets = [(i, j) for i in range(K) for j in range(i + 1, K)]
    axes = torch.eye(K, dtype=torch.float64)
    second = torch.stack([axes[:, list(subset)] for subset in subsets]).repeat(places, 1, 1)
    left, right = (torch.linalg.qr(normal(len(second) * P, P, seed).view(-1, P, P))[0] for seed in (1, 2))
    stretch = torch.exp(
        torch.rand(len(second), P, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.38 - 0.69
    )
    group = left * stretch.unsqueeze(1) @ right
    theta = torch.cat([(group @ second.mT).flatten(1), (second @ torch.linalg.inv(group)).flatten(1)], 1)
    outcome, kinds = found(
        landscape, LevenbergMarquardt(1e-8), theta * (1 + 1e-6 * normal(len(theta), landscape.dim, seed=4))
    )
    codes = class_ids(landscape, outcome.theta, kinds).reshape(places, len(subsets))
    classes = [len(set(column)) for column in codes.T]
    index = [len(set(column)) for column in kinds.signs.index.view(places, -1).T.tolist()]
    values = landscape.objective(outcome.theta[: len(subsets)])
    text = (
        f"{len(subsets)} stationary points of a linear autoencoder (variances {VARIANCES}), each met at {places} "
        f"places of its GL({P}) orbit: {sorted(set(classes))} classes each, {len(set(codes.flatten()))} in all, "
        f"{len(set(values.numpy().round(9)))} objectives"
    )
    return text, classes == [1] * len(subsets) and len(set(codes.flatten())) == len(subsets) and max(index) == 1


CLAIMS: dict[str, tuple[str, Callable[[], tuple[str, bool]]]] = {
    "permuted": ("points equal up to the order and sign of hidden units have one class_id", permuted),
    "distinct": ("distinct minima whose objectives agree within 1e-4 never share one (≥ 1,000 pairs)", distinct),
    "orbit": ("a minimum met at 200 places of its GL orbit stays one class", orbit),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
