"""What every data set must be, whatever format it came in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landsweep.cluster.data.source import refusal
from landsweep.workers.samples import Array, Samples


@dataclass(frozen=True)
class Part:
    """A training or test set as read, and the files that messages name."""

    inputs: Array
    labels: Array
    inputs_file: str
    labels_file: str


def checked(name: str, train: Part, test: Part | None = None) -> Samples:
    """The samples of a training set and, where there is one, a test set.

    Refused, naming the file: unequal lengths, no or one example, inputs that are no finite numbers, labels that are
    not integers 0 … C − 1 with each in the training set. C is one more than its largest label.
    """
    for part in (train, test) if test else (train,):
        _check_inputs(part)
        _check_labels(part)
    classes = int(train.labels.max()) + 1
    _check_classes(train, classes)
    if test is None:
        return Samples(name, _numbers(train.inputs), train.labels.astype(np.int64), classes)
    _check_agreement(train, test, classes)
    inputs, test_inputs = _numbers(train.inputs), _numbers(test.inputs)
    return Samples(name, inputs, train.labels.astype(np.int64), classes, test_inputs, test.labels.astype(np.int64))


def _numbers(inputs: Array) -> Array:
    """uint8 (pixels), float32 and float64 as they are, other numbers as float64."""
    return inputs if inputs.dtype in (np.uint8, np.float32, np.float64) else inputs.astype(np.float64)


def _check_inputs(part: Part) -> None:
    inputs = part.inputs
    if inputs.dtype.kind not in "buif":
        raise refusal(part.inputs_file, f"inputs are of type {inputs.dtype}", "give integers or floats")
    if inputs.ndim < 2 or inputs.size == 0:
        raise refusal(part.inputs_file, f"inputs have the shape {inputs.shape}", "give (N, …), N ≥ 1 examples")
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        row = int(np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(1))[0])
        raise refusal(part.inputs_file, f"example {row} holds NaN or infinity", "clean or drop such examples")


def _check_labels(part: Part) -> None:
    labels = part.labels
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        found = f"labels are {labels.dtype} of shape {labels.shape}"
        raise refusal(part.labels_file, found, "give one integer 0 … C−1 for each example")
    if len(labels) != len(part.inputs):
        found = f"{len(labels)} labels for the {len(part.inputs)} inputs of {part.inputs_file}"
        raise refusal(part.labels_file, found, "give one label for each input")
    if int(labels.min()) < 0 or int(labels.max()) > 2**31:
        found = f"labels {labels.min()} … {labels.max()} are out of range"
        raise refusal(part.labels_file, found, "number the classes 0 … C−1")


def _check_classes(train: Part, classes: int) -> None:
    present = np.unique(train.labels)
    if len(present) == classes and classes > 1:
        return
    if classes == 1:
        raise refusal(train.labels_file, "all labels are 0", "give at least two classes")
    first = int(np.flatnonzero(present != np.arange(len(present)))[0])
    found = f"labels 0 … {classes - 1} are out of range: {len(present)} classes are there, class {first} is not"
    raise refusal(train.labels_file, found, "number the classes 0 … C−1 without gaps")


def _check_agreement(train: Part, test: Part, classes: int) -> None:
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        found = f"an input has the shape {test.inputs.shape[1:]}, in {train.inputs_file} {train.inputs.shape[1:]}"
        raise refusal(test.inputs_file, found, "give both sets the same")
    if train.inputs.dtype != test.inputs.dtype:
        found = f"inputs are {test.inputs.dtype}, in {train.inputs_file} {train.inputs.dtype}"
        raise refusal(test.inputs_file, found, "give both sets the same type")
    if int(test.labels.max()) >= classes:
        found = f"label {test.labels.max()} is out of range: the training set has the classes 0 … {classes - 1}"
        raise refusal(test.labels_file, found, "drop such examples")
