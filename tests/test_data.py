"""From samples to a data set: split, reduced, scaled, relabelled."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from landsweep.workers.data import Dataset, Options, as_tensor, dataset, prepare, resized
from landsweep.workers.errors import LandscapeError
from landsweep.workers.samples import Samples
from tests.digits import CPU, SAMPLES, digits

pytestmark = pytest.mark.usefixtures("one_thread")


def samples(rows: int = 40, classes: int = 4, test: int = 0, shape: tuple[int, ...] = (3,), seed: int = 0) -> Samples:
    """Gaussian inputs whose first entry is the row's number; labels 0, 1, …, classes − 1, 0, …"""
    inputs = np.random.default_rng(seed).standard_normal((rows + test, *shape))
    inputs.reshape(rows + test, -1)[:, 0] = np.arange(rows + test)
    labels = np.arange(rows + test) % classes
    if not test:
        return Samples("made", inputs, labels, classes)
    return Samples("made", inputs[:rows], labels[:rows], classes, inputs[rows:], labels[rows:])


def raw(made: Samples, **options: Any) -> Dataset:
    return prepare(made, Options(**{"standardise": False, **options}))


def numbers(inputs: torch.Tensor) -> list[int]:
    """The numbers of the rows."""
    return [int(number) for number in inputs.flatten(1)[:, 0]]


# the digits as they have always been ----------------------------------------------------------------------------------


