"""Measures spectra, dense and from products, against closed forms and peers: ``python -m tests.evidence_spectra``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import hessian, vmap

from landsweep.workers import execution
from landsweep.workers.krylov.density import smoothed, spectral_density
from landsweep.workers.krylov.lanczos import Ritz, lanczos
from landsweep.workers.krylov.trace import trace
from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import eigh
from tests import surfaces
from tests.claims import measured_claims

Shape = Callable[[int, int, np.random.Generator], np.ndarray]  # rows, n → eigenvalues (rows, n)
EPS = torch.finfo(torch.float64).eps


# --- dense spectra -------------------------------------------------------------------------------------------
def quadratic(eigenvalues: Tensor, seed: int) -> tuple[Landscape, Tensor]:
    """½θᵀAθ with A = QΛQᵀ, and A."""
    size = len(eigenvalues)
    rotation = torch.linalg.qr(surfaces.normal(size, size, seed))[0]
    matrix = (rotation * eigenvalues) @ rotation.T
    matrix = 0.5 * (matrix + matrix.T)
    return surfaces.function(lambda t: 0.5 * (t * (matrix @ t)).sum(), size), matrix


def rosenbrock(pairs: int) -> Landscape:
    """Σ (1 − x)² + 100·(y − x²)² over pairs (x, y)."""
    return surfaces.function(lambda t: ((1 - t[0::2]) ** 2 + 100 * (t[1::2] - t[0::2] ** 2) ** 2).sum(), 2 * pairs)


def rosenbrock_eigenvalues(theta: Tensor) -> np.ndarray:
    """Of the blocks [[2 + 1200x² − 400y, −400x], [−400x, 200]], by the quadratic formula in long double."""
    x, y = (part.numpy().astype(np.longdouble) for part in (theta[:, 0::2], theta[:, 1::2]))
    a, b = 2 + 1200 * x**2 - 400 * y, -400 * x
    middle, half = (a + 200) / 2, np.hypot((a - 200) / 2, b)
    return np.sort(np.concatenate([middle - half, middle + half], 1)).astype(np.float64)


def autoencoder_hessian(theta: Tensor) -> np.ndarray:
    """Hessian of ½tr((I−W₂W₁)Σ(I−W₂W₁)ᵀ) by Kronecker products, row-major vec. (2pk, 2pk)."""
    k, p = surfaces.K, surfaces.P
    first, second = theta[: p * k].reshape(p, k).numpy(), theta[p * k :].reshape(k, p).numpy()
    covariance, rest = np.diag(surfaces.VARIANCES), np.eye(k) - second @ first
    top = np.kron(second.T @ second, covariance)
    bottom = np.kron(np.eye(k), first @ covariance @ first.T)
    cross = np.einsum("ja,bm,mi->aijb", second, first, covariance)  # d(W₂ᵀW₂W₁Σ − W₂ᵀΣ)_ai / d(W₂)_jb, one half
    cross -= np.einsum("ab,ji->aijb", np.eye(p), rest @ covariance)
    cross = cross.reshape(p * k, k * p)
    return np.block([[top, cross], [cross.T, bottom]])


def autoencoder_points() -> Tensor:
    """Representatives W₁ = [e_i, e_j]ᵀ = W₂ᵀ of the critical points {i, j}, {i} and {}, and random ones. (B, 20)."""
    points = []
    for chosen in ((0, 1), (0, 3), (2, 4), (1, None), (None, None)):
        first = torch.zeros(surfaces.P, surfaces.K, dtype=torch.float64)
        for row, column in enumerate(chosen):
            if column is not None:
                first[row, column] = 1.0
        points.append(torch.cat([first.reshape(-1), first.T.reshape(-1)]))
    return torch.cat([torch.stack(points), surfaces.normal(5, 2 * surfaces.P * surfaces.K, 3)])


def dense_differences() -> dict[str, float]:
    """The largest |λ − λ'|/‖H‖ of each landscape with a closed Hessian."""
    found: dict[str, float] = {}

    def compare(name: str, landscape: Landscape, theta: Tensor, reference: np.ndarray) -> None:
        values = eigh(landscape.hessian(theta))[0].numpy()
        scale = np.abs(reference).max(axis=1, keepdims=True)
        found[name] = max(found.get(name, 0.0), float((np.abs(values - reference) / scale).max()))

    spectra = {
        "graded quadratic": torch.logspace(-6, 3, 60, dtype=torch.float64),
        "indefinite quadratic": torch.linspace(-1, 2, 80, dtype=torch.float64),
        "multiple quadratic": torch.tensor([-1.0] * 5 + [0.0] * 10 + [3.0] * 15, dtype=torch.float64),
    }
    for name, eigenvalues in spectra.items():
        landscape, _ = quadratic(eigenvalues, 1)
        known = np.tile(eigenvalues.numpy(), (3, 1))
        compare(name, landscape, surfaces.normal(3, len(eigenvalues), 2), known)
    theta = surfaces.normal(8, 40, 4)
    compare("product of Rosenbrock", rosenbrock(20), theta, rosenbrock_eigenvalues(theta))
    theta = autoencoder_points()
    exact = np.stack([np.linalg.eigvalsh(autoencoder_hessian(row)) for row in theta])
    compare("linear autoencoder", surfaces.linear_autoencoder(), theta, exact)
    return found


