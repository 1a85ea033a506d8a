"""Landscapes of matrix products: what theory says of their stationary points, against NumPy at constructed ones."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, vmap

from landsweep.workers import measure, symmetry
from landsweep.workers.classify import Classified, classify
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference.autoencoder import linear_autoencoder
from landsweep.workers.reference.deep_linear import deep_linear
from landsweep.workers.reference.factorisation import matrix_factorisation
from landsweep.workers.trust_region import TrustRegionNewton
from tests.linear_points import autoencoder_point, deep_point, factorisation_point, subsets, whole
from tests.surfaces import ended, found

pytestmark = pytest.mark.usefixtures("one_thread")

BUILT = {
    "autoencoder": linear_autoencoder(5, 2),
    "autoencoder, unordered": linear_autoencoder(4, 2, [2.0, 0.5, 3.0, 1.0]),
    "deep": deep_linear(),
    "deep, uneven": deep_linear((3, 4, 2, 5)),
    "deep, four layers": deep_linear((3, 2, 3, 2, 3)),
    "two layers, uneven": deep_linear((5, 2, 3)),
    "factorisation": matrix_factorisation(),
    "factorisation, square": matrix_factorisation(3, 3, [1.0, 5.0, 2.0]),
}
every_landscape = pytest.mark.parametrize("landscape", BUILT.values(), ids=BUILT.keys())


# --- what is true of a point, by NumPy alone ------------------------------------------------------------------------
def true_inertia(landscape: Landscape, thetas: Tensor) -> list[tuple[int, int, int]]:
    """(index, zeros, dimension of the orbit) at each row: of the Hessian by torch.func, and of the tangents."""
    result = []
    hessians = torch.cat([vmap(hessian(landscape.loss))(chunk) for chunk in torch.split(thetas, 25)]).numpy()
    tangents = [vmap(field)(thetas).numpy() for field in landscape.symmetries]
    for row, values in enumerate(np.linalg.eigvalsh(hessians)):
        zero = 1e-9 * max(1.0, np.abs(values).max())
        orbit = np.linalg.matrix_rank(np.stack([t[row] for t in tangents]), tol=1e-8) if tangents else 0
        result.append((int((values < -zero).sum()), int((np.abs(values) <= zero).sum()), int(orbit)))
    return result


def agree(landscape: Landscape, thetas: Tensor, sets: Sequence[Sequence[int]]) -> None:
    """Every row is stationary, and what ``known_class`` says of it is true; ``sets`` are the eigenvectors' numbers."""
    assert float(landscape.gradient(thetas).norm(dim=1).max()) < 1e-9
    values = landscape.objective(thetas).tolist()
    for theta, numbers, value, truth in zip(thetas, sets, values, true_inertia(landscape, thetas), strict=True):
        known = landscape.known_class and landscape.known_class(theta)
        assert known
        index, zeros, orbit = truth
        assert known.name == "{" + ",".join(map(str, sorted(numbers))) + "}"
        assert known.objective == pytest.approx(value, abs=1e-9)
        assert known.index in (index, None)
        assert known.n_zero in (zeros, None)
        lowest = value <= float(landscape.global_minimum or 0.0) + 1e-9  # no other minima exist
        kind = "minimum" if lowest else "maximum" if index + orbit == landscape.dim else "saddle"
        assert known.kind == (kind if zeros == orbit or known.index is None else f"degenerate_{kind}")


def judged(landscape: Landscape, thetas: Tensor) -> Classified:
    return classify(
        landscape, thetas, ended(thetas), torch.ones_like(thetas[:, 0]), torch.arange(len(thetas)), 1e-8,
        landscape.symmetries,
    )  # fmt: skip


def judged_as_known(landscape: Landscape, thetas: Tensor) -> Classified:
    """Kind, index and zeros that ``classify`` finds at every row are the known ones."""
    result = judged(landscape, thetas)
    assert landscape.known_class is not None
    for row, theta in enumerate(thetas):
        known = landscape.known_class(theta)
        assert known is not None
        assert result.kind[row] == known.kind
        assert (int(result.signs.index[row]), int(result.signs.n_zero[row])) == (known.index, known.n_zero)
    return result


# --- the classes ----------------------------------------------------------------------------------------------------
def test_all_classes_of_a_small_autoencoder() -> None:
    landscape, random = linear_autoencoder(5, 2), np.random.default_rng(0)
    sets = subsets(5, 2)
    thetas = torch.stack([autoencoder_point(5, 2, chosen, random) for chosen in sets])
    agree(landscape, thetas, [[5 - i for i in chosen] for chosen in sets])  # variances 1, …, 5: the last is the largest
    assert len(sets) == 16
    assert all(judged_as_known(landscape, thetas).certificates.certified)


def test_classes_of_the_large_autoencoder() -> None:
    landscape, random = linear_autoencoder(), np.random.default_rng(1)
    sets = subsets(16, 4)
    assert len(sets) == 2517
    chosen = [sets[i] for i in random.choice(len(sets), 100, replace=False)]
    thetas = torch.stack([autoencoder_point(16, 4, subset, random) for subset in chosen])
    agree(landscape, thetas, [[16 - i for i in subset] for subset in chosen])
    assert all(judged_as_known(landscape, thetas).certificates.certified)


