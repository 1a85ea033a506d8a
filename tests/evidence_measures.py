"""Measures that memory is predicted, kept and recovered from: ``python -m tests.evidence_measures``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landsweep.cluster.prepare import prepare
from tests.claims import measured_claims
from tests.evidence_runs import FASHION
from tests.memory_probe import ROOT, probed, sweep_of
from tests.test_memory import MIB, greedy

TOLERANCE = 0.3
Configuration = tuple[int, dict[str, Any]]  # trials, sections


def _mlp(
    trials: int, saddles: dict[str, Any] | None = None, spectrum: str = "dense", **landscape: Any
) -> Configuration:
    searched = None if saddles is None else {"max_iterations": 2, **saddles}
    sections = {
        "landscape": {"name": "mlp", "data": "digits", **landscape},
        "training": {"steps": 50},
        "search": {"minima_iterations": 2, "saddles": searched},
        "measure": {"spectrum": spectrum},
    }
    return trials, sections


def _by_products(trials: int, **landscape: Any) -> Configuration:
    sections = {
        "landscape": landscape,
        "training": {"steps": 5, "batch_size": 128},
        "search": {"minima_iterations": 1},
        "measure": {"spectrum": "lanczos", "lanczos_steps": 20},
    }
    return trials, sections


#: sizes of nets and data, with and without saddles, whole spectra and none, a Hessian made column by column, and
#: products alone
CONFIGURATIONS: dict[str, Configuration] = {
    "64-10-10, 1200 samples, 8 trials": _mlp(8, hidden=[10]),
    "the same with 2 saddles a trial": _mlp(8, {"per_trial": 2}, hidden=[10]),
    "64-25-10, 100 samples, 4 trials": _mlp(4, hidden=[25], train_size=100),
    "64-6-10, 400 samples, 32 trials, 2 saddles by Levenberg-Marquardt": _mlp(
        32, {"per_trial": 2, "method": "levenberg_marquardt"}, hidden=[6], train_size=400
    ),
    "64-8-8-10, mse, 600 samples, 16 trials, no spectrum": _mlp(
        16, spectrum="none", hidden=[8, 8], loss="mse", train_size=600
    ),
    "rnn of 6 units, 300 samples, 8 trials": (
        8,
        {
            "landscape": {"name": "rnn", "data": "digits", "hidden": 6, "train_size": 300},
            "training": {"steps": 20},
            "search": {"minima_iterations": 1},
        },
    ),
    "64-51-10, 1200 samples, 8 trials, by products": _by_products(8, name="mlp", data="digits", hidden=[51]),
    "784-10-10 on 6,000 images of Fashion-MNIST, 2 trials, by products": _by_products(
        2, name="mlp", data=f"idx:{FASHION}", hidden=[10], train_size=6000, test_size=1000
    ),
    "cnn of 8 and 16 channels, 400 samples, 4 trials, by products": _by_products(
        4, name="cnn", data="digits", channels=[8, 16], train_size=400
    ),
}


def prediction() -> tuple[str, bool]:
    """The predicted peak of a batch is within ±30 % of the measured, on nine configurations."""
    rows, holds = [], True
    for name, (trials, sections) in CONFIGURATIONS.items():
        probe = probed(trials, sections)
        holds = holds and abs(probe.ratio - 1) <= TOLERANCE
        rows.append(
            f"    {name:<68} {probe.predicted:6.0f} {probe.measured:6.0f} MiB {100 * (probe.ratio - 1):+4.0f} %"
        )
    return "predicted, measured peak above an idle worker\n" + "\n".join(rows), holds


def automatic() -> tuple[str, bool]:
    """``batch: auto`` chooses batches whose measured peak is below the limit given."""
    rows, holds = [], True
    with tempfile.TemporaryDirectory() as folder:
        for limit in (300, 400, 600):
            sections = {**greedy(Path(folder)), "resources": {"memory": limit * MIB}}
            size = prepare(sweep_of(64, sections)).size
            probe = probed(size, sections)
            holds = holds and probe.measured < limit
            rows.append(f"{limit} MiB: {size} trials a batch, {probe.measured:.0f} MiB")
    return "; ".join(rows), holds


def halved() -> tuple[str, bool]:
    """A batch that runs out of a real limit of address space is halved, and all its trials finish."""
    rows, holds = [], True
    for beside in (300, 400, 800):
        with tempfile.TemporaryDirectory() as folder:
            code = f"from tests.test_memory import limited; limited({folder!r}, {beside * MIB})"
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        said = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr[-300:]}
        holds = holds and said.get("done") == 16 and not said["failed"]
        rows.append(f"{beside} MiB: {said.get('done')} of 16 trials done, {said.get('retried')} batches halved")
        rows += [said["error"]] if "error" in said else []
    return "; ".join(rows), holds and " 0 batches" not in rows[0]


CLAIMS: dict[str, tuple[str, Callable[[], tuple[str, bool]]]] = {
    "memory_predicted": (
        "a batch's peak memory predicted within ±30 % of the measured, nine configurations",
        prediction,
    ),
    "memory_automatic": ("`batch: auto` keeps below the limit given", automatic),
    "memory_halved": ("an out-of-memory batch is halved and finishes", halved),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
