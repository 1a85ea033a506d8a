"""The ``training`` section of a sweep file: one model an optimiser, its settings with range, default and description.

Whole-objective rules take no mini-batches: their steps compare values of L, or build a model of it, across steps.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from landsweep.cluster.mistakes import custom_error
from landsweep.cluster.sections import AsTuple, Positive, Section
from landsweep.cluster.start_settings import Initialisation, Start

Decay = Annotated[float, Field(ge=0, lt=1)]
_RATE = "learning rate, finite and > 0"


class Schedule(Section):
    """The learning rate's factor over the steps."""

    name: Literal["constant", "cosine"] = Field(
        default="constant", description="constant, or cosine: half a cosine from 1 to final"
    )
    warmup: int = Field(default=0, ge=0, description="first steps, over which the rate rises linearly; at most steps")
    final: float = Field(default=0.0, ge=0, le=1, description="cosine's factor at the end, in [0, 1]")

    @model_validator(mode="after")
    def _final_is_of_cosine(self) -> Self:
        if self.name == "constant" and self.final > 0:
            raise custom_error("final", f"found {self.final:g} with constant; allowed with name: cosine")
        return self


class Training(Section):
    """What all optimisers have."""

    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = Field(
        default="full", description='examples a step, at most the training set, or "full"'
    )
    steps: int = Field(default=1000, ge=0, le=2**31, description="optimiser steps")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="of training; the search is float64")
    schedule: Schedule = Field(default=Schedule(), description="the learning rate's factor over the steps")
    snapshots: int = Field(
        default=25, ge=2, description="states of each trial that are kept, start and end among them; at least 2"
    )
    start: Start = Field(default=Initialisation(), description="where training begins")

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.schedule.warmup > self.steps:
            text = f"found {self.schedule.warmup}; allowed: at most training.steps ({self.steps})"
            raise custom_error("schedule.warmup", text)
        return self


class Sgd(Training):
    """Stochastic gradient descent: v ← momentum·v + g, θ ← θ − lr·v."""

    optimizer: Literal["sgd"] = Field(default="sgd", description="stochastic gradient descent")
    lr: Positive = Field(default=0.1, description=_RATE)
    momentum: Decay = Field(default=0.0, description="heavy-ball coefficient in [0, 1)")
    nesterov: bool = Field(default=False, description="Nesterov's momentum; needs momentum > 0")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise custom_error("nesterov", "found true with momentum 0; allowed: false, or set training.momentum > 0")
        return self


class GradientDescent(Training):
    """Full-batch gradient descent: θ ← θ − lr·g."""

    optimizer: Literal["gd"] = Field(default="gd", description="full-batch gradient descent")
    lr: Positive = Field(default=0.1, description=_RATE)
    batch_size: Literal["full"] = Field(default="full", description="gd has no mini-batches; sgd has")


class Adam(Training):
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    optimizer: Literal["adam"] = Field(default="adam", description="Adam")
    lr: Positive = Field(default=1e-3, description=_RATE)
    betas: Annotated[tuple[Decay, Decay], AsTuple] = Field(
        default=(0.9, 0.999), description="decay of the two moments, a list of two numbers in [0, 1)"
    )
    epsilon: Positive = Field(default=1e-8, description="added to the denominator, > 0")


class Rmsprop(Training):
    """RMSprop: s ← alpha·s + (1 − alpha)·g², θ ← θ − lr·g/(√s + epsilon)."""

    optimizer: Literal["rmsprop"] = Field(default="rmsprop", description="RMSprop")
    lr: Positive = Field(default=1e-3, description=_RATE)
    alpha: Decay = Field(default=0.99, description="smoothing of the squared gradient in [0, 1)")
    epsilon: Positive = Field(default=1e-8, description="added to the denominator, > 0")


class PerturbedGd(Training):
    """Gradient descent with a random step where the gradient is small (Jin et al. 2017, algorithm 2)."""

    optimizer: Literal["perturbed_gd"] = Field(description="gradient descent that leaves strict saddles")
    lr: Positive = Field(default=0.1, description=_RATE)
    gradient_threshold: Positive = Field(default=1e-3, description="‖g‖ at or below which θ is perturbed, > 0")
    radius: Positive = Field(default=1e-2, description="of the ball that a perturbation is drawn from, > 0")
    interval: int = Field(default=50, ge=1, description="a perturbation is more than so many steps after the last")
    batch_size: Literal["full"] = Field(
        default="full", description="a mini-batch's gradient does not vanish at a saddle, so its size says nothing"
    )


class Langevin(Training):
    """θ ← θ − lr·g + √(2·lr·temperature)·ξ (SGLD: Welling & Teh 2011)."""

    optimizer: Literal["langevin"] = Field(description="stochastic gradient Langevin dynamics")
    lr: Positive = Field(default=0.01, description=_RATE)
    temperature: Positive = Field(default=1e-4, description="T of the stationary density exp(−L/T), > 0")


class Annealing(Training):
    """Metropolis-adjusted Langevin steps at a temperature that falls geometrically (Kirkpatrick et al. 1983)."""

    optimizer: Literal["annealing"] = Field(description="simulated annealing with Langevin proposals")
    lr: Positive = Field(default=0.01, description=_RATE)
    temperature: Positive = Field(default=1e-2, description="T at the first step, > 0")
    final_temperature: Positive = Field(default=1e-6, description="T at the last step, > 0, at most temperature")
    batch_size: Literal["full"] = Field(
        default="full", description="a proposal is accepted by its L on the whole training set"
    )

    @model_validator(mode="after")
    def _cools(self) -> Self:
        if self.final_temperature > self.temperature:
            text = f"found {self.final_temperature:g}; allowed: at most training.temperature ({self.temperature:g})"
            raise custom_error("final_temperature", text)
        return self


class Lbfgs(Training):
    """Limited-memory BFGS without line search (Liu & Nocedal 1989), as torch.optim.LBFGS."""

    optimizer: Literal["lbfgs"] = Field(description="limited-memory BFGS without line search")
    lr: Positive = Field(default=1.0, description=f"{_RATE}; 1 is the quasi-Newton step")
    history: int = Field(default=10, ge=1, le=100, description="pairs of steps and gradient changes that are kept")
    batch_size: Literal["full"] = Field(
        default="full", description="differences of two mini-batches' gradients are no curvature"
    )


class SaddleFreeNewton(Training):
    """θ ← θ − lr·(|H| + λI)⁻¹g (Dauphin et al. 2014)."""

    optimizer: Literal["saddle_free_newton"] = Field(description="Newton's method with absolute curvatures")
    lr: Positive = Field(default=1.0, description=f"{_RATE}; 1 is the Newton step")
    damping: Positive = Field(
        default=1.0, description="the best λ of damping·(1, 0.1, …, 1e-6) is taken at each step, > 0"
    )
    krylov_dimension: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="H is dense up to so many parameters; beyond, on so large a Krylov space",
    )
    batch_size: Literal["full"] = Field(
        default="full", description="the curvature of a mini-batch is not that of L, and its inverse magnifies the rest"
    )


OPTIMIZERS: dict[str, type[Training]] = {
    "sgd": Sgd,
    "gd": GradientDescent,
    "adam": Adam,
    "rmsprop": Rmsprop,
    "perturbed_gd": PerturbedGd,
    "langevin": Langevin,
    "annealing": Annealing,
    "lbfgs": Lbfgs,
    "saddle_free_newton": SaddleFreeNewton,
}