def dense_spectra() -> tuple[str, bool]:
    """Eigenvalues of ``Landscape.hessian`` agree with closed forms to 1e-10 relative to ‖H‖."""
    found = dense_differences()
    text = "; ".join(f"{name} {value:.0e}" for name, value in found.items())
    return f"largest |λ − λ'|/‖H‖: {text}", max(found.values()) <= 1e-10


# --- a large perceptron --------------------------------------------------------------------------------------
WIDTHS = (64, 320, 256, 10)
WEIGHT_DECAY = 1e-3
SAMPLES = 150
Data = tuple[Tensor, Tensor]


def perceptron(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    a, b, c, d = widths
    return nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c), nn.Tanh(), nn.Linear(c, d))


def problem(widths: tuple[int, ...] = WIDTHS, samples: int = SAMPLES) -> tuple[Tensor, Data, Landscape]:
    """Random parameters (1, n), digits, and the perceptron's landscape on them."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    data = torch.tensor(inputs[:samples] / 16.0), torch.tensor(labels[:samples])
    landscape = Landscape.from_module(lambda: perceptron(widths), data, data, weight_decay=WEIGHT_DECAY)
    return landscape.init(torch.Generator().manual_seed(1)).unsqueeze(0), data, landscape


def exact_trace(theta: Tensor, data: Data, widths: tuple[int, ...] = WIDTHS) -> float:
    """λn + mean Σ_l (‖a_l‖² + 1)·tr ∂²ℓ/∂s_l², s_l = W_l a_l + c_l being pre-activations (Botev et al. 2017)."""
    sizes = [size for a, b in pairwise(widths) for size in (a * b, b)]
    parts = torch.split(theta, sizes)
    layers = [(parts[2 * k].view(b, a), parts[2 * k + 1]) for k, (a, b) in enumerate(pairwise(widths))]
    below, labels = data
    total = WEIGHT_DECAY * len(theta)
    for position, (weight, bias) in enumerate(layers):

        def loss(s: Tensor, label: Tensor, above: list[tuple[Tensor, Tensor]] = layers[position + 1 :]) -> Tensor:
            for next_weight, next_bias in above:
                s = next_weight @ torch.tanh(s) + next_bias
            return -torch.log_softmax(s, -1).gather(-1, label.view(1)).sum()

        before = below @ weight.T + bias
        chunks = zip(before.split(10), labels.split(10), strict=True)
        curvature = [torch.diagonal(vmap(hessian(loss))(s, label), dim1=1, dim2=2).sum(1) for s, label in chunks]
        total += float(((below**2).sum(1) + 1) @ torch.cat(curvature)) / len(labels)
        below = torch.tanh(before)
    return total


def peer_extremes(theta: Tensor, data: Data) -> tuple[float, float]:
    """λ_min and λ_max of curvlinops' Hessian operator of the data loss by scipy's eigsh, and weight decay's shift."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    module = perceptron().double()
    nn.utils.vector_to_parameters(theta, module.parameters())
    parameters = list(module.parameters())
    operator = HessianLinearOperator(module, nn.CrossEntropyLoss(), parameters, [data]).to_scipy()
    ends = [float(eigsh(operator, 1, which=end, tol=1e-11, return_eigenvectors=False)[0]) for end in ("SA", "LA")]
    return ends[0] + WEIGHT_DECAY, ends[1] + WEIGHT_DECAY


