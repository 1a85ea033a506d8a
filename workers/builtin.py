"""Landscapes by name: the built-in ones and ``package.module:function``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from landsweep.workers.data import DATASETS
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.record import canonical_json

_DATA_OPTIONS = ("train_size", "split_seed", "resize", "standardise")


def _mlp(device: torch.device, *, data: str, **options: Any) -> Landscape:
    chosen = {key: options.pop(key) for key in _DATA_OPTIONS if key in options}
    return mlp(DATASETS[data](**chosen).to(device), **options)


BUILTIN: dict[str, Callable[..., Landscape]] = {"mlp": _mlp}


def build(settings: Mapping[str, Any], device: torch.device) -> Landscape:
    """The landscape of a configuration's ``landscape`` section. Raises LandscapeError for one that cannot be built."""
    options = dict(settings)
    name = options.pop("name")
    if name in BUILTIN:
        return BUILTIN[name](device, **options)
    return _own(name, options)


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
