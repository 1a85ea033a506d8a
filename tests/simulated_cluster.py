"""A run on very many workers, simulated event by event: landsweep's own decisions, measured batch times.

What is decided is decided by the code that decides it in a run: the order of batches (``policy.longest_first``), who is
next (``run.Waiting``), how many are out (``policy.in_flight``), what follows a lost node (``policy.after_failure``),
what runs twice (``pool.stragglers``, ``pool.elsewhere``), when batches are gathered (``policy.should_gather``). Only
what takes time is supposed: a batch takes the seconds of a measured one, and :class:`Machine` says what the rest takes.
The driver does one thing at a time; while it gathers, nobody gets work.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from landsweep.cluster import policy, pool
from landsweep.cluster.plan import Batches, Configuration, Left
from landsweep.cluster.policy import FailedTrial, Work
from landsweep.cluster.run import Waiting
from landsweep.cluster.spans import Spans

RETRIES = 3  # the default of resources.retries
WAIT_SECONDS = 1.0  # the driver looks at least so often


@dataclass(frozen=True)
class Machine:
    """What is supposed of a cluster, its store and its driver."""

    node_workers: int = 8  # on a node
    node_hours: float = 24.0  # between failures of a node, exponential
    replace_seconds: float = 300.0  # until another node is there
    notice_seconds: float = 30.0  # until the driver sees that a node is lost
    start_seconds: float = 10.0  # of a worker
    straggler_share: float = 0.01  # of all tries
    straggler_factor: float = 5.0  # times its seconds
    handle_seconds: float = 0.5e-3  # of the driver, a batch: Ray answers about 2,000 actor calls a second
    gather_trial_seconds: float = 28.5e-6  # of the driver, a trial (docs/scale.md)
    gather_batch_seconds: float = 0.0  # of the driver, a batch: what it reads back from an object store


@dataclass(frozen=True)
class Simulated:
    """What became of a simulated sweep."""

    workers: int
    ideal: float  # seconds: all batches on all workers without a gap, none lost, none late
    seconds: float  # until the last commit
    done: int  # trials
    failed: int  # trials that were given up
    lost: int  # tries that went with their node
    doubled: int  # second tries of late batches
    gathering: float  # seconds that the driver gathered

    @property
    def efficiency(self) -> float:
        return self.ideal / self.seconds


@dataclass(frozen=True)
class _Run:
    work: Work
    node: str
    started: float


def batches_of(measured: Mapping[str, Sequence[float]], trials: int, size: int) -> Batches:
    """The measured configurations with so many ``trials`` each, all of them left to do."""
    configurations = [Configuration(name, {"search": {"saddles": None}}, {}) for name in measured]
    return Batches(tuple(Left(one, Spans(((0, trials),))) for one in configurations), size)


class Simulation:
    """One run. ``measured``: configuration → seconds a trial in each of its batches, of which a batch takes one."""

    def __init__(
        self, batches: Batches, measured: Mapping[str, Sequence[float]], workers: int, machine: Machine, seed: int
    ) -> None:
        self._measured, self._workers, self._machine, self._seed = measured, workers, machine, seed
        self._random = random.Random(f"nodes {seed}")
        self._work = sum(self._seconds(work) for work in policy.longest_first(batches, {}))
        self._waiting = Waiting((work,) for work in policy.longest_first(batches, {}))
        self._queue = deque[Work]()  # handed out, and no worker has it
        self._idle = deque[str]()  # the node of each worker without work
        self._starting = Counter[str]()  # node → workers that come up
        self._running: dict[int, _Run] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []  # time, number, what happens
        self._numbers = itertools.count()
        self._ended: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=pool.STRAGGLER_RECENT))
        self._tries = Counter[str]()  # of each batch, so far
        self._open = Counter[str]()  # tries of a batch that the driver waits for
        self._now = self._oldest = self._gathering = 0.0
        self._out = self._rows = self._staged = 0  # batches out; trials and batches that are done and in no segment
        self._done = self._failed = self._lost = self._doubled = 0

    def run(self) -> Simulated:
        """To the last commit."""
        self._begin()
        while self._out or self._waiting:
            while self._waiting and self._out < policy.in_flight(self._members()):
                self._queue.extend(self._waiting.take())
                self._out += 1
            self._assign()
            self._double()
            self._wait()
            if policy.should_gather(self._rows, self._now - self._oldest, self._now, False):
                self._gather()
        self._gather()
        counts = (self._done, self._failed, self._lost, self._doubled)
        return Simulated(self._workers, self._work / self._workers, self._now, *counts, self._gathering)

    def _begin(self) -> None:
        """All workers are up."""
        size = self._machine.node_workers
        for first in range(0, self._workers, size):
            node, slots = f"node-{first // size:05d}", min(size, self._workers - first)
            self._arrive(node, slots)
            self._idle.extend([node] * slots)

    def _members(self) -> int:
        return len(self._idle) + len(self._running) + self._starting.total()

    # what takes time --------------------------------------------------------------------------------------------------

    def _seconds(self, work: Work) -> float:
        """Of a batch where nothing is in its way: it does the same at each try."""
        known = self._measured[work.batch.config.id]
        return random.Random(f"{self._seed} {work.batch.id}").choice(known) * len(work.batch.seeds)

    def _try(self, work: Work) -> float:
        """Of this try of it: some are late."""
        self._tries[work.batch.id] += 1
        draw = random.Random(f"{self._seed} {work.batch.id} {self._tries[work.batch.id]}").random()
        late = draw < self._machine.straggler_share
        return self._seconds(work) * (self._machine.straggler_factor if late else 1.0)

    # the driver -------------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        while self._idle and self._queue:
            self._start(self._queue.popleft(), 0)

    def _start(self, work: Work, place: int) -> None:
        """Give a batch to the idle worker at ``place``."""
        node = self._idle[place]
        del self._idle[place]
        self._open[work.batch.id] += 1
        number = next(self._numbers)
        self._running[number] = _Run(work, node, self._now)
        self._later(self._try(work), partial(self._end, number))

    def _double(self) -> None:
        """What is late runs twice where workers have nothing else."""
        if self._queue or not self._idle:
            return
        count = Counter(run.work.batch.id for run in self._running.values())
        once = {run.work.batch.id: run for run in self._running.values() if count[run.work.batch.id] == 1}
        asked = [
            pool.Running(name, run.work.batch.config.id, policy.cost(run.work.batch), run.started)
            for name, run in once.items()
        ]
        for name in pool.stragglers(asked, self._ended, self._now)[: len(self._idle)]:
            self._doubled += 1
            self._start(once[name].work, pool.elsewhere(self._idle, {once[name].node}))

    def _wait(self) -> None:
        """Until something happens; everything that has."""
        self._now = max(self._now, min(self._events[0][0], self._now + WAIT_SECONDS))
        while self._events[0][0] <= self._now:
            heapq.heappop(self._events)[-1]()

    def _gather(self) -> None:
        """Every staged batch into a segment."""
        seconds = self._rows * self._machine.gather_trial_seconds + self._staged * self._machine.gather_batch_seconds
        self._now += seconds
        self._gathering += seconds
        self._rows = self._staged = 0

    # what happens -----------------------------------------------------------------------------------------------------

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), what))

    def _end(self, number: int) -> None:
        """A batch is done, unless its node went or its twin was first."""
        run = self._running.pop(number, None)
        if run is None:
            return
        batch = run.work.batch
        doubled = self._open.pop(batch.id) > 1
        self._ended[batch.config.id].append((self._now - run.started) / policy.cost(batch))
        self._idle.append(run.node)
        twins = [one for one, other in self._running.items() if other.work.batch.id == batch.id] if doubled else []
        for twin in twins:
            self._restart(self._running.pop(twin).node, 1)  # its process is killed
        self._now += self._machine.handle_seconds
        self._oldest = self._now if self._rows == 0 else self._oldest
        self._rows += len(batch.seeds)
        self._done += len(batch.seeds)
        self._staged += 1
        self._out -= 1

    def _arrive(self, node: str, slots: int) -> None:
        """A node is there until it fails."""
        self._later(self._random.expovariate(1 / (3600 * self._machine.node_hours)), partial(self._go, node, slots))

    def _go(self, node: str, slots: int) -> None:
        self._starting.pop(node, None)
        self._idle = deque(one for one in self._idle if one != node)
        gone = [number for number, run in self._running.items() if run.node == node]
        self._later(self._machine.notice_seconds, partial(self._notice, [self._running.pop(one) for one in gone]))
        self._later(self._machine.replace_seconds, partial(self._come, node, slots))

    def _notice(self, runs: list[_Run]) -> None:
        """The driver learns which batches went with their node."""
        for run in runs:
            self._now += self._machine.handle_seconds
            self._lost += 1
            self._open[run.work.batch.id] -= 1
            if self._open[run.work.batch.id] != 0:  # a twin of it runs, or ended
                continue
            self._out -= 1
            follow = policy.after_failure(run.work, "node", "the node went away", RETRIES)
            if isinstance(follow, FailedTrial):
                self._failed += 1
            else:
                self._waiting.again(follow)

    def _come(self, node: str, slots: int) -> None:
        self._arrive(node, slots)
        self._restart(node, slots)

    def _restart(self, node: str, count: int) -> None:
        self._starting[node] += count
        for _ in range(count):
            self._later(self._machine.start_seconds, partial(self._up, node))

    def _up(self, node: str) -> None:
        if self._starting[node]:
            self._starting[node] -= 1
            self._idle.append(node)
