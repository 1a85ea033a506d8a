"""Measures at a point, against closed forms, small nets taken apart by hand, and numpy."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.cluster import settings, spec
from landsweep.workers import record, streams
from landsweep.workers.architecture import Architecture
from landsweep.workers.errors import SweepFileError
from landsweep.workers.landscape import Landscape, Supervision
from landsweep.workers.measures import capacity, flatness, included, sensitivity
from landsweep.workers.supervised import supervised_landscape
from tests import models
from tests.digits import built
from tests.surfaces import function, normal

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = streams.keys("measures", [0, 1, 2], "test")
MLP = {"name": "mlp", "hidden": [4], "weight_decay": 1e-3, "data": "digits", "train_size": 60, "test_size": 30}


def quadratic(*eigenvalues: float) -> Landscape:
    """½θᵀHθ in a rotated basis."""
    n = len(eigenvalues)
    basis = torch.linalg.qr(normal(n, n, seed=7)).Q
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT
    return function(lambda theta: 0.5 * (theta * (matrix * theta).sum(1)).sum(), n)


def net(loss: str = "cross_entropy", bias: bool = True) -> tuple[Architecture, Landscape, tuple[Tensor, Tensor]]:
    """3-4-2 on 5 samples, with the data."""
    network = Architecture((3, 4, 2), "tanh", bias)
    x, y = normal(5, 3, seed=1), torch.tensor([0, 1, 1, 0, 1])
    landscape = supervised_landscape(
        name="net", dim=network.dim, model=network,
        init=lambda generator: network.initialise(generator, "xavier_normal", 1.0),
        train=(x, y), test=(x[:2] + 1, y[:2]), loss=loss, weight_decay=0.01,
    )  # fmt: skip
    return network, landscape, (x, y)


def supervision(landscape: Landscape) -> Supervision:
    assert landscape.supervision is not None
    return landscape.supervision


# sharpness ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eigenvalues", [(5.0, 1.0, 0.5), (3.0, 2.9, -1.0), (2.0, 0.0, -7.0), (-4.0, 1.0, -9.0)])
def test_sharpness_at_the_centre_of_a_quadratic_is_half_the_square_of_the_radius_times_the_top_eigenvalue(
    eigenvalues: tuple[float, ...],
) -> None:
    found = flatness.sharpness(quadratic(*eigenvalues), torch.zeros(3, 3, dtype=torch.float64), KEYS)
    truth = 0.5 * flatness.RADIUS**2 * max(eigenvalues)
    assert (found <= truth * (1 + 1e-12)).all()  # a lower bound
    assert (found >= 0.96 * truth).all()  # two eigenvalues that are close are told apart slowly


def test_nothing_rises_around_a_maximum() -> None:
    found = flatness.sharpness(quadratic(-1.0, -2.0, -3.0), torch.zeros(2, 3, dtype=torch.float64), KEYS[:2])
    assert found.tolist() == [0.0, 0.0]


def test_sharpness_of_a_plane_is_the_radius_times_the_gradient() -> None:
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = flatness.sharpness(function(lambda theta: (slope * theta).sum()), normal(3, 2), KEYS)
    torch.testing.assert_close(
        found, torch.full((3,), 5 * flatness.RADIUS, dtype=torch.float64), rtol=1e-12, atol=1e-13
    )


def test_sharpness_off_the_centre_is_the_trust_region_problem_solved_exactly() -> None:
    """max g·v + ½vᵀHv on the ball, by a fine grid of angles."""
    values = (4.0, -2.0)
    landscape, theta = quadratic(*values), normal(3, 2, scale=0.02)
    angles = torch.linspace(0, 2 * math.pi, 200_001, dtype=torch.float64)
    circle = flatness.RADIUS * torch.stack([angles.cos(), angles.sin()], 1)
    truth = [float((landscape.objective(t + circle) - landscape.objective(t[None])).max()) for t in theta]
    found = flatness.sharpness(landscape, theta, KEYS)
    np.testing.assert_allclose(found.numpy(), truth, rtol=1e-3)


def test_filters_are_rows_of_matrices_and_vectors_have_none() -> None:
    places = flatness.filter_places([(2, 3), (2,), (1, 2, 2)])
    assert places is not None
    assert places.tolist() == [[0, 1, 2, 12], [3, 4, 5, 12], [8, 9, 10, 11]]  # 12 = n fills up
    assert flatness.filter_places([(3,)]) is None


def test_filter_normalised_directions_are_as_long_as_the_filters() -> None:
    landscape = built(MLP)
    theta, direction = normal(3, landscape.dim, seed=2), normal(3, landscape.dim, seed=3)
    assert landscape.filters is not None
    scaled = flatness.filter_normalised(landscape.filters, direction, theta)
    w1, b1, w2, b2 = torch.split(scaled, [4 * 64, 4, 10 * 4, 10], 1)
    assert not b1.any() and not b2.any()
    for found, start, shape in ((w1, 0, (3, 4, 64)), (w2, 4 * 64 + 4, (3, 10, 4))):
        own, drawn = (v[:, start : start + found.shape[1]].view(shape) for v in (theta, direction))
        torch.testing.assert_close(found.view(shape).norm(dim=2), own.norm(dim=2), rtol=1e-12, atol=0)
        cosine = (found.view(shape) * drawn).sum(2) / (own.norm(dim=2) * drawn.norm(dim=2))
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-12, atol=0)


def test_filter_sharpness_of_a_quadratic_is_half_the_mean_curvature_along_the_directions() -> None:
    """And its mean over many directions is ½α²‖θ‖²·tr H/n, all of θ being one filter."""
    values = (5.0, 1.0, -2.0)
    landscape, theta = quadratic(*values), normal(400, 3, seed=4)
    keys = streams.keys("measures", list(range(400)), "many")
    found = flatness.sharpness_filter(landscape, theta, keys)
    hessian, curvature = landscape.hessian(theta), torch.zeros(400, dtype=torch.float64)
    for number in range(1, flatness.DIRECTIONS + 1):
        drawn = streams.normal(keys, 3 * number, 3)
        unit = drawn / drawn.norm(dim=1, keepdim=True) * theta.norm(dim=1, keepdim=True)
        curvature += torch.einsum("pi,pij,pj->p", unit, hessian, unit) / flatness.DIRECTIONS
    torch.testing.assert_close(found, 0.5 * flatness.SCALE**2 * curvature, rtol=1e-9, atol=1e-14)
    ratio = found / (0.5 * flatness.SCALE**2 * theta.square().sum(1))
    assert abs(float(ratio.mean()) - sum(values) / 3) < 4 * float(ratio.std()) / 20


def test_filter_sharpness_does_not_see_a_rescaling_that_the_loss_does_not_see() -> None:
    """ReLU: a unit's incoming weights times a, its outgoing ones divided by a, where no filter mixes both."""
    landscape = Landscape.from_function(
        lambda t: (t[:3].relu().sum() * t[3] - 1) ** 2, 4, lambda g: torch.randn(4, generator=g, dtype=torch.float64)
    )
    landscape = dataclasses.replace(landscape, filters=torch.tensor([[0, 1, 2], [3, 4, 4]]))
    theta = normal(3, 4, seed=5).abs()
    factor = torch.tensor([10.0, 10.0, 10.0, 0.1], dtype=torch.float64)
    plain, rescaled = (flatness.sharpness_filter(landscape, place, KEYS) for place in (theta, factor * theta))
    torch.testing.assert_close(plain, rescaled, rtol=1e-12, atol=0)
    balls = [flatness.sharpness(landscape, place, KEYS) for place in (theta, factor * theta)]
    assert (balls[1] > 2 * balls[0]).all()  # as the ball does


