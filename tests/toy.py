"""A landscape of a user's own for tests: two wells and a saddle, in a module that the test writes.

``small_sweep`` writes the module and describes a sweep of it. Trials whose first coordinate at the start stands in the
file ``bad`` beside the module raise, or with ``kill`` end their process.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

_MODULE = """
import os
from pathlib import Path

import torch
from landsweep import Landscape

BAD = Path(__file__).with_name("bad")


def loss(theta):
    x, y = theta.unbind()
    return (x**2 - 1) ** 2 + 0.25 * x + 0.5 * y**2


def held_out(theta):
    return loss(theta) + 0.01 * theta[0]


def init(generator):
    theta = torch.randn(2, generator=generator, dtype=torch.float64)
    if BAD.exists() and repr(float(theta[0])) in BAD.read_text().split():
        if os.environ.get("LANDSWEEP_TEST_KILL"):
            os.kill(os.getpid(), 9)
        raise ValueError("boom")
    return theta


def build():
    return Landscape.from_function(loss, 2, init, test_loss=held_out)
"""


def small_sweep(folder: Path, **changes: Any) -> dict[str, Any]:
    """A sweep of two configurations and four seeds of the toy, whose module is written into ``folder``/code."""
    code = folder / "code"
    code.mkdir(exist_ok=True)
    module = f"toy_{uuid.uuid4().hex}"
    (code / f"{module}.py").write_text(_MODULE)
    return {
        "name": "toy",
        "seeds": 4,
        "landscape": {"name": f"{module}:build"},
        "training": {"optimizer": "gd", "steps": 5},
        "search": {"minima_iterations": 20},
        "grid": {"training.lr": [0.05, 0.02]},
        "resources": {"batch": 4},
        "store": str(folder / "runs"),
        "tracking": {"uri": "none"},
        "code": [str(code)],
        **changes,
    }


def spoil(sweep: dict[str, Any], seed: int) -> Path:
    """Make the trials of ``seed`` fail, whatever their configuration; the file to remove to mend it."""
    import torch

    from landsweep.cluster import plan, spec
    from landsweep.cluster.code import code_hashes
    from landsweep.workers import builtin, training
    from landsweep.workers.batch import stream_key

    checked = spec.validate(sweep, "toy")
    starts = []
    for configuration in plan.expand(checked, code_hashes(checked)):
        landscape = builtin.build(configuration.settings["landscape"], torch.device("cpu"))
        key = stream_key(configuration.settings)
        starts += training.initial_parameters(landscape, key, [seed], torch.device("cpu"))[:, 0].tolist()
    bad = Path(sweep["code"][0]) / "bad"
    bad.write_text(" ".join(map(repr, starts)))
    return bad