def test_classes_are_numbered_by_descending_variance() -> None:
    landscape = linear_autoencoder(4, 2, [2.0, 0.5, 3.0, 1.0])
    random = np.random.default_rng(2)
    thetas = torch.stack([autoencoder_point(4, 2, chosen, random) for chosen in ([0, 1], [0, 2])])
    agree(landscape, thetas, [[2, 4], [1, 2]])


@pytest.mark.parametrize(
    ("n", "rank", "values"), [(5, 3, (5.0, 4.0, 3.0, 2.0, 1.0)), (3, 3, (1.0, 5.0, 2.0)), (4, 1, (2.0, 4.0, 1.0, 3.0))]
)
def test_all_classes_of_a_factorisation(n: int, rank: int, values: tuple[float, ...]) -> None:
    landscape, random = matrix_factorisation(n, rank, values), np.random.default_rng(3)
    order = np.argsort(np.argsort(-np.array(values))) + 1
    sets = subsets(n, rank)
    thetas = torch.stack([factorisation_point(values, rank, chosen, random) for chosen in sets])
    agree(landscape, thetas, [[int(order[i]) for i in chosen] for chosen in sets])
    assert all(judged_as_known(landscape, thetas).certificates.certified)


@pytest.mark.parametrize(
    "widths",
    [(4, 3, 3, 4), (3, 3, 3, 3), (3, 4, 2, 3), (4, 4, 3, 3), (3, 2, 3, 2, 3), (3, 3, 3, 3, 3), (5, 3, 4), (2, 4, 5)],
)
def test_classes_of_deep_linear_networks(widths: tuple[int, ...]) -> None:
    """Random representatives of random classes: regular, degenerate and not even strict ones."""
    landscape, random = deep_linear(widths, whole(widths)), np.random.default_rng(4)
    rank, largest = min(widths[0], widths[-1]), min(widths)
    sizes = [int(random.integers(largest + 1)) for _ in range(40)]
    sets = [range(q) if draw % 2 else random.choice(rank, q, replace=False) for draw, q in enumerate(sizes)]
    thetas = torch.stack([deep_point(widths, sorted(int(i) for i in chosen), random) for chosen in sets])
    agree(landscape, thetas, [[int(i) + 1 for i in chosen] for chosen in sets])


def test_sets_of_full_rank_in_a_deep_network_are_regular() -> None:
    landscape, random = deep_linear((4, 3, 3, 4), [4, 3, 2, 1]), np.random.default_rng(5)
    thetas = torch.stack(
        [deep_point((4, 3, 3, 4), [*chosen], random) for chosen in itertools.combinations(range(4), 3)]
    )
    assert all(judged_as_known(landscape, thetas).certificates.certified)


def test_origin_of_a_deep_network_is_a_degenerate_saddle() -> None:
    landscape = deep_linear((4, 3, 3, 4), [4, 3, 2, 1])
    origin = torch.zeros(1, landscape.dim, dtype=torch.float64)
    known = landscape.known_class and landscape.known_class(origin[0])
    assert known
    assert (known.name, known.kind, known.index, known.objective) == ("{}", "degenerate_saddle", 0, 15.0)
    assert judged(landscape, origin).kind == ["degenerate_saddle"]


@every_landscape
def test_no_class_off_the_stationary_points(landscape: Landscape) -> None:
    assert landscape.known_class is not None
    generator = torch.Generator().manual_seed(6)
    for _ in range(20):
        start = landscape.init(generator)
        assert landscape.known_class(start) is None
        assert landscape.known_class(0.1 * start) is None


def test_product_of_a_class_is_not_enough() -> None:
    """W₂ = 0 gives the product of the empty set, and a gradient along W₂."""
    landscape = linear_autoencoder(5, 2)
    assert landscape.known_class is not None
    assert landscape.known_class(torch.cat([torch.ones(10), torch.zeros(10)]).double()) is None


# --- the formulas ---------------------------------------------------------------------------------------------------
@every_landscape
def test_closed_hessian_is_the_derivative(landscape: Landscape) -> None:
    generator = torch.Generator().manual_seed(7)
    thetas = torch.stack([landscape.init(generator) for _ in range(3)])
    assert landscape.closed_hessian is not None
    torch.testing.assert_close(landscape.hessian(thetas), vmap(hessian(landscape.loss))(thetas), rtol=1e-12, atol=1e-12)
    assert torch.equal(landscape.hessian(thetas)[1:2], landscape.hessian(thetas[1:2]))


