"""The ``training.start`` section: where training begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from landsweep.cluster.mistakes import custom_error, custom_errors, found, mistakes_of, nearest
from landsweep.cluster.sections import NonNegative, Section, Seed

TAKEN = ("trained", "polished", "initial")


class Initialisation(Section):
    """The landscape's own initial parameters."""

    kind: Literal["initialisation"] = Field(default="initialisation", description="the landscape's initial parameters")


class RandomLabels(Section):
    """The end of a training on random labels, of the same model and inputs (Liu, Papailiopoulos & Achlioptas 2020)."""

    kind: Literal["random_labels"] = Field(description="pretrained on random labels")
    steps: int = Field(default=1000, ge=1, le=2**31, description="steps of that pretraining, by the same optimiser")
    label_seed: Seed = Field(default=0, description="seed of the random labels, the same for every trial")
    weight_decay: NonNegative = Field(default=0.0, description="λ while pretraining, ≥ 0")


class Origin(Section):
    """Parameters that another sweep found."""

    path: str = Field(min_length=1, description="results of that sweep: <store>/<name>")
    config: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{16}$", description="id of its configuration; null: it has one only"
    )
    take: str = Field(
        default="trained",
        pattern=r"^(trained|polished|initial|[0-9a-f]{16}-\d+-[a-z]+-\d+)$",
        description="trained, polished or initial: end of training, the point found from it or start of the trial with "
        "the same seed; or a point's id: that point, whatever the seed",
    )


class FromSweep(Origin):
    """Parameters that another sweep found."""

    kind: Literal["sweep"] = Field(description="parameters of another sweep")


class Interpolation(Section):
    """(1 − t)·first + t·second."""

    kind: Literal["interpolation"] = Field(description="between the parameters of two sweeps, or of one")
    first: Origin = Field(description="parameters at fraction 0")
    second: Origin = Field(description="parameters at fraction 1")
    fraction: float = Field(default=0.5, ge=0, le=1, description="t in (1 − t)·first + t·second, in [0, 1]")


STARTS: dict[str, type[Section]] = {
    "initialisation": Initialisation,
    "random_labels": RandomLabels,
    "sweep": FromSweep,
    "interpolation": Interpolation,
}


def _start(value: Any) -> Any:
    if isinstance(value, Section):
        return value
    if not isinstance(value, Mapping):
        raise custom_error("", f"found {found(value)}; allowed: a mapping with kind: {', '.join(STARTS)}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in STARTS:
        hint = nearest(kind, STARTS) if isinstance(kind, str) else ""
        raise custom_error("kind", f"found {found(kind)}; allowed: {', '.join(STARTS)}{hint}")
    model = STARTS[kind]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise custom_errors(mistakes_of(error, model, {})) from error


Start = Annotated[Initialisation | RandomLabels | FromSweep | Interpolation, BeforeValidator(_start)]


def misfit(start: Section, landscape: Section) -> str | None:
    """Why training on ``landscape`` cannot begin at ``start``, None where it can."""
    if not isinstance(start, RandomLabels):
        return None
    name = getattr(landscape, "name", "")
    if not hasattr(landscape, "random_labels") or name == "autoencoder":
        return f"found random_labels with {name}; allowed with models that are trained on a data set's labels"
    if landscape.random_labels:
        return "found random_labels with landscape.random_labels: true; allowed: one of the two"
    return None


def origins(start: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The places in other sweeps that a ``start`` section names."""
    if start["kind"] == "interpolation":
        return start["first"], start["second"]
    return (start,) if start["kind"] == "sweep" else ()
