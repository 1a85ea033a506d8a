"""How a sweep stands: counts, rates, time left, cost, failures. A pure function of facts, and the small file by which
a driver tells other processes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from landsweep.cluster import failures, yaml_reader
from landsweep.cluster.store import QUESTION_FILE, SWEEP_FILE, SweepStore
from landsweep.workers import record

STATUS_FILE = "status.json"
WRITE_SECONDS = 10.0  # between two states of the file
STALE_SECONDS = 60.0  # a running driver that has not written for so long is gone
RATE_SECONDS = 120.0  # the rate is that of the last two minutes, and of longer where less was done
_CLASS = re.compile(r"^(?:\w+\.)*([A-Z]\w*)(?=:|$)", re.MULTILINE)


@dataclass(frozen=True)
class Work:
    """What a node did in this run."""

    trials: int = 0
    seconds: float = 0.0  # of its batches, one after the other

    def __add__(self, other: Work) -> Work:
        return Work(self.trials + other.trials, self.seconds + other.seconds)


@dataclass(frozen=True)
class Mark:
    """How many trials were done at a time."""

    time: float  # unix seconds
    done: int


@dataclass(frozen=True)
class Sample:
    """One number to monitor."""

    name: str
    value: float
    label: tuple[str, str] | None = None  # what it is of, where there are several of a name: (class, ValueError)

    @property
    def flat(self) -> str:
        """Its name where there are no labels: ``failures.ValueError``."""
        return self.name if self.label is None else f"{self.name}.{self.label[1]}"


@dataclass(frozen=True)
class Facts:
    """What is known of a sweep at one moment."""

    sweep: str
    state: str  # running | done | stopped | interrupted; of a driver that is gone: lost; of none at all: idle
    total: int  # trials
    done: int  # of them committed, failed ones among them
    failures: Mapping[str, int] = field(default_factory=dict)  # class of the error → trials given up
    work_seconds: float = 0.0  # of all batches that are done, one after the other
    price_per_hour: float | None = None  # of one batch's resources
    retried: int = 0  # batches of this run that were tried again
    running: int = 0  # batches handed out
    started: float | None = None  # unix seconds of this run
    marks: Sequence[Mark] = ()  # of this run, the oldest first
    nodes: Mapping[str, Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """How a sweep stood at ``time``."""

    sweep: str
    state: str
    time: float  # unix seconds
    total: int
    done: int
    left: int
    failed: int
    failures: dict[str, int]
    retried: int
    running: int
    elapsed_seconds: float | None  # of this run
    trials_per_second: float | None
    eta_seconds: float | None
    work_seconds: float
    cost: float | None  # so far
    nodes: dict[str, float]  # node → trials a second in this run

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def samples(self) -> list[Sample]:
        """The numbers as a monitoring system takes them; what is not known is left out."""
        names = ("total", "done", "left", "failed", "retried", "running", "elapsed_seconds", "trials_per_second")
        values = ((name, getattr(self, name)) for name in (*names, "eta_seconds", "work_seconds", "cost"))
        found = [Sample(name, float(value)) for name, value in values if value is not None]
        found += [Sample("failures", count, ("class", name)) for name, count in self.failures.items()]
        return found + [Sample("node_trials_per_second", rate, ("node", name)) for name, rate in self.nodes.items()]


def status(facts: Facts, now: float) -> Status:
    """The state at ``now`` (unix seconds).

    rate = trials done since the mark before ``now`` − RATE_SECONDS (the run's first, if it is younger) / time since;
    eta = left / rate; cost = work_seconds / 3600 · price_per_hour.
    """
    rate = None if facts.state != "running" else _rate(facts.marks, now)
    elapsed = None if facts.started is None else now - facts.started
    left, price = facts.total - facts.done, facts.price_per_hour
    return Status(
        sweep=facts.sweep,
        state=facts.state,
        time=now,
        total=facts.total,
        done=facts.done,
        left=left,
        failed=sum(facts.failures.values()),
        failures=dict(facts.failures),
        retried=facts.retried,
        running=facts.running,
        elapsed_seconds=elapsed,
        trials_per_second=rate,
        eta_seconds=left / rate if rate else None,
        work_seconds=facts.work_seconds,
        cost=None if price is None else price * facts.work_seconds / 3600,
        nodes={name: work.trials / elapsed for name, work in sorted(facts.nodes.items())} if elapsed else {},
    )


def _rate(marks: Sequence[Mark], now: float) -> float | None:
    """Trials a second; None before any was done."""
    if not marks or marks[-1].done == marks[0].done:
        return None
    recent = [mark for mark in marks if mark.time <= now - RATE_SECONDS]
    since = next((mark for mark in reversed(recent) if mark.done < marks[-1].done), marks[0])
    return (marks[-1].done - since.done) / max(now - since.time, 1e-3)


def kept(marks: Sequence[Mark], now: float) -> list[Mark]:
    """``marks`` without those that no rate needs: the last before the window, and what is within."""
    old = [mark for mark in marks if mark.time <= now - RATE_SECONDS and mark.done < marks[-1].done]
    return [*old[-1:], *(mark for mark in marks if not old or mark.time > old[-1].time)]


def error_class(error: str) -> str:
    """What kind of error a failed trial's text tells of: the exception's name, or in a word.

    >>> error_class("Traceback (most recent call last):\\n  …\\ntorch.cuda.OutOfMemoryError: 2 GiB")
    'OutOfMemoryError'
    >>> error_class("took longer than resources.timeout, 5 s")
    'timeout'
    """
    if "resources.timeout" in error:
        return "timeout"
    names = _CLASS.findall(error)
    return names[-1] if names else "other"


def committed(store: SweepStore, again: Container[str] = ()) -> tuple[int, Counter[str], float]:
    """Trials done, of them the failed ones by class of error, and the seconds of their batches; as the tables say.

    ``again``: failed trials that are tried again, and do not count as failed.
    """
    lost = failures.given_up(store)
    classes = Counter(error_class(row["error"] or "") for trial, row in lost.items() if trial not in again)
    seconds = pa.compute.sum(store.table("trials", ["seconds"]).column("seconds")).as_py() or 0.0
    return sum(len(seeds) for seeds in store.snapshot().trials().values()), classes, float(seconds)


def write(store: SweepStore, found: Status) -> None:
    """Tell other processes."""
    store.files.write(STATUS_FILE, record.canonical_json({"schema": 1, **found.as_dict()}).encode())


def written(store: SweepStore) -> Status | None:
    """What a driver wrote last."""
    text = store.text(STATUS_FILE)
    if text is None:
        return None
    content = store.json(STATUS_FILE, text)
    names = Status.__dataclass_fields__
    return Status(**{name: content[name] for name in names}) if names.keys() <= content.keys() else None


def current(store: SweepStore, now: float) -> Status:
    """How the sweep stands: as its driver wrote, while one runs; else as the tables say. Raises StoreError."""
    last = written(store)
    if last is not None and last.state == "running" and now - last.time <= STALE_SECONDS:
        return last
    done, failed, seconds = committed(store)
    total, price = max(_planned(store), done), _price(store)
    state = "idle" if last is None else ("lost" if last.state == "running" else last.state)
    state = "done" if done == total else ("idle" if state == "done" else state)
    facts = Facts(store.name, state, total, done, failed, seconds, price)
    found = status(facts, now)
    if last is None:
        return found
    return replace(found, retried=last.retried, elapsed_seconds=last.elapsed_seconds, nodes=last.nodes)


def _planned(store: SweepStore) -> int:
    text = store.text(QUESTION_FILE)
    return int(store.json(QUESTION_FILE, text)["planned"]) if text else 0


def _price(store: SweepStore) -> float | None:
    text = store.text(SWEEP_FILE)
    sweep: Any = yaml_reader.read_text(text, f"{store.uri}/{SWEEP_FILE}") if text else {}
    return (sweep.get("resources") or {}).get("price_per_hour")
