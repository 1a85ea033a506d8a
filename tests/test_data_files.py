"""Data sets in files: every format, every fault."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from landsweep.cluster.data import library
from landsweep.cluster.data.library import Library
from landsweep.workers.data import Options, prepare
from landsweep.workers.errors import LandscapeError
from landsweep.workers.samples import Samples
from tests.data_files import (
    IMAGES,
    LABELS,
    changed,
    idx_bytes,
    idx_files,
    image_bytes,
    image_files,
    labels,
    npz_arrays,
    npz_bytes,
    parquet_bytes,
    pixels,
    write,
    zipped,
)

pytestmark = pytest.mark.usefixtures("one_thread")
FASHION = Path("/usr/share/datasets/fashion-mnist")


def load(data: str, resize: int | None = None) -> Samples:
    return library.load({"data": data, "resize": resize})


def equal(one: Samples, other: Samples) -> bool:
    return one.checksum == other.checksum


# what is read ---------------------------------------------------------------------------------------------------------


def test_idx_plain_and_zipped(tmp_path: Path) -> None:
    plain = load(f"idx:{write(tmp_path / 'plain', idx_files())}")
    assert plain.test_inputs is not None
    assert plain.test_labels is not None
    assert np.array_equal(plain.inputs, pixels(30))
    assert np.array_equal(plain.test_inputs, pixels(12, seed=1))
    assert (plain.labels.tolist(), plain.test_labels.tolist()) == ([0, 1, 2] * 10, [0, 1, 2] * 4)
    assert (plain.classes, plain.inputs.dtype, plain.labels.dtype) == (3, np.uint8, np.int64)
    assert equal(plain, load(f"idx:{write(tmp_path / 'gz', zipped(idx_files()))}"))
    dotted = {name.replace("-idx", ".idx"): content for name, content in idx_files().items()}
    assert equal(plain, load(f"idx:{write(tmp_path / 'dotted', dotted)}"))
    alone = load(f"idx:{write(tmp_path / 'alone', idx_files(test=0))}")
    assert alone.test_inputs is None
    assert prepare(alone, Options()).train_inputs.shape == (20, 6, 6)


def test_npz_keeps_the_types_of_numbers(tmp_path: Path) -> None:
    arrays = npz_arrays()
    file = tmp_path / "x.npz"
    file.write_bytes(npz_bytes(**arrays))
    made = load(f"npz:{file}")
    assert np.array_equal(made.inputs, arrays["inputs"])
    assert (made.inputs.dtype, made.classes, made.test_inputs) == (np.float64, 3, None)
    for dtype, kept in [("float32", "float32"), ("uint8", "uint8"), ("int16", "float64"), ("bool", "float64")]:
        file.write_bytes(npz_bytes(**npz_arrays(inputs=arrays["inputs"].astype(dtype))))
        assert load(f"npz:{file}").inputs.dtype == kept
    file.write_bytes(npz_bytes(**arrays, test_inputs=arrays["inputs"][:6], test_labels=arrays["labels"][:6]))
    both = load(f"npz:{file}")
    assert both.test_labels is not None
    assert both.test_labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_parquet_of_columns_lists_and_folders(tmp_path: Path) -> None:
    inputs = npz_arrays()["inputs"]
    columns = {"label": labels(30), **{f"x{j}": inputs[:, j] for j in range(4)}}
    write(tmp_path, {"columns.parquet": parquet_bytes(columns)})
    made = load(f"parquet:{tmp_path}/columns.parquet")
    assert np.array_equal(made.inputs, inputs)
    assert made.labels.tolist() == [0, 1, 2] * 10
    lists = {"inputs": list(inputs), "label": labels(30)}
    write(tmp_path, {"lists.parquet": parquet_bytes(lists)})
    assert equal(made, load(f"parquet:{tmp_path}/lists.parquet"))
    halves = [{name: values[part] for name, values in columns.items()} for part in (slice(0, 18), slice(18, 30))]
    files = {f"part-{k}.parquet": parquet_bytes(half) for k, half in enumerate(halves)}
    assert equal(made, load(f"parquet:{write(tmp_path / 'folder', files)}"))
    split = {f"{name}-0.parquet": parquet_bytes(half) for name, half in zip(("train", "test"), halves, strict=True)}
    own = load(f"parquet:{write(tmp_path / 'split', split)}")
    assert own.test_inputs is not None
    assert (len(own.inputs), len(own.test_inputs)) == (18, 12)


@pytest.mark.parametrize("colour", [False, True])
def test_images_in_class_folders(tmp_path: Path, colour: bool) -> None:
    files = image_files(colour)
    made = load(f"images:{write(tmp_path, {**files, 'readme.txt': b'', '.hidden/x.png': b''})}", resize=5)
    assert made.inputs.shape == ((12, 3, 5, 5) if colour else (12, 5, 5))
    assert made.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with Image.open(tmp_path / "b" / "2.png") as image:
        expected = np.asarray(image.resize((5, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(made.inputs[6], expected.transpose(2, 0, 1) if colour else expected)


def test_images_with_their_own_test_set_and_mixed_colours(tmp_path: Path) -> None:
    grey = load(f"images:{write(tmp_path, image_files(split=True))}", resize=4)
    assert grey.test_labels is not None
    assert grey.test_labels.tolist() == grey.labels.tolist()
    green = np.zeros((9, 9, 3), np.uint8)
    green[..., 1] = 200
    write(tmp_path, {"val/c/green.jpg": image_bytes(green, "JPEG")})
    mixed = load(f"images:{tmp_path}", resize=4)
    assert mixed.test_inputs is not None
    assert mixed.inputs.shape == (12, 3, 4, 4)
    assert np.array_equal(mixed.inputs[:, 0], grey.inputs)
    assert np.array_equal(mixed.inputs[:, 0], mixed.inputs[:, 2])
    assert mixed.test_inputs[-1].mean(axis=(1, 2)) == pytest.approx([0, 200, 0], abs=3)


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_of_debian() -> None:
    library_of = Library()
    landscape = {"name": "mlp", "data": f"idx:{FASHION}", "resize": 7}
    made = library_of.samples(landscape)
    assert made is not None
    assert made.test_inputs is not None
    assert (made.inputs.shape, made.test_inputs.shape, made.classes) == ((60_000, 28, 28), (10_000, 28, 28), 10)
    assert np.bincount(made.labels).tolist() == [6000] * 10
    with gzip.open(FASHION / f"{IMAGES}.gz") as stream:
        assert hashlib.sha256(stream.read()[16:]).digest() == hashlib.sha256(made.inputs.tobytes()).digest()
    small = prepare(made, Options(resize=7, train_size=500, test_size=200))
    assert (small.shape, len(small.train_labels), len(small.test_labels)) == ((7, 7), 500, 200)


# what is refused ------------------------------------------------------------------------------------------------------

GOOD = idx_files()
TEST_LABELS = "t10k-labels-idx1-ubyte"
BAD_IDX: dict[str, tuple[Mapping[str, bytes], str]] = {
    "truncated": (changed(GOOD, IMAGES, lambda c: c[:-7]), f"{IMAGES}: truncated: 1,073 bytes of the 1,080"),
    "truncated header": (changed(GOOD, IMAGES, lambda c: c[:9]), f"{IMAGES}: truncated"),
    "empty file": (changed(GOOD, IMAGES, lambda c: b""), f"{IMAGES}: the magic number is 0x;"),
    "too long": (changed(GOOD, LABELS, lambda c: c + b"x"), f"{LABELS}: holds more than the 30 bytes"),
    "wrong magic": (changed(GOOD, IMAGES, lambda c: b"\x00\x00\x09\x03" + c[4:]), "magic number is 0x00000903"),
    "labels for images": (changed(GOOD, IMAGES, lambda c: GOOD[LABELS]), f"{IMAGES}: the magic number is 0x00000801"),
    "an HTML page": (changed(GOOD, IMAGES, lambda c: b"<!DOCTYPE html>"), "0x3c21444f; unsigned bytes in 3"),
    "truncated gz": (changed(zipped(GOOD), f"{IMAGES}.gz", lambda c: c[:-20]), f"{IMAGES}.gz: truncated or damaged"),
    "damaged gz": (
        changed(zipped(GOOD), f"{IMAGES}.gz", lambda c: c[:40] + b"\xff" * 9 + c[49:]),
        f"{IMAGES}.gz: truncated or damaged gzip",
    ),
    "gz of a truncated file": (zipped(changed(GOOD, IMAGES, lambda c: c[:-1])), f"{IMAGES}.gz: truncated: 1,079"),
    "unequal lengths": ({**GOOD, LABELS: idx_bytes(labels(29))}, f"{LABELS}: 29 labels for the 30 inputs of "),
    "label out of range": ({**GOOD, TEST_LABELS: idx_bytes(labels(12, 4))}, f"{TEST_LABELS}: label 3 is out of range"),
    "gap in the labels": ({**GOOD, LABELS: idx_bytes(2 * labels(30))}, "labels 0 … 4 are out of range: 3 classes"),
    "one class": ({**GOOD, LABELS: idx_bytes(0 * labels(30))}, f"{LABELS}: all labels are 0"),
    "other image size": (
        {**GOOD, "t10k-images-idx3-ubyte": idx_bytes(pixels(12, 5))},
        r"t10k-images-idx3-ubyte: an input has the shape \(5, 5\)",
    ),
    "no labels": ({IMAGES: GOOD[IMAGES]}, r"no train-labels-idx1-ubyte\[\.gz\]; add it beside train-images"),
    "empty folder": ({}, "no such folder"),
    "other files": ({"x.txt": b""}, r"no train-images-idx3-ubyte\[\.gz\]; name the folder"),
    "no example": ({IMAGES: idx_bytes(pixels(0)), LABELS: idx_bytes(labels(0))}, r"inputs have the shape \(0, 6, 6\)"),
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_bad_idx_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    files, words = BAD_IDX[name]
    with pytest.raises(LandscapeError, match=rf"landscape\.data: {tmp_path}.*{words}"):
        load(f"idx:{write(tmp_path / 'data', files)}")


_X = npz_arrays()["inputs"]
_HOLE = np.where(np.arange(120).reshape(30, 4) == 50, np.nan, _X)
BAD_NPZ: dict[str, tuple[bytes, str]] = {
    "objects": (npz_bytes(**npz_arrays(inputs=np.array([[1], "a"] * 15, object))), "inputs is an array of objects"),
    "object labels": (npz_bytes(**npz_arrays(labels=np.array([{}] * 30))), "labels is an array of objects"),
    "NaN": (npz_bytes(**npz_arrays(inputs=_HOLE)), r"\(inputs\): example 12 holds NaN or infinity"),
    "infinity": (npz_bytes(**npz_arrays(inputs=_X * np.inf)), "example 0 holds NaN or infinity"),
    "text": (npz_bytes(**npz_arrays(inputs=np.array([["a"]] * 30))), "inputs are of type <U1"),
    "complex": (npz_bytes(**npz_arrays(inputs=_X + 1j)), "inputs are of type complex128"),
    "no dimension": (npz_bytes(**npz_arrays(inputs=_X[:, 0])), r"inputs have the shape \(30,\)"),
    "float labels": (npz_bytes(**npz_arrays(labels=np.zeros(30))), "labels are float64 of shape"),
    "one-hot labels": (npz_bytes(**npz_arrays(labels=np.eye(3, dtype=int)[labels(30)])), r"int64 of shape \(30, 3\)"),
    "negative label": (npz_bytes(**npz_arrays(labels=np.arange(30) - 1)), "labels -1 … 28 are out of range"),
    "huge label": (npz_bytes(**npz_arrays(labels=np.arange(30) + 2**40)), "are out of range; number the classes"),
    "unequal lengths": (npz_bytes(**npz_arrays(labels=np.arange(29))), "29 labels for the 30 inputs"),
    "no labels": (npz_bytes(inputs=_X), "holds inputs without its pair; save inputs and labels"),
    "other names": (npz_bytes(x=_X, y=labels(30)), "holds x, y; save arrays named inputs and labels"),
    "half a test set": (npz_bytes(**npz_arrays(), test_inputs=_X), "holds test_inputs without its pair"),
    "other test type": (
        npz_bytes(**npz_arrays(), test_inputs=_X.astype(np.float32), test_labels=labels(30)),
        "inputs are float32, in .* float64",
    ),
    "truncated": (npz_bytes(**npz_arrays())[:-30], "is no .npz archive"),
    "no archive": (b"inputs,labels\n", "is no .npz archive"),
    "damaged": (npz_bytes(**npz_arrays()).replace(b"NUMPY", b"PIMPY", 1), "inputs is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, words = BAD_NPZ[name]
    write(tmp_path, {"x.npz": content})
    with pytest.raises(LandscapeError, match=rf"landscape\.data: {tmp_path}/x\.npz.*{words}"):
        load(f"npz:{tmp_path}/x.npz")


BAD_PARQUET: dict[str, tuple[Mapping[str, Any] | bytes, str]] = {
    "no labels": ({"x": [1.0, 2.0]}, "columns are x; name the labels' column label"),
    "text": ({"label": [0, 1], "x": ["a", "b"]}, "column x is of type .*string"),
    "nulls": ({"label": [0, 1], "x": [1.0, None]}, "column x holds 1 nulls"),
    "NaN in a list": ({"label": [0, 1], "inputs": [[1.0, 2.0], [3.0, np.nan]]}, "example 1 holds NaN"),
    "text labels": ({"label": ["a", "b"], "x": [1.0, 2.0]}, "labels are object"),
    "unequal lists": ({"label": [0, 1], "inputs": [[1.0], [1.0, 2.0]]}, "lists of 1 to 2 numbers"),
    "lists of text": ({"label": [0, 1], "inputs": [["a"], ["b"]]}, "column inputs holds .*string"),
    "inputs that are no list": ({"label": [0, 1], "inputs": [1.0, 2.0]}, "column inputs is of type double"),
    "no features": ({"label": [0, 1]}, "no column but label"),
    "no row": ({"label": np.array([], int), "x": np.array([])}, r"inputs have the shape \(0, 1\)"),
    "truncated": (parquet_bytes({"label": [0, 1], "x": [1.0, 2.0]})[:-9], "is no readable Parquet file"),
}


@pytest.mark.parametrize("name", BAD_PARQUET)
def test_bad_parquet_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, words = BAD_PARQUET[name]
    write(tmp_path, {"x.parquet": content if isinstance(content, bytes) else parquet_bytes(content)})
    with pytest.raises(LandscapeError, match=rf"landscape\.data: {tmp_path}/x\.parquet: .*{words}"):
        load(f"parquet:{tmp_path}/x.parquet")


def test_parquet_folders_that_cannot_be_used(tmp_path: Path) -> None:
    one, other = (parquet_bytes({"label": [0, 1], **{f"x{j}": [0.0, 1.0] for j in range(d)}}) for d in (2, 3))
    with pytest.raises(LandscapeError, match=r"b\.parquet: 3 inputs a row, in .*a\.parquet 2"):
        load(f"parquet:{write(tmp_path / 'widths', {'a.parquet': one, 'b.parquet': other})}")
    with pytest.raises(LandscapeError, match=r"test\.parquet without a train"):
        load(f"parquet:{write(tmp_path / 'test', {'test.parquet': one})}")
    with pytest.raises(LandscapeError, match=r"no \.parquet file"):
        load(f"parquet:{write(tmp_path / 'none', {'x.csv': b''})}")


_PNG = image_files()["a/0.png"]
_DEEP = image_bytes(np.full((4, 4), 40_000, np.uint16))
BAD_IMAGES: dict[str, tuple[Mapping[str, bytes], str]] = {
    "empty file": ({"a/0.png": b""}, "/a/0.png: is no readable image"),
    "truncated": ({"a/0.png": _PNG[: len(_PNG) // 2]}, "/a/0.png: is no readable image"),
    "text": ({"a/0.png": b"not an image"}, "/a/0.png: is no readable image"),
    "16 bits": ({"a/0.png": _DEEP}, "/a/0.png: has pixels of mode I;16; save it with 8 bits"),
    "outside the folders": ({"0.png": _PNG}, "/0.png: lies in no class folder"),
    "class of the test set alone": ({"train/a/0.png": _PNG, "val/d/0.png": _PNG}, "/val/d/0.png: is of a class that"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_by_name(tmp_path: Path, name: str) -> None:
    files, words = BAD_IMAGES[name]
    good = {} if "train/a/0.png" in files else image_files()
    with pytest.raises(LandscapeError, match=rf"landscape\.data: {tmp_path}{words}"):
        load(f"images:{write(tmp_path, {**good, **files})}", resize=4)


def test_folders_without_images_and_absent_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(LandscapeError, match=r"no image \(\.png.*a folder of images for each class"):
        load(f"images:{tmp_path}", resize=4)
    for data in ("idx", "images"):
        with pytest.raises(LandscapeError, match="absent: no such folder; check the path"):
            load(f"{data}:{tmp_path}/absent", resize=4)
    for data in ("npz", "parquet"):
        with pytest.raises(LandscapeError, match=rf"absent\.{data}: no such file; check the path"):
            load(f"{data}:{tmp_path}/absent.{data}")
    with pytest.raises(LandscapeError, match="a: cannot be read"):
        load(f"npz:{tmp_path}/a")
