"""Images in class folders (ImageNet's layout), reduced by Pillow. The only module that imports it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from landsweep.cluster.data.checks import Part, checked
from landsweep.cluster.data.source import Source, open_source, place, read, refusal
from landsweep.workers.errors import DependencyError
from landsweep.workers.samples import Array, Samples

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # whatever a name says: Pillow runs others by programs
MAX_PIXELS = 2**26  # of an image, unpacked beside those of the other readers; ImageNet's largest has 61 million
_TEST_FOLDERS = ("val", "test")
_READERS = 8  # threads: images on S3 come one request each


def load(path: str, name: str, size: int) -> Samples:
    """``PATH/<class>/<image>``, or ``PATH/train/<class>/<image>`` with ``PATH/val`` or ``PATH/test``.

    Classes are numbered in the order of their names. Each image becomes ``size``×``size`` pixels (Pillow's bilinear
    filter, which averages where it reduces); the set is grey, (H, W), where every image is, else RGB, (3, H, W).
    """
    source = open_source(path)
    names = [file for file in source.names() if file.lower().endswith(SUFFIXES)]
    if not names:
        wrong = f"no image ({', '.join(SUFFIXES)})"
        raise refusal(source.uri, wrong, "name a folder that holds a folder of images for each class")
    train, test = _splits(names)
    classes = sorted({_class_of(source, file) for file in train})
    parts = [_read(source, files, classes, size) for files in (train, test) if files]
    colour = any(image.ndim == 3 for images, _ in parts for image in images)
    train_part, *rest = [_part(source, images, labels, colour) for images, labels in parts]
    return checked(name, train_part, rest[0] if rest else None)


def _splits(names: Sequence[str]) -> tuple[list[str], list[str]]:
    tops = {PurePosixPath(name).parts[0] for name in names}
    folder = next((top for top in _TEST_FOLDERS if top in tops), None)
    if folder is None or "train" not in tops:
        return list(names), []
    train, test = ([name for name in names if name.startswith(f"{top}/")] for top in ("train", folder))
    return train, test


def _class_of(source: Source, name: str) -> str:
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or (parts[0] in ("train", *_TEST_FOLDERS) and len(parts) < 3):
        raise refusal(place(source, name), "lies in no class folder", "move it to <class>/<image>")
    return parts[-2]


def _read(source: Source, names: list[str], classes: list[str], size: int) -> tuple[list[Array], Array]:
    numbers = {name: number for number, name in enumerate(classes)}
    for file in names:
        if _class_of(source, file) not in numbers:
            raise refusal(place(source, file), "is of a class that the training set lacks", "add or drop that class")

    def image(file: str) -> Array:
        return decode(read(source, file), place(source, file), size)

    with ThreadPoolExecutor(_READERS) as pool:
        images = list(pool.map(image, names))
    return images, np.array([numbers[_class_of(source, file)] for file in names])


def _part(source: Source, images: list[Array], labels: Array, colour: bool) -> Part:
    if colour:
        images = [np.stack([image] * 3) if image.ndim == 2 else image.transpose(2, 0, 1) for image in images]
    return Part(np.stack(images), labels, source.uri, source.uri)


def decode(content: bytes, file: str, size: int) -> Array:
    """The pixels of one image: uint8 (size, size) of a grey one, else (size, size, 3)."""
    image_module = _pillow()
    try:
        with image_module.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise refusal(file, f"has {image.width:,} × {image.height:,} pixels", f"give at most {MAX_PIXELS:,}")
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise refusal(file, f"has pixels of mode {image.mode}", "save it with 8 bits a channel")
            pixels = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
            return np.asarray(pixels.resize((size, size), image_module.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, EOFError, image_module.DecompressionBombError) as exc:
        raise refusal(file, f"is no readable image ({exc})", "replace or remove it") from exc


@cache
def _pillow() -> Any:
    """Pillow's Image. Its warning of large images would come before the refusal."""
    try:
        from PIL import Image
    except ImportError as exc:
        raise DependencyError("data images:… needs Pillow: pip install 'landsweep[run]'") from exc
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image
