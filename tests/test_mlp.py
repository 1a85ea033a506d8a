"""Multilayer perceptrons on digits: the closed-form Hessian, the objective, symmetries, the data's splits."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers import builtin, symmetry
from landsweep.workers.activations import ACTIVATIONS
from landsweep.workers.data import Dataset
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from tests.digits import built, digits

pytestmark = pytest.mark.usefixtures("one_thread")
MODULES: dict[str, nn.Module] = {
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
}


def small(classes: int = 3, inputs: int = 4, samples: int = 12) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * samples, inputs, generator=generator, dtype=torch.float64)
    y = torch.randint(0, classes, (2 * samples,), generator=generator)
    return Dataset(x[:samples], y[:samples], x[samples:], y[samples:], classes)


def thetas(landscape: Landscape, rows: int, scale: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(rows, landscape.dim, generator=generator, dtype=torch.float64)


FORMULAS: dict[str, Any] = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "softplus": lambda a: mpmath.log(1 + mpmath.exp(a)),
    "silu": lambda a: a / (1 + mpmath.exp(-a)),
    "gelu": lambda a: a * mpmath.ncdf(a),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_and_derivatives_match_60_digits(activation: str) -> None:
    function, derivatives = ACTIVATIONS[activation]
    places = [-30.0, -20.5, -6.1, -1.7, -1e-9, 0.0, 1e-9, 0.3, 1.7, 6.1, 19.9, 20.1, 30.0]
    a = torch.tensor(places, dtype=torch.float64)
    with mpmath.workdps(60):
        formula = FORMULAS[activation]
        exact = [[float(mpmath.diff(formula, mpmath.mpf(x), order)) for x in places] for order in range(3)]
    for ours, expected in zip((function(a), *derivatives(a)), exact, strict=True):
        torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=3e-16)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_derivatives_match_autograd(activation: str) -> None:
    function, derivatives = ACTIVATIONS[activation]
    grid = torch.cat([torch.linspace(-12, 12, 401, dtype=torch.float64), torch.tensor([0.0, 1e-9, -1e-9])])
    first = torch.func.vmap(torch.func.grad(function))
    second = torch.func.vmap(torch.func.grad(torch.func.grad(function)))
    torch.testing.assert_close(function(grid), MODULES[activation](grid), rtol=1e-14, atol=1e-15)
    for ours, theirs in zip(derivatives(grid), (first(grid), second(grid)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=2e-15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_derivatives_at_extremes(activation: str) -> None:
    far = torch.tensor([-1e300, -1e160, -1e4, -800.0, 800.0, 1e4, 1e160, 1e300], dtype=torch.float64)
    function, derivatives = ACTIVATIONS[activation]
    first, second = derivatives(far)
    right = torch.tensor([0.0] * 4 + [0.0 if activation in ("tanh", "sigmoid") else 1.0] * 4, dtype=torch.float64)
    torch.testing.assert_close(function(far), MODULES[activation](far), rtol=1e-15, atol=1e-300)
    torch.testing.assert_close(first, right, rtol=0, atol=1e-300)
    torch.testing.assert_close(second, torch.zeros_like(far), rtol=0, atol=1e-300)
    slope = torch.func.vmap(torch.func.grad(function))(far)
    torch.testing.assert_close(slope, right, rtol=0, atol=1e-300)


def test_softplus_is_smooth_where_torch_switches_to_a_line() -> None:
    function, _ = ACTIVATIONS["softplus"]
    a = torch.tensor([19.999999, 20.000001, 25.0, 40.0], dtype=torch.float64)
    torch.testing.assert_close(function(a) - a, torch.log1p(torch.exp(-a)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[2], [3, 2], [2, 3, 2]])
def test_closed_form_hessian_matches_autograd(
    hidden: list[int], activation: str, loss: str, weight_decay: float
) -> None:
    landscape = mlp(small(), hidden=hidden, activation=activation, loss=loss, weight_decay=weight_decay)
    points = thetas(landscape, 3)
    assert landscape.closed_hessian is not None
    ours = landscape.hessian(points)
    theirs = torch.func.vmap(torch.func.hessian(landscape.loss))(points)
    error = (ours - theirs).norm(dim=(1, 2)) / theirs.norm(dim=(1, 2))
    assert float(error.max()) < 2e-13


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_does_not_depend_on_its_batch_mates(activation: str, loss: str) -> None:
    landscape = mlp(small(samples=11), hidden=[3, 3], activation=activation, loss=loss)
    points = thetas(landscape, 13, 2.0)
    assert landscape.minibatch_loss is not None
    minibatch = torch.func.vmap(torch.func.grad(landscape.minibatch_loss))
    index = torch.arange(13 * 7).view(13, 7) % 11

    def trained(rows: Tensor) -> Tensor:
        return minibatch(points[rows].to(torch.float32), index[rows]).to(torch.float64)

    functions = {
        "objective": lambda rows: landscape.objective(points[rows]),
        "gradient": lambda rows: landscape.gradient(points[rows]),
        "value": lambda rows: landscape.value_and_gradient(points[rows])[0],
        "hessian": lambda rows: landscape.hessian(points[rows]),
        "minibatch gradient in float32": trained,
    }
    for name, function in functions.items():
        together = function(torch.arange(13))
        for rows in (torch.tensor(r) for r in ([2, 3], [11, 12], [0, 5, 12], [12, 4, 7, 1, 0])):
            assert torch.equal(function(rows), together[rows]), (name, rows)


def test_hessian_of_one_unit_by_hand() -> None:
    """One input x, one tanh unit, one output: z = w2·tanh(w1·x + b1) + b2, L = (z − 1)², one sample of class 0."""
    x = torch.tensor([[0.7]], dtype=torch.float64)
    data = Dataset(x, torch.tensor([0]), x, torch.tensor([0]), 1)
    landscape = mlp(data, hidden=[1], loss="mse", weight_decay=0.0)
    w1, b1, w2, b2 = theta = [0.3, -0.2, 0.8, 0.1]
    t = np.tanh(w1 * 0.7 + b1)
    s, r = 1 - t * t, w2 * t + b2 - 1
    jacobian = np.array([w2 * s * 0.7, w2 * s, t, 1.0])
    curvature = np.zeros((4, 4))
    inner = np.array([0.7, 1.0])
    curvature[:2, :2] = w2 * -2 * t * s * np.outer(inner, inner)
    curvature[:2, 2] = curvature[2, :2] = s * inner
    expected = 2 * (np.outer(jacobian, jacobian) + r * curvature)
    ours = landscape.hessian(torch.tensor([theta], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_objective_matches_torch_nn(activation: str, loss: str) -> None:
    data = digits(resize=4)
    landscape = mlp(data, hidden=[5, 3], activation=activation, loss=loss, weight_decay=0.01)
    points = thetas(landscape, 2)
    module = nn.Sequential(
        nn.Linear(16, 5), MODULES[activation], nn.Linear(5, 3), MODULES[activation], nn.Linear(3, 10)
    ).to(torch.float64)
    for row in range(2):
        nn.utils.vector_to_parameters(points[row], module.parameters())
        with torch.no_grad():
            measured = []
            for inputs, labels in ((data.train_inputs, data.train_labels), (data.test_inputs, data.test_labels)):
                outputs = module(inputs)
                if loss == "cross_entropy":
                    value = functional.cross_entropy(outputs, labels)
                else:
                    value = functional.mse_loss(outputs, functional.one_hot(labels, 10).to(torch.float64))
                measured += [value, (outputs.argmax(1) != labels).to(torch.float64).mean()]
        functions = (landscape.train_loss, landscape.train_error, landscape.test_loss, landscape.test_error)
        for function, expected in zip(functions, measured, strict=True):
            assert function is not None
            torch.testing.assert_close(landscape.map(function, points)[row], expected, rtol=1e-12, atol=1e-14)
        objective = measured[0] + 0.005 * (points[row] ** 2).sum()
        torch.testing.assert_close(landscape.objective(points)[row], objective, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scheme", ["xavier_normal", "xavier_uniform", "he_normal", "he_uniform"])
def test_initialisation_has_its_published_spread(scheme: str) -> None:
    landscape = mlp(small(inputs=60), hidden=[100], initialisation=scheme, init_scale=0.5)
    theta = landscape.init(torch.Generator().manual_seed(0))
    weight, bias = theta[:6000], theta[6000:6100]
    spread = (2 / 160) ** 0.5 if scheme.startswith("xavier") else (2 / 60) ** 0.5
    assert float(weight.std()) == pytest.approx(0.5 * spread, rel=0.05)
    assert torch.equal(bias, torch.zeros_like(bias))
    if scheme.endswith("uniform"):
        assert float(weight.abs().max()) == pytest.approx(0.5 * spread * 3**0.5, rel=0.01)


# --- symmetries ------------------------------------------------------------------------------------------------
def always_zero(data: Dataset) -> int:
    return int((data.train_inputs == 0).all(0).sum())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_symmetries_of_digits_are_accepted(loss: str) -> None:
    data = digits(train_size=60)
    unused = always_zero(data)
    assert unused >= 3, "the 8×8 digits have border pixels that are always empty"
    landscape = mlp(data, hidden=[2], loss=loss, weight_decay=0.0)
    fields = symmetry.checked(landscape)
    shifts = 3 if loss == "cross_entropy" else 0  # two hidden units and the bias
    assert len(fields) == 2 * unused + shifts
    _, rank = symmetry.basis(fields, thetas(landscape, 2))
    assert rank.tolist() == [2 * unused + shifts] * 2
    for field in fields:  # L does not change along a straight field, however far
        tangent = field(thetas(landscape, 1)[0])
        line = torch.stack([thetas(landscape, 1)[0] + s * tangent for s in (0.0, 1.0, -3.0)])
        values = landscape.objective(line)
        torch.testing.assert_close(values, values[:1].expand(3), rtol=1e-13, atol=0)


def test_weight_decay_leaves_no_declared_symmetry() -> None:
    assert mlp(digits(train_size=60), hidden=[2], weight_decay=1e-3).symmetries == ()


def not_a_symmetry(theta: Tensor) -> Tensor:
    return theta


def not_a_number(theta: Tensor) -> Tensor:
    return theta * torch.nan


def not_differentiable(theta: Tensor) -> Tensor:
    return torch.sqrt(0 * theta)


@pytest.mark.parametrize("false_field", [not_a_symmetry, not_a_number, not_differentiable])
def test_a_false_symmetry_is_rejected_with_a_warning(false_field: Any) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] > 0).to(torch.int64)

    def shift(theta: Tensor) -> Tensor:
        return torch.cat([torch.zeros(6), torch.ones(2)]).to(theta) + 0 * theta

    landscape = Landscape.from_module(lambda: nn.Linear(3, 2), (x, y), (x, y), symmetries=[shift, false_field])
    with pytest.warns(UserWarning, match=r"symmetry 1 of landscape 'module' rejected"):
        assert symmetry.checked(landscape) == (shift,)


# --- by name ----------------------------------------------------------------------------------------------------
def test_built_in_mlp_takes_data_options() -> None:
    options = {"name": "mlp", "data": "digits", "hidden": [2], "resize": 4, "train_size": 100, "weight_decay": 0.5}
    landscape = built(options)
    assert (landscape.dim, landscape.samples) == (16 * 2 + 2 + 2 * 10 + 10, 100)


@pytest.mark.parametrize("name", ["landsweep.nothing:build", "math:nothing", "math:sqrt_"])
def test_unknown_landscape_is_refused(name: str) -> None:
    with pytest.raises(LandscapeError, match="cannot be imported"):
        builtin.build({"name": name}, torch.device("cpu"))


def test_function_that_returns_no_landscape_is_refused() -> None:
    with pytest.raises(LandscapeError, match="returned dict"):
        builtin.build({"name": "builtins:dict"}, torch.device("cpu"))