@every_landscape
@pytest.mark.parametrize("radius", [1e-3, 0.3])
def test_lipschitz_constant_bounds_the_hessians_quotients(landscape: Landscape, radius: float) -> None:
    """No quotient of two Hessians in the ball exceeds K, and for a small ball the largest is within a tenth of it."""
    generator = torch.Generator().manual_seed(8)
    theta, largest = landscape.init(generator), 0.0
    assert callable(landscape.hessian_lipschitz)
    constant = float(landscape.hessian_lipschitz(theta, torch.tensor(radius, dtype=torch.float64)))
    for _ in range(20):
        offsets = torch.randn(2, landscape.dim, generator=generator, dtype=torch.float64)
        ends = theta + radius * offsets / offsets.norm(dim=1, keepdim=True)
        first, second = landscape.hessian(ends).numpy()
        quotient = np.linalg.norm(first - second, 2) / float((ends[0] - ends[1]).norm())
        largest = max(largest, float(quotient))
    assert largest <= constant
    assert radius > 1e-2 or largest >= 0.1 * constant


def test_lipschitz_constant_of_a_factorisation_is_attained() -> None:
    """Along the product of U's first singular vectors the Hessian changes by K per unit."""
    landscape = matrix_factorisation(4, 2)
    theta = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64).flatten()
    step = 1e-6 * torch.eye(8, dtype=torch.float64)[0]
    here, there = landscape.hessian(torch.stack([theta, theta + step])).numpy()
    assert callable(landscape.hessian_lipschitz)
    constant = float(landscape.hessian_lipschitz(theta, torch.tensor(0.0, dtype=torch.float64)))
    assert np.linalg.norm(there - here, 2) / 1e-6 == pytest.approx(constant, rel=1e-5)


@every_landscape
def test_declared_symmetries_hold(landscape: Landscape) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(symmetry.checked(landscape)) == len(landscape.symmetries)


def test_losses_by_hand() -> None:
    zero = torch.zeros(20, dtype=torch.float64)
    assert float(linear_autoencoder(5, 2).loss(zero)) == 7.5  # ½ tr Σ
    assert float(matrix_factorisation(2, 1, [3.0, 1.0]).loss(zero[:2])) == 2.5  # ¼(9 + 1)
    assert (
        float(deep_linear((2, 1, 2), [2, 1]).loss(torch.ones(4, dtype=torch.float64))) == 1.5
    )  # ½‖[[1,1],[1,1]] − diag(2,1)‖²
    single = torch.zeros(20, dtype=torch.float32)
    assert linear_autoencoder(5, 2).loss(single).dtype == torch.float32


# --- searches -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["autoencoder", "factorisation", "deep, uneven", "two layers, uneven"])
def test_trust_region_reaches_the_global_minimum(name: str) -> None:
    """Every saddle is left, as these landscapes have no other minimum."""
    landscape, generator = BUILT[name], torch.Generator().manual_seed(9)
    starts = torch.stack([landscape.init(generator) for _ in range(20)])
    outcome, result = found(landscape, TrustRegionNewton(1e-8), starts)
    assert all(kind.endswith("minimum") for kind in result.kind)
    assert landscape.objective(outcome.theta).numpy() == pytest.approx(landscape.global_minimum, abs=1e-10)


@pytest.mark.parametrize("name", ["autoencoder", "factorisation"])
def test_searches_of_any_index_end_in_known_classes(name: str) -> None:
    landscape, generator = BUILT[name], torch.Generator().manual_seed(10)
    starts = torch.stack([landscape.init(generator) for _ in range(40)])
    outcome, result = found(landscape, LevenbergMarquardt(1e-8), starts)
    assert bool(result.critical.all())
    judged_as_known(landscape, outcome.theta)


def test_fingerprint_is_the_same_all_over_an_orbit() -> None:
    """One minimum at 200 places of its orbit of GL(4)."""
    landscape, random = linear_autoencoder(), np.random.default_rng(11)
    thetas = torch.stack([autoencoder_point(16, 4, [12, 13, 14, 15], random) for _ in range(200)])
    assert float((thetas - thetas[0]).norm(dim=1)[1:].min()) > 0.1
    signs = judged(landscape, thetas).signs
    prints = measure.fingerprints(landscape, thetas, signs.index, signs.n_zero).numpy()
    scale = np.abs(prints).max()
    assert np.abs(prints - prints[0]).max() <= 1e-6 * scale
    other = autoencoder_point(16, 4, [11, 13, 14, 15], random).unsqueeze(0)
    apart = measure.fingerprints(landscape, other, signs.index[:1], signs.n_zero[:1]).numpy()
    assert np.abs(apart - prints[0]).max() > 1e-3 * scale


# --- options --------------------------------------------------------------------------------------------------------
def test_options_that_theory_does_not_cover_are_refused() -> None:
    with pytest.raises(LandscapeError, match="variances: found"):
        linear_autoencoder(3, 1, [1.0, 1.0, 2.0])
    with pytest.raises(LandscapeError, match="p: found 3"):
        linear_autoencoder(3, 3)
    with pytest.raises(LandscapeError, match="eigenvalues: found"):
        matrix_factorisation(3, 1, [1.0, -1.0, 2.0])
    with pytest.raises(LandscapeError, match="rank: found 4"):
        matrix_factorisation(3, 4)
    with pytest.raises(LandscapeError, match="singular_values: found"):
        deep_linear((3, 2, 3), [1.0, 2.0])
    with pytest.raises(LandscapeError, match="widths: found"):
        deep_linear((3, 3))
