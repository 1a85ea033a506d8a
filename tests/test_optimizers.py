"""Optimisers against torch.optim: same start, same minibatches, float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
from landsweep.workers.training import Streams, hyperparameters, initial_parameters, minibatches, snapshot_steps, train

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
STEPS, SAMPLES, SEEDS = 100, 23, [3, 4]
Build = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

CASES: dict[str, tuple[dict[str, Any], Build]] = {
    "sgd": ({"optimizer": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "nesterov": (
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
    ),
    "gd": ({"optimizer": "gd", "lr": 0.3, "batch_size": "full"}, lambda p: torch.optim.SGD(p, lr=0.3)),
    "adam": (
        {"optimizer": "adam", "lr": 0.01, "betas": (0.85, 0.99), "epsilon": 1e-7},
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.85, 0.99), eps=1e-7),
    ),
    "rmsprop": (
        {"optimizer": "rmsprop", "lr": 0.003, "alpha": 0.95, "epsilon": 1e-6},
        lambda p: torch.optim.RMSprop(p, lr=0.003, alpha=0.95, eps=1e-6),
    ),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def landscape() -> tuple[Landscape, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (SAMPLES,), generator=generator)
    return Landscape.from_module(net, (x, y), (x, y), weight_decay=0.01), x, y


def full_settings(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"batch_size": 5, "steps": STEPS, "dtype": "float64", **settings, **changes}


def by_torch(build: Build, start: Tensor, batches: Iterator[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The same training with torch.optim and torch.nn, one trial."""
    module = net().to(torch.float64)
    nn.utils.vector_to_parameters(start.clone(), module.parameters())
    optimizer = build(module.parameters())
    for index in batches:
        optimizer.zero_grad()
        square = sum((p**2).sum() for p in module.parameters())
        (functional.cross_entropy(module(x[index]), y[index]) + 0.005 * square).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch_optim(name: str) -> None:
    settings, build = CASES[name]
    settings = full_settings(settings)
    land, x, y = landscape()
    start = initial_parameters(land, "key", SEEDS, CPU)
    keys = Streams.of("key", SEEDS, CPU)
    h = hyperparameters(settings, len(SEEDS), CPU)
    ours = train(land, settings, start, keys, h)
    for row in range(len(SEEDS)):
        if settings["batch_size"] == "full":
            batches = iter([torch.arange(SAMPLES)] * STEPS)
        else:
            batches = (index[row] for index in minibatches(keys.order, SAMPLES, 5, STEPS))
        theirs = by_torch(build, start[row], batches, x, y)
        assert float((theirs - start[row]).norm()) > 0.1, "training has to go somewhere for this test to tell"
        torch.testing.assert_close(ours.final[row], theirs, rtol=1e-10, atol=1e-10)
    assert torch.equal(ours.snapshots[0], start)
    assert torch.equal(ours.snapshots[-1], ours.final)
    assert ours.steps == snapshot_steps(STEPS)


def test_every_epoch_sees_every_sample_once_with_a_ragged_end() -> None:
    batches = list(minibatches(Streams.of("key", SEEDS, CPU).order, SAMPLES, 5, 10))
    assert [batch.shape for batch in batches] == [(2, 5), (2, 5), (2, 5), (2, 5), (2, 3)] * 2
    for epoch in (batches[:5], batches[5:]):
        assert torch.equal(torch.cat(epoch, 1).sort(dim=1).values, torch.arange(SAMPLES).expand(2, SAMPLES))
    assert not torch.equal(batches[0], batches[5])
    assert not torch.equal(batches[0][0], batches[0][1])


@pytest.mark.parametrize("name", ["nesterov", "adam", "rmsprop"])
def test_each_trial_has_its_own_hyperparameters(name: str) -> None:
    settings = full_settings(CASES[name][0], steps=20)
    land, _, _ = landscape()
    start = initial_parameters(land, "key", SEEDS, CPU)
    keys = Streams.of("key", SEEDS, CPU)
    values = build.hyperparameters(settings)
    changed = {key: 0.7 * value for key, value in values.items()}
    pairs = {key: torch.tensor([value, changed[key]], dtype=torch.float64) for key, value in values.items()}
    mixed = train(land, settings, start, keys, pairs)
    for row, one in enumerate((values, changed)):
        alone = train(land, settings, start, keys, build.per_trial(one, 2, torch.float64, CPU))
        assert torch.equal(mixed.final[row], alone.final[row])
        assert not torch.equal(mixed.final[1 - row], alone.final[1 - row])


def test_sgd_on_a_quadratic_in_closed_form() -> None:
    bowl = Landscape.from_function(lambda t: 0.5 * (t**2).sum(), 3, lambda g: torch.randn(3, generator=g))
    start = initial_parameters(bowl, "key", SEEDS, CPU)
    settings = full_settings({"optimizer": "gd", "lr": 0.1}, steps=30, batch_size="full")
    h = hyperparameters(settings, 2, CPU)
    torch.testing.assert_close(train(bowl, settings, start, Streams.of("key", SEEDS, CPU), h).final, 0.9**30 * start)
