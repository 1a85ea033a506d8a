"""Optimisers by name: the rule of a ``training`` section and its hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.optimizers.annealing import Annealing
from landsweep.workers.optimizers.first_order import SGD, Adam, RMSprop
from landsweep.workers.optimizers.langevin import Langevin
from landsweep.workers.optimizers.lbfgs import LBFGS
from landsweep.workers.optimizers.perturbed_gd import PerturbedGD
from landsweep.workers.optimizers.rule import Optimizer
from landsweep.workers.optimizers.saddle_free_newton import SaddleFreeNewton

Settings = Mapping[str, Any]

RULES: dict[str, Callable[[Settings], Optimizer]] = {
    "gd": lambda settings: SGD(),
    "sgd": lambda settings: SGD(nesterov=bool(settings.get("nesterov", False))),
    "adam": lambda settings: Adam(),
    "rmsprop": lambda settings: RMSprop(),
    "perturbed_gd": lambda settings: PerturbedGD(),
    "langevin": lambda settings: Langevin(),
    "annealing": lambda settings: Annealing(settings["steps"]),
    "lbfgs": lambda settings: LBFGS(settings["history"]),
    "saddle_free_newton": lambda settings: SaddleFreeNewton(settings["krylov_dimension"]),
}

#: Rules that take L itself from the landscape, not its gradient alone.
LOOK_AT_L = ("annealing", "saddle_free_newton")


def optimizer(settings: Settings) -> Optimizer:
    """The rule of a ``training`` section."""
    return RULES[settings["optimizer"]](settings)


def hyperparameters(settings: Settings) -> dict[str, float]:
    """The values of its rule's hyperparameters in a ``training`` section."""
    given = {"momentum": 0.0, **settings}
    if "betas" in settings:
        given["beta1"], given["beta2"] = settings["betas"]
    return {name: given[name] for name in optimizer(settings).names}


def hyperparameter_keys(settings: Settings) -> set[str]:
    """The keys of a ``training`` section that hold its rule's hyperparameters."""
    names = optimizer(settings).names
    return {*names, "betas"} if "beta1" in names else set(names)


def per_trial(values: Mapping[str, float], trials: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Each hyperparameter repeated for ``trials`` trials."""
    return {key: torch.full((trials,), value, dtype=dtype, device=device) for key, value in values.items()}
