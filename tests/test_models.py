"""The built-in models against torch's own modules: outputs, gradients, Hessians, kinks, initialisations, last bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, hessian, vmap
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.models.columns import ColumnHessian
from landsweep.workers.models.convolution import convolve, mean_pool
from landsweep.workers.models.initialisation import INITIALISATIONS, Block, drawn
from landsweep.workers.models.network import Network
from landsweep.workers.models.resnet import Resnet
from tests.models import CLASSES, SHAPES, built, data, load, losses, module, thetas

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHT_DECAY = 0.1
CASES = [(model, loss) for model in SHAPES for loss in losses(model)]


def loss_of(network: nn.Module, inputs: Tensor, labels: Tensor, loss: str, model: str) -> Tensor:
    outputs = network(inputs)
    if "autoencoder" in model:
        return functional.mse_loss(outputs, inputs.flatten(1))
    if loss == "mse":
        return functional.mse_loss(outputs, functional.one_hot(labels, CLASSES).to(outputs.dtype))
    return functional.cross_entropy(outputs, labels)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("model", "loss"), CASES)
def test_batched_loss_and_gradient_equal_a_torch_module(
    model: str, loss: str, activation: str, dtype: torch.dtype, tolerance: float
) -> None:
    dataset = data(SHAPES[model])
    landscape = built(model, dataset, activation, loss=loss, weight_decay=WEIGHT_DECAY)
    points = thetas(landscape, 3)
    assert landscape.minibatch_loss is not None
    index = torch.tensor([[0, 1, 2, 3], [6, 5, 4, 3], [1, 1, 2, 5]])
    measured = vmap(grad(landscape.loss))(points.to(dtype))
    partial = landscape.minibatch_gradient(points.to(dtype), index) + WEIGHT_DECAY * points.to(dtype)  # as in training
    assert landscape.test_loss is not None
    test_losses = landscape.map(landscape.test_loss, points)
    network = module(model, activation).to(torch.float64)
    for row, theta in enumerate(points):
        ordered = load(network, theta)
        expected = []
        for rows in (slice(None), index[row]):
            value = loss_of(network, dataset.train_inputs[rows], dataset.train_labels[rows], loss, model)
            pieces = torch.autograd.grad(value, ordered)
            expected.append(torch.cat([piece.reshape(-1) for piece in pieces]) + WEIGHT_DECAY * theta)
        for ours, exact in zip((measured[row], partial[row]), expected, strict=True):
            assert float((ours.to(torch.float64) - exact).norm() / exact.norm()) < tolerance
        with torch.no_grad():
            exact = loss_of(network, dataset.test_inputs, dataset.test_labels, loss, model)
        torch.testing.assert_close(test_losses[row], exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_hessian_and_products_equal_torch_func(model: str, loss: str) -> None:
    landscape = built(model, activation="silu", loss=loss, weight_decay=WEIGHT_DECAY)
    if "resnet" in model:
        landscape = built(model, data(SHAPES[model], 2), "silu", loss=loss, weight_decay=WEIGHT_DECAY)
    points = thetas(landscape, 2)
    exact = torch.stack([hessian(landscape.loss)(theta) for theta in points])
    vectors = thetas(landscape, 2, seed=2).unsqueeze(2)
    scale = exact.norm(dim=(1, 2))
    assert float(((landscape.hessian(points) - exact).norm(dim=(1, 2)) / scale).max()) < 1e-13
    torch.testing.assert_close(landscape.hvp(points, vectors), exact @ vectors, rtol=1e-11, atol=1e-12)


def test_products_equal_finite_differences() -> None:
    landscape = built("cnn", activation="softplus")
    point, vector, step = thetas(landscape, 1), thetas(landscape, 1, seed=2), 1e-5
    ahead, behind = landscape.gradient(torch.cat([point + step * vector, point - step * vector]))
    torch.testing.assert_close(
        landscape.hvp(point, vector.unsqueeze(2))[0, :, 0], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("columns", [1, 7, 10_000])
def test_columns_of_a_hessian_may_be_few(columns: int) -> None:
    landscape = built("rnn")
    points = thetas(landscape, 2)
    exact = vmap(hessian(landscape.loss))(points)
    torch.testing.assert_close(ColumnHessian(landscape.hvp, columns)(points), exact, rtol=1e-11, atol=1e-13)


def peak_bytes(evaluate: Callable[[], object]) -> int:
    """The most that live tensors took beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        evaluate()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max())


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("model", ["cnn", "strided cnn", "rnn", "rnn of numbers", "autoencoder", "tied autoencoder"])
def test_a_hessian_takes_no_more_memory_than_it_says(model: str, activation: str) -> None:
    landscape = built(model, data(SHAPES[model], 100), activation)
    points = thetas(landscape, 2)
    landscape.hessian(points)
    measured = peak_bytes(lambda: landscape.hessian(points))
    assert 0.2 < measured / (2 * landscape.hessian_bytes) < 1


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("model", SHAPES)
def test_a_row_does_not_depend_on_its_batch_mates(model: str, activation: str) -> None:
    landscape = built(model, data(SHAPES[model], 5), activation)
    points, vectors = thetas(landscape, 7), thetas(landscape, 7, seed=2).unsqueeze(2)
    assert landscape.minibatch_loss is not None
    minibatch = vmap(grad(landscape.minibatch_loss))
    index = torch.arange(7 * 3).view(7, 3) % 5

    def evaluated(rows: Tensor) -> list[Tensor]:
        at = points[rows]
        results = [landscape.objective(at), *landscape.value_and_gradient(at), landscape.hvp(at, vectors[rows])]
        if len(rows) > 1:
            results.append(minibatch(at.to(torch.float32), index[rows]))
        return results

    together = evaluated(torch.arange(7))
    for rows in (torch.tensor(chosen) for chosen in ([4], [5, 2], [6, 0, 3, 1, 5])):
        for ours, all_rows in zip(evaluated(rows), together, strict=False):
            assert torch.equal(ours, all_rows[rows]), rows


