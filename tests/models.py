"""Small landscapes of every built-in model, and the torch modules that they have to equal."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.models.autoencoder import autoencoder
from landsweep.workers.models.cnn import cnn
from landsweep.workers.models.deep_linear import deep_linear
from landsweep.workers.models.resnet import resnet
from landsweep.workers.models.rnn import rnn

CLASSES = 3
MODULES: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "silu": nn.SiLU, "relu": nn.ReLU, "linear": nn.Identity}
SHAPES = {
    "mlp": (5,),
    "mlp without bias": (5,),
    "cnn": (7, 6),
    "strided cnn": (2, 7, 8),
    "resnet": (2, 5, 6),
    "rnn": (4, 2),
    "rnn of numbers": (6,),
    "autoencoder": (2, 3),
    "tied autoencoder": (6,),
    "autoencoder without bias": (6,),
    "deep_linear": (5,),
}
_BUILD: dict[str, Callable[..., Landscape]] = {
    "mlp": lambda d, **o: mlp(d, hidden=[4, 3], **o),
    "mlp without bias": lambda d, **o: mlp(d, hidden=[4, 3], bias=False, **o),
    "cnn": lambda d, **o: cnn(d, channels=[2, 3], hidden=[3], **o),
    "strided cnn": lambda d, **o: cnn(d, channels=[3], kernel=2, stride=2, padding="valid", pool=1, **o),
    "resnet": lambda d, **o: resnet(d, depth=8, width=2, **o),
    "rnn": lambda d, **o: rnn(d, hidden=3, **o),
    "rnn of numbers": lambda d, **o: rnn(d, hidden=3, **o),
    "autoencoder": lambda d, **o: autoencoder(d, hidden=[4, 2], **o),
    "tied autoencoder": lambda d, **o: autoencoder(d, hidden=[4, 2], tied=True, **o),
    "autoencoder without bias": lambda d, **o: autoencoder(d, hidden=[3], bias=False, **o),
    "deep_linear": lambda d, **o: deep_linear(d, hidden=[4, 3], **o),
}


def data(shape: tuple[int, ...], samples: int = 7, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * samples, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (2 * samples,), generator=generator)
    return Dataset(x[:samples], y[:samples], x[samples:], y[samples:], CLASSES)


def losses(model: str) -> list[str]:
    return ["mse"] if "autoencoder" in model or model == "deep_linear" else ["cross_entropy", "mse"]


def built(model: str, dataset: Dataset | None = None, activation: str = "tanh", **options: Any) -> Landscape:
    """A small landscape; ``deep_linear`` has no activation."""
    chosen = {} if model == "deep_linear" else {"activation": activation}
    return _BUILD[model](dataset or data(SHAPES[model]), **chosen, **options)


def thetas(landscape: Landscape, rows: int, scale: float = 0.6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, landscape.dim, generator=generator, dtype=torch.float64)


class _ResidualBlock(nn.Module):
    """As ``FixupBasicBlock`` of the authors' code, its parameters in θ's order."""

    def __init__(self, below: int, above: int, activation: str) -> None:
        super().__init__()
        self.stride, self.more = (1, 0) if below == above else (2, above - below)
        self.a1, self.a2, self.a3, self.a4 = (nn.Parameter(torch.zeros(1)) for _ in range(4))
        self.m = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(below, above, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(above, above, 3, 1, 1, bias=False)
        self.inner, self.outer = MODULES[activation](), MODULES[activation]()

    def ordered(self) -> list[Tensor]:
        return [self.a1, self.conv1.weight, self.a2, self.a3, self.conv2.weight, self.m, self.a4]

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.inner(self.conv1(x + self.a1) + self.a2) + self.a3) * self.m + self.a4
        if self.stride == 2:
            x = functional.avg_pool2d(x + self.a1, 1, 2)
            x = torch.cat([x, x.new_zeros(len(x), self.more, *x.shape[2:])], 1)
        return self.outer(out + x)  # type: ignore[no-any-return]


class ResidualNet(nn.Module):
    def __init__(self, channels: int, width: int, activation: str) -> None:
        super().__init__()
        self.stem, self.phi = nn.Conv2d(channels, width, 3, 1, 1, bias=False), MODULES[activation]()
        self.c0, self.a = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        pairs = ((width, width), (width, 2 * width), (2 * width, 4 * width))
        self.stages = nn.ModuleList([_ResidualBlock(*pair, activation) for pair in pairs])
        self.top = nn.Linear(4 * width, CLASSES)

    def ordered(self) -> list[Tensor]:
        inner = [tensor for stage in self.stages for tensor in stage.ordered()]  # type: ignore[operator, union-attr]
        return [self.stem.weight, self.c0, *inner, self.a, self.top.weight, self.top.bias]

    def forward(self, x: Tensor) -> Tensor:
        x = self.phi(self.stem(x) + self.c0)
        for stage in self.stages:
            x = stage(x)
        return self.top(nn.AdaptiveAvgPool2d(1)(x).flatten(1) + self.a)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """torch's RNN, whose second bias stays 0."""

    def __init__(self, features: int, activation: str) -> None:
        super().__init__()
        self.rnn, self.top = nn.RNN(features, 3, nonlinearity=activation, batch_first=True), nn.Linear(3, CLASSES)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def ordered(self) -> list[Tensor]:
        rnn = self.rnn
        return [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, self.top.weight, self.top.bias]

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.rnn(x.reshape(*x.shape[:2], -1))[0][:, -1])  # type: ignore[no-any-return]


