"""Closed gradients of fully connected nets, against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, vmap

from landsweep.workers.activations import ACTIVATIONS, KINKED, LINEAR
from landsweep.workers.architecture import Architecture
from landsweep.workers.dense_gradient import dense_gradient
from landsweep.workers.supervised import LOSSES, data_loss

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, SAMPLES = 5, 23  # more than a vector register holds, and no multiple of it


def case(network: Architecture, loss: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Thetas, inputs and targets of each row."""
    generator = torch.Generator().manual_seed(0)
    thetas = torch.randn(ROWS, network.dim, generator=generator, dtype=torch.float64)
    inputs = torch.randn(ROWS, SAMPLES, network.widths[0], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, network.widths[-1], (ROWS, SAMPLES), generator=generator)
    values = torch.randn(ROWS, SAMPLES, network.widths[-1], generator=generator, dtype=torch.float64)
    return thetas.to(dtype), inputs.to(dtype), labels if loss == "cross_entropy" else values.to(dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
@pytest.mark.parametrize(("widths", "bias"), [((3, 4), True), ((7, 5, 3), True), ((4, 6, 5, 2), False)])
def test_it_is_that_of_automatic_differentiation(
    widths: tuple[int, ...], bias: bool, activation: str, loss: str
) -> None:
    network = Architecture(widths, activation, bias)
    given = case(network, loss, torch.float64)
    wanted = vmap(grad(lambda theta, x, y: data_loss(network(theta, x), y, loss)))(*given)
    torch.testing.assert_close(dense_gradient(network, *given, loss), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
def test_a_row_does_not_depend_on_its_mates(activation: str, dtype: torch.dtype) -> None:
    network = Architecture((7, 5, 3), activation)
    for loss in LOSSES:
        given = case(network, loss, dtype)
        whole = dense_gradient(network, *given, loss)
        for rows in ([0, 1], [3, 2, 1], [4, 0]):
            assert torch.equal(dense_gradient(network, *(tensor[rows] for tensor in given), loss), whole[rows])
