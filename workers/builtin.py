"""Landscapes by name: the built-in ones and ``package.module:function``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from landsweep.workers.data import OPTIONS, Dataset, Options, Samples, dataset, digits_samples
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.record import canonical_json


def _mlp(dataset: Dataset, **options: Any) -> Landscape:
    return mlp(dataset.flat(), **options)


#: models on a data set
SUPERVISED: dict[str, Callable[..., Landscape]] = {"mlp": _mlp}


def build(settings: Mapping[str, Any], device: torch.device, samples: Samples | None = None) -> Landscape:
    """The landscape of a configuration's ``landscape`` section; of supervised learning it needs the data's ``samples``.

    Raises LandscapeError for one that cannot be built.
    """
    options = dict(settings)
    name = options.pop("name")
    if name not in SUPERVISED:
        return _own(name, options)
    del options["data"]
    split = Options(**{key: options.pop(key) for key in OPTIONS if key in options})
    return SUPERVISED[name](dataset(samples or digits_samples(), split, device), **options)


@lru_cache(maxsize=4096)
def _size(settings: str) -> tuple[int, int]:
    landscape = build(json.loads(settings), torch.device("cpu"))
    return landscape.dim, landscape.samples


def size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """(parameters, training samples) of a ``landscape`` section. Builds it, so a wrong one is refused before a run."""
    return _size(canonical_json(settings))


def _own(name: str, options: Mapping[str, Any]) -> Landscape:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as exc:
        message = (
            f"landscape.name: {name!r} cannot be imported ({exc}); check the name and list its folder under `code:`"
        )
        raise LandscapeError(message) from exc
    landscape = function(**options)
    if not isinstance(landscape, Landscape):
        raise LandscapeError(
            f"landscape.name: {name!r} returned {type(landscape).__name__}; it has to return a Landscape"
        )
    return landscape
