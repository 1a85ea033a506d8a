"""A pool of long-lived Ray actors, embedded here or on a cluster, that follows the nodes as they come and go."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from landsweep.cluster import pool, ray_adapter
from landsweep.cluster.execute import Job, Summary
from landsweep.cluster.executors import Completion
from landsweep.cluster.files import TEMPORARY, is_remote, temporary_name
from landsweep.cluster.policy import cost
from landsweep.cluster.ray_adapter import killed_for_memory
from landsweep.cluster.ray_worker import Hello, Worker
from landsweep.workers import record
from landsweep.workers.errors import ExecutionError, RequestError
from landsweep.workers.samples import Samples

POOL_SECONDS = 2.0  # between looks at the cluster's nodes
ROOM_SECONDS = 600.0  # how long a cluster may have no node with room
FAILED_STARTS = 5  # workers in a row that did not come up


@dataclass(frozen=True)
class _Member:
    """A worker."""

    actor: Any
    node: str
    host: str


@dataclass(frozen=True)
class _Run:
    """A job on a worker."""

    member: _Member
    job: Job
    started: float

    @property
    def batch(self) -> str:
        return self.job.work.batch.id

    @property
    def cost(self) -> float:
        """Of all batches that train as the job's program."""
        return sum(cost(work.batch) for work in self.job.works)