def digits_by_hand(train_size: int, split_seed: int, resize: int | None, standardise: bool) -> list[np.ndarray]:
    bunch = load_digits()
    images = bunch.images / 16.0
    if resize is not None:
        images = images.reshape(-1, resize, 8 // resize, resize, 8 // resize).mean(axis=(2, 4))
    order = np.random.default_rng(split_seed).permutation(1797)
    inputs, labels = images.reshape(1797, -1)[order], bunch.target[order]
    if standardise:
        mean, deviation = inputs[:train_size].mean(0), inputs[:train_size].std(0)
        inputs = np.where(deviation > 0, (inputs - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
    return [inputs[:train_size], labels[:train_size], inputs[train_size:], labels[train_size:]]


@pytest.mark.parametrize("resize", [None, 4, 2])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("train_size", "split_seed"), [(1200, 0), (150, 7)])
def test_digits_are_the_same_bits(train_size: int, split_seed: int, resize: int | None, standardise: bool) -> None:
    data = digits(train_size=train_size, split_seed=split_seed, resize=resize, standardise=standardise)
    expected = digits_by_hand(train_size, split_seed, resize, standardise)
    found = [data.train_inputs, data.train_labels, data.test_inputs, data.test_labels]
    assert (data.train_inputs.dtype, data.train_labels.dtype, data.classes) == (torch.float64, torch.int64, 10)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.numpy(), theirs)


def test_digits_without_options() -> None:
    data = prepare(SAMPLES, Options())
    assert (data.shape, data.train_inputs.shape, data.test_inputs.shape) == ((8, 8), (1200, 8, 8), (597, 8, 8))
    assert torch.equal(data.flat().train_inputs, digits(train_size=1200, split_seed=0).train_inputs)


# the split ------------------------------------------------------------------------------------------------------------


def test_a_split_is_a_partition_with_each_its_label() -> None:
    data = raw(samples(), train_size=25, split_seed=3)
    train, test = numbers(data.train_inputs), numbers(data.test_inputs)
    assert sorted(train + test) == list(range(40))
    assert data.train_labels.tolist() == [number % 4 for number in train]
    assert data.test_labels.tolist() == [number % 4 for number in test]
    assert numbers(raw(samples(), train_size=25, split_seed=3).train_inputs) == train
    assert numbers(raw(samples(), train_size=25, split_seed=4).train_inputs) != train


def test_a_set_keeps_its_own_split_until_a_seed_is_given() -> None:
    made = samples(rows=30, test=10)
    own = raw(made)
    assert numbers(own.train_inputs) == list(range(30))
    assert numbers(own.test_inputs) == list(range(30, 40))
    anew = raw(made, split_seed=0)
    assert (len(anew.train_labels), len(anew.test_labels)) == (30, 10)
    assert set(numbers(anew.train_inputs)) & set(range(30, 40))
    assert sorted(numbers(anew.train_inputs) + numbers(anew.test_inputs)) == list(range(40))


def test_sizes_take_a_part_of_each_set() -> None:
    made = samples(rows=30, test=10)
    part = raw(made, train_size=12, test_size=5)
    train, test = numbers(part.train_inputs), numbers(part.test_inputs)
    assert (len(set(train)), len(set(test))) == (12, 5)
    assert max(train) < 30 <= min(test)
    assert train != sorted(train), "a random part, for a file may be ordered by class"
    pooled = raw(samples(), train_size=12, test_size=5, split_seed=1)
    whole = raw(samples(), train_size=12, split_seed=1)
    assert numbers(pooled.train_inputs) == numbers(whole.train_inputs)
    assert numbers(pooled.test_inputs) == numbers(whole.test_inputs)[:5]
    assert (len(raw(samples()).train_labels), len(raw(samples()).test_labels)) == (26, 14)  # two thirds


@pytest.mark.parametrize("test", [0, 10])
@pytest.mark.parametrize("split_seed", [None, 2])
def test_a_subset_has_as_many_of_each_class(test: int, split_seed: int | None) -> None:
    made = samples(rows=60, test=test)
    whole = raw(made, split_seed=split_seed)
    part = raw(made, split_seed=split_seed, subset_per_class=3)
    assert torch.bincount(part.train_labels).tolist() == [3] * 4
    assert set(numbers(part.train_inputs)) <= set(numbers(whole.train_inputs))
    assert torch.equal(part.test_inputs, whole.test_inputs)
    assert part.train_labels.tolist() == [number % 4 for number in numbers(part.train_inputs)]


@pytest.mark.parametrize(
    ("test", "options", "words"),
    [
        (0, {"train_size": 40}, "train_size: found 40; allowed with made is 1 … 39"),
        (0, {"train_size": 0}, "train_size: found 0"),
        (0, {"train_size": 30, "test_size": 11}, "test_size: found 11; allowed with made is 1 … 10"),
        (8, {"train_size": 41}, "train_size: found 41; allowed with made is 1 … 40, or set split_seed"),
        (8, {"test_size": 9}, "test_size: found 9"),
        (8, {"train_size": 48, "split_seed": 0}, "train_size: found 48; allowed with made is 1 … 47"),
        (8, {"subset_per_class": 11}, "subset_per_class: found 11; allowed with made is at most 10"),
        (0, {"resize": 2}, r"resize: found 2; allowed with made is null, for an input has the shape \(3,\)"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(test: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LandscapeError, match=f"landscape.{words}"):
        raw(samples(test=test), **options)


# inputs ---------------------------------------------------------------------------------------------------------------


def test_pixels_are_scaled_to_one() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 4, 4)
    data = raw(Samples("made", pixels, np.arange(16) % 2, 2, pixels, np.arange(16) % 2))
    assert torch.equal(data.train_inputs.flatten(), torch.arange(256, dtype=torch.float64) / 255)


@pytest.mark.parametrize("colour", [False, True])
def test_mean_pooling_where_the_size_divides(colour: bool) -> None:
    image = np.arange(24.0).reshape(1, 4, 6)
    images = np.stack([image, 2 * image], axis=1) if colour else image
    expected = np.array([[[4.0, 7.0], [16.0, 19.0]]])  # means over blocks of 2×3
    assert np.array_equal(resized(images, 2), np.stack([expected, 2 * expected], axis=1) if colour else expected)


@pytest.mark.parametrize("shape", [(28, 28), (30, 25)])
def test_reduction_elsewhere_agrees_with_pillow(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((3, *shape))
    ours = resized(images, 10)
    for image, small in zip(images, ours, strict=True):
        pillow = Image.fromarray(image.astype(np.float32)).resize((10, 10), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(small, np.asarray(pillow), rtol=0, atol=1e-6)
    assert np.allclose(resized(np.full((1, *shape), 0.7), 10), 0.7, rtol=1e-14)


def test_standardised_by_the_training_set() -> None:
    made = samples(rows=300, test=50, shape=(2, 3))
    made.inputs[:, 1, 1] = 1 / 3  # a constant whose computed deviation is rounding
    data = prepare(made, Options())
    flat = data.train_inputs.flatten(1)
    constant = torch.tensor([False, False, False, False, True, False])
    assert bool((flat[:, constant] == 0).all())
    assert bool((data.test_inputs.flatten(1)[:, constant] == 0).all())
    torch.testing.assert_close(flat[:, ~constant].mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(flat[:, ~constant].std(0, correction=0), torch.ones(5, dtype=torch.float64))
    assert made.test_inputs is not None
    column = (made.test_inputs[:, 0, 1] - made.inputs[:, 0, 1].mean()) / made.inputs[:, 0, 1].std()
    np.testing.assert_allclose(data.test_inputs[:, 0, 1], column, rtol=1e-14)


def test_read_only_memory_is_used_in_place() -> None:
    made = samples(rows=20, test=10)
    for array in (made.inputs, made.labels, made.test_inputs, made.test_labels):
        assert array is not None
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = raw(made)
        assert as_tensor(made.inputs).data_ptr() == made.inputs.ctypes.data
    assert data.train_inputs.data_ptr() == made.inputs.ctypes.data
    assert data.train_labels.data_ptr() == made.labels.ctypes.data


def test_a_process_prepares_a_set_once() -> None:
    first = dataset(samples(), Options(split_seed=5), CPU)
    assert dataset(samples(), Options(split_seed=5), CPU) is first, "found by content, not by object"
    assert dataset(samples(), Options(split_seed=6), CPU) is not first
    assert dataset(samples(seed=1), Options(split_seed=5), CPU) is not first


# labels ---------------------------------------------------------------------------------------------------------------


def test_label_noise_replaces_its_fraction() -> None:
    made = samples(rows=4000, test=100)
    clean, noisy = raw(made), raw(made, label_noise=0.3)
    changed = (clean.train_labels != noisy.train_labels).double().mean()
    assert float(changed) == pytest.approx(0.3 * 3 / 4, abs=0.02)  # a quarter of the uniform labels is the true one
    assert torch.equal(clean.test_labels, noisy.test_labels)
    assert torch.equal(noisy.train_labels, raw(made, label_noise=0.3).train_labels)
    assert not torch.equal(noisy.train_labels, raw(made, label_noise=0.3, label_seed=1).train_labels)
    assert made.labels.tolist() == (np.arange(4000) % 4).tolist(), "the samples stay as they are"


def test_random_labels_are_uniform_and_independent() -> None:
    made = samples(rows=4000, test=100)
    data = raw(made, random_labels=True)
    table = np.zeros((4, 4))
    np.add.at(table, (made.labels, data.train_labels.numpy()), 1)
    assert ((table - 250) ** 2 / 250).sum() < 40  # χ², 15 degrees of freedom: p = 5e-4
    assert data.test_labels.tolist() == [number % 4 for number in range(4000, 4100)]


# checksums ------------------------------------------------------------------------------------------------------------


def test_a_checksum_is_that_of_the_content() -> None:
    made = samples(test=8)
    assert made.checksum == samples(test=8).checksum
    others = [samples(seed=1, test=8), samples(rows=39, test=9), samples(rows=48)]
    changed = samples(test=8)
    changed.labels[0] += 1
    narrow = Samples("made", made.inputs.astype(np.float32), made.labels, 4, made.test_inputs, made.test_labels)
    assert len({made.checksum, changed.checksum, narrow.checksum, *(other.checksum for other in others)}) == 6