SPLIT: dict[str, tuple[dict[str, Any], slice, slice]] = {
    "cnn": ({"channels": [1], "activation": "relu"}, slice(0, 10), slice(10, 170)),  # K1, c1 against W1 of 16 pixels
    "rnn": ({"hidden": 1, "activation": "relu"}, slice(0, 8), slice(10, 20)),  # W (and b = 0) against V
    "resnet": ({"width": 1}, slice(22, 31), slice(31, 32)),  # K2 of the first block against its multiplier
}


@pytest.mark.parametrize("name", SPLIT)
def test_filter_sharpness_of_each_model_does_not_see_its_rescalings(name: str) -> None:
    options, growing, shrinking = SPLIT[name]
    landscape = built({"name": name, "data": "digits", "train_size": 20, "weight_decay": 0.0, **options})
    theta = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(2)])
    theta = theta + normal(2, landscape.dim, seed=3, scale=0.1) * (theta != 0)
    moved = theta.clone()
    moved[:, growing] *= 2
    moved[:, shrinking] /= 2
    torch.testing.assert_close(landscape.objective(moved), landscape.objective(theta), rtol=1e-13, atol=0)
    before, after = (flatness.sharpness_filter(landscape, place, KEYS[:2]) for place in (theta, moved))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=0)
    whole = dataclasses.replace(landscape, filters=None)
    before, after = (flatness.sharpness_filter(whole, place, KEYS[:2]) for place in (theta, moved))
    assert bool(((after - before).abs() > 1e-3 * before.abs()).all())