def large_perceptron() -> tuple[str, bool]:
    """λ_min, λ_max and trace of a perceptron with over 10⁵ parameters agree with curvlinops' operator under scipy's
    eigsh, and with the trace by layers, within the stated errors."""
    theta, data, landscape = problem()
    keys = torch.tensor([1])

    def products(vectors: Tensor) -> Tensor:
        return landscape.hvp(theta, vectors)

    ritz = lanczos(products, landscape.dim, keys, 60, tolerance=1e-6)
    estimate = trace(products, landscape.dim, keys, 60)
    low, high = peer_extremes(theta[0], data)
    whole = exact_trace(theta[0], data)
    rows = {
        "λ_min": (float(ritz.lowest), low, float(ritz.lowest_error)),
        "λ_max": (float(ritz.highest), high, float(ritz.highest_error)),
        "trace": (float(estimate.value), whole, float(estimate.error)),
    }
    texts = [f"{name} {o:.9g}, off {abs(o - t):.1e} ≤ {e:.1e}" for name, (o, t, e) in rows.items()]
    covered = all(abs(o - t) <= e for o, t, e in rows.values())
    return f"n = {landscape.dim}: " + "; ".join(texts), covered and bool(ritz.converged.all())


# --- the stated errors ---------------------------------------------------------------------------------------
def spectrum(matrices: np.ndarray) -> np.ndarray:
    return torch.linalg.eigvalsh(torch.tensor(matrices)).numpy()


