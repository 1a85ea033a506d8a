"""From saddles of index 1 to the rows of the table connections, and the minima at their ends as candidates."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from landsweep.workers import record, search
from landsweep.workers.classify import Classified
from landsweep.workers.connections import Ends, descend_both_ways
from landsweep.workers.landscape import Landscape
from landsweep.workers.points import Candidates, point_id

if TYPE_CHECKING:
    from landsweep.workers.batch import BatchTask, Columns

SOURCE = "connection"


def no_connections() -> Columns:
    """The table's columns without rows."""
    return {field.name: [] for field in record.schema("connections")}


def connected(
    task: BatchTask, landscape: Landscape, found: Candidates, points: Classified, scale: Tensor
) -> tuple[Candidates, Columns]:
    """The two ends of every saddle of index 1 among ``found``, and a row for each saddle.

    ``scale`` (B,) is ‖H‖₂ at each trial's start. An end that is no minimum is a candidate like any other: its row in
    the table points says what it is.
    """
    index = points.signs.index.tolist()
    saddles = [i for i, kind in enumerate(points.kind) if kind == "saddle" and index[i] == 1]
    rows = torch.tensor(saddles, dtype=torch.int64, device=found.theta.device)
    settings = task.settings["search"]
    if not saddles:
        nowhere = search.Outcome.empty(found.theta[:0])
        return Candidates(nowhere.theta, rows, [], [], [], nowhere), no_connections()
    ends = descend_both_ways(
        landscape, found.theta[rows], points.curvature.lowest[rows], scale[found.trial[rows]],
        settings["tolerance"], settings["saddles"]["max_iterations"],
    )  # fmt: skip
    numbers = _numbers([int(found.trial[i]) for i in saddles])
    candidates = Candidates(
        search.polished(landscape, ends.theta.flatten(0, 1), settings["tolerance"], landscape.symmetries),
        found.trial[rows].repeat_interleave(2),
        [number for first in numbers for number in (first, first + 1)],
        [SOURCE] * (2 * len(saddles)),
        [None] * (2 * len(saddles)),
        ends.outcome(),
    )
    return candidates, _columns(task, found, saddles, numbers, ends)


def _numbers(trials: list[int]) -> list[int]:
    """The number of each saddle's first end among its trial's: 0, 2, 4, …

    >>> _numbers([0, 0, 1])
    [0, 2, 0]
    """
    seen: Counter[int] = Counter()
    numbers = []
    for trial in trials:
        numbers.append(2 * seen[trial])
        seen[trial] += 1
    return numbers


def _columns(task: BatchTask, found: Candidates, saddles: list[int], numbers: list[int], ends: Ends) -> Columns:
    columns = no_connections()
    barriers = [[None if value != value else value for value in pair] for pair in ends.barrier.tolist()]
    for i, number, (barrier_a, barrier_b) in zip(saddles, numbers, barriers, strict=True):
        trial = int(found.trial[i])
        row = {
            "saddle": point_id(task, trial, found.source[i], found.number[i]),
            "config": task.config,
            "seed": task.seeds[trial],
            "minimum_a": point_id(task, trial, SOURCE, number),
            "minimum_b": point_id(task, trial, SOURCE, number + 1),
            "barrier_a": barrier_a,
            "barrier_b": barrier_b,
        }
        for name, value in row.items():
            columns[name].append(value)
    return columns
