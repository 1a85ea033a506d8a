"""The closed-form Hessian of two-layer nets with a squared loss, which autoencoders take where memory allows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import hessian, vmap

from landsweep.workers.activations import ACTIVATIONS
from landsweep.workers.data import Dataset
from landsweep.workers.models.autoencoder import autoencoder
from landsweep.workers.models.columns import ColumnHessian
from landsweep.workers.models.two_layer_hessian import TwoLayerHessian

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dataset(samples: int = 11, inputs: int = 5) -> Dataset:
    x, labels = normal(samples, inputs), torch.zeros(samples, dtype=torch.int64)
    return Dataset(x, labels, x[:2], labels[:2], 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_autoencoder_hessian_matches_automatic_differentiation(activation: str, bias: bool) -> None:
    landscape = autoencoder(dataset(), hidden=[3], activation=activation, bias=bias, weight_decay=1e-2)
    assert isinstance(landscape.closed_hessian, TwoLayerHessian)
    theta = normal(4, landscape.dim, seed=1)
    found = landscape.hessian(theta)
    torch.testing.assert_close(found, vmap(hessian(landscape.loss))(theta), rtol=1e-12, atol=1e-14)
    assert torch.equal(found, found.mT)


def test_targets_may_differ_from_the_inputs() -> None:
    x, t = normal(11, 5), normal(11, 2, seed=2)
    closed = TwoLayerHessian(x, t, 3, "silu", True, 0.1)

    def loss(theta: Tensor) -> Tensor:
        pieces = torch.split(theta, [15, 3, 6, 2])
        hidden = torch.nn.functional.silu(x @ pieces[0].view(3, 5).T + pieces[1])
        outputs = hidden @ pieces[2].view(2, 3).T + pieces[3]
        return ((outputs - t) ** 2).mean() + 0.05 * (theta * theta).sum()

    theta = normal(3, 26, seed=1)
    torch.testing.assert_close(closed(theta), vmap(hessian(loss))(theta), rtol=1e-12, atol=1e-14)


def test_a_row_does_not_depend_on_the_others() -> None:
    landscape = autoencoder(dataset(53, 7), hidden=[5], activation="gelu")
    theta = normal(9, landscape.dim, seed=1)
    whole = landscape.hessian(theta)
    for rows in (slice(0, 1), slice(3, 5), slice(2, 9)):
        assert torch.equal(landscape.hessian(theta[rows]), whole[rows])


def test_nets_of_another_kind_take_columns() -> None:
    data = dataset()
    others = {"tied": {"tied": True}, "deep": {"hidden": [4, 2]}, "relu": {"activation": "relu"}}
    for options in others.values():
        assert isinstance(autoencoder(data, **{"hidden": [3], **options}).closed_hessian, ColumnHessian)
    wide = autoencoder(dataset(800, 400), hidden=[2])
    assert isinstance(wide.closed_hessian, ColumnHessian), "the products of pairs of inputs would take 0.5 GiB"
