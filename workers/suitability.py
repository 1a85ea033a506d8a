"""What a configuration may ask of its landscape, once it is known what that has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape

#: measures of a model's outputs on samples
OF_A_MODEL = ("jacobian_norm", "parameter_jacobian_norm", "fisher_trace")


class Facts(NamedTuple):
    """What the plan has to know of a landscape."""

    dim: int  # n
    samples: int  # of the training set; 0 for a plain function
    has_model: bool  # outputs are those of a model on samples

    @staticmethod
    def of(landscape: Landscape) -> Facts:
        return Facts(landscape.dim, landscape.samples, landscape.supervision is not None)


def check(settings: Mapping[str, Any], facts: Facts) -> None:
    """Raises LandscapeError where a configuration asks for what its landscape cannot give."""
    batch, name = settings["training"]["batch_size"], settings["landscape"]["name"]
    if isinstance(batch, int) and facts.samples == 0:
        text = f"found {batch}; allowed with {name}: full, for it has no training examples to take a part of"
        raise LandscapeError(f"training.batch_size: {text}")
    if isinstance(batch, int) and batch > facts.samples:
        text = f"found {batch}; allowed: at most the {facts.samples} training examples"
        raise LandscapeError(f"training.batch_size: {text}")
    for measure in settings["measure"]["include"]:
        if measure in OF_A_MODEL and not facts.has_model:
            text = f"found {measure} with {name}, a plain function; it is of a model's outputs on samples: leave it out"
            raise LandscapeError(f"measure.include: {text}")
