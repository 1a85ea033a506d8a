"""What is checked before anything starts, measured in full: ``python -m tests.evidence_checks NAME``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from landsweep.workers import execution
from tests.claims import Measured, measured_claims
from tests.combinations import Outcome, drawn, outcomes

DRAWN = 400  # sweeps of the full measurement


def combinations(seeds: range = range(DRAWN)) -> Measured:
    """Drawn sweeps are refused at the plan, with the reason, or give what they ask for."""
    found = outcomes(seeds, _told)
    faults = [seed for seed, one in found.items() if one.fault]
    refused = [str(one.refused) for one in found.values() if one.refused]
    reasons = Counter(message.rpartition("drawn: ")[2].partition(":")[0] for message in refused)
    ran = len(found) - len(refused) - len(faults)
    text = f"{len(found)} drawn sweeps: {ran} ran, every trial done and every column asked for filled; {len(refused)} "
    text += f"refused at the plan, by {len(reasons)} keys; {len(faults)} faults"
    return f"{text} {faults}" if faults else text, not faults


def _told(seed: int, one: Outcome) -> None:
    if one.fault:
        print(f"    {seed}: {one.fault.strip().splitlines()[-1]}: {drawn(seed)}", flush=True)


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "combinations": ("what can be combined runs; what cannot is refused at the plan with the reason", combinations),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
