"""Trials that failed, as the table of trials tells."""

from __future__ import annotations

from typing import Any

import pyarrow.compute

from landsweep.cluster.store import SweepStore
from landsweep.workers.record import trial_id

Rows = dict[str, dict[str, Any]]  # trial → its ``attempt`` and ``error``


def last(store: SweepStore) -> Rows:
    """The last failed attempt of every trial that has one."""
    failed = pyarrow.compute.field("status") == "failed"
    rows = store.table("trials", ["trial", "attempt", "error"], failed).to_pylist()
    return {row["trial"]: row for row in sorted(rows, key=lambda row: int(row["attempt"]))}


def given_up(store: SweepStore) -> Rows:
    """The same of the trials of which every attempt failed."""
    lost = {trial_id(config, seed) for config, seeds in store.snapshot().failed().items() for seed in seeds}
    return {trial: row for trial, row in last(store).items() if trial in lost} if lost else {}
