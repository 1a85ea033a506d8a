"""Decisions about the pool of workers as pure functions: where they live, which node rests, what runs twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from statistics import median

QUARANTINE_LOSSES = 3  # different batches whose processes died on a node, one after the other
QUARANTINE_SECONDS = 300.0  # the first time; each further time twice as long
STRAGGLER_FACTOR = 2.0  # times what batches like it take
STRAGGLER_SECONDS = 10.0  # nothing that is younger is a straggler
STRAGGLER_LIKE = 3  # batches that have to have ended before there is a "like it"
STRAGGLER_RECENT = 1000  # batches of a configuration that are remembered, the last ones: its median costs a sort
MOST_REQUESTED = 1000  # workers that the autoscaler is asked for


@dataclass(frozen=True)
class Shape:
    """What one worker takes of a node."""

    num_cpus: float
    num_gpus: float  # a fraction stays on one GPU

    def slots(self, resources: Mapping[str, float]) -> int:
        """How many workers a node holds.

        >>> Shape(2, 0).slots({"CPU": 5}), Shape(1, 0.4).slots({"CPU": 64, "GPU": 2}), Shape(0, 2).slots({"GPU": 5})
        (2, 4, 2)
        """
        cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0.0))
        limits = [_times(self.num_cpus, cpus)] if self.num_cpus else []
        if self.num_gpus:
            limits.append(gpus * _times(self.num_gpus, 1.0) if self.num_gpus < 1 else _times(self.num_gpus, gpus))
        return min(limits) if limits else int(cpus)

    def bundle(self) -> dict[str, float]:
        """The same in Ray's words."""
        return {name: amount for name, amount in (("CPU", self.num_cpus), ("GPU", self.num_gpus)) if amount}


def _times(part: float, whole: float) -> int:
    return int(whole / part + 1e-9)


@dataclass(frozen=True)
class Health:
    """What became of the last batches on a node."""

    lost: frozenset[str] = frozenset()  # batches whose processes died there, since one ended well
    until: float = float("-inf")  # no work before that time
    times: int = 0  # how often it was quarantined


def after_batch(health: Health, batch: str, died: bool, now: float) -> Health:
    """A node's health once ``batch`` ended there, or its process ``died``.

    The same batch dying again is no more evidence against the node: it may be the batch. ``QUARANTINE_LOSSES``
    different ones in a row are.
    """
    if not died:
        return replace(health, lost=frozenset())
    lost = health.lost | {batch}
    if len(lost) < QUARANTINE_LOSSES:
        return replace(health, lost=lost)
    return Health(frozenset(), now + QUARANTINE_SECONDS * 2**health.times, health.times + 1)


def usable(nodes: Mapping[str, bool], health: Mapping[str, Health], now: float) -> set[str]:
    """The nodes that get work, of ``nodes`` (id → whether it is leaving): none that leaves, none in quarantine,
    unless all that stay are."""
    staying = {node for node, leaving in nodes.items() if not leaving}
    well = {node for node in staying if health.get(node, Health()).until <= now}
    return well or staying


def missing(slots: Mapping[str, int], members: Mapping[str, int], most: int) -> list[str]:
    """The nodes on which to start a worker each: ``slots`` (node → workers it holds) less the ``members`` it has, the
    emptiest node first, so that no more than ``most`` are there in all."""
    have = {node: members.get(node, 0) for node in slots}
    room = most - sum(members.values())
    free = [(have[node] + place, node) for node, limit in slots.items() for place in range(limit - have[node])]
    return [node for _, node in sorted(free)[: max(0, room)]]


def requested(waiting: int, running: int, most: int) -> int:
    """How many workers the autoscaler is asked for: as many as there is work for at once."""
    return min(waiting + running, most, MOST_REQUESTED)


@dataclass(frozen=True)
class Running:
    """A batch that runs."""

    batch: str
    like: str  # what it is compared with: its configuration
    cost: float  # of its trials, relative to others of the configuration
    started: float


def stragglers(running: Iterable[Running], ended: Mapping[str, Sequence[float]], now: float) -> list[str]:
    """The batches worth a second try beside the first, the latest first.

    ``ended``: configuration → seconds a unit of cost, of its batches that ended. Where too few of a configuration
    have, those of all count. A batch that runs twice already is not asked about again.
    """
    late = []
    middle = {like: median(known) for like, known in ended.items() if len(known) >= STRAGGLER_LIKE}
    running = list(running)
    alone = any(one.like not in middle for one in running)
    everything = [seconds for known in ended.values() for seconds in known] if alone else []
    of_all = median(everything) if len(everything) >= STRAGGLER_LIKE else float("inf")
    for one in running:
        elapsed, usual = now - one.started, middle.get(one.like, of_all) * one.cost
        if elapsed > max(STRAGGLER_SECONDS, STRAGGLER_FACTOR * usual):
            late.append((elapsed / max(usual, 1e-9), one.batch))
    return [batch for _, batch in sorted(late, reverse=True)]


def elsewhere(nodes: Sequence[str], busy: AbstractSet[str]) -> int:
    """The position of a node for a second try: another than those ``busy`` with the first, where there is one."""
    return next((place for place, node in enumerate(nodes) if node not in busy), 0)
