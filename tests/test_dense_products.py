"""Closed Hessian-vector products of fully connected nets, against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp

from landsweep.workers import compiled, dense_native
from landsweep.workers.activations import ACTIVATIONS, KINKED, LINEAR
from landsweep.workers.architecture import Architecture
from landsweep.workers.dense_products import dense_products
from landsweep.workers.supervised import LOSSES, data_loss
from tests import digits

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, SAMPLES, VECTORS = 5, 23, 3
WIDTHS = [((3, 4), True), ((7, 5, 3), True), ((4, 6, 5, 2), False), ((8, 25, 18), True)]


def case(network: Architecture, loss: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thetas and vectors of each row, inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    thetas = torch.randn(ROWS, network.dim, generator=generator, dtype=torch.float64)
    vectors = torch.randn(ROWS, network.dim, VECTORS, generator=generator, dtype=torch.float64)
    inputs = torch.randn(SAMPLES, network.widths[0], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, network.widths[-1], (SAMPLES,), generator=generator)
    values = torch.randn(SAMPLES, network.widths[-1], generator=generator, dtype=torch.float64)
    targets = labels if loss == "cross_entropy" else values.to(dtype)
    return thetas.to(dtype), vectors.to(dtype), inputs.to(dtype), targets


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
@pytest.mark.parametrize(("widths", "bias"), WIDTHS)
def test_they_are_those_of_automatic_differentiation(
    widths: tuple[int, ...], bias: bool, activation: str, loss: str
) -> None:
    network = Architecture(widths, activation, bias)
    thetas, vectors, inputs, targets = case(network, loss, torch.float64)
    gradient = grad(lambda theta: data_loss(network(theta, inputs), targets, loss))
    found = dense_products(network, thetas, inputs, targets, loss)(vectors)
    for row in range(ROWS):
        for k in range(VECTORS):
            wanted = jvp(gradient, (thetas[row],), (vectors[row, :, k],))[1]
            torch.testing.assert_close(found[row, :, k], wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
def test_a_row_does_not_depend_on_its_mates(activation: str, dtype: torch.dtype) -> None:
    network = Architecture((7, 5, 3), activation)
    for loss in LOSSES:
        thetas, vectors, *data = case(network, loss, dtype)
        whole = dense_products(network, thetas, *data, loss)(vectors)
        for rows in ([0, 1], [3, 2, 1], [4, 0], [2]):
            some = dense_products(network, thetas[rows], *data, loss)
            assert torch.equal(some(vectors[rows]), whole[rows])
            assert torch.equal(some(vectors[rows][:, :, 1:2]), whole[rows][:, :, 1:2])


def test_a_large_layer_is_done_net_by_net(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, vectors, *data = case(network, "mse", torch.float64)
    with dense_native.tensor_operations():
        wanted = dense_products(network, thetas, *data, "mse")(vectors)
        monkeypatch.setattr("landsweep.workers.dense_products.LARGE", 0)
        whole = dense_products(network, thetas, *data, "mse")(vectors)
        torch.testing.assert_close(whole, wanted, rtol=1e-12, atol=1e-13)
        for rows in ([3, 2, 1], [2]):
            some = dense_products(network, thetas[rows], *data, "mse")
            assert torch.equal(some(vectors[rows]), whole[rows])


@pytest.mark.parametrize("net", [{"name": "mlp"}, {"name": "mlp", "bias": False}, {"name": "deep_linear"}])
def test_those_of_a_landscape_hold_its_weight_decay(net: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, and where rows and samples are taken in parts."""
    landscape = digits.built({**net, "data": "digits", "resize": 4, "hidden": [3], "weight_decay": 0.01})
    generator = torch.Generator().manual_seed(0)
    thetas = torch.randn(5, landscape.dim, generator=generator, dtype=torch.float64)
    vectors = torch.randn(5, landscape.dim, 2, generator=generator, dtype=torch.float64)
    wanted = landscape.hessian(thetas) @ vectors
    torch.testing.assert_close(landscape.hvp(thetas, vectors), wanted, rtol=1e-11, atol=1e-12)
    whole = landscape.hvp(thetas[:1], vectors[:1])
    assert torch.equal(landscape.hvp(thetas, vectors)[:1], whole)
    assert torch.equal(landscape.products(thetas)(vectors), landscape.hvp(thetas, vectors))
    monkeypatch.setattr("landsweep.workers.landscape.SAMPLES_BYTES", 2**16)
    monkeypatch.setattr("landsweep.workers.landscape.MINIBATCH_BYTES", 0)
    assert landscape.chunk_samples < landscape.samples
    torch.testing.assert_close(landscape.hvp(thetas, vectors), wanted, rtol=1e-11, atol=1e-12)
    assert torch.equal(landscape.products(thetas)(vectors), landscape.hvp(thetas, vectors))


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["tanh", LINEAR])
@pytest.mark.parametrize(("widths", "bias"), WIDTHS)
def test_what_is_kept_changes_no_bit(widths: tuple[int, ...], bias: bool, activation: str, dtype: torch.dtype) -> None:
    """One set of vectors after another, fewer and more of them than before, on samples that fill no chunk."""
    network = Architecture(widths, activation, bias)
    for loss in LOSSES:
        thetas, vectors, inputs, targets = case(network, loss, dtype)
        many = inputs.repeat(13, 1), targets.repeat(13, *[1] * (targets.dim() - 1))
        kept = dense_products(network, thetas, *many, loss)
        for some in (vectors, vectors[:, :, :1], -vectors, vectors.repeat(1, 1, 2)):
            assert torch.equal(kept(some), dense_products(network, thetas, *many, loss)(some))


@pytest.mark.skipif(compiled.found_compiler() is None, reason="no C++ compiler")
def test_vectors_of_another_shape_are_refused_of_what_is_kept() -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, vectors, *data = case(network, "mse", torch.float64)
    kept = dense_products(network, thetas, *data, "mse")
    kept(vectors)
    for wrong in (vectors[:2], vectors[:, :-1], vectors.float()):
        with pytest.raises(ValueError, match="vectors of shape"):
            kept(wrong)
