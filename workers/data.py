"""Data sets: the training and test set that a landscape is built on, made of a loader's samples.

The work is done in numpy, so that the same options give the same bits wherever they are applied.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.errors import LandscapeError
from landsweep.workers.samples import Array, Samples

#: Prepared data sets that a process keeps: a sweep's batches come grouped by landscape.
KEPT = 2
_SUBSET_SEED = 0  # which examples of a set's own split are taken, where fewer are asked for


@dataclass(frozen=True)
class Options:
    """How training and test set are made of samples."""

    train_size: int | None = None  # None: the set's own training set, else its default, else two thirds
    test_size: int | None = None  # None: all that are left
    split_seed: int | None = None  # None: the set's own test set, and 0 where it has none
    subset_per_class: int | None = None  # training examples kept of each class
    resize: int | None = None  # pixels a side
    standardise: bool = True
    label_noise: float = 0.0  # fraction of training labels replaced
    random_labels: bool = False
    label_seed: int = 0


OPTIONS = tuple(field.name for field in fields(Options))


@dataclass(frozen=True)
class Dataset:
    """A classification set, split; float64 inputs and int64 labels."""

    train_inputs: Tensor  # (N, *shape)
    train_labels: Tensor  # (N,)
    test_inputs: Tensor  # (M, *shape)
    test_labels: Tensor  # (M,)
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (d,) features, (L,) a sequence, (H, W) a grey image, (3, H, W) a colour image."""
        return tuple(self.train_inputs.shape[1:])

    def flat(self) -> Dataset:
        """The same with inputs (N, d)."""
        train, test = self.train_inputs.flatten(1), self.test_inputs.flatten(1)
        return Dataset(train, self.train_labels, test, self.test_labels, self.classes)

    def to(self, device: torch.device) -> Dataset:
        train, test = (self.train_inputs, self.train_labels), (self.test_inputs, self.test_labels)
        x, y, x_test, y_test = (tensor.to(device) for tensor in train + test)
        return Dataset(x, y, x_test, y_test, self.classes)


class _Split(NamedTuple):
    """Raw inputs and labels of the two sets."""

    inputs: Array
    labels: Array
    test_inputs: Array
    test_labels: Array


def prepare(samples: Samples, options: Options) -> Dataset:
    """Split, reduce, scale and relabel ``samples``. Raises LandscapeError for options that they do not allow.

    1. Split: the set's own one where ``split_seed`` is None and it has one; otherwise all examples are pooled and
       permuted by ``numpy.random.default_rng(split_seed)``, the first ``train_size`` being the training set and the
       next ``test_size`` the test set. ``subset_per_class`` keeps the first k training examples of each class.
    2. Pixels p become p/255, images ``resize``×``resize`` (:func:`resized`).
    3. ``standardise`` subtracts the training mean of each input and divides by its standard deviation (population);
       an input that is constant on the training set becomes 0.
    4. ``random_labels`` draws every training label uniformly (Zhang et al. 2017); ``label_noise`` p replaces
       round(p·N) of them, chosen at random, by uniform ones, which may be the true ones. Test labels stay.
    """
    split = _split(samples, options)
    train, test = (_scaled(part, samples, options) for part in (split.inputs, split.test_inputs))
    if options.standardise:
        train, test = _standardised(train, test)
    labels = _relabelled(split.labels, samples.classes, options)
    x, y, x_test, y_test = map(as_tensor, (train, labels, test, split.test_labels))
    return Dataset(x, y, x_test, y_test, samples.classes)


_prepared: OrderedDict[tuple[str, Options, torch.device], Dataset] = OrderedDict()


def dataset(samples: Samples, options: Options, device: torch.device) -> Dataset:
    """:func:`prepare` on ``device``; a process keeps the ``KEPT`` last ones."""
    key = (samples.checksum, options, device)
    if key not in _prepared:
        while len(_prepared) >= KEPT:
            _prepared.popitem(last=False)
        _prepared[key] = prepare(samples, options).to(device)
    _prepared.move_to_end(key)
    return _prepared[key]


