"""The claims about the verdict and the reader, each measured in full: ``python -m tests.evidence_analysis [CLAIM …]``.

Prints what was measured and whether it holds; exit 1 if a claim does not hold.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from landsweep.analysis.equivalence import Sample, combine
from landsweep.analysis.power import power_of
from tests import faults, planted
from tests.claims import measured_claims
from tests.large_sweep import Plan, write
from tests.simulated import ALPHA, SETTINGS, says
from tests.simulated import level as level_of

SETS = 2000
RESAMPLES = 500  # fewer than a verdict draws below 400,000 trials, so that 2,000 data sets a setting are minutes
LIMIT = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / SETS)
HEADER = (
    "| distribution | configurations | trials in the smaller group | largest size ratio | largest variance ratio | "
    "equivalent at + margin | at − margin | different at 0 | level |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def calibration() -> tuple[str, bool]:
    """The levels as rows of a Markdown table; every setting where one is claimed must keep it."""
    print(HEADER, flush=True)
    holds, largest = True, 0.0
    for setting in SETTINGS:
        found = level_of(setting, SETS, RESAMPLES)
        kept = found.largest <= LIMIT
        word = (
            ("kept" if kept else "**not kept**") if setting.claimed else f"measured only, {'≤' if kept else '>'} limit"
        )
        row = f"| {setting.name} | {found.above:.3f} | {found.below:.3f} | {found.different:.3f} | {word} |"
        print(row, flush=True)
        holds = holds and (kept or not setting.claimed)
        largest = max(largest, found.largest) if setting.claimed else largest
    count = sum(setting.claimed for setting in SETTINGS)
    text = f"largest of {3 * count} levels {largest:.4f} (limit {LIMIT:.4f}; {SETS} sets each, {RESAMPLES} resamples)"
    return text, holds


#: (margin in σ, trials a group and configuration, configurations)
POWER_SETTINGS = ((1.0, 100, 1), (1.0, 15, 1), (1.0, 25, 1), (0.5, 60, 1), (0.25, 200, 1), (0.5, 15, 5), (0.5, 8, 10))


def power() -> tuple[str, bool]:
    """Observed shares of ``equivalent`` at difference 0 against the predicted ones."""
    rng = np.random.default_rng(1)
    rows, holds = [], True
    for margin, count, configurations in POWER_SETTINGS:
        said = 0
        for index in range(SETS):
            draws = rng.standard_normal((configurations, 2, count))
            samples = [Sample(str(k), *pair) for k, pair in enumerate(draws)]
            said += says("equivalent", samples, margin, resamples=RESAMPLES, seed=index)
        predicted = power_of(margin, 1.0, count * configurations, count * configurations, configurations)
        observed = said / SETS
        least = 0.95 if (margin, count) == (1.0, 100) else 0.0
        holds = holds and abs(observed - predicted) <= 0.05 and observed >= least
        rows.append(f"{configurations}×{count} at {margin} σ: {observed:.3f} (predicted {predicted:.3f})")
    return "; ".join(rows), holds


def one_configuration() -> tuple[str, bool]:
    """The t form against statsmodels' ``ttost_ind`` over random data sets."""
    from statsmodels.stats.weightstats import ttost_ind

    rng = np.random.default_rng(2)
    largest = 0.0
    for _ in range(SETS):
        sizes = rng.integers(2, 60, 2)
        local, best = (rng.normal(rng.normal(), rng.lognormal(0, 1), size) for size in sizes)
        margin = float(rng.lognormal(0, 1))
        rival = ttost_ind(local, best, -margin, margin, usevar="unequal")[0]
        largest = max(largest, abs(rival - combine([Sample("a", local, best)]).p_equivalence(margin)))
    return f"largest difference of p over {SETS} data sets {largest:.1e}", largest <= 1e-10


def planted_truths() -> tuple[str, bool]:
    """The share of 200 draws with the right verdict, by kind of sweep."""
    shares = {name: planted.share_right(name, 200, RESAMPLES) for name in planted.TRUTHS}
    return "; ".join(f"{name} {share:.1%}" for name, share in shares.items()), min(shares.values()) >= 0.95


