"""Landscapes by name: the built-in ones and ``package.module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from landsweep.workers.data import OPTIONS, Options, dataset
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.mlp import mlp
from landsweep.workers.models.autoencoder import autoencoder
from landsweep.workers.models.cnn import cnn
from landsweep.workers.models.deep_linear import deep_linear
from landsweep.workers.models.resnet import resnet
from landsweep.workers.models.rnn import rnn
from landsweep.workers.record import canonical_json
from landsweep.workers.reference.catalogue import REFERENCES
from landsweep.workers.samples import Samples
from landsweep.workers.suitability import Facts

#: models on a data set
SUPERVISED: dict[str, Callable[..., Landscape]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "rnn": rnn,
    "autoencoder": autoencoder,
    "deep_linear": deep_linear,
}


def build(settings: Mapping[str, Any], device: torch.device, samples: Samples | None = None) -> Landscape:
    """The landscape of a configuration's ``landscape`` section; of supervised learning it needs the data's ``samples``.

    Raises LandscapeError for one that cannot be built.
    """
    options = dict(settings)
    name = options.pop("name")
    if name in REFERENCES:
        return _reference(name, options, device)
    if name not in SUPERVISED:
        return _own(name, options)
    data = options.pop("data")
    if samples is None:
        raise LandscapeError(f"landscape.data: {data!r} was not loaded; give build its samples")
    split = Options(**{key: options.pop(key) for key in OPTIONS if key in options})
    return SUPERVISED[name](dataset(samples, split, device), **options)


_facts: dict[tuple[str, str], Facts] = {}


def facts(settings: Mapping[str, Any], samples: Samples | None = None) -> Facts:
    """What the plan has to know of a ``landscape`` section. Builds it, so a wrong one is refused before a run."""
    key = canonical_json(settings), samples.checksum if samples else ""
    if key not in _facts:
        _facts[key] = Facts.of(build(settings, torch.device("cpu"), samples))
    return _facts[key]


def _reference(name: str, options: Mapping[str, Any], device: torch.device) -> Landscape:
    if device.type != "cpu":
        raise LandscapeError(f"landscape.name: {name} is computed on the CPU; set resources.num_gpus to 0")
    return REFERENCES[name](**options)


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
