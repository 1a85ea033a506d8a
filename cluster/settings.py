"""The sections of a sweep file as frozen models: each field with its range, its default and a description.

``LANDSCAPES`` and ``OPTIMIZERS`` name what is built in; a new one is a model and an entry there. Models are strict:
no number in quotes, no true for 1, no key that they do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from landsweep.cluster.data_settings import Supervised
from landsweep.cluster.mistakes import custom_error, found, has_password, nearest
from landsweep.cluster.model_settings import MODELS
from landsweep.cluster.reference_settings import REFERENCES
from landsweep.cluster.sections import AsTuple, Bytes, NonNegative, Positive, Section
from landsweep.cluster.training_settings import OPTIMIZERS, Training

# landscape ------------------------------------------------------------------------------------------------------------


class OwnLandscape(Section):
    """A landscape of the user's own: every key but ``name`` is an option of its function."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    name: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="package.module:function, which returns a Landscape; the other keys are its options",
    )


LANDSCAPES: dict[str, type[Section]] = {**MODELS, **REFERENCES}
OWN = "own"


def _get(value: Any, key: str, default: Any = None) -> Any:
    return value.get(key, default) if isinstance(value, Mapping) else getattr(value, key, default)


def _need_mapping(value: Any) -> None:
    if not isinstance(value, (Mapping, Section)):
        raise custom_error("", f"found {found(value)}; allowed: a mapping (indented key: value lines)")


def _check_landscape(value: Any) -> Any:
    _need_mapping(value)
    name = _get(value, "name")
    known = f"built in: {', '.join(LANDSCAPES)}; or your own as package.module:function"
    if name is None:
        raise custom_error("name", f"missing; allowed: {known}")
    if not isinstance(name, str) or (name not in LANDSCAPES and ":" not in name):
        hint = nearest(name, LANDSCAPES) if isinstance(name, str) else ""
        raise custom_error("name", f"found {found(name)}; {known}{hint}")
    return value


def _landscape_tag(value: Any) -> str:
    name = _get(value, "name")
    return name if name in LANDSCAPES else OWN


# training -------------------------------------------------------------------------------------------------------------


def _check_training(value: Any) -> Any:
    _need_mapping(value)
    name = _get(value, "optimizer", "sgd")
    available = f"available: {', '.join(OPTIMIZERS)}"
    if not isinstance(name, str) or name not in OPTIMIZERS:
        hint = nearest(name, OPTIMIZERS) if isinstance(name, str) else ""
        raise custom_error("optimizer", f"found {found(name)}; {available}{hint}")
    return value


def _training_tag(value: Any) -> str:
    return str(_get(value, "optimizer", "sgd"))


# the union of the models in a dict ------------------------------------------------------------------------------------


def _union(models: Mapping[str, type[Section]], tag: Callable[[Any], str], check: Callable[[Any], Any]) -> Any:
    members = tuple(Annotated[model, Tag(name)] for name, model in models.items())
    return Annotated[Annotated[Union[members], Discriminator(tag)], BeforeValidator(check)]  # noqa: UP007


if TYPE_CHECKING:
    AnyLandscape = Supervised | OwnLandscape
    AnyTraining = Training
else:
    AnyLandscape = _union({**LANDSCAPES, OWN: OwnLandscape}, _landscape_tag, _check_landscape)
    AnyTraining = _union(OPTIMIZERS, _training_tag, _check_training)

#: section → its variants by the tag that a validation error's location holds
VARIANTS: dict[str, Mapping[str, type[Section]]] = {
    "landscape": {**LANDSCAPES, OWN: OwnLandscape},
    "training": OPTIMIZERS,
}


# search, measure ------------------------------------------------------------------------------------------------------

Start = Literal["trajectory", "initialisation", "noise"]


