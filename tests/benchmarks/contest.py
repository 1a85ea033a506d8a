"""Contests: landsweep against what one would use instead, the same work on the same cores, interleaved."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "landsweep"
#: Ray lowers its workers' priority: what else the machine does would disturb them more than whoever works without Ray.
ONE_PRIORITY = {"RAY_worker_niceness": "0"}
Contender = Callable[[], Mapping[str, float]]  # measures once: "rate" (more is better), and what else is worth saying


@dataclass(frozen=True)
class Contest:
    """Some work, those who do it, and the ratio that landsweep is to reach."""

    name: str
    work: str
    unit: str  # of the rates
    reach: float  # landsweep's rate over that of the fastest peer
    contenders: Mapping[str, Contender]  # OURS and its peers


@dataclass(frozen=True)
class Result:
    """The rates of a contest, one of each contender per repetition."""

    contest: Contest
    rates: Mapping[str, Sequence[float]]
    notes: Mapping[str, Mapping[str, float]]  # what else each contender said last

    @property
    def ratios(self) -> list[float]:
        """landsweep's rate over the fastest peer's, of each repetition."""
        peers = [rates for name, rates in self.rates.items() if name != OURS]
        return [ours / max(theirs) for ours, *theirs in zip(self.rates[OURS], *peers, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        return self.ratio >= self.contest.reach

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.contest.name}: {self.contest.work}"]
        for name, rates in self.rates.items():
            notes = "".join(f", {key} {value:.3g}" for key, value in self.notes[name].items())
            said.append(f"    {name:<12} {spread(rates)} {self.contest.unit}{notes}")
        verdict = "reached" if self.reached else "NOT REACHED"
        return [*said, f"    ratio {spread(self.ratios)}, wanted ≥ {self.contest.reach:g}: {verdict}"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: getattr(self.contest, name) for name in ("name", "work", "unit", "reach")}
        return {**plain, "rates": dict(self.rates), "ratios": self.ratios, "notes": dict(self.notes)}


def spread(values: Sequence[float]) -> str:
    """Median (least … largest)."""
    low, middle, high = (f"{value:,.4g}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} … {high})"


def held(contest: Contest, repetitions: int) -> Result:
    """Measure every contender once, then again: what disturbs the machine disturbs all of them."""
    rates: dict[str, list[float]] = {name: [] for name in contest.contenders}
    notes: dict[str, dict[str, float]] = {}
    for _ in range(repetitions):
        for name, measure in contest.contenders.items():
            found = dict(measure())
            rates[name].append(found.pop("rate"))
            notes[name] = found
    return Result(contest, rates, notes)


def process(module: str, *arguments: object, cores: int | None = 1) -> Contender:
    """``python -m MODULE ARGUMENTS`` in a process of its own on so many cores (None: all), which prints JSON last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]

    def measure() -> Mapping[str, float]:
        mine = sorted(os.sched_getaffinity(0))[-cores:] if cores else sorted(os.sched_getaffinity(0))
        pinned = ["taskset", "-c", ",".join(map(str, mine))]
        environment = os.environ | ONE_PRIORITY
        ended = subprocess.run([*pinned, *command], cwd=ROOT, capture_output=True, text=True, env=environment)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {ended.returncode}: {ended.stderr[-2000:]}")
        found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
        return found

    return measure