@pytest.mark.parametrize("model", ["cnn", "rnn", "deep_linear", "mlp without bias"])
def test_a_hessian_does_not_depend_on_its_batch_mates(model: str) -> None:
    landscape = built(model)
    points = thetas(landscape, 5)
    together = landscape.hessian(points)
    for rows in ([3], [4, 1]):
        assert torch.equal(landscape.hessian(points[rows]), together[rows])


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (2, 1, 0), (5, 2, 2), (1, 1, 0), (3, 3, 1)])
def test_convolution_and_pooling_equal_torch(kernel: int, stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 9, 7, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 2, kernel, kernel, generator=generator, dtype=torch.float64)
    planes = images.movedim(-1, 1)
    expected = functional.conv2d(planes, weight, stride=stride, padding=padding)
    torch.testing.assert_close(convolve(images, weight, stride, padding).movedim(-1, 1), expected)
    for size in (1, 2, 3):
        torch.testing.assert_close(mean_pool(images, size).movedim(-1, 1), functional.avg_pool2d(planes, size))


def test_autoencoder_gives_back_its_test_inputs() -> None:
    dataset = data((6,))
    landscape = built("autoencoder without bias", dataset, "linear", weight_decay=0.0)
    projection = torch.eye(6, dtype=torch.float64)[:3]  # W₂W₁ keeps the first three inputs
    theta = torch.cat([projection.reshape(-1), projection.mT.reshape(-1)])
    assert landscape.test_loss is not None
    expected = (dataset.test_inputs[:, 3:] ** 2).mean() / 2
    torch.testing.assert_close(landscape.test_loss(theta), expected)
    assert landscape.test_error is None


# --- kinks -----------------------------------------------------------------------------------------------------
def test_kink_distance_by_hand() -> None:
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    dataset = data((1,), 1)
    dataset = type(dataset)(x, torch.tensor([0, 1]), x, torch.tensor([0, 1]), 2)
    landscape = mlp(dataset, hidden=[2], activation="relu")
    theta = torch.tensor([0.5, -1.0, 0.75, 1.25, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    assert landscape.kink_distance is not None  # pre-activations 1.25, −0.25; 0.25, 3.25
    assert float(landscape.kink_distance(theta)) == 0.25


@pytest.mark.parametrize("model", [model for model in SHAPES if model != "deep_linear"])
def test_kink_distance_is_that_of_the_modules_relus(model: str) -> None:
    dataset = data(SHAPES[model])
    landscape, network = built(model, dataset, "relu"), module(model, "relu").to(torch.float64)
    theta = thetas(landscape, 1)
    seen: list[float] = []
    for part in network.modules():
        if isinstance(part, nn.ReLU):
            part.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].abs().min())))
    load(network, theta[0])
    with torch.no_grad():
        network(dataset.train_inputs)
    if "rnn" in model:
        seen = _recurrent_preactivations(network, dataset.train_inputs)
    assert landscape.kink_distance is not None
    assert float(landscape.map(landscape.kink_distance, theta)[0]) == pytest.approx(min(seen), rel=1e-9)