class Tied(nn.Module):
    def __init__(self, activation: str) -> None:
        super().__init__()
        self.first, self.second, self.phi = nn.Linear(6, 4), nn.Linear(4, 2), MODULES[activation]()
        self.b3, self.b4 = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(6))

    def ordered(self) -> list[Tensor]:
        return [*self.first.parameters(), *self.second.parameters(), self.b3, self.b4]

    def forward(self, x: Tensor) -> Tensor:
        code = self.phi(self.second(self.phi(self.first(x))))
        back = self.phi(functional.linear(code, self.second.weight.t(), self.b3))
        return functional.linear(back, self.first.weight.t(), self.b4)


def _layers(widths: list[int], activation: str, bias: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for below, above in pairwise(widths):
        layers += [nn.Linear(below, above, bias=bias), MODULES[activation]()]
    return layers[:-1]


def module(model: str, activation: str) -> nn.Module:
    """The torch module that ``built(model, activation=…)`` has to equal."""
    phi = MODULES[activation]
    made: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: nn.Sequential(*_layers([5, 4, 3, CLASSES], activation)),
        "mlp without bias": lambda: nn.Sequential(*_layers([5, 4, 3, CLASSES], activation, False)),
        "cnn": lambda: nn.Sequential(
            *(nn.Unflatten(1, (1, 7)), nn.Conv2d(1, 2, 3, padding=1), phi(), nn.AvgPool2d(2)),
            *(nn.Conv2d(2, 3, 3, padding=1), phi(), nn.AvgPool2d(2), nn.Flatten()),
            *_layers([3, 3, CLASSES], activation),
        ),
        "strided cnn": lambda: nn.Sequential(nn.Conv2d(2, 3, 2, 2), phi(), nn.Flatten(), nn.Linear(36, CLASSES)),
        "resnet": lambda: ResidualNet(2, 2, activation),
        "rnn": lambda: Recurrent(2, activation),
        "rnn of numbers": lambda: Recurrent(1, activation),
        "autoencoder": lambda: nn.Sequential(nn.Flatten(), *_layers([6, 4, 2, 4, 6], activation)),
        "tied autoencoder": lambda: Tied(activation),
        "autoencoder without bias": lambda: nn.Sequential(*_layers([6, 3, 6], activation, False)),
        "deep_linear": lambda: nn.Sequential(*_layers([5, 4, 3, CLASSES], "linear", False)),
    }
    return made[model]()


def load(module: nn.Module, theta: Tensor) -> list[Tensor]:
    """Write θ into the module's parameters; they, in θ's order."""
    ordered: list[Tensor] = module.ordered() if hasattr(module, "ordered") else list(module.parameters())  # type: ignore[operator]
    nn.utils.vector_to_parameters(theta, ordered)
    return ordered
