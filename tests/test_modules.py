"""Modules of a user's own: what cannot be searched is refused when the landscape is built, which the plan does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from landsweep import Landscape
from landsweep.workers.errors import LandscapeError

pytestmark = pytest.mark.usefixtures("one_thread")
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(24, 4, generator=GENERATOR, dtype=torch.float64), torch.arange(24) % 3


def landscape(make: Callable[[], nn.Module], weight_decay: float = 1e-3, x: Tensor = X) -> Landscape:
    return Landscape.from_module(make, (x[:16], Y[:16]), (x[16:], Y[16:]), weight_decay=weight_decay)


def between(*layers: nn.Module) -> Callable[[], nn.Module]:
    """A net with ``layers`` between a first linear one and its activation."""
    return lambda: nn.Sequential(nn.Linear(4, 6), *layers, nn.Tanh(), nn.Linear(6, 3))


class Cosine(nn.Module):
    """Logits 5·cos of the angle between features and each class's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classes = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.features(x))
        return 5 * functional.normalize(z, dim=-1) @ functional.normalize(self.classes, dim=-1).mT


class WeightNormed(nn.Module):
    """Salimans & Kingma 2016: w = s·v/‖v‖."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.s = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.ones(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.s * self.v / self.v.norm(dim=1, keepdim=True)).mT


class OneRow(nn.Module):
    """A tensor of which one row alone is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.cat([self.w[:1] / self.w[:1].norm(), self.w[1:]]).mT


def images(norm: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 3, padding=1), norm, nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    )


NORMALISED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "layer norm": (between(nn.LayerNorm(6)), r"'0' \(weight, bias\)"),
    "layer norm without gain": (between(nn.LayerNorm(6, elementwise_affine=False)), r"'0' \(weight, bias\)"),
    "layer norm, no bias before it": (
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)), "'0.weight'"),
    "relu between": (
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 3)), "'0.weight'"),
    "group norm": (images(nn.GroupNorm(2, 4)), r"'1' \(weight, bias\)"),
    "instance norm": (images(nn.InstanceNorm2d(4)), "'1.weight'"),
    "rms norm": (between(nn.RMSNorm(6)), r"'0' \(weight, bias\)"),
    "weight norm": (lambda: WeightNormed(), "'v'"),
    "cosine classes": (Cosine, "'classes'"),
    "one row": (OneRow, "row 0 of 'w'"),
}  # fmt: skip
FREE: dict[str, Callable[[], nn.Module]] = {
    "none": between(),
    "relu": lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
    "linear": lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)),
    "softplus": lambda: nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 3), nn.Sigmoid()),
    "norm of the inputs": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)),
    "norm after tanh": lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)),
    "dropout that drops nothing": between(nn.Dropout(0.0)),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_decay_of_normalised_weights_is_refused_by_their_name(name: str) -> None:
    make, tensor = NORMALISED[name]
    with pytest.raises(LandscapeError, match=rf"module: .*{tensor}.* is normalised: .*set weight_decay to 0"):
        landscape(make)
    assert landscape(make, weight_decay=0.0).dim > 0


@pytest.mark.parametrize("name", FREE)
def test_decay_of_other_weights_is_not(name: str) -> None:
    assert landscape(FREE[name]).dim > 0


def test_what_is_refused_has_no_stationary_point() -> None:
    """w·∇(data loss) = 0 at every size that leaves ε without effect, so w·∇L = λ‖w‖²."""
    make, _ = NORMALISED["layer norm, no bias before it"]
    found = landscape(make, weight_decay=0.0)
    theta = 100 * found.init(torch.Generator().manual_seed(3)).unsqueeze(0)
    gradient = found.gradient(theta)[0, :24]
    assert abs(float(gradient @ theta[0, :24])) < 1e-7 * float(gradient.norm() * theta[0, :24].norm())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            between(nn.BatchNorm1d(6)),
            r"'1' is a BatchNorm1d: it keeps running statistics, which torch.func cannot vmap",
        ),
        (between(nn.Dropout(0.5)), r"'1' is a Dropout with p = 0.5"),
        (between(parametrizations.weight_norm(nn.Linear(6, 6))), r"products with the Hessian .*NotImplementedError"),
        (between(parametrizations.spectral_norm(nn.Linear(6, 6))), r"torch.func cannot vmap its gradients"),
    ],
)
def test_layers_that_torch_func_cannot_batch_are_refused(make: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(LandscapeError, match=reason):
        landscape(make, weight_decay=0.0)


def test_batch_norm_with_fixed_statistics_is_a_layer_like_others() -> None:
    assert landscape(lambda: between(nn.BatchNorm1d(6))().eval()).dim == 63


class OverTheBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return torch.tanh(z - z.mean(0))


def test_outputs_that_depend_on_other_samples_are_refused() -> None:
    with pytest.raises(LandscapeError, match=r"depends on the other samples.*within a sample"):
        landscape(OverTheBatch, weight_decay=0.0)


def test_functions_that_torch_func_cannot_transform_are_refused() -> None:
    def branching(theta: Tensor) -> Tensor:
        return theta.square().sum() if float(theta[0]) > 0 else theta.sum()

    with pytest.raises(LandscapeError, match=r"loss: torch.func cannot vmap its gradients: .*out of place"):
        Landscape.from_function(branching, 2, lambda g: torch.randn(2, generator=g))
