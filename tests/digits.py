"""The digits, and built-in landscapes on them, as tests use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from landsweep.cluster.data import library
from landsweep.workers import builtin
from landsweep.workers.data import Dataset, Options, prepare
from landsweep.workers.landscape import Landscape

CPU = torch.device("cpu")
SAMPLES = library.load({"data": "digits"})


def digits(**options: Any) -> Dataset:
    """The digits prepared by ``options``, each a row of pixels."""
    return prepare(SAMPLES, Options(**options)).flat()


def built(landscape: Mapping[str, Any], device: torch.device = CPU) -> Landscape:
    """The landscape of a section whose data are the digits."""
    return builtin.build(landscape, device, SAMPLES)
