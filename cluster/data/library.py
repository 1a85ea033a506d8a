"""The data sets of a sweep, each loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from landsweep.cluster.data import generated, idx, images, mnist1d, npz, packaged, parquet
from landsweep.workers.record import canonical_json
from landsweep.workers.samples import Samples

_PACKAGED: dict[str, Callable[[], Samples]] = {"digits": packaged.digits, "mnist5k": packaged.mnist5k}
_GENERATED: dict[str, Callable[..., Samples]] = {
    "mnist1d": mnist1d.generate,
    "teacher_student": generated.teacher_student,
    "gaussian_mixture": generated.gaussian_mixture,
}
_FILES: dict[str, Callable[[str, str], Samples]] = {"idx": idx.load, "npz": npz.load, "parquet": parquet.load}


def load(landscape: Mapping[str, Any]) -> Samples:
    """The raw samples of a ``landscape`` section that has data.

    Raises LandscapeError naming the file and what is wrong with it, DependencyError where a package is missing.
    """
    data = landscape["data"]
    if isinstance(data, Mapping):
        options = {key: value for key, value in data.items() if key != "name"}
        return _GENERATED[data["name"]](**options)
    if data in _PACKAGED:
        return _PACKAGED[data]()
    kind, _, path = data.partition(":")
    if kind == "images":
        return images.load(path, data, landscape["resize"])
    return _FILES[kind](path, data)


def title(landscape: Mapping[str, Any]) -> str:
    """One text for a section's raw samples: two sections with the same one share them."""
    data = landscape["data"]
    text = data if isinstance(data, str) else canonical_json(data)
    return f"{text} at {landscape['resize']}" if text.startswith("images:") else text


class Library:
    """The data sets of one run; a file is read once, however many configurations use it."""

    def __init__(self) -> None:
        self._samples: dict[str, Samples] = {}

    def samples(self, landscape: Mapping[str, Any]) -> Samples | None:
        """As :func:`load`; None for a landscape without data, or with data of its user's own."""
        if "data" not in landscape or ":" in landscape["name"]:
            return None
        key = title(landscape)
        if key not in self._samples:
            self._samples[key] = load(landscape)
        return self._samples[key]

    def checksum(self, landscape: Mapping[str, Any]) -> str | None:
        """sha256 of the samples' content, None where the landscape has no data."""
        samples = self.samples(landscape)
        return None if samples is None else samples.checksum

    def checksums(self) -> dict[str, str]:
        """title → checksum of all that was loaded."""
        return {key: samples.checksum for key, samples in self._samples.items()}

    @property
    def nbytes(self) -> int:
        """Memory of all that was loaded."""
        return sum(samples.nbytes for samples in self._samples.values())
