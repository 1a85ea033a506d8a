"""What theory says of the built-in models: continuous symmetries, all of them, and the exact course of linear nets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, vmap

from landsweep.workers import symmetry
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Landscape
from landsweep.workers.models.cnn import cnn
from landsweep.workers.models.deep_linear import deep_linear
from landsweep.workers.models.resnet import resnet
from tests.models import CLASSES, SHAPES, built, data, losses, thetas

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("error:symmetry")]
FREE: dict[str, Any] = {"weight_decay": 0.0}


def null_space(landscape: Landscape, theta: Tensor) -> int:
    """Directions that change no training output, to first order: symmetries, if there are enough samples."""
    assert landscape.outputs is not None
    values = np.linalg.svd(jacfwd(landscape.outputs)(theta).numpy(), compute_uv=False)
    return landscape.dim - int((values > 1e-9 * values[0]).sum())


def slopes(landscape: Landscape, points: Tensor) -> list[float]:
    """|g·v|/(‖g‖‖v‖) of each declared field, at its worst."""
    gradient = landscape.gradient(points)
    tangents = [vmap(field)(points) for field in landscape.symmetries]
    pairs = [((gradient * v).sum(1).abs(), gradient.norm(dim=1) * v.norm(dim=1)) for v in tangents]
    return [float((product / scale).max()) for product, scale in pairs]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("model", [model for model in SHAPES if model not in ("resnet", "deep_linear")])
def test_loss_does_not_change_along_declared_symmetries(model: str, activation: str, weight_decay: float) -> None:
    for loss in losses(model):
        landscape = built(model, data(SHAPES[model], 20), activation, loss=loss, weight_decay=weight_decay)
        assert max(slopes(landscape, thetas(landscape, 3)), default=0.0) < 1e-13
        if weight_decay > 0:
            assert landscape.symmetries == ()
        elif activation == "relu" or loss == "cross_entropy":
            assert (len(landscape.symmetries) > 0) == (model != "tied autoencoder" or activation == "relu")


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("model", ["autoencoder", "tied autoencoder", "autoencoder without bias", "deep_linear"])
def test_groups_of_linear_nets(model: str, weight_decay: float) -> None:
    landscape = built(model, data(SHAPES[model], 20), "linear", weight_decay=weight_decay)
    assert max(slopes(landscape, thetas(landscape, 3))) < 1e-13
    full, rotations = {"autoencoder": (16 + 4 + 16 + 10, 6 + 1 + 6), "tied autoencoder": (16 + 1 + 10, 6 + 1),
                       "autoencoder without bias": (9, 3), "deep_linear": (16 + 9, 6 + 3)}[model]  # fmt: skip
    assert len(landscape.symmetries) == (rotations if weight_decay else full)


@pytest.mark.parametrize(
    ("model", "activation"),
    [("mlp", "relu"), ("rnn", "tanh"), ("rnn", "relu"), ("autoencoder without bias", "linear"), ("deep_linear", "")],
)
def test_declared_symmetries_are_accepted(model: str, activation: str) -> None:
    landscape = built(model, activation=activation, **FREE)
    assert symmetry.checked(landscape) == landscape.symmetries


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        *((model, "tanh") for model in ("mlp", "mlp without bias", "strided cnn", "rnn", "rnn of numbers")),
        *((model, "tanh") for model in ("autoencoder", "tied autoencoder")),
        ("autoencoder without bias", "linear"),
        ("strided cnn", "relu"),
        ("rnn", "relu"),
        ("autoencoder without bias", "relu"),
    ],
)
def test_symmetries_are_all_there_are(model: str, activation: str) -> None:
    for loss in losses(model):
        landscape = built(model, data(SHAPES[model], 60), activation, loss=loss, **FREE)
        theta = thetas(landscape, 1)
        _, rank = symmetry.basis(landscape.symmetries, theta)
        assert null_space(landscape, theta[0]) == int(rank[0])


@pytest.mark.parametrize(("activation", "fields"), [("tanh", 5 + 1 + 3), ("relu", 5 + 1 + 3 + 3 + 1)])
def test_symmetries_of_a_residual_net(activation: str, fields: int) -> None:
    """Softmax shift (5: four channels and the bias), the constant below the top, a multiplier of each of the three
    blocks; with relu a scale within each block, and that of the stream."""
    landscape = resnet(data((5, 5), 25), width=1, activation=activation, **FREE)
    points = thetas(landscape, 3)
    assert len(landscape.symmetries) == fields
    assert max(slopes(landscape, points)) < 1e-13
    _, rank = symmetry.basis(landscape.symmetries, points)
    assert rank.tolist() == [fields] * 3


def test_symmetries_of_a_residual_net_are_all_there_are() -> None:
    landscape = resnet(data((5, 5), 115), width=1, activation="tanh", loss="mse", **FREE)
    assert len(landscape.symmetries) == 1 + 3
    assert null_space(landscape, thetas(landscape, 1, 0.4)[0]) == len(landscape.symmetries)


def test_entries_of_kernels_that_only_meet_zeros() -> None:
    dataset = data((2, 6, 6), 20)
    for inputs in (dataset.train_inputs, dataset.test_inputs):
        inputs[:, 0, :, 1:] = 0  # of channel 0 only the first column is left
    landscape = cnn(dataset, channels=[3], padding="valid", pool=1, loss="mse", **FREE)
    dead = 3 * 3 * 2  # channels · rows of the kernel · its last two columns, which never reach the first pixel
    assert len(landscape.symmetries) == dead
    assert symmetry.checked(landscape) == landscape.symmetries
    assert len(cnn(dataset, channels=[3], pool=1, loss="mse", **FREE).symmetries) == 3 * 3  # zeros around: one column


@pytest.mark.parametrize(("hidden", "further"), [([3, 3], 0), ([2], 0), ([4, 3], 1)])
def test_symmetries_of_a_deep_linear_net(hidden: list[int], further: int) -> None:
    """Its outputs have as many degrees of freedom as matrices of its rank; where a layer is wider than the narrowest, W
    may change in ways that no affine field describes."""
    landscape = deep_linear(data((5,), 60), hidden=hidden, **FREE)
    theta, rank = thetas(landscape, 1), min(*hidden, CLASSES)
    assert null_space(landscape, theta[0]) == landscape.dim - rank * (5 + CLASSES - rank)
    assert int(symmetry.basis(landscape.symmetries, theta)[1][0]) == null_space(landscape, theta[0]) - further


# --- linear nets -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("hidden", [[4], [1], [3, 2], [2, 4, 4]])
def test_global_minimum_of_a_linear_net(hidden: list[int]) -> None:
    """Reduced-rank regression: the least-squares fit, then its best approximation of the rank that the net has."""
    dataset = data((5,), 30)
    landscape = deep_linear(dataset, hidden=hidden, **FREE)
    x, t = dataset.train_inputs.numpy(), np.eye(CLASSES)[dataset.train_labels.numpy()]
    weights = np.linalg.lstsq(x, t, rcond=None)[0]
    _, values, right = np.linalg.svd(x @ weights, full_matrices=False)
    rank = min(*hidden, CLASSES)
    fitted = x @ weights @ right[:rank].T @ right[:rank]
    assert landscape.global_minimum == pytest.approx(float(((fitted - t) ** 2).mean()), rel=1e-12)
    assert values[0] > 0
    assert float(landscape.objective(thetas(landscape, 20)).min()) > landscape.global_minimum


def test_lipschitz_constant_of_a_linear_net_bounds_its_hessians() -> None:
    landscape = deep_linear(data((4,), 10), hidden=[3, 2], weight_decay=0.1)
    assert callable(landscape.hessian_lipschitz)
    centre, away = thetas(landscape, 1)[0], thetas(landscape, 40, 1.0, seed=3)
    points = centre + 0.3 * away / away.norm(dim=1, keepdim=True)
    difference = torch.linalg.matrix_norm(landscape.hessian(points) - landscape.hessian(centre.unsqueeze(0)), 2)
    bound = float(landscape.hessian_lipschitz(centre, torch.tensor(0.3, dtype=torch.float64)))
    assert 0.02 * bound < float(difference.max()) / 0.3 <= bound


def test_learning_curves_of_a_two_layer_linear_net() -> None:
    """a(t) = s·e^{2st/τ}/(e^{2st/τ} − 1 + s/a₀) of each singular mode (Saxe, McClelland & Ganguli 2014, equation 8),
    from a balanced aligned start, with whitened inputs: here 1/τ = 2·lr/classes a step."""
    samples, inputs = 30, 4
    generator = torch.Generator().manual_seed(0)
    whitened = torch.linalg.qr(torch.randn(samples, inputs, generator=generator, dtype=torch.float64))[0] * samples**0.5
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    landscape = deep_linear(Dataset(whitened, labels, whitened, labels, CLASSES), hidden=[CLASSES], **FREE)
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).to(torch.float64)
    left, strengths, right = torch.linalg.svd(one_hot.mT @ whitened / samples, full_matrices=False)
    start, rate = 0.05 * strengths, 1e-3 / float(strengths[0])  # rate = 1/τ, so lr·s ≤ 1e-3
    root = torch.diag(start.sqrt())
    theta = torch.cat([(root @ right).reshape(-1), (left @ root).reshape(-1)])
    gradient, worst = grad(landscape.loss), 0.0
    for step in range(3001):
        if step % 100 == 0:
            first, second = (
                theta[: CLASSES * inputs].view(CLASSES, -1),
                theta[CLASSES * inputs :].view(CLASSES, -1),
            )
            modes = left.mT @ second @ first @ right.mT
            growth = torch.exp(2 * strengths * step * rate)
            exact = torch.diag(strengths * growth / (growth - 1 + strengths / start))
            worst = max(worst, float((modes - exact).abs().max()))
        theta = theta - rate * CLASSES / 2 * gradient(theta)
    assert worst < 1e-3
    assert math.isclose(float(modes[0, 0]), float(strengths[0]), rel_tol=0.06)
