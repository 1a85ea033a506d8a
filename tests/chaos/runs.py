"""One run of a sweep through its faults to its end, and what there is to say against it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec, status
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from landsweep.cluster.progress import damaged
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import LandsweepError
from tests.chaos.children import Readers, context, drive, opened, plain
from tests.chaos.schedule import THROUGHOUT, Event, Schedule
from tests.chaos.world import World, unused_uri
from tests.comparison import largest_difference, points_of

BOUND = 600.0  # seconds: a run that takes longer hangs (50 to 160 are usual on 2 shared cores)
ATTEMPTS = 8
LOOK = 0.1  # seconds between looks at the sweep
_KILLED = -9
Tables = dict[str, pd.DataFrame]


@dataclass
class Outcome:
    """What became of a run."""

    schedule: Schedule
    struck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # faults that came too late: the sweep had ended
    codes: list[int | None] = field(default_factory=list)  # exit codes of the drivers
    seconds: float = 0.0
    reads: int = 0
    faults: list[str] = field(default_factory=list)  # of the product

    def line(self) -> str:
        """A row of the table."""
        found = "; ".join(self.faults) or "equal"
        missed = f" (missed: {', '.join(self.missed)})" if self.missed else ""
        took = f"{self.seconds:.0f} | {' '.join(map(str, self.codes))} | {self.reads}"
        return f"{self.schedule.seed} | {self.schedule.said()}{missed} | {took} | {found}"


def tables(uri: str) -> Tables:
    """What is compared: points, and trials without how often they were tried."""
    sweep = landsweep.open(uri)
    points, trials = sweep.points(), sweep.trials()
    return {
        "points": points.sort_values("point", ignore_index=True),
        "trials": trials.drop(columns="attempt").sort_values("trial", ignore_index=True),
    }


def undisturbed(world: World) -> Tables:
    """The tables of the same sweep, run in this process."""
    planned = prepare(spec.validate({**world.sweep, "store": str(world.folder / "undisturbed")}, "sweep"))
    runs.run(planned, InlineExecutor, lambda progress: None)
    return tables(planned.store.uri)


def run(world: World, schedule: Schedule, expected: Tables) -> Outcome:
    """Drive the sweep until it ends, whatever strikes; then compare."""
    outcome, begun = Outcome(schedule), time.monotonic()
    store = world.store(schedule.store, schedule.seed)
    uri = f"{store}/{world.sweep['name']}"
    readers = Readers(uri, world.environment, [opened] if schedule.store == "s3" else [plain, opened])
    try:
        _Run(world, schedule, outcome, store, begun + BOUND, len(expected["trials"])).drive()
    finally:
        world.mend()
        outcome.seconds = time.monotonic() - begun
        outcome.reads, wrong = readers.end(60.0)
    outcome.faults += wrong
    if not outcome.faults:
        outcome.faults += _differences(uri, schedule, expected)
    return outcome


@dataclass
class _Run:
    world: World
    schedule: Schedule
    outcome: Outcome
    store: str
    deadline: float
    total: int  # trials

    @property
    def uri(self) -> str:
        return f"{self.store}/{self.world.sweep['name']}"

    def drive(self) -> None:
        """Run the sweep again until it is done."""
        events = deque(self.schedule.events)
        while events and events[0].kind in THROUGHOUT:
            self._strike(events, 0)
        for attempt in range(ATTEMPTS):
            code = self._attempt(attempt, events)
            self.outcome.codes.append(code)
            self.outcome.faults += self._said(attempt, code)
            if code == 0 or self.outcome.faults:
                self.outcome.missed += [event.kind for event in events]
                return
            self.world.mend()
        self.outcome.faults.append(f"not done after {ATTEMPTS} attempts")

    def _attempt(self, number: int, events: deque[Event]) -> int | None:
        arguments = ["run", str(self.world.folder / "sweep.yaml"), "--store", self.store]
        arguments += ["--address", self.world.cluster.gcs, *(["--retry-failed"] if number else [])]
        if "tracking down" in self.schedule.kinds:
            arguments += ["--tracking-uri", unused_uri()]
        place = (self.world.folder, self.world.environment, self._output(number))
        driver = context().Process(target=drive, args=(arguments, *place))
        driver.start()
        store, done = SweepStore(self.uri), 0.0
        while driver.exitcode is None and time.monotonic() < self.deadline:
            driver.join(LOOK)
            done = self._share(store, done) if events else done
            while events and driver.exitcode is None and done >= events[0].share:
                self._strike(events, driver.pid or 0)
        if driver.exitcode is None:
            driver.kill()
            driver.join()
            self.outcome.faults.append(f"hangs: not ended after {BOUND:.0f} s")
        return driver.exitcode

    def _share(self, store: SweepStore, before: float) -> float:
        """Of the trials that are done."""
        try:
            return sum(map(len, store.snapshot().trials().values())) / self.total
        except LandsweepError:
            return before

    def _strike(self, events: deque[Event], driver: int) -> None:
        event = events.popleft()
        (self.outcome.struck if self.world.strike(event, driver) else self.outcome.missed).append(event.kind)

    def _output(self, attempt: int) -> Path:
        return self.world.folder / f"output-{self.schedule.seed}-{attempt}"

    def _said(self, attempt: int, code: int | None) -> list[str]:
        """What an attempt should have said and did not."""
        text = self._output(attempt).read_text()
        if code == _KILLED:
            return []
        if code not in (0, 1) or "Traceback" in text:
            return [f"attempt {attempt + 1} exits {code}: {text[-1500:]}"]
        if code == 1 and "landsweep: " not in text:
            return [f"attempt {attempt + 1} exits 1 and does not say why"]
        if code == 0 and "tracking down" in self.schedule.kinds and "warning: tracking" not in text:
            return ["nothing is said of the tracking server"]
        return self._status() if "trials failed" in text else []

    def _status(self) -> list[str]:
        """The failed trials have to be named."""
        found = status.current(SweepStore(self.uri), time.time())
        named = found.failures == {"ValueError": found.failed} and found.failed > 0
        return [] if named else [f"status names {found.failures}, {found.failed} failed"]


def _differences(uri: str, schedule: Schedule, expected: Tables) -> list[str]:
    """What differs at the end from the undisturbed run."""
    store = SweepStore(uri)
    faults = list(damaged(store)[1])
    try:
        found = tables(uri)
        gaps = {name: largest_difference(found[name], expected[name]) for name in expected}
        faults += [f"{name} differ by {gap:g}" for name, gap in gaps.items() if gap]
    except AssertionError as error:
        faults.append(str(error))
    if schedule.store != "s3" and not points_of(Path(uri))["point"].equals(expected["points"]["point"]):
        faults.append("plain pandas reads other points")
    state = status.current(store, time.time())
    if (state.state, state.left, state.failed) != ("done", 0, 0):
        faults.append(f"status says {state.state}, {state.left} left, {state.failed} failed")
    return faults