def as_tensor(array: Array) -> Tensor:
    """The array's memory as a tensor, read-only memory too: nothing writes into a data set."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))


# the split ------------------------------------------------------------------------------------------------------------


def _split(samples: Samples, options: Options) -> _Split:
    if samples.test_inputs is None or options.split_seed is not None:
        return _pooled(samples, options)
    train = _chosen(samples.labels, options.train_size, "train_size", samples)
    train = _per_class(train, samples, samples.labels, options)
    assert samples.test_labels is not None
    test = _chosen(samples.test_labels, options.test_size, "test_size", samples)
    return _Split(
        _taken(samples.inputs, train),
        _taken(samples.labels, train),
        _taken(samples.test_inputs, test),
        _taken(samples.test_labels, test),
    )


def _pooled(samples: Samples, options: Options) -> _Split:
    inputs, labels = samples.inputs, samples.labels
    if samples.test_inputs is not None and samples.test_labels is not None:
        inputs, labels = np.concatenate([inputs, samples.test_inputs]), np.concatenate([labels, samples.test_labels])
    rows = len(labels)
    own = len(samples.labels) if samples.test_inputs is not None else samples.default_train_size
    train_size = _first(options.train_size, own, max(1, 2 * rows // 3))
    if not 0 < train_size < rows:
        raise _refusal("train_size", train_size, f"1 … {rows - 1}", samples)
    test_size = _first(options.test_size, rows - train_size)
    if not 0 < test_size <= rows - train_size:
        raise _refusal("test_size", test_size, f"1 … {rows - train_size}", samples)
    order = np.random.default_rng(options.split_seed or 0).permutation(rows)
    train, test = order[:train_size], order[train_size : train_size + test_size]
    kept = _per_class(train, samples, labels, options)
    assert kept is not None
    return _Split(inputs[kept], labels[kept], inputs[test], labels[test])


def _first(*sizes: int | None) -> int:
    """The first that is given."""
    return next(size for size in sizes if size is not None)


def _chosen(labels: Array, size: int | None, key: str, samples: Samples) -> Array | None:
    """Indices of ``size`` examples drawn without replacement; None: all, as they are."""
    if size is None or size == len(labels):
        return None
    if size > len(labels):
        raise _refusal(key, size, f"1 … {len(labels)}, or set split_seed to split anew", samples)
    return np.random.default_rng(_SUBSET_SEED).permutation(len(labels))[:size]


def _per_class(chosen: Array | None, samples: Samples, labels: Array, options: Options) -> Array | None:
    """Of the ``chosen`` examples the first ``subset_per_class`` of each class, in their order."""
    wanted = options.subset_per_class
    if wanted is None:
        return chosen
    if chosen is None:
        chosen = np.random.default_rng(_SUBSET_SEED).permutation(len(labels))
    classes = labels[chosen]
    counts = np.bincount(classes, minlength=samples.classes)
    if counts.min() < wanted:
        allowed = f"at most {counts.min()}, the training examples of class {counts.argmin()}"
        raise _refusal("subset_per_class", wanted, allowed, samples)
    by_class = np.argsort(classes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(classes), dtype=np.int64)
    rank[by_class] = np.arange(len(classes)) - np.repeat(starts, counts)
    return chosen[rank < wanted]


def _taken(array: Array, index: Array | None) -> Array:
    return array if index is None else array[index]


def _refusal(key: str, found: object, allowed: str, samples: Samples) -> LandscapeError:
    return LandscapeError(f"landscape.{key}: found {found}; allowed with {samples.name} is {allowed}")


# inputs ---------------------------------------------------------------------------------------------------------------


def _scaled(inputs: Array, samples: Samples, options: Options) -> Array:
    """float64, pixels in [0, 1], images resized."""
    values = inputs / 255.0 if inputs.dtype == np.uint8 else inputs.astype(np.float64, copy=False)
    if options.resize is None or values.shape[-2:] == (options.resize, options.resize):
        return values
    if values.ndim < 3:
        raise _refusal("resize", options.resize, f"null, for an input has the shape {samples.shape}", samples)
    if options.resize > min(values.shape[-2:]):
        raise _refusal("resize", options.resize, f"at most {min(values.shape[-2:])} pixels a side", samples)
    return resized(values, options.resize)


def resized(images: Array, size: int) -> Array:
    """Images (N, …, H, W) reduced to (N, …, size, size).

    The means over equal blocks where ``size`` divides H and W; otherwise bilinear interpolation with antialiasing (a
    triangle filter as wide as the reduction, torch's ``interpolate(antialias=True)``).
    """
    *front, height, width = images.shape
    if height % size == 0 and width % size == 0:
        blocks = images.reshape(*front, size, height // size, size, width // size)
        pooled: Array = blocks.mean(axis=(-3, -1))
        return pooled
    planes = as_tensor(images).reshape(1, -1, height, width)
    small = functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    result: Array = small.reshape(*front, size, size).numpy()
    return result


def _standardised(train: Array, test: Array) -> tuple[Array, Array]:
    rows = train.reshape(len(train), -1)
    varies = rows.min(0) < rows.max(0)  # the deviation of a constant may be rounding, which must not be divided by
    mean, divisor = rows.mean(0), np.where(varies, rows.std(0), 1.0)

    def scale(inputs: Array) -> Array:
        scaled: Array = inputs.reshape(len(inputs), -1) - mean
        scaled /= divisor
        scaled[:, ~varies] = 0.0
        return scaled.reshape(inputs.shape)

    return scale(train), scale(test)


# labels ---------------------------------------------------------------------------------------------------------------


def _relabelled(labels: Array, classes: int, options: Options) -> Array:
    fraction = 1.0 if options.random_labels else options.label_noise
    if fraction == 0:
        return labels
    generator = np.random.default_rng(options.label_seed)
    replaced = generator.permutation(len(labels))[: round(fraction * len(labels))]
    noisy = labels.copy()
    noisy[replaced] = generator.integers(classes, size=len(replaced))
    return noisy
