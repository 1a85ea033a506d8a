"""Landscapes of the user's own: values, derivatives, initialisation, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.training import initial_parameters

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def rosenbrock(theta: Tensor) -> Tensor:
    return (1 - theta[0]) ** 2 + 100 * (theta[1] - theta[0] ** 2) ** 2


def standard_normal(dim: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(dim, generator=generator, dtype=torch.float64)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 2, (samples,), generator=generator)


def loaded(theta: Tensor) -> nn.Module:
    module = net().to(torch.float64)
    nn.utils.vector_to_parameters(theta, module.parameters())
    return module


def thetas(rows: int, dim: int) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_function_values_and_derivatives_in_closed_form() -> None:
    landscape = Landscape.from_function(rosenbrock, 2, standard_normal(2))
    points = thetas(5, 2)
    x, y = points[:, 0], points[:, 1]
    value, gradient = landscape.value_and_gradient(points)
    expected = torch.stack([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)], 1)
    diagonal = torch.stack([2 - 400 * y + 1200 * x**2, torch.full_like(x, 200.0)], 1)
    torch.testing.assert_close(value, (1 - x) ** 2 + 100 * (y - x**2) ** 2, rtol=1e-13, atol=0)
    torch.testing.assert_close(landscape.objective(points), value, rtol=1e-15, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(landscape.gradient(points), gradient, rtol=1e-15, atol=0)
    torch.testing.assert_close(landscape.hessian(points).diagonal(dim1=1, dim2=2), diagonal, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(landscape.hessian(points)[:, 0, 1], -400 * x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_module_matches_autograd_one_by_one(loss: str) -> None:
    train, test, decay = data(7), data(5, seed=3), 0.3
    landscape = Landscape.from_module(net, train, test, loss=loss, weight_decay=decay)
    points = thetas(4, 26)
    assert landscape.dim == 26
    value, gradient = landscape.value_and_gradient(points)
    hessian = landscape.hessian(points)

    def measured(theta: Tensor, split: tuple[Tensor, Tensor]) -> Tensor:
        outputs = loaded_call(theta, split[0])
        if loss == "cross_entropy":
            return functional.cross_entropy(outputs, split[1])
        return functional.mse_loss(outputs, functional.one_hot(split[1], 2).to(torch.float64))

    def loaded_call(theta: Tensor, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(inputs @ theta[:12].view(4, 3).T + theta[12:16])
        return hidden @ theta[16:24].view(2, 4).T + theta[24:]

    for row in range(4):
        theta = points[row].clone().requires_grad_()
        torch.testing.assert_close(loaded_call(theta, train[0]), loaded(points[row])(train[0]), rtol=1e-13, atol=1e-14)
        objective = measured(theta, train) + 0.5 * decay * (theta**2).sum()
        torch.testing.assert_close(value[row], objective.detach(), rtol=1e-13, atol=0)
        (expected,) = torch.autograd.grad(objective, theta)
        torch.testing.assert_close(gradient[row], expected, rtol=1e-12, atol=1e-14)
        curvature = torch.autograd.functional.hessian(
            lambda t: measured(t, train) + 0.5 * decay * (t**2).sum(), points[row]
        )
        torch.testing.assert_close(hessian[row], curvature, rtol=1e-11, atol=1e-13)
    assert landscape.test_loss is not None
    assert landscape.test_error is not None
    expected = torch.stack([measured(t, test) for t in points])
    torch.testing.assert_close(landscape.map(landscape.test_loss, points), expected, rtol=1e-13, atol=0)
    wrong = torch.stack([(loaded(t)(test[0]).argmax(1) != test[1]).double().mean() for t in points])
    assert landscape.map(landscape.test_error, points).tolist() == wrong.tolist()


def test_minibatch_loss_in_float32_then_float64() -> None:
    landscape = Landscape.from_module(net, data(7), data(5))
    assert landscape.minibatch_loss is not None
    index = torch.tensor([[0, 2, 4], [1, 1, 6]])
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        gradients = torch.func.vmap(torch.func.grad(landscape.minibatch_loss))(thetas(2, 26).to(dtype), index)
        assert gradients.dtype == dtype
        for row in range(2):
            inputs, labels = (tensor[index[row]] for tensor in data(7))
            alone = Landscape.from_module(net, (inputs, labels), data(5)).gradient(thetas(2, 26))[row]
            torch.testing.assert_close(gradients[row].to(torch.float64), alone, rtol=tolerance, atol=tolerance)


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    landscape = Landscape.from_module(net, data(7), data(5), weight_decay=0.1)
    points = thetas(9, 26)
    for evaluate in (landscape.objective, landscape.gradient, landscape.hessian):
        together = evaluate(points)
        for rows in ([3], [3, 4], [0, 3, 5, 7]):
            assert torch.equal(evaluate(points[rows]), together[rows])


def test_module_is_initialised_anew_per_seed() -> None:
    landscape = Landscape.from_module(net, data(7), data(5))
    first = initial_parameters(landscape, "key", [5, 6], CPU)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = initial_parameters(landscape, "key", [6, 5], CPU)
    assert torch.equal(first, again.flip(0))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random state is left alone"
    assert float(first.abs().max()) <= 3**-0.5 + 1e-7, "torch's own Linear initialisation: uniform, ±1/√fan_in"


def test_buffers_drawn_at_random_are_the_same_in_every_process() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.randn(3, 4))
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.cos(x @ self.get_buffer("frequencies")))
            return result

    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        values.append(Landscape.from_module(Features, data(7), data(5)).objective(thetas(2, 10)))
    assert torch.equal(*values)


def test_function_without_test_loss_has_none() -> None:
    assert Landscape.from_function(rosenbrock, 2, standard_normal(2)).test_loss is None


@pytest.mark.parametrize(
    ("train", "test", "loss", "words"),
    [
        ((data(7)[0], data(6)[1]), data(5), "cross_entropy", ["train", "7", "6"]),
        (data(7), (data(5)[0][:0], data(5)[1][:0]), "cross_entropy", ["test", "0"]),
        ((data(7)[0].log(), data(7)[1]), data(5), "cross_entropy", ["train", "NaN"]),
        (data(7), (data(5)[0] / 0, data(5)[1]), "cross_entropy", ["test", "infinity"]),
        (data(7), data(5), "hinge", ["hinge", "cross_entropy", "mse"]),
        ((data(7)[0], data(7)[1].double()), data(5), "cross_entropy", ["train", "integer labels"]),
        ((data(7)[0], data(7)[1] + 1), data(5), "cross_entropy", ["train", "0 … 1"]),
        ((data(7)[0], data(7)[1] - 1), data(5), "mse", ["train", "0 … 1"]),
        ((data(7)[0], torch.full((7, 2), torch.nan)), data(5), "mse", ["train", "targets", "NaN"]),
        ((data(7)[0], torch.zeros(7)), data(5), "mse", ["train", "shape"]),
    ],
)
def test_unusable_data_is_refused(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], loss: str, words: list[str]
) -> None:
    with pytest.raises(LandscapeError) as caught:
        Landscape.from_module(net, train, test, loss=loss)
    for word in words:
        assert word in str(caught.value)


def test_unusable_functions_are_refused() -> None:
    with pytest.raises(LandscapeError, match="dim: found 0"):
        Landscape.from_function(rosenbrock, 0, standard_normal(0))
    with pytest.raises(LandscapeError, match=r"init: .*\(3,\).*dim = 2"):
        Landscape.from_function(rosenbrock, 2, standard_normal(3))
    with pytest.raises(LandscapeError, match=r"loss: .*\(2,\)"):
        Landscape.from_function(lambda theta: theta**2, 2, standard_normal(2))


def test_products_of_a_linear_function_vanish() -> None:
    landscape = Landscape.from_function(lambda t: 2 * t[0] - t[1], 2, lambda g: torch.randn(2, generator=g))
    theta, vectors = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, 3, dtype=torch.float64)
    assert landscape.hvp(theta, vectors).tolist() == [[[0.0] * 3] * 2]


def test_products_in_chunks_of_columns_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = Landscape.from_function(
        lambda t: (t**4).sum() + t[0] * t[1] ** 2, 3, lambda g: torch.randn(3, generator=g)
    )
    generator = torch.Generator().manual_seed(0)
    theta, vectors = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (3, 3, 7)))
    whole = landscape.hvp(theta, vectors)
    torch.testing.assert_close(whole, landscape.hessian(theta) @ vectors)
    monkeypatch.setattr("landsweep.workers.landscape.CHUNK_BYTES", 3 * 2240)  # three rows
    torch.testing.assert_close(landscape.hvp(theta, vectors), whole, rtol=1e-14, atol=0)