def large() -> tuple[str, bool]:
    """10 million points in 100 configurations, each measurement in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="landsweep-large-") as folder:
        started = time.perf_counter()
        plan = Plan(configs=100, trials=25_000)
        sweep = write(Path(folder), plan)
        made = time.perf_counter() - started
        size = sum(path.stat().st_size for path in sweep.rglob("*.parquet"))
        found = {name: _apart(name, sweep) for name in ("query", "verdict", "whole")}
    query, judged, whole = found["query"], found["verdict"], found["whole"]
    faster, peak = whole["seconds"] / query["seconds"], max(query["peak"], judged["peak"])
    text = (
        f"{plan.points:,} points, {size / 1e9:.2f} GB written in {made:.0f} s; filter and three columns "
        f"{query['seconds']:.2f} s ({query['rows']:,.0f} rows), reading the files whole {whole['seconds']:.0f} s "
        f"({faster:.0f}×), verdict {judged['seconds']:.1f} s; peak {query['peak']:.2f} and {judged['peak']:.2f} GB"
    )
    same = query["rows"] == whole["rows"]
    return text, same and query["seconds"] < 2 and faster >= 10 and judged["seconds"] < 30 and peak < 4


_WHERE = "objective < 0.2 and training.lr < 0.1"
_PARTS = {
    "query": f"""
columns = ["config", "objective", "test_loss"]
sweep.points(columns, where={_WHERE!r}, kind="minimum")
started = time.perf_counter()
rows = len(sweep.points(columns, where={_WHERE!r}, kind="minimum"))
""",
    "verdict": """
started = time.perf_counter()
rows = sweep.verdict(record_look=False).details["n_trials"]
""",
    # One file after the other: all at once would not fit the memory of most machines, and takes no less time.
    "whole": """
import pandas as pd
started, rows = time.perf_counter(), 0
for file in sorted(Path(sys.argv[1], "points").iterdir()):
    frame = pd.read_parquet(file)
    kept = (frame["objective"] < 0.2) & (frame["training.lr"] < 0.1) & (frame["kind"] == "minimum")
    rows += len(frame.loc[kept, ["config", "objective", "test_loss"]])
""",
}


def _apart(part: str, sweep: Path) -> dict[str, float]:
    """Seconds, rows and peak memory (GB) of one part in a fresh process."""
    code = (
        "import json, resource, sys, time\nfrom pathlib import Path\nimport landsweep\n"
        f"sweep = landsweep.open(sys.argv[1]){_PARTS[part]}"
        "seconds = time.perf_counter() - started\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9\n"
        "print(json.dumps({'seconds': seconds, 'rows': rows, 'peak': peak}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(sweep)], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return result


def robust() -> tuple[str, bool]:
    """Every fault gives a message that names it, or an exclusion that counts it."""
    wrong = {}
    for name, fault in faults.FAULTS.items():
        with tempfile.TemporaryDirectory(prefix="landsweep-fault-") as folder:
            said = fault.said(Path(folder))
            missing = [word for word in fault.words if word not in said]
            if missing:
                wrong[name] = f"{said!r} lacks {missing}"
    return f"{len(faults.FAULTS)} faults; not said: {wrong or 'none'}", not wrong


CLAIMS: dict[str, tuple[str, Callable[[], tuple[str, bool]]]] = {
    "calibration": (
        "at a difference of ± margin `equivalent`, at 0 `different`, in ≤ α + 3 s.e. of 2,000 data sets: normal data "
        "from 5 a group, log-normal (σ = 0.5) from 50 a group at size ratios ≤ 2",
        calibration,
    ),
    "power": ("at 0, σ = margin, 100 a group ≥ 95 % equivalent; predicted power within 5 points of observed", power),
    "one": ("one configuration equals statsmodels `ttost_ind(usevar='unequal')` to 1e-10", one_configuration),
    "planted": ("each planted truth gets the right verdict in ≥ 95 % of 200 draws", planted_truths),
    "large": (
        "10 million points in 100 configurations: filter + three columns < 2 s and ≥ 10× faster than reading the files "
        "whole; verdict < 30 s; peak < 4 GB",
        large,
    ),
    "robust": ("every fault of a store or table is a clear message or a stated exclusion", robust),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