class Saddles(Section):
    """The search for stationary points of any index."""

    per_trial: int = Field(default=1, ge=1, le=1_000_000, description="searches a trial")
    trials: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default="all",
        description='which trials search: "all", or N for those whose seed is < N (the seed itself, not its place '
        "in the sweep: a trial's result never depends on the other seeds asked for)",
    )
    starts: Annotated[
        tuple[Start, ...],
        BeforeValidator(
            lambda value: (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value,
            json_schema_input_type=Start | list[Start],
        ),
    ] = Field(
        default=("trajectory",),
        min_length=1,
        description="where searches start: one of these or a list",
    )
    method: Literal[
        "auto", "eigenvector_following", "levenberg_marquardt", "saddle_dynamics", "newton_mr", "gradient_norm"
    ] = Field(
        default="auto",
        description="eigenvector_following, saddle_dynamics: an index between 1 and the start's own; "
        "levenberg_marquardt, newton_mr, gradient_norm: any; auto: the first where whole Hessians are used, the second "
        "where products with them alone",
    )
    max_iterations: int = Field(default=200, ge=1, description="iterations of one search")
    connections: bool | Literal["auto"] = Field(
        default="auto",
        description="descend both ways from each saddle of index 1: the table connections; auto: where whole Hessians "
        "are used",
    )

    @model_validator(mode="after")
    def _distinct_starts(self) -> Self:
        if len(set(self.starts)) < len(self.starts):
            raise custom_error("starts", f"found {found(list(self.starts))}; allowed: each at most once")
        return self


class Search(Section):
    """How candidates become stationary points."""

    tolerance: Positive = Field(default=1e-8, description="‖∇L‖₂ at a stationary point, float64, full data, > 0")
    minima: bool = Field(default=True, description="polish the end of training")
    minima_iterations: int = Field(default=100, ge=1, description="iterations of that polish")
    saddles: Saddles | None = Field(default=None, description="search for points of any index; null searches for none")


MeasureName = Literal[
    "sharpness",
    "sharpness_filter",
    "jacobian_norm",
    "parameter_jacobian_norm",
    "fisher_trace",
    "path_norm",
    "spectral_norm",
    "margin",
    "escape_time",
]
TrajectoryQuantity = Literal["curvature", "alignment", "prediction", "approach"]


class Measure(Section):
    """What is measured at each point."""

    spectrum: Literal["auto", "dense", "lanczos", "none"] = Field(
        default="auto",
        description="Hessian spectrum: dense (all eigenvalues), lanczos (the ends, and signs where bounds decide), "
        "auto (dense up to 3,000 parameters), none (not recorded: kinds as with auto)",
    )
    lanczos_steps: int = Field(default=75, ge=1, le=10_000, description="block-Lanczos steps (of 4 products) at most")
    include: Annotated[tuple[MeasureName, ...], AsTuple] = Field(
        default=("sharpness", "sharpness_filter", "path_norm", "spectral_norm", "margin"),
        description="what else is measured at each point, a list: the default, which costs little, jacobian_norm, "
        "parameter_jacobian_norm, fisher_trace, escape_time (docs/measures.md)",
    )
    trajectory: Annotated[tuple[TrajectoryQuantity, ...], AsTuple] = Field(
        default=(),
        description="what else is measured along the trajectories, a list: curvature (eig_max, eig_min, index), "
        "alignment (of the update with the stable, unstable and centre subspaces), prediction (of the change of L to "
        "second order), approach (the distance to the trial's nearest saddle)",
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for key in ("include", "trajectory"):
            names = getattr(self, key)
            if len(set(names)) < len(names):
                raise custom_error(key, f"found {found(list(names))}; allowed: each at most once")
        return self


# resources, tracking, verdict -----------------------------------------------------------------------------------------


class Resources(Section):
    """What a batch may use. Changes no result."""

    num_cpus: NonNegative = Field(default=1.0, description="CPUs a batch, ≥ 0")
    num_gpus: NonNegative = Field(default=0.0, description="GPUs a batch, ≥ 0; may be a fraction")
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description='trials a batch, or "auto": as many as memory is predicted to hold, at most 64, or 1024 cheap ones',
    )
    memory: Bytes = Field(
        default=2 * 2**30,
        description='memory of a batch beside an idle worker: bytes, or a text like "8GB" or "500MiB"; at least 1 MiB',
    )
    timeout: Positive | None = Field(default=None, description="seconds a batch may take; null: no bound")
    checkpoint: Positive | None = Field(
        default=60.0, description="seconds between checkpoints of a batch's training; null: none are kept"
    )
    retries: int = Field(default=3, ge=0, description="how often a batch whose process died is tried again")
    price_per_hour: NonNegative | None = Field(default=None, description="of one batch's resources, for estimates")


class Tracking(Section):
    """Where runs are logged (MLflow). Changes no result."""

    uri: str | None = Field(default=None, description="MLflow URI without a password; null: sqlite beside the store")
    trials: bool | Literal["auto"] = Field(default="auto", description="a run a trial; auto: where they are few")

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and has_password(uri):
            text = "found a URI that holds a password; allowed: one without; set MLFLOW_TRACKING_PASSWORD instead"
            raise custom_error("", text)
        return uri


class Verdict(Section):
    """The hypothesis test: do local minima generalise like global ones?"""

    metric: Literal["test_loss", "test_error", "test_loss_trained", "test_error_trained", "gap", "error_gap"] = Field(
        default="test_loss", description="the column that is compared"
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="level, in (0, 0.5)")
    margin: Positive | None = Field(
        default=None, description="equivalence margin; null: 0.02 for losses, 0.01 for errors"
    )
    band: Positive | None = Field(
        default=None,
        description="objective above the reference that counts as global, > 0; null: from the reference",
    )
    reference: float | None = Field(default=None, description="objective of the global minimum; null: the lowest found")