def test_filters_of_a_convolutional_net_are_those_of_the_same_module() -> None:
    landscape = built({"name": "cnn", "data": "digits", "train_size": 20, "channels": [2, 3], "hidden": [4]})
    known = supervision(landscape)

    def module() -> torch.nn.Module:
        layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(12, 4), torch.nn.Linear(4, 10)]
        return torch.nn.Sequential(*layers[:2], torch.nn.AvgPool2d(2), torch.nn.Flatten(), *layers[2:])

    split = known.train[0].reshape(20, 1, 8, 8), known.train[1]
    same = Landscape.from_module(module, split, split)
    assert landscape.dim == same.dim
    assert torch.equal(torch.as_tensor(landscape.filters), torch.as_tensor(same.filters))


def test_directions_depend_on_the_key_alone() -> None:
    landscape, theta = quadratic(3.0, 1.0, 0.5), normal(1, 3).expand(2, 3)
    same, other = (flatness.sharpness_filter(landscape, theta, keys) for keys in (KEYS[[0, 0]], KEYS[[0, 1]]))
    assert same[0] == same[1] == other[0] != other[1]


# sensitivity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_jacobians_of_a_linear_model_by_hand(loss: str) -> None:
    """z = Wx: ∂z/∂x = W, ∂z/∂W = I ⊗ xᵀ, whose squared norm is c‖x‖²."""
    x, y = normal(7, 3, seed=1), torch.arange(7) % 2
    known = Supervision(lambda theta, inputs: inputs @ theta.view(2, 3).mT, (x, y), (x, y), loss)
    theta = normal(4, 6)
    torch.testing.assert_close(sensitivity.jacobian_norm(known, theta, x), theta.norm(dim=1))
    wanted = (math.sqrt(2) * x.norm(dim=1)).mean().expand(4)
    torch.testing.assert_close(sensitivity.parameter_jacobian_norm(known, theta, x), wanted)
    p = torch.softmax(x @ theta.view(4, 2, 3).mT, -1).prod(-1)  # (4, N) p(1 − p)
    fisher = {"mse": (2 * x.square().sum(1)).mean().expand(4), "cross_entropy": (2 * p * x.square().sum(1)).mean(1)}
    torch.testing.assert_close(sensitivity.fisher_trace(known, theta, x), fisher[loss])


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_jacobians_of_a_net_are_those_of_torch_autograd(loss: str) -> None:
    network, landscape, (x, _) = net(loss)
    theta = normal(3, network.dim, scale=0.7)
    for row in range(3):
        parts: tuple[list[float], ...] = ([], [], [])
        for sample in x:
            at = (theta[row], sample[None])
            by_theta, by_x = torch.autograd.functional.jacobian(network, at)
            by_theta, p = by_theta[0], torch.softmax(network(*at)[0], 0)
            parts[0].append(float(by_x.norm()))
            parts[1].append(float(by_theta.norm()))
            curvature = torch.diag(p) - torch.outer(p, p) if loss == "cross_entropy" else torch.eye(2).double()
            parts[2].append(float(torch.trace(by_theta.mT @ curvature @ by_theta)))
        found = [
            measure(supervision(landscape), theta[row : row + 1], x)
            for measure in (sensitivity.jacobian_norm, sensitivity.parameter_jacobian_norm, sensitivity.fisher_trace)
        ]
        np.testing.assert_allclose(torch.cat(found).numpy(), np.mean(parts, axis=1), rtol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_fisher_information_is_the_hessian_where_outputs_are_linear(loss: str) -> None:
    """tr H = tr F + n·λ: no residual bends what is linear in θ."""
    x, y = normal(6, 3, seed=1), torch.arange(6) % 2
    landscape = supervised_landscape(
        name="linear", dim=6, model=lambda theta, inputs: inputs @ theta.view(2, 3).mT,
        init=lambda generator: torch.zeros(6, dtype=torch.float64), train=(x, y), test=(x, y), loss=loss,
        weight_decay=0.3,
    )  # fmt: skip
    theta = normal(3, 6)
    trace = landscape.hessian(theta).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(sensitivity.fisher_trace(supervision(landscape), theta, x) + 6 * 0.3, trace)


def test_sensitivities_are_the_same_in_chunks_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    network, landscape, (x, _) = net()
    theta, known = normal(5, network.dim), supervision(landscape)
    whole = [sensitivity.fisher_trace(known, theta, x), sensitivity.jacobian_norm(known, theta, x)]
    monkeypatch.setattr(sensitivity, "CHUNK_BYTES", 2 * 2 * 8 * 2 * (3 * network.dim + 1024))  # two samples at once
    chunked = [sensitivity.fisher_trace(known, theta, x), sensitivity.jacobian_norm(known, theta, x)]
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


# capacity -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_the_path_norm_sums_over_all_paths(bias: bool) -> None:
    landscape = built({**MLP, "hidden": [3, 2], "bias": bias})
    assert landscape.layers is not None
    theta = normal(2, landscape.dim)
    for row, found in zip(theta, capacity.path_norm(landscape.layers, theta, landscape), strict=True):
        layers = [(w.numpy(), None if b is None else b.numpy()) for w, b in landscape.layers(row)]
        widths = [layers[0][0].shape[1]] + [len(w) for w, _ in layers]
        total = 0.0
        for start in range(len(layers) + 1):  # paths from an input, or from the bias of a layer on
            if start and not bias:
                continue
            for path in itertools.product(*(range(width) for width in widths[start:])):
                first = layers[start - 1][1][path[0]] if start else 1.0  # type: ignore[index]
                edges = [layers[start + k][0][path[k + 1], path[k]] for k in range(len(layers) - start)]
                total += float(np.prod([first, *edges])) ** 2
        assert float(found) == pytest.approx(math.sqrt(total), rel=1e-12)


def test_the_spectral_norm_is_the_product_of_the_layers() -> None:
    landscape = built(MLP)
    assert landscape.layers is not None
    theta = normal(3, landscape.dim)
    wanted = [np.prod([np.linalg.norm(w.numpy(), 2) for w, _ in landscape.layers(row)]) for row in theta]
    np.testing.assert_allclose(capacity.spectral_norm(landscape.layers, theta, landscape).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["deep_linear", "autoencoder", "tied autoencoder", "autoencoder without bias"])
def test_the_layers_of_other_connected_nets_are_those_of_torch(name: str) -> None:
    """Applied one after the other they are the torch module that has the same θ."""
    landscape, module = models.built(name, activation="tanh"), models.module(name, "tanh").double()
    theta = normal(1, landscape.dim)
    models.load(module, theta[0])
    assert landscape.layers is not None
    matrices = [(w, b) for w, b in landscape.layers(theta[0])]
    x = torch.randn(5, matrices[0][0].shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = x
    for number, (w, b) in enumerate(matrices, start=1):
        z = z @ w.mT + (0 if b is None else b)
        z = torch.tanh(z) if name != "deep_linear" and number < len(matrices) else z
    with torch.no_grad():
        torch.testing.assert_close(z, module(x.view(5, *models.SHAPES[name])).flatten(1), rtol=1e-12, atol=1e-12)
    assert float(capacity.spectral_norm(landscape.layers, theta, landscape)) == pytest.approx(
        math.prod(np.linalg.norm(w.numpy(), 2) for w, _ in matrices), rel=1e-12
    )


def test_the_output_moves_no_more_than_the_spectral_norm_allows() -> None:
    landscape = built(MLP)
    known, theta = supervision(landscape), normal(3, landscape.dim, scale=0.3)
    assert landscape.layers is not None
    lipschitz = capacity.spectral_norm(landscape.layers, theta, landscape)
    near = known.train[0] + 1e-3 * normal(60, 64, seed=9)
    for row, bound in zip(theta, lipschitz, strict=True):
        moved = (known.model(row, near) - known.model(row, known.train[0])).norm(dim=1)
        assert (moved <= bound * (near - known.train[0]).norm(dim=1)).all()


def test_margins_are_those_of_numpy() -> None:
    landscape = built(MLP)
    known, theta = supervision(landscape), normal(3, landscape.dim)
    columns = included.measured(landscape, theta, KEYS, ["margin", "spectral_norm"])
    for row in range(3):
        for split, (smallest, low) in (
            (known.train, ("margin", "margin_quantile")), (known.test, (None, "test_margin_quantile"))
        ):  # fmt: skip
            outputs, labels = known.model(theta[row], split[0]).numpy(), split[1].numpy()
            margin = np.array([z[y] - np.delete(z, y).max() for z, y in zip(outputs, labels, strict=True)])
            expected = np.quantile(margin, 0.05, method="inverted_cdf")
            assert float(columns[low][row]) == pytest.approx(expected, rel=1e-12)
            assert smallest is None or float(columns[smallest][row]) == pytest.approx(margin.min(), rel=1e-12)
    assert landscape.train_error is not None
    errors = landscape.map(landscape.train_error, theta)
    assert torch.equal(columns["margin"] > 0, errors == 0)
    torch.testing.assert_close(columns["margin_normalised"], columns["margin_quantile"] / columns["spectral_norm"])


# all together ---------------------------------------------------------------------------------------------------------


def test_every_measure_fills_columns_of_the_table() -> None:
    columns = included.measured(built(MLP), normal(2, 310), KEYS[:2], included.MEASURES)
    schema = record.schema("points")
    assert all(schema.field(name).type == "double" for name in columns)
    assert all(bool(torch.isfinite(values).all()) for values in columns.values())
    assert len(columns) == 14


def test_the_settings_name_every_measure() -> None:
    every = list(included.MEASURES)
    assert list(settings.Measure(include=tuple(every)).include) == every  # type: ignore[arg-type]
    with pytest.raises(SweepFileError, match=r"measure\.include"):
        spec.validate(
            {"name": "x", "seeds": 1, "landscape": {"name": "mlp"}, "measure": {"include": ["flatness"]}}, "f"
        )


def test_a_plain_function_has_only_what_needs_no_model() -> None:
    found = included.measured(quadratic(2.0, 1.0), normal(2, 2), KEYS[:2], included.MEASURES)
    assert set(found) == {"sharpness", "sharpness_filter"}


def test_a_place_that_is_not_finite_is_not_measured_and_disturbs_none() -> None:
    landscape, theta = built(MLP), normal(3, 310)
    alone = included.measured(landscape, theta[:1], KEYS[:1], included.MEASURES)
    theta[1] = torch.nan
    columns = included.measured(landscape, theta, KEYS, included.MEASURES)
    assert all(bool(torch.isnan(values[1])) for values in columns.values())
    assert all(torch.equal(alone[name], values[:1]) for name, values in columns.items())


def test_a_module_of_ones_own_has_its_filters_and_jacobians() -> None:
    x, y = normal(6, 3, seed=1), torch.arange(6) % 2
    landscape = Landscape.from_module(lambda: torch.nn.Linear(3, 2), (x, y), (x, y), weight_decay=0.1)
    assert landscape.filters is not None
    assert landscape.filters.tolist() == [[0, 1, 2], [3, 4, 5]]
    columns = included.measured(landscape, normal(2, 8), KEYS[:2], included.MEASURES)
    assert {"jacobian_norm", "fisher_trace", "margin", "sharpness_filter"} < set(columns)
    assert "path_norm" not in columns


@pytest.mark.parametrize("name", ["cnn", "rnn"])
def test_other_models_are_measured_too(name: str) -> None:
    options = {"cnn": {"channels": [2]}, "rnn": {"hidden": 3}}[name]
    data = {"data": "digits", "train_size": 20, "test_size": 10, "weight_decay": 1e-3}
    landscape = built({"name": name, **data, **options})
    known, theta = supervision(landscape), normal(2, landscape.dim, scale=0.3)
    columns = included.measured(landscape, theta, KEYS[:2], included.MEASURES)
    one = torch.autograd.functional.jacobian(lambda x: known.model(theta[0], x[None])[0], known.train[0][0])
    first = sensitivity.jacobian_norm(known, theta[:1], known.train[0][:1])
    torch.testing.assert_close(first, one.norm()[None], rtol=1e-12, atol=0)
    assert bool(torch.isfinite(columns["fisher_trace"]).all())
