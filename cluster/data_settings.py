"""The data keys of a sweep file's ``landscape``: which set, and how its training and test sets are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from landsweep.cluster.mistakes import custom_error, custom_errors, found, has_password, mistakes_of, nearest
from landsweep.cluster.sections import AsTuple, NonNegative, Section, Seed, Units


class Known(NamedTuple):
    """What is known of a data set before it is loaded."""

    rows: int
    side: int  # images are side × side
    train_size: int  # examples of the training set, where the file does not say


#: name → what is known of it; neither has a test set of its own
KNOWN = {"digits": Known(rows=1797, side=8, train_size=1200), "mnist5k": Known(rows=5000, side=28, train_size=4000)}
#: what precedes the colon in ``kind:PATH``
FILE_KINDS = ("idx", "npz", "parquet", "images")


# generated sets -------------------------------------------------------------------------------------------------------


class Mnist1d(Section):
    """One-dimensional digits of 40 points (Greydanus & Kobak 2020), 80 % of them the training set."""

    name: Literal["mnist1d"] = Field(description="one-dimensional digits")
    samples: int = Field(
        default=5000, ge=50, le=10**6, multiple_of=10, description="examples, 80 % of them the training set"
    )
    seed: Seed = Field(default=42, description="seed of the generator")


class TeacherStudent(Section):
    """Gaussian inputs, labelled by the largest output of a random tanh net."""

    name: Literal["teacher_student"] = Field(description="Gaussian inputs, labelled by a random tanh net")
    inputs: Units = Field(default=10, description="dimension of an input")
    hidden: Annotated[tuple[Units, ...], AsTuple] = Field(default=(10,), description="units of the teacher's layers")
    classes: int = Field(default=2, ge=2, le=1000, description="outputs of the teacher")
    samples: int = Field(default=2000, ge=4, le=10**7, description="examples, the test set's among them")
    seed: Seed = Field(default=0, description="seed of teacher and inputs")


class GaussianMixture(Section):
    """One unit Gaussian a class, their centres ``separation`` apart from one another."""

    name: Literal["gaussian_mixture"] = Field(description="one unit Gaussian a class")
    classes: int = Field(default=2, ge=2, le=1000, description="Gaussians, at most dimension + 1")
    dimension: Units = Field(default=2, description="dimension of an input")
    separation: NonNegative = Field(default=2.0, description="distance of any two centres, in standard deviations")
    samples: int = Field(default=2000, ge=4, le=10**7, description="examples, the test set's among them")
    seed: Seed = Field(default=0, description="seed of centres and inputs")

    @model_validator(mode="after")
    def _centres_fit(self) -> Self:
        if self.classes > self.dimension + 1:
            text = f"found {self.classes}; allowed: at most dimension + 1 = {self.dimension + 1} equidistant centres"
            raise custom_error("classes", text)
        if self.samples < 2 * self.classes:
            raise custom_error("samples", f"found {self.samples}; allowed: at least 2 a class, {2 * self.classes}")
        return self


GENERATED: dict[str, type[Section]] = {
    "mnist1d": Mnist1d,
    "teacher_student": TeacherStudent,
    "gaussian_mixture": GaussianMixture,
}
Generated = Mnist1d | TeacherStudent | GaussianMixture


# the name of a set ----------------------------------------------------------------------------------------------------


def _allowed() -> str:
    names = ", ".join(repr(name) for name in (*KNOWN, *GENERATED))
    return f"{names}, or {', '.join(f'{kind}:PATH' for kind in FILE_KINDS)} (PATH local or s3://bucket/prefix)"


def _check_data(value: Any) -> Any:
    """A name as it is; a generated set as its section, whose options may be left out."""
    if isinstance(value, str) and value in GENERATED:
        value = {"name": value}
    if isinstance(value, Mapping):
        return _generated(value)
    if isinstance(value, Section):
        return value
    if not isinstance(value, str):
        raise custom_error("", f"found {found(value)}; allowed: {_allowed()}")
    kind, colon, path = value.partition(":")
    if colon and kind in FILE_KINDS:
        _check_path(value, path)
    elif value not in KNOWN:
        hint = nearest(value, (*KNOWN, *GENERATED, *FILE_KINDS))
        raise custom_error("", f"found {found(value)}; allowed: {_allowed()}{hint}")
    return value


def _generated(value: Mapping[str, Any]) -> Section:
    name = value.get("name")
    if not isinstance(name, str) or name not in GENERATED:
        hint = nearest(name, GENERATED) if isinstance(name, str) else ""
        raise custom_error("name", f"found {found(name)}; generated sets are {', '.join(GENERATED)}{hint}")
    model = GENERATED[name]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise custom_errors(mistakes_of(error, model, {})) from error


def _check_path(value: str, path: str) -> None:
    scheme, separator, rest = path.partition("://")
    if not path or "\x00" in path or (separator and (scheme != "s3" or not rest.strip("/"))):
        raise custom_error("", f"found {found(value)}; allowed: a local path or s3://bucket/prefix after the colon")
    if separator and ("@" in rest or has_password(path)):
        raise custom_error("", "found credentials in a location; allowed: s3://bucket/prefix, keys in AWS_*")


# the keys -------------------------------------------------------------------------------------------------------------


class Supervised(Section):
    """What landscapes of supervised learning share: a data set, its split, a loss and weight decay."""

    name: str = Field(description="the model")
    data: Annotated[str | Generated, BeforeValidator(_check_data)] = Field(
        default="digits",
        description="digits, mnist5k; mnist1d, teacher_student, gaussian_mixture, or one of these with options as a "
        "mapping; idx:PATH, npz:PATH, parquet:PATH, images:PATH, with PATH local or s3://bucket/prefix",
    )
    resize: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="pixels a side that images are reduced to: mean pooling where it divides, else bilinear with "
        "antialiasing; null leaves them as they are",
    )
    train_size: int | None = Field(
        default=None,
        ge=1,
        description="training examples; null: the set's own training set, else 1200 of digits, 4000 of mnist5k, "
        "two thirds of others",
    )
    test_size: int | None = Field(default=None, ge=1, description="test examples; null: all that are left")
    split_seed: Seed | None = Field(
        default=None,
        description="seed of the train/test split; null: the set's own test set, and 0 where it has none",
    )
    subset_per_class: int | None = Field(
        default=None, ge=1, description="keep this many training examples of each class; null keeps all"
    )
    standardise: bool = Field(default=True, description="scale each input to mean 0, variance 1 (training set)")
    label_noise: float = Field(
        default=0.0, ge=0, le=1, description="fraction of training labels replaced by uniform ones, in [0, 1]"
    )
    random_labels: bool = Field(default=False, description="replace every training label by a uniform one")
    label_seed: Seed = Field(default=0, description="seed of label_noise and random_labels")
    loss: Literal["cross_entropy", "mse"] = Field(default="cross_entropy", description="mean over the training set")
    weight_decay: NonNegative = Field(default=1e-3, description="λ of λ/2·‖θ‖² in the objective, ≥ 0")

    @property
    def most_examples(self) -> int | None:
        """An upper bound of the training set's size, where it is known before the data are loaded."""
        known = KNOWN.get(self.data) if isinstance(self.data, str) else None
        return self.train_size or (known.train_size if known else None)

    @model_validator(mode="after")
    def _labels_are_replaced_once(self) -> Self:
        if self.random_labels and self.label_noise > 0:
            text = f"found {self.label_noise:g} with random_labels; allowed: 0, for every label is random already"
            raise custom_error("label_noise", text)
        return self

    @model_validator(mode="after")
    def _fits_the_data(self) -> Self:
        kind = self.data.partition(":")[0] if isinstance(self.data, str) else self.data.name
        if kind == "images" and self.resize is None:
            raise custom_error("resize", "found null; allowed with images: the pixels a side, as in resize: 32")
        if kind in GENERATED and self.resize is not None:
            raise custom_error("resize", f"found {self.resize}; allowed with {kind}: null, for it has no images")
        if kind in KNOWN:
            _check_known(kind, KNOWN[kind], self)
        return self


def _check_known(name: str, known: Known, asked: Supervised) -> None:
    if asked.resize is not None and asked.resize > known.side:
        pixels = f"{name} has {known.side}×{known.side} pixels"
        raise custom_error("resize", f"found {asked.resize}; allowed: null or at most {known.side}: {pixels}")
    train = asked.train_size or known.train_size
    if train >= known.rows:
        text = f"found {train}; allowed: at most {known.rows - 1} ({name} has {known.rows} examples)"
        raise custom_error("train_size", text)
    if asked.test_size is not None and asked.test_size > known.rows - train:
        text = f"found {asked.test_size}; allowed: at most {known.rows - train}, which {train} for training leave"
        raise custom_error("test_size", text)
