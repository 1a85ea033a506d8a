"""A generated grid, model × loss × optimiser × dtype: each trains batched, every trial's gradients those of one net in
plain torch; and what cannot work is refused by ``landsweep plan`` with the reason."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from landsweep.cli import app
from landsweep.cluster.model_settings import MODELS
from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers import streams, training
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
from landsweep.workers.optimizers.rule import Optimizer, State, Step
from landsweep.workers.suitability import OF_A_MODEL
from landsweep.workers.training import DTYPES, Streams, Trained
from tests import models
from tests.data_files import image_files, write

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SEEDS, STEPS, BATCH, DECAY = [3, 4, 7], 3, 3, 0.01
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of ``Errors``
#: What the sections' defaults would leave idle in so few steps.
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "perturbed_gd": {"gradient_threshold": 1e3, "interval": 1},  # perturbs from the first step on
    "saddle_free_newton": {"krylov_dimension": 40},  # whole Hessians and Krylov spaces both occur
}


@dataclass(frozen=True)
class Cell:
    """One combination of the grid."""

    model: str  # of tests.models
    loss: str
    optimizer: str
    dtype: str
    batch_size: int | str
    activation: str = "tanh"

    def settings(self) -> dict[str, Any]:
        """The ``training`` section, as a sweep file's would be completed."""
        asked = {"optimizer": self.optimizer, "dtype": self.dtype, "steps": STEPS, "batch_size": self.batch_size}
        return OPTIMIZERS[self.optimizer].model_validate(asked | SETTINGS.get(self.optimizer, {})).model_dump()


def grid(activations: Iterable[str] = ("tanh",)) -> list[Cell]:
    """Every model × loss × optimiser × dtype, with mini-batches where the optimiser takes them and without."""
    cells = []
    for model, optimizer, dtype, phi in product(models.SHAPES, OPTIMIZERS, DTYPES, activations):
        if model == "deep_linear" and phi != "tanh":
            continue  # it has no activation
        if "rnn" in model and phi not in ("tanh", "relu"):
            continue  # torch's RNN has no other
        sizes: list[int | str] = [BATCH, "full"] if takes_minibatches(optimizer) else ["full"]
        cells += [Cell(model, loss, optimizer, dtype, size, phi) for loss in models.losses(model) for size in sizes]
    return cells


def takes_minibatches(optimizer: str) -> bool:
    """Whether the optimiser's section lets ``batch_size`` be a number."""
    return get_args(OPTIMIZERS[optimizer].model_fields["batch_size"].annotation) != ("full",)


