"""What goes wrong in a run, and when: drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Store = Literal["folder", "disk", "s3"]

#: fault → the store that it needs, where it needs one
FAULTS: dict[str, Store | None] = {
    "worker killed": None,
    "raylet killed": None,  # with its workers; another joins
    "driver killed": None,
    "trial raises": None,  # in its first attempts
    "tracking down": None,  # throughout
    "disk full": "disk",
    "S3 killed": "s3",  # and back
    "S3 requests broken": "s3",  # answered 500, 503 or late, cut off in mid-upload, done and not answered
}
THROUGHOUT = ("trial raises", "tracking down")  # from the start


@dataclass(frozen=True)
class Event:
    """A fault that strikes once a share of the trials is done."""

    kind: str
    share: float  # 0 … 1; 1: while the last ones are gathered
    draw: float  # uniform in [0, 1): whom or how hard


@dataclass(frozen=True)
class Schedule:
    """One run's faults."""

    seed: int
    store: Store
    events: tuple[Event, ...]  # by share

    @property
    def kinds(self) -> set[str]:
        return {event.kind for event in self.events}

    def said(self) -> str:
        """Where and what, in a line."""
        texts = (one.kind if one.kind in THROUGHOUT else f"{one.kind} at {one.share:.0%}" for one in self.events)
        return f"{self.store}: {', '.join(texts)}"


def schedule(seed: int) -> Schedule:
    """One to three faults that one store can meet; a tenth of those that strike do it when all trials are done."""
    drawn = random.Random(seed)
    while True:
        kinds = drawn.sample(list(FAULTS), drawn.randint(1, 3))
        stores = {FAULTS[kind] for kind in kinds} - {None}
        if len(stores) <= 1:
            break
    events = [_event(kind, drawn) for kind in kinds]
    events += [_event("driver killed", drawn)] if "driver killed" in kinds else []  # again, at another moment
    store = next((FAULTS[kind] for kind in kinds if FAULTS[kind]), None)
    return Schedule(seed, store or "folder", tuple(sorted(events, key=lambda event: event.share)))


def _event(kind: str, drawn: random.Random) -> Event:
    share = 0.0 if kind in THROUGHOUT else min(1.0, drawn.uniform(0.05, 1.05))
    return Event(kind, share, drawn.random())