def wigner(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    a = rng.normal(size=(rows, n, n)) / np.sqrt(2 * n)
    return spectrum(a + a.transpose(0, 2, 1))


def wishart(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    a = rng.normal(size=(rows, n, int(n * rng.uniform(0.5, 2))))
    return spectrum(a @ a.transpose(0, 2, 1) / a.shape[2])


def clustered(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to 20 clusters whose widths are log-uniform in 1e-8 … 1e-1."""
    clusters = int(rng.integers(2, 20))
    centre, width = rng.normal(size=(rows, clusters)), 10 ** rng.uniform(-8, -1, size=(rows, clusters))
    which = rng.integers(0, clusters, size=(rows, n))
    return np.take_along_axis(centre, which, 1) + np.take_along_axis(width, which, 1) * rng.normal(size=(rows, n))


def outliers(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A semicircle of radius about 1/20, and up to ten outliers of both signs."""
    values = 0.03 * wigner(rows, n, rng)
    values[:, : int(rng.integers(1, 10))] = 0.0
    chosen = values == 0.0
    values[chosen] = rng.normal(size=int(chosen.sum()))
    return values


def low_rank(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rank up to n/5, the rest 1e-6 … 1e-3 in size."""
    values = 10 ** rng.uniform(-6, -3, size=(rows, 1)) * rng.normal(size=(rows, n))
    rank = int(rng.integers(1, n // 5))
    values[:, :rank] = rng.normal(size=(rows, rank)) ** 2
    return values


SHAPES: tuple[Shape, ...] = (wigner, wishart, clustered, outliers, low_rank)
KINDS = ("λ_min", "λ_max", "trace", "density")


@dataclass(frozen=True)
class Case:
    """Stated and true errors of one batch, and rounding: eps·‖A‖, eps·Σ|λ| for traces, eps·peak for densities."""

    stated: dict[str, Tensor]
    true: dict[str, Tensor]
    floor: dict[str, Tensor]


def operators(eigenvalues: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """A = QΛQᵀ with random Q, symmetric to the last bit, and its eigenvalues by LAPACK. (B, n, n), (B, n)."""
    rows, n = eigenvalues.shape
    rotation = torch.linalg.qr(surfaces.normal(rows, n * n, seed).reshape(rows, n, n))[0]
    matrix = (rotation * torch.tensor(eigenvalues).unsqueeze(1)) @ rotation.mT
    matrix = 0.5 * (matrix + matrix.mT)
    return matrix, torch.linalg.eigvalsh(matrix)


def extremes(ritz: Ritz, truth: Tensor) -> tuple[Tensor, Tensor]:
    """|θ − λ| at both ends. (B,), (B,)."""
    return (ritz.lowest - truth[:, 0]).abs(), (ritz.highest - truth[:, -1]).abs()


def case(matrix: Tensor, truth: Tensor, keys: Tensor, rng: np.random.Generator) -> Case:
    """Errors of the extremes, the trace, and the density at one grid point, of matrices (B, n, n)."""
    n = matrix.shape[1]

    def apply(vectors: Tensor) -> Tensor:
        return matrix @ vectors

    ritz = lanczos(apply, n, keys, 40, tolerance=10.0 ** rng.uniform(-8, -2))
    estimate = trace(apply, n, keys, int(rng.integers(15, 90)))
    density = spectral_density(apply, n, keys, probes=16, steps=40)
    place = torch.tensor(rng.integers(0, density.grid.shape[1], size=(len(keys), 1)))
    exact = smoothed(truth.unsqueeze(1), torch.full_like(truth, 1 / n).unsqueeze(1), density.grid, density.width)[:, 0]
    low, high = extremes(ritz, truth)
    norm = truth.abs().amax(1)
    stated = (ritz.lowest_error, ritz.highest_error, estimate.error, _at(density.error, place))
    true = (low, high, (estimate.value - truth.sum(1)).abs(), _at((density.density - exact).abs(), place))
    floor = (EPS * norm, EPS * norm, EPS * truth.abs().sum(1), EPS * exact.amax(1))
    return Case(*(dict(zip(KINDS, part, strict=True)) for part in (stated, true, floor)))


def _at(values: Tensor, place: Tensor) -> Tensor:
    return torch.gather(values, 1, place).squeeze(1)


def coverage(batches: int, rows: int, seed: int = 2026) -> dict[str, tuple[int, int, float]]:
    """For each kind of quantity: cases covered, cases, and the median of stated/max(true, floor)."""
    rng = np.random.default_rng(seed)
    held: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    ratio: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for batch in range(batches):
        n = int(rng.integers(50, 401))
        matrix, truth = operators(SHAPES[batch % len(SHAPES)](rows, n, rng), batch)
        found = case(matrix, truth, torch.arange(rows) + 1000 * batch, rng)
        for kind in KINDS:
            held[kind].append(found.true[kind] <= found.stated[kind])
            ratio[kind].append(found.stated[kind] / torch.maximum(found.true[kind], found.floor[kind]))
    return {
        kind: (int(torch.cat(held[kind]).sum()), batches * rows, float(torch.cat(ratio[kind]).median()))
        for kind in KINDS
    }


def stated_errors() -> tuple[str, bool]:
    """Over 500 random operators the stated error covers the true one in ≥ 99 % of each kind of quantity, and is its
    hundredfold at most in the median; true errors below rounding count as rounding there."""
    found = coverage(batches=50, rows=10)
    text = "; ".join(f"{kind}: {held} of {cases}, median {ratio:.1f}" for kind, (held, cases, ratio) in found.items())
    return text, all(held >= 0.99 * cases and ratio <= 100 for held, cases, ratio in found.values())


CLAIMS: dict[str, tuple[str, Callable[[], tuple[str, bool]]]] = {
    "spectra": ("dense spectra agree with numpy on closed-form Hessians to 1e-10 relative", dense_spectra),
    "large_mlp": (
        "an MLP of ≥ 10⁵ parameters agrees with curvlinops and scipy's eigsh within the stated error",
        large_perceptron,
    ),
    "stated": (
        "the stated error covers the true one in ≥ 99 % of 500 random cases, median stated/true ≤ 100",
        stated_errors,
    ),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