def _recurrent_preactivations(network: nn.Module, inputs: Tensor) -> list[float]:
    w, u, b, *_ = (tensor.detach().numpy() for tensor in network.ordered())  # type: ignore[operator]
    x, state, seen = inputs.reshape(*inputs.shape[:2], -1).numpy(), np.zeros((len(inputs), len(b))), []
    for t in range(x.shape[1]):
        before = x[:, t] @ w.T + state @ u.T + b
        seen.append(float(np.abs(before).min()))
        state = np.maximum(before, 0)
    return seen


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "silu", "gelu"])
def test_smooth_models_have_no_kinks(activation: str) -> None:
    assert built("cnn", activation=activation).kink_distance is None


# --- initialisations -------------------------------------------------------------------------------------------
def draws(scheme: str, shape: tuple[int, ...], scale: float = 0.5) -> Tensor:
    return drawn(Block("W", shape), torch.Generator().manual_seed(0), scheme, scale)


@pytest.mark.parametrize("shape", [(60, 100), (40, 10, 3, 3)])
@pytest.mark.parametrize(
    ("scheme", "variance"),
    [
        ("xavier_normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("xavier_uniform", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("he_normal", lambda fan_in, fan_out: 2 / fan_in),
        ("he_uniform", lambda fan_in, fan_out: 2 / fan_in),
        ("scaled", lambda fan_in, fan_out: 1.0),
        ("uniform_cube", lambda fan_in, fan_out: 1 / 3),
    ],
)
def test_weights_have_their_published_variance(scheme: str, variance: object, shape: tuple[int, ...]) -> None:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    weights = draws(scheme, shape)
    deviation = 0.5 * math.sqrt(variance(fan_in, fan_out))  # type: ignore[operator]
    assert float(weights.std()) == pytest.approx(deviation, rel=0.05)
    assert abs(float(weights.mean())) < 5 * deviation / math.sqrt(weights.numel())
    kurtosis = float((weights**4).mean() / (weights**2).mean() ** 2)
    assert kurtosis == pytest.approx(3.0 if scheme.endswith("normal") or scheme == "scaled" else 1.8, rel=0.15)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 2, 2, 2), (5, 5)])
def test_orthogonal_weights(shape: tuple[int, ...]) -> None:
    matrix = draws("orthogonal", shape, 2.0).view(shape[0], -1)
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    torch.testing.assert_close(gram, 4 * torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-13)


def test_orthogonal_weights_favour_no_sign() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([drawn(Block("W", (4, 3)), generator, "orthogonal", 1.0) for _ in range(400)])
    assert float(first.mean(0).abs().max()) < 5 * 0.5 / 20  # entries have mean 0 and variance 1/4


def test_biases_start_at_zero_except_in_the_cube() -> None:
    blocks = (Block("W", (3, 2)), Block("b", (3,), 0.0), Block("m", (1,), 1.0))
    for scheme in INITIALISATIONS:
        values = [drawn(block, torch.Generator().manual_seed(0), scheme, 0.5) for block in blocks]
        constant = scheme != "uniform_cube"
        assert torch.equal(values[1], torch.zeros(3, dtype=torch.float64)) == constant
        assert torch.equal(values[2], torch.ones(1, dtype=torch.float64)) == constant
        assert scheme != "uniform_cube" or float(torch.cat(values).abs().max()) <= 0.5


def test_fixup_scales_first_layers_of_branches_and_starts_at_the_shortcut() -> None:
    network: Network = Resnet(3, 10, 20, 8, "relu")
    weights = network.split(network.initialise(torch.Generator().manual_seed(0), "fixup", 1.0))
    branches = 9
    for name, below, _ in network.steps:  # type: ignore[attr-defined]
        spread = math.sqrt(2 / (9 * below)) / math.sqrt(branches)
        assert float(weights[f"{name}.K1"].std()) == pytest.approx(spread, rel=0.1)
        assert not weights[f"{name}.K2"].any()
        assert float(weights[f"{name}.m"]) == 1.0
    assert float(weights["K0"].std()) == pytest.approx(math.sqrt(2 / 27), rel=0.15)
    assert not weights["W"].any()


@pytest.mark.parametrize("depth", [8, 14])
def test_resnet_has_its_layers(depth: int) -> None:
    network = Resnet(3, 10, depth, 16, "silu")
    assert sum(block.constant is None for block in network.blocks) == depth
    per_block = [9 * above * (below + above) + 5 for _, below, above in network.steps]
    assert network.dim == 9 * 3 * 16 + 1 + sum(per_block) + 1 + 64 * 10 + 10


def test_trained_gradient_of_one_seed_is_that_of_the_batch() -> None:
    landscape: Landscape = built("resnet", activation="relu")
    starts = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(3)])
    alone = torch.stack([grad(landscape.loss)(start) for start in starts])
    torch.testing.assert_close(landscape.gradient(starts), alone, rtol=1e-12, atol=1e-14)
