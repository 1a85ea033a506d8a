"""``make bench``: every contest, interleaved, and how time grows; ``python -m tests.benchmarks [--repetitions N]
[NAME …]`` some of it.

Prints rates, ratios and slopes, and writes ``results.json`` and ``ratios.png`` into ``runs/benchmarks``. Exit 1 where
what is wanted is not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from matplotlib.figure import Figure

from tests.benchmarks import minima, orchestration, spectra, stationary, tables, training, whole
from tests.benchmarks.contest import ONE_PRIORITY, Contest, Result, held
from tests.benchmarks.growth import GROWTHS

MODULES = (training, whole, stationary, minima, spectra, orchestration, tables)
CONTESTS: dict[str, Contest] = {one.name: one for module in MODULES for one in module.contests()}
NAMES = (*CONTESTS, *(f"growth {name}" for name in GROWTHS))
PACKAGES = ("landsweep", "torch", "numpy", "jax", "ray", "scipy", "curvlinops-for-pytorch", "pyhessian")


def machine() -> dict[str, Any]:
    """Where the rates were measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total
    return {"processor": name or platform.processor(), "cores": cores, "memory": memory, "versions": versions}


def plot(results: Sequence[Result], file: Path) -> None:
    """The ratios of each contest on a logarithmic axis, and what is wanted."""
    figure = Figure(figsize=(8, 1 + 0.5 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for row, result in enumerate(results):
        axes.plot(result.ratios, [row] * len(result.ratios), "o", color="tab:blue", alpha=0.6)
        axes.plot([result.contest.reach], [row], "|", color="tab:red", markersize=18)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="landsweep's rate over the fastest peer's (bar: wanted)")
    axes.set_yticks(range(len(results)), [result.contest.name for result in results])
    axes.invert_yaxis()
    figure.savefig(file, dpi=120)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no contest {min(unknown)!r}; there are {', '.join(NAMES)}")
    os.environ.update(ONE_PRIORITY)
    found, where = [], machine()
    print(where, flush=True)
    for name in given.names or NAMES:
        growth = GROWTHS.get(name.removeprefix("growth "))
        found.append(growth() if growth else held(CONTESTS[name], given.repetitions))
        print("\n".join(found[-1].lines()), flush=True)
    given.folder.mkdir(parents=True, exist_ok=True)
    plain = {"machine": where, "measured": [one.as_dict() for one in found]}
    (given.folder / "results.json").write_text(json.dumps(plain, indent=1))
    if results := [one for one in found if isinstance(one, Result)]:
        plot(results, given.folder / "ratios.png")
    return 0 if all(one.reached for one in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
