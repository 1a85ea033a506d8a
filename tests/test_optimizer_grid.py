"""Every optimiser on the models in both dtypes: a trial is its own; what cannot work is refused at plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import grad

from landsweep.cluster import plan, spec
from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers.errors import SweepFileError
from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
from landsweep.workers.reference.spin_glass import spherical_spin
from landsweep.workers.training import DTYPES, Streams, hyperparameters, initial_parameters, train
from tests import models
from tests.trained import CPU, path, section

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = [3, 5, 8]
#: settings under which every rule does in a few steps what is particular to it
PARTICULAR: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "schedule": {"name": "cosine", "warmup": 2}},
    "perturbed_gd": {"gradient_threshold": 10.0, "radius": 0.1, "interval": 2},
    "langevin": {"temperature": 1e-2},
    "annealing": {"temperature": 1e-2, "final_temperature": 1e-3, "lr": 0.3},
    "lbfgs": {"history": 2, "lr": 0.2},
    "saddle_free_newton": {"krylov_dimension": 5},
}
FULL = {"gd", "perturbed_gd", "annealing", "lbfgs", "saddle_free_newton"}


def chosen(optimizer: str, dtype: str, **options: Any) -> dict[str, Any]:
    batch: dict[str, Any] = {} if optimizer in FULL else {"batch_size": 3}
    return section(optimizer, **{"steps": 5, "dtype": dtype, **batch, **PARTICULAR.get(optimizer, {}), **options})


def test_the_settings_and_the_rules_are_the_same() -> None:
    assert set(build.RULES) == set(OPTIMIZERS)


def final(landscape: Landscape, settings: dict[str, Any], seeds: list[int]) -> torch.Tensor:
    start = initial_parameters(landscape, "key", seeds, CPU)
    h = hyperparameters(settings, landscape.weight_decay, len(seeds), CPU)
    ended = train(landscape, settings, start, Streams.of("key", seeds, CPU), h).final
    assert bool((ended - start).norm(dim=1).gt(1e-4).all()), "training has to go somewhere for this test to tell"
    return ended


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_is_the_same_alone_and_in_company(optimizer: str, dtype: str) -> None:
    costly = optimizer == "saddle_free_newton"
    for model in ("mlp",) if costly else ("mlp", "cnn", "rnn", "autoencoder", "deep_linear"):
        landscape, settings = models.built(model, loss=models.losses(model)[0]), chosen(optimizer, dtype)
        together = final(landscape, settings, SEEDS)
        for row, seed in enumerate(SEEDS):
            assert torch.equal(final(landscape, settings, [seed])[0], together[row]), (model, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", models.SHAPES)
def test_the_batched_gradient_is_that_of_each_seed(model: str, dtype: str) -> None:
    """gd's first step gives it: (θ₀ − θ₁)/lr."""
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    for loss in models.losses(model):
        landscape = models.built(model, loss=loss, weight_decay=0.01)
        start = models.thetas(landscape, 3).to(DTYPES[dtype]).double()
        settings = section("gd", dtype=dtype, lr=1.0, steps=1)
        h = hyperparameters(settings, 0.01, 3, CPU)
        moved = train(landscape, settings, start, Streams.of("key", SEEDS, CPU), h)
        for row in range(3):
            alone = grad(landscape.loss)(start[row])
            batched = start[row] - moved.final[row]
            scale = 1 + float(start.abs().max()) + float(alone.abs().max())
            assert float((batched - alone).abs().max()) <= tolerance * scale, (loss, row)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_on_a_sphere_every_step_ends_on_it(optimizer: str) -> None:
    landscape, settings = spherical_spin(p=2, n=6), chosen(optimizer, "float64", batch_size="full", steps=40)
    start = initial_parameters(landscape, "key", SEEDS, CPU)
    along = path(landscape, settings, start)
    torch.testing.assert_close(along.norm(dim=2), torch.ones(41, 3, dtype=torch.float64), rtol=1e-12, atol=0)
    assert bool((landscape.objective(along[-1]) < landscape.objective(start)).all())


def swept(**training: Any) -> dict[str, Any]:
    landscape = training.pop("landscape", {"name": "mlp"})
    return {"name": "grid", "seeds": 2, "landscape": landscape, "training": training}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_combination_that_works_is_planned(optimizer: str, dtype: str) -> None:
    axes = {
        "training.schedule.name": ["constant", "cosine"],
        "training.start.kind": ["initialisation", "random_labels"],
    }
    for name in ("mlp", "cnn", "deep_linear"):
        sweep = spec.validate({**swept(optimizer=optimizer, dtype=dtype, landscape={"name": name}), "grid": axes}, "f")
        cells = plan.expand(sweep)
        assert len({cell.id for cell in cells}) == 4
        for cell in cells:
            settings = cell.settings["training"]
            assert set(build.hyperparameters(settings)) == set(build.optimizer(settings).names)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} with mini-batches": ({"optimizer": name, "batch_size": 32}, "training.batch_size: found 32.*'full'")
        for name in sorted(FULL)
    },
    "nesterov without momentum": ({"optimizer": "sgd", "nesterov": True}, "training.nesterov: .*momentum > 0"),
    "momentum for lbfgs": ({"optimizer": "lbfgs", "momentum": 0.9}, r"lbfgs has no such setting \(sgd has\)"),
    "heating": (
        {"optimizer": "annealing", "temperature": 1e-3, "final_temperature": 1e-2},
        "training.final_temperature: found 0.01; allowed: at most training.temperature",
    ),
    "no temperature": ({"optimizer": "langevin", "temperature": 0.0}, "training.temperature: .*more than 0"),
    "no memory": ({"optimizer": "lbfgs", "history": 0}, "training.history: .*at least 1"),
    "no space": ({"optimizer": "saddle_free_newton", "krylov_dimension": 0}, "krylov_dimension: .*at least 1"),
    "warm-up beyond the end": (
        {"optimizer": "adam", "steps": 10, "schedule": {"warmup": 11}},
        r"training.schedule.warmup: found 11; allowed: at most training.steps \(10\)",
    ),
    "final of a constant": ({"schedule": {"name": "constant", "final": 0.1}}, "training.schedule.final: .*cosine"),
    "unknown schedule": ({"schedule": {"name": "cosin"}}, "training.schedule.name: .*did you mean cosine"),
    "unknown start": ({"start": {"kind": "random_label"}}, "training.start.kind: .*did you mean random_labels"),
    "key of another start": ({"start": {"kind": "random_labels", "path": "x"}}, "training.start.path: unknown key"),
    "start of no point": (
        {"start": {"kind": "sweep", "path": "x", "take": "best"}},
        "training.start.take: found 'best'.*trained, polished or initial",
    ),
    "labels that are not used": (
        {"landscape": {"name": "autoencoder"}, "start": {"kind": "random_labels"}},
        "training.start.kind: found random_labels with autoencoder",
    ),
    "labels of a landscape without": (
        {"landscape": {"name": "some.module:build"}, "start": {"kind": "random_labels"}},
        "training.start.kind: found random_labels with some.module:build",
    ),
    "random labels twice": (
        {"landscape": {"name": "mlp", "random_labels": True}, "start": {"kind": "random_labels"}},
        "training.start.kind: .*one of the two",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(name: str) -> None:
    training, message = REFUSED[name]
    with pytest.raises(SweepFileError, match=message):
        spec.validate(swept(**training), "sweep.yaml")
