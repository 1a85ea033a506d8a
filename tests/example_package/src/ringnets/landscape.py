"""What a sweep file names: ``ringnets.landscape:gated``."""

from __future__ import annotations

from landsweep import Landscape
from ringnets.data import rings
from ringnets.model import Gated


def gated(hidden: int, weight_decay: float = 1e-3) -> Landscape:
    """Gated nets with ``hidden`` units on the rings."""
    train, test = rings()
    return Landscape.from_module(lambda: Gated(2, hidden, 2), train=train, test=test, weight_decay=weight_decay)
