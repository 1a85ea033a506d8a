"""A sweep whose trials do nothing: no step of training, no search, no spectrum. What is left is landsweep's own work.

Each trial still goes the whole way: planned, handed out, drawn, classified where it stands, staged, gathered into the
tables points, trials and trajectories, one row each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_MODULE = """
import torch
from landsweep import Landscape


def build():
    return Landscape.from_function(
        lambda theta: 0.5 * theta.square().sum(),
        1,
        lambda generator: torch.rand(1, generator=generator, dtype=torch.float64),
    )
"""
TABLES = ("points", "trials", "trajectories")


def noop_sweep(folder: Path, seeds: int, **changes: Any) -> dict[str, Any]:
    """A sweep of ``seeds`` such trials; its module is written into ``folder``."""
    (folder / "noop_landscape.py").write_text(_MODULE)
    return {
        "name": "noop",
        "seeds": seeds,
        "landscape": {"name": "noop_landscape:build"},
        "training": {"optimizer": "gd", "steps": 0},
        "search": {"minima": False},
        "measure": {"spectrum": "none", "include": []},
        "resources": {"checkpoint": None},
        "store": str(folder / "runs"),
        "tracking": {"uri": "none"},
        "code": [str(folder)],
        **changes,
    }