class RayExecutor:
    """One actor per slot of ``num_cpus``/``num_gpus`` on each node, at most ``most``. What a dead actor ran is reported
    lost."""

    def __init__(
        self,
        num_cpus: float,
        num_gpus: float,
        address: str | None = None,
        store: str | None = None,
        data_bytes: int = 0,  # of all data sets, which go into the object store
        most: int = 10**6,  # workers worth having
    ) -> None:
        ray_adapter.connect(address, data_bytes)
        self._ray = ray_adapter.load()
        self._shape, self._most, self._scales = pool.Shape(num_cpus, num_gpus), most, bool(address)
        self._nodes: dict[str, ray_adapter.Node] = {}
        self._usable: set[str] = set()
        self._health: dict[str, pool.Health] = defaultdict(pool.Health)
        self._starting: dict[Any, _Member] = {}  # reference of its hello → worker
        self._idle: deque[_Member] = deque()
        self._running: dict[Any, _Run] = {}  # reference → job on a worker
        self._waiting: deque[Job] = deque()
        self._data: dict[str, Any] = {}  # checksum of a data set → its reference in the object store
        self._ended: dict[str, deque[float]] = defaultdict(  # configuration → seconds a unit of cost
            lambda: deque(maxlen=pool.STRAGGLER_RECENT)
        )
        self._looked = self._had_room = time.monotonic()
        self._failed_starts = self._requested = 0
        self._shipped = ray_adapter.shipped_folder()
        self._probe = _probe(Path(store)) if address and store and not is_remote(store) else None
        self._look(self._looked)
        if not self._scales and not self._starting:
            self.close()
            raise RequestError(self._no_room())

    @property
    def workers(self) -> int:
        """How many there are, those that come up among them."""
        return len(self._starting) + len(self._idle) + len(self._running)

    @property
    def ready(self) -> int:
        """How many wait for work."""
        return len(self._idle)

    def serve(self, most: int) -> None:
        """From now on there are so many workers worth having."""
        self._most = most
        self._look(time.monotonic())

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._assign()

    def withdraw(self) -> int:
        """Forget the jobs that have not begun; how many."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def wait(self, timeout: float) -> list[Completion]:
        now = time.monotonic()
        if now - self._looked >= POOL_SECONDS:
            self._look(now)
        references = [*self._running, *self._starting]
        if not references:
            threading.Event().wait(timeout)
            return []
        self._ray.wait(references, num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            if reference in self._starting:
                self._welcome(reference)
        found = [self._complete(reference) for reference in ready if reference in self._running]
        found += [self._end(reference) for reference in self._overdue(time.monotonic())]
        self._assign()
        self._double(time.monotonic())
        return [completion for completion in found if completion is not None]

    def close(self) -> None:
        if self._probe is not None:
            self._probe.unlink(missing_ok=True)
        if self._requested and self._ray.is_initialized():
            ray_adapter.request_room([])
        busy = bool(self._running or self._starting)
        self._end_workers()
        ray_adapter.leave(wait=busy or self._scales)

    def _end_workers(self) -> None:
        """Kill them and forget what refers to Ray's objects: that may not go while another thread leaves Ray."""
        for member in self._members():
            self._ray.kill(member.actor)
        for kept in (self._idle, self._data, self._running, self._starting):
            kept.clear()

    # the pool ---------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Follow the cluster: workers where there is room, none where nothing may run."""
        self._looked = now
        self._nodes = {node.id: node for node in ray_adapter.nodes()}
        self._usable = pool.usable({node.id: node.leaving for node in self._nodes.values()}, self._health, now)
        for member in [member for member in self._idle if member.node not in self._usable]:
            self._idle.remove(member)
            self._ray.kill(member.actor)
        for reference in [one for one, member in self._starting.items() if member.node not in self._usable]:
            self._ray.kill(self._starting.pop(reference).actor)
        slots = {node: self._shape.slots(self._nodes[node].resources) for node in self._usable}
        for node in pool.missing(slots, Counter(member.node for member in self._members()), self._most):
            self._start(node)
        self._request()
        if self.workers:
            self._had_room = now
        elif now - self._had_room > ROOM_SECONDS:
            raise ExecutionError(f"{self._no_room()}, for {ROOM_SECONDS:.0f} s; what is committed is kept")

    def _members(self) -> Iterable[_Member]:
        yield from self._starting.values()
        yield from self._idle
        yield from (run.member for run in self._running.values())

    def _start(self, node: str) -> None:
        options = {"num_cpus": self._shape.num_cpus, "num_gpus": self._shape.num_gpus, "max_concurrency": 1}
        actor = self._ray.remote(**options)(Worker).options(scheduling_strategy=ray_adapter.on_node(node)).remote()
        probe = None if self._probe is None else str(self._probe)
        self._starting[actor.hello.remote(probe)] = _Member(actor, node, self._nodes[node].host)

    def _welcome(self, reference: Any) -> None:
        """A worker came up, or did not."""
        member = self._starting.pop(reference)
        try:
            hello: Hello = self._ray.get(reference)
        except self._ray.exceptions.RayError as exc:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise ExecutionError(f"workers do not come up on {member.host}: {exc}") from exc
            self._note(member.node, f"start {self._failed_starts}", died=True)
            return
        self._failed_starts = 0
        if hello.version != record.VERSION:
            found = f"{member.host} has landsweep {hello.version}, the driver {record.VERSION}"
            raise RequestError(f"resources: {found}; give all nodes one image")
        if not hello.sees_store and self._probe is not None:
            folder = self._probe.parents[1]
            raise RequestError(f"store: {folder} is not there on {member.host}; name a folder that all nodes share")
        self._idle.append(member)

    def _request(self) -> None:
        """Ask an autoscaler for room, when what is asked changes."""
        wanted = pool.requested(len(self._waiting), len(self._running), self._most) if self._scales else 0
        if wanted != self._requested:
            ray_adapter.request_room([self._shape.bundle()] * wanted)
            self._requested = wanted

    def _no_room(self) -> str:
        asked = f"a batch needs {self._shape.num_cpus:g} CPUs and {self._shape.num_gpus:g} GPUs"
        had = [(node.resources.get("CPU", 0), node.resources.get("GPU", 0)) for node in self._nodes.values()]
        cpus, gpus = max(had, default=(0, 0))
        return f"resources: {asked} on one node; found at most {cpus:g} CPUs and {gpus:g} GPUs"

    # jobs -------------------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        while self._idle and self._waiting:
            self._run(self._idle.popleft(), self._waiting.popleft())

    def _run(self, member: _Member, job: Job) -> None:
        sent = replace(job, samples=None, code=tuple(map(self._as_there, job.code)))
        reference = member.actor.run.remote(sent, self._put(job.samples))
        self._running[reference] = _Run(member, job, time.monotonic())

    def _as_there(self, folder: str) -> str:
        """A folder that travelled with the driver is below every worker's own working directory."""
        inside = self._shipped is not None and Path(folder).is_relative_to(self._shipped)
        return str(Path(folder).relative_to(self._shipped or "")) if inside else folder

    def _put(self, samples: Samples | None) -> Any:
        """A data set's reference: it is put once, and a node's workers read it in place (numpy arrays, no copy)."""
        if samples is None:
            return None
        if samples.checksum not in self._data:
            self._data[samples.checksum] = self._ray.put(samples)
        return self._data[samples.checksum]

    def _double(self, now: float) -> None:
        """Near the end, run what takes too long a second time on workers that have nothing else; the first to commit
        wins."""
        runs = list(self._running.values())
        twice = {batch for batch, count in Counter(run.batch for run in runs).items() if count > 1}
        if self._waiting or not self._idle:
            return
        once = [
            pool.Running(run.batch, run.job.work.batch.config.id, run.cost, run.started)
            for run in runs
            if run.batch not in twice
        ]
        for batch in pool.stragglers(once, self._ended, now)[: len(self._idle)]:
            first = next(run for run in runs if run.batch == batch)
            place = pool.elsewhere([member.node for member in self._idle], {first.member.node})
            member = self._idle[place]
            del self._idle[place]
            self._run(member, first.job)

    def _complete(self, reference: Any) -> Completion | None:
        """What became of a job; None where another worker still runs it."""
        run = self._running.pop(reference)
        try:
            summary: Summary = self._ray.get(reference)
        except self._ray.exceptions.RayError as exc:
            return self._lost(run, exc)
        seconds = time.monotonic() - run.started
        self._ended[run.job.work.batch.config.id].append(seconds / run.cost)
        self._note(run.member.node, run.batch, died=False)
        if run.member.node in self._usable:
            self._idle.append(run.member)
        else:
            self._ray.kill(run.member.actor)
        for other in [one for one, twin in self._running.items() if twin.batch == run.batch]:
            self._ray.kill(self._running.pop(other).member.actor)
        return Completion(run.job, summary, host=run.member.host)

    def _lost(self, run: _Run, error: Exception) -> Completion | None:
        self._ray.kill(run.member.actor)  # it may be unreachable only
        self._look(time.monotonic())
        evicted = run.member.node not in self._nodes or bool(getattr(error, "preempted", False))
        exhausted = killed_for_memory(error)
        if not evicted and not exhausted:
            self._note(run.member.node, run.batch, died=True)
        if self._runs_still(run.batch):
            return None
        said = f"{type(error).__name__}: {_first_line(error)}"
        return Completion(run.job, None, said, exhausted=exhausted, evicted=evicted, host=run.member.host)

    def _runs_still(self, batch: str) -> bool:
        """Whether another worker runs it too."""
        return any(run.batch == batch for run in self._running.values())

    def _overdue(self, now: float) -> list[Any]:
        late = ((one, run.job.timeout, now - run.started) for one, run in self._running.items())
        return [reference for reference, timeout, seconds in late if timeout is not None and seconds > timeout]

    def _end(self, reference: Any) -> Completion | None:
        """Kill the actor of a job that takes longer than it may."""
        run = self._running.pop(reference)
        self._ray.kill(run.member.actor)
        self._look(time.monotonic())
        if self._runs_still(run.batch):
            return None
        said = f"took longer than resources.timeout, {run.job.timeout:g} s"
        return Completion(run.job, None, said, host=run.member.host)

    def _note(self, node: str, batch: str, died: bool) -> None:
        self._health[node] = pool.after_batch(self._health[node], batch, died, time.monotonic())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _probe(store: Path) -> Path:
    """A file that workers look for; where its driver is killed, the next run removes it."""
    probe = store.resolve() / TEMPORARY / temporary_name("probe")
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    return probe
