"""Many runs, one after the other, on one cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from landsweep.workers import execution
from tests.chaos.runs import BOUND, run, undisturbed
from tests.chaos.schedule import schedule
from tests.chaos.world import world

RUNS = 50


def chaos(seeds: Sequence[int] = range(RUNS)) -> tuple[str, bool]:
    """Run them all and print a table; a summary, and whether nothing is wrong."""
    execution.prepare(1)
    outcomes = []
    print("seed | store: faults | seconds | exit codes | reads | result", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos", ignore_cleanup_errors=True) as name, world(Path(name)) as place:
        expected = undisturbed(place)
        for seed in seeds:
            outcomes.append(run(place, schedule(seed), expected))
            print(outcomes[-1].line(), flush=True)
    bad = [outcome.schedule.seed for outcome in outcomes if outcome.faults]
    struck, missed = (sum(len(getattr(one, name)) for one in outcomes) for name in ("struck", "missed"))
    seconds = [outcome.seconds for outcome in outcomes]
    text = f"{len(seeds)} runs of {len(expected['trials'])} trials, {struck} faults struck, {missed} came too late; "
    text += f"{sum(len(one.codes) for one in outcomes)} drivers, {sum(one.reads for one in outcomes)} reads; "
    text += f"at most {max(seconds):.0f} s a run of {BOUND:.0f}, {sum(seconds) / len(seconds):.0f} s on average; "
    return text + f"something wrong in {bad or 'none'}", not bad
