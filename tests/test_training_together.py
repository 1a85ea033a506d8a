"""Several configurations trained as one tensor program: each to the bits of a program of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers.batch import BatchTask, finish_batch, run_batch, train_batches
from landsweep.workers.builtin import SUPERVISED
from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
from landsweep.workers.optimizers.rule import Step
from landsweep.workers.training import Trained, hyperparameters
from landsweep.workers.training_starts import Start, Trials, program, together
from tests import models
from tests.digits import built
from tests.test_optimizer_grid import chosen
from tests.test_training import DIGITS, same_bits, settings

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
DECAYS = (0.0, 1e-3, 0.1)


def varied(optimizer: str, dtype: str) -> list[dict[str, Any]]:
    """Sections that differ in every hyperparameter of the rule."""
    first = chosen(optimizer, dtype)
    sections = [first]
    for factor in (0.9, 0.55):
        changed = {name: factor * value for name, value in build.hyperparameters(first).items() if name in first}
        changed |= {"betas": tuple(factor * beta for beta in first["betas"])} if "betas" in first else {}
        changed |= {"interval": 3} if "interval" in first else {}
        sections.append({**first, **changed})
    return sections


def same(one: Trained, other: Trained) -> None:
    for name in ("initial", "final", "diverged", "snapshots", "following"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.steps == other.steps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_configurations_that_share_a_program_train_as_alone(optimizer: str, dtype: str) -> None:
    sections = varied(optimizer, dtype)
    decays = (0.01,) * 3 if optimizer in build.LOOK_AT_L else DECAYS
    landscapes = {decay: models.built("mlp", loss="mse", weight_decay=decay) for decay in decays}
    several = [
        Trials(section, decay, f"key {decay} {section}", seeds)
        for section, decay, seeds in zip(sections, decays, ([2, 3], [3], [1, 2, 5]), strict=True)
    ]
    shared = together(landscapes[decays[0]], several, CPU)
    alone = [together(landscapes[one.weight_decay], [one], CPU)[0] for one in several]
    for ours, theirs in zip(shared, alone, strict=True):
        same(ours, theirs)
    rows = [ended.final[-1] - ended.initial[-1] for ended in alone]
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize("model", ["cnn", "resnet", "rnn", "autoencoder", "deep_linear"])
def test_every_model_shares_a_program(model: str) -> None:
    landscapes = [models.built(model, loss="mse", weight_decay=decay) for decay in DECAYS]
    section = chosen("sgd", "float32")
    several = [Trials(section, decay, f"{decay}", [4, 6]) for decay in DECAYS]
    for ours, landscape, one in zip(together(landscapes[2], several, CPU), landscapes, several, strict=True):
        same(ours, together(landscape, [one], CPU)[0])


def test_batches_of_a_shared_program_have_the_tables_of_their_own() -> None:
    """One of them diverges."""
    sections = [
        settings({**DIGITS, "weight_decay": decay}, lr=lr, momentum=momentum)
        for decay, lr, momentum in ((1e-3, 0.1, 0.9), (1e-2, 1e6, 0.5), (1e-4, 0.05, 0.0))
    ]
    seeds = ([4, 5], [5, 6, 7], [4])
    tasks = [
        BatchTask("sweep", "batch", "c0ffee", one, {}, tuple(chosen))
        for one, chosen in zip(sections, seeds, strict=True)
    ]
    landscapes = [built(section["landscape"]) for section in sections]
    shared = train_batches(tasks, landscapes[0], CPU, [Start()] * 3)
    for task, batch, landscape in zip(tasks, shared, landscapes, strict=True):
        ours, theirs = finish_batch(batch, landscape, CPU), run_batch(task, landscape, CPU)
        for seed in task.seeds:
            same_bits(ours, theirs, seed, task.seeds, task.seeds)
    assert bool(shared[1].trained.diverged.all())
    assert not bool(shared[0].trained.diverged.any() or shared[2].trained.diverged.any())


def test_starts_of_a_shared_program_are_each_configurations_own() -> None:
    start = {"kind": "random_labels", "steps": 20, "label_seed": 3, "weight_decay": 1e-3}
    other = built({**DIGITS, "random_labels": True, "label_seed": 3})
    landscape, given = built(DIGITS), torch.randn(2, built(DIGITS).dim, dtype=torch.float64).numpy()
    several = [
        Trials(chosen("adam", "float64", lr=0.02, start=start), 1e-3, "a", [1, 2]),
        Trials(chosen("adam", "float64", lr=0.01, start=start), 1e-2, "b", [1, 2], given),
    ]
    shared = together(landscape, several, CPU, other)
    for ours, one in zip(shared, several, strict=True):
        own = built({**DIGITS, "weight_decay": one.weight_decay})
        same(ours, together(own, [one], CPU, other)[0])
    assert not torch.equal(shared[1].initial, torch.from_numpy(given)), "pretraining moves it"


# --- what may share --------------------------------------------------------------------------------------------
def of(landscape: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    section = OPTIMIZERS[training.get("optimizer", "sgd")].model_validate({"optimizer": "sgd"} | training)
    return program(
        {"landscape": {"name": "mlp", "weight_decay": 0.1} | (landscape or {}), "training": section.model_dump()}
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_numbers_of_the_rule_are_no_part_of_a_program(optimizer: str) -> None:
    left = of(optimizer=optimizer)["training"]
    assert not {"lr", "momentum", "betas", "epsilon", "alpha", "temperature", "radius", "damping"} & set(left)
    assert {"optimizer", "batch_size", "steps", "dtype"} <= set(left)


def test_what_changes_a_program_is_part_of_it() -> None:
    for other in (
        {"steps": 7}, {"batch_size": 9}, {"dtype": "float64"}, {"optimizer": "adam"},
        {"momentum": 0.5, "nesterov": True}, {"schedule": {"name": "cosine"}}, {"start": {"kind": "random_labels"}},
        {"landscape": {"hidden": [3]}}, {"landscape": {"label_noise": 0.1}}, {"landscape": {"split_seed": 1}},
    ):  # fmt: skip
        assert of(**other) != of(), other
    assert of(optimizer="lbfgs", history=3) != of(optimizer="lbfgs", history=4)


def test_weight_decay_is_shared_where_the_rule_takes_gradients_alone() -> None:
    more = {"weight_decay": 0.2}
    for name in OPTIMIZERS:
        assert (of(more, optimizer=name) == of(optimizer=name)) is (name not in build.LOOK_AT_L)
    for name in SUPERVISED:
        assert of({"name": name} | more) == of({"name": name})
    own = {"name": "package.module:function"}  # whose option may mean anything
    assert of(own | more) != of(own)


def test_rules_that_look_at_l_are_named() -> None:
    """The others' steps never ask the landscape."""

    class Blind(Landscape):
        def __getattribute__(self, name: str) -> Any:
            if name in {"value_and_gradient", "objective", "hessian", "hvp", "loss"}:
                raise AssertionError(name)
            return super().__getattribute__(name)

    landscape, looking = models.built("mlp", loss="mse"), set()
    theta, keys = models.thetas(landscape, 2), torch.arange(2)
    for name in OPTIMIZERS:
        section = chosen(name, "float64")
        rule, h = build.optimizer(section), hyperparameters(section, 0.0, 2, CPU)
        try:
            rule.step(theta, rule.init(theta), Step(0, h, keys, landscape.gradient, Blind(**vars(landscape))))
        except AssertionError:
            looking.add(name)
    assert looking == set(build.LOOK_AT_L)