# --- batched against one net in plain torch ------------------------------------------------------------------------
@dataclass
class Recorded:
    """An optimiser that keeps the gradients its rule takes, of mini-batches and of the landscape, with their θ."""

    inner: Optimizer
    seen: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)  # step, θ and ∇, (B, n) each

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    def init(self, theta: Tensor) -> State:
        return self.inner.init(theta)

    def step(self, theta: Tensor, state: State, at: Step) -> tuple[Tensor, State]:
        def kept(theta: Tensor, gradient: Tensor) -> Tensor:
            self.seen.append((at.number, theta.clone(), gradient))
            return gradient

        def both(theta: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = at.landscape.value_and_gradient(theta)
            return value, kept(theta, gradient)

        watched = copy.copy(at.landscape)
        object.__setattr__(watched, "value_and_gradient", both)  # ``gradient`` asks it
        step = replace(at, gradient=lambda theta: kept(theta, at.gradient(theta)), landscape=watched)
        return self.inner.step(theta, state, step)


def starts(landscape: Landscape, seeds: list[int]) -> Tensor:
    """The model's own initialisation, moved a little: biases, and branches that begin at 0, count as well. (B, n)."""
    drawn = training.initial_parameters(landscape, "grid", seeds, CPU)
    return drawn + 0.1 * streams.normal(streams.keys("grid", seeds, "moved"), 0, landscape.dim)


def trained(
    landscape: Landscape, settings: dict[str, Any], seeds: list[int]
) -> tuple[Trained, list[tuple[int, Tensor, Tensor]]]:
    """Train ``seeds`` as one batch; every gradient that training takes, with its step and θ."""
    recorded = Recorded(build.optimizer(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "optimizer", lambda settings: recorded)
        h = training.hyperparameters(settings, landscape.weight_decay, len(seeds), CPU)
        ended = training.train(landscape, settings, starts(landscape, seeds), Streams.of("grid", seeds, CPU), h)
    return ended, [(step, theta[: len(seeds)], gradient[: len(seeds)]) for step, theta, gradient in recorded.seen]


def plain_gradient(cell: Cell, dataset: Dataset, theta: Tensor, index: Tensor) -> Tensor:
    """∇ of the loss on the samples ``index`` + λ/2·‖θ‖², of one net by torch.nn and autograd, in θ's dtype. (n,)."""
    module = models.module(cell.model, cell.activation).to(theta.dtype)
    weights = models.load(module, theta)
    inputs, labels = dataset.train_inputs[index].to(theta.dtype), dataset.train_labels[index]
    outputs = module(inputs)
    if cell.loss == "cross_entropy":
        loss = functional.cross_entropy(outputs, labels)
    else:
        one_hot = functional.one_hot(labels, dataset.classes).to(theta.dtype)
        loss = functional.mse_loss(outputs, inputs.flatten(1) if "autoencoder" in cell.model else one_hot)
    objective = loss + 0.5 * DECAY * sum((weight**2).sum() for weight in weights)
    return torch.cat([gradient.reshape(-1) for gradient in torch.autograd.grad(objective, weights)])


@dataclass(frozen=True)
class Errors:
    """The largest ‖g − g′‖/‖g′‖ of the gradients g that a training takes, g′ at the same θ and in the same dtype."""

    alone: float  # g′: the landscape's loss by automatic differentiation, of one net without a batch
    plain: float  # g′: the same net by torch.nn
    rounding: float  # of torch.nn's g′ itself against its float64 value, where ``plain`` is largest


def largest_errors(cell: Cell) -> Errors:
    """Train the cell's ``SEEDS`` together. Fails where a trial is not finite, does not move, or is another alone than
    in the batch, or where a gradient that is taken in float64, as saddle_free_newton's are whatever θ's dtype, is
    further off than float64 allows."""
    dataset = models.data(models.SHAPES[cell.model])
    landscape = models.built(cell.model, dataset, cell.activation, loss=cell.loss, weight_decay=DECAY)
    settings = cell.settings()
    ended, seen = trained(landscape, settings, SEEDS)
    assert not ended.diverged.any()
    assert bool((ended.final != ended.snapshots[0]).any(1).all())
    alone, _ = trained(landscape, settings, SEEDS[1:2])
    assert torch.equal(alone.final[0], ended.final[1])
    keys, samples = Streams.of("grid", SEEDS, CPU).order, landscape.samples
    whole = torch.arange(samples).expand(len(SEEDS), -1)
    size = cell.batch_size
    indices = [whole] * STEPS if isinstance(size, str) else list(training.minibatches(keys, samples, size, STEPS))
    assert {step for step, _, _ in seen} == set(range(STEPS))
    found = []
    for step, theta, gradient in seen:
        for row in range(len(SEEDS)):
            at, index = theta[row], indices[step][row]
            plain = plain_gradient(cell, dataset, at, index)
            assert plain.dtype == gradient.dtype
            exact = plain_gradient(cell, dataset, at.to(torch.float64), index)
            errors = [relative_error(gradient[row], other) for other in (alone_gradient(landscape, at, index), plain)]
            assert gradient.dtype != torch.float64 or max(errors) <= TOLERANCE["float64"]
            found.append(Errors(*errors, relative_error(plain, exact)))
    worst = max(found, key=lambda errors: errors.plain)
    return replace(worst, alone=max(errors.alone for errors in found))


def alone_gradient(landscape: Landscape, theta: Tensor, index: Tensor) -> Tensor:
    """∇ of the loss on the samples ``index`` + λ/2·‖θ‖² by ``torch.func.grad``, of one θ (n,)."""
    partial = landscape.minibatch_loss
    assert partial is not None
    return torch.func.grad(lambda at: partial(at, index) + landscape.regulariser(at))(theta)


def relative_error(gradient: Tensor, other: Tensor) -> float:
    """‖g − g′‖/‖g′‖."""
    return float((gradient - other).norm() / other.norm())


#: A part of the grid that meets every model with every loss, and every optimiser in each dtype and batch size.
SAMPLE = grid()[:: len(grid()) // 45 | 1]


def test_the_sample_meets_each_side_of_the_grid() -> None:
    whole = grid()
    assert len(whole) == 18 * 2 * (5 + 2 * 4)
    for side in (
        lambda cell: (cell.model, cell.loss),
        lambda cell: (cell.optimizer, cell.dtype, cell.batch_size == "full"),
    ):
        assert {side(cell) for cell in SAMPLE} == {side(cell) for cell in whole}


@pytest.mark.parametrize("cell", SAMPLE, ids=lambda cell: "-".join(map(str, vars(cell).values())))
def test_trains_batched_with_the_gradients_of_one_net(cell: Cell) -> None:
    errors = largest_errors(cell)
    assert max(errors.alone, errors.plain) <= TOLERANCE[cell.dtype]


# --- what cannot work ----------------------------------------------------------------------------------------------
FULL = {"gd": "gd has no mini-batches", "perturbed_gd": "does not vanish at a saddle", "annealing": "accepted by its L",
        "lbfgs": "no curvature", "saddle_free_newton": "not that of L"}  # fmt: skip
LABELS = "does not use labels"
KRYLOV = {"measure": {"spectrum": "lanczos"}}

#: (sections of a sweep file, the key that is refused, the reason): what the documents of models, data and points and
#: the descriptions of the schema say cannot work.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    *[({"training": {"optimizer": name, "batch_size": 8}}, "training.batch_size", why) for name, why in FULL.items()],
    ({"training": {"nesterov": True}}, "training.nesterov", "momentum 0"),
    ({"training": {"schedule": {"final": 0.1}}}, "training.schedule.final", "found 0.1 with constant"),
    ({"training": {"steps": 5, "schedule": {"warmup": 6}}}, "training.schedule.warmup", "at most training.steps (5)"),
    ({"training": {"optimizer": "annealing", "temperature": 1e-3, "final_temperature": 1e-2}},
     "training.final_temperature", "at most training.temperature"),
    ({"training": {"batch_size": 1201}}, "training.batch_size", "at most landscape.train_size (1200)"),
    ({"landscape": {"data": "mnist1d"}, "training": {"batch_size": 4001}}, "training.batch_size", "4000"),
    ({"landscape": {"name": "autoencoder"}, "training": {"start": {"kind": "random_labels"}}}, "training.start.kind",
     "trained on a data set's labels"),
    ({"landscape": {"name": "himmelblau"}, "training": {"start": {"kind": "random_labels"}}}, "training.start.kind",
     "trained on a data set's labels"),
    ({"landscape": {"random_labels": True}, "training": {"start": {"kind": "random_labels"}}}, "training.start.kind",
     "one of the two"),
    ({"training": {"start": {"kind": "sweep", "path": "absent"}}}, "training.start", "there is no sweep"),
    ({"landscape": {"name": "autoencoder", "loss": "cross_entropy"}}, "landscape.loss", "no classes"),
    ({"landscape": {"name": "autoencoder", "random_labels": True}}, "landscape.random_labels", LABELS),
    ({"landscape": {"name": "autoencoder", "label_noise": 0.5}}, "landscape.label_noise", LABELS),
    ({"landscape": {"name": "deep_linear", "loss": "cross_entropy"}}, "landscape.loss", "one-hot"),
    ({"landscape": {"name": "deep_linear", "activation": "tanh"}}, "landscape.activation", "no such setting"),
    ({"landscape": {"name": "mlp", "activation": "linear"}}, "landscape.activation", "'tanh'"),
    ({"landscape": {"name": "mlp", "initialisation": "fixup"}}, "landscape.initialisation", "'he_normal'"),
    ({"landscape": {"name": "cnn", "initialisation": "fixup"}}, "landscape.initialisation", "'he_normal'"),
    *[({"landscape": {"name": name, key: True}}, f"landscape.{key}", "no stationary point under weight decay")
      for name in MODELS for key in ("batch_norm", "weight_norm")],
    ({"landscape": {"name": "cnn", "max_pool": 2}}, "landscape.max_pool", "not smooth"),
    ({"landscape": {"name": "cnn", "kernel": 2}}, "landscape.kernel", "an odd number, or padding: valid"),
    ({"landscape": {"name": "cnn", "kernel": 9, "padding": "valid"}}, "landscape.kernel", "8×8 pixels, too few"),
    ({"landscape": {"name": "cnn", "channels": [2, 2, 2, 2]}}, "landscape.pool", "1×1 pixels, too few"),
    ({"landscape": {"name": "resnet", "depth": 10}}, "landscape.depth", "6n + 2"),
    ({"landscape": {"name": "resnet", "resize": 4}}, "landscape.resize", "at least 5×5"),
    ({"landscape": {"name": "cnn", "data": "mnist1d"}}, "landscape.name", "needs images"),
    ({"landscape": {"name": "resnet", "data": "gaussian_mixture"}}, "landscape.name", "needs images"),
    ({"landscape": {"name": "rnn", "data": "images:colour", "resize": 6}}, "landscape.name", "take cnn or resnet"),
    ({"landscape": {"data": "images:colour"}}, "landscape.resize", "the pixels a side"),
    ({"landscape": {"data": "mnist1d", "resize": 4}}, "landscape.resize", "it has no images"),
    ({"landscape": {"data": {"name": "gaussian_mixture", "classes": 4}}}, "landscape.data.classes", "equidistant"),
    ({"landscape": {"random_labels": True, "label_noise": 0.1}}, "landscape.label_noise", "random already"),
    ({"landscape": {"train_size": 1797}}, "landscape.train_size", "1797 examples"),
    ({"landscape": {"subset_per_class": 500}}, "landscape.subset_per_class", "at most"),
    ({"landscape": {"hidden": [300]}, "measure": {"spectrum": "dense"}}, "measure.spectrum", "auto or lanczos"),
    *[({**KRYLOV, "search": {"saddles": {"method": name}}}, "search.saddles.method", "keeps whole Hessians")
      for name in ("eigenvector_following", "levenberg_marquardt")],
    ({**KRYLOV, "search": {"saddles": {"connections": True}}}, "search.saddles.connections", "needs whole Hessians"),
    *[({"measure": {"spectrum": "lanczos", key: [name]}}, f"measure.{key}", "needs eigenvectors")
      for key, name in (("include", "escape_time"), ("trajectory", "alignment"))],
    ({"landscape": {"name": "himmelblau"}, "training": {"batch_size": 8}},
     "training.batch_size", "no training examples"),
    ({"landscape": {"name": "himmelblau"}, "resources": {"num_gpus": 1}}, "resources.num_gpus", "computed on the CPU"),
    *[({"landscape": {"name": "himmelblau"}, "measure": {"include": [name]}}, "measure.include", "outputs on samples")
      for name in OF_A_MODEL],
    *[({"training": {"steps": 0}, "measure": {"trajectory": [name]}}, "measure.trajectory", "the step that follows")
      for name in ("alignment", "prediction")],
    ({"measure": {"trajectory": ["approach"]}}, "measure.trajectory", "without search.saddles"),
]  # fmt: skip


def planned(sections: dict[str, Any], folder: Path) -> tuple[int, str]:
    """The exit code of ``landsweep plan`` and what it says, run in ``folder`` on a sweep of ``sections``."""
    landscape = {"name": "mlp", **sections.get("landscape", {})}
    sweep = {"name": "grid", "seeds": 2, "store": "runs", **sections, "landscape": landscape}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, ["plan", "sweep.yaml"])
    return result.exit_code, result.output


def refusal_fault(sections: dict[str, Any], key: str, reason: str, folder: Path) -> str | None:
    """What is wrong with how a sweep of ``sections`` is refused at the plan, None where nothing is."""
    write(folder / "colour", image_files(colour=True))
    code, said = planned(sections, folder)
    message = " ".join(said.split())
    if code == 2 and key in message and reason in message and not (folder / "runs").exists():
        return None
    return f"{sections}: exit {code}, {message}"


@pytest.mark.parametrize(
    ("sections", "key", "reason"), REFUSED, ids=[f"{k}-{i}" for i, (_, k, _) in enumerate(REFUSED)]
)
def test_what_cannot_work_is_refused_at_the_plan(
    sections: dict[str, Any], key: str, reason: str, tmp_path: Path
) -> None:
    assert refusal_fault(sections, key, reason, tmp_path) is None


def test_what_can_work_is_planned(tmp_path: Path) -> None:
    code, said = planned({}, tmp_path)
    assert code == 0, said
