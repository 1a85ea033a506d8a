"""``spool/`` of a sweep: what the tracking server has not taken, and which process may log."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from landsweep.cluster.files import may_live
from landsweep.cluster.store import SweepStore
from landsweep.cluster.tracking import Moment
from landsweep.workers import record

MOMENTS, WRITER = "spool/progress.json", "spool/writer.json"
MOST_MOMENTS = 1000
LEASE_SECONDS = 120.0


def thinned(moments: Sequence[Moment]) -> list[Moment]:
    """``moments``, of too many every second one; the last stays."""
    found = list(moments)
    while len(found) > MOST_MOMENTS:
        found = found[::-2][::-1]
    return found


@dataclass(frozen=True)
class Writer:
    """A process that logs a sweep."""

    name: str
    host: str
    process: int
    time: float  # unix seconds at which it last said so

    @classmethod
    def here(cls, now: float) -> Writer:
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), now)


def may_write(holder: Writer | None, me: Writer, now: float, alive: bool) -> bool:
    """Whether ``me`` may log: nobody else does, or it is dead (``alive`` is false) or silent for LEASE_SECONDS."""
    return holder is None or holder.name == me.name or not alive or now - holder.time > LEASE_SECONDS


class Spool:
    """The files of ``spool/``."""

    def __init__(self, store: SweepStore, now: float) -> None:
        self._store = store
        self._me = Writer.here(now)
        self._said: float | None = None
        self._holds = False  # something that was not taken

    def moments(self) -> list[Moment]:
        """What was not taken."""
        content = self._content(MOMENTS)
        self._holds = content is not None
        return [Moment(**moment) for moment in content["moments"]] if content else []

    def keep(self, moments: Sequence[Moment]) -> None:
        """Write down what was not taken, in place of what was there."""
        if moments:
            content = {"schema": 1, "moments": [asdict(moment) for moment in moments]}
            self._store.files.write(MOMENTS, record.canonical_json(content).encode())
        elif self._holds:
            self._store.files.delete(MOMENTS)
        self._holds = bool(moments)

    def hold(self, now: float) -> bool:
        """Take or keep the right to log; whether this process has it. Two that logged would make every run twice."""
        if self._said is not None and now - self._said < LEASE_SECONDS / 4:
            return True
        self._said = None
        me = replace(self._me, time=now)
        content = record.canonical_json(asdict(me)).encode()
        if not self._store.files.create(WRITER, content):
            found = self._content(WRITER)
            holder = Writer(**found) if found else None
            if not may_write(holder, me, now, holder is not None and may_live(holder.host, holder.process)):
                return False
            self._store.files.write(WRITER, content)
        self._said = now
        return True

    def release(self) -> None:
        if self._said is not None:
            self._store.files.delete(WRITER)

    def _content(self, name: str) -> dict[str, Any] | None:
        text = self._store.text(name)
        return None if text is None else dict(self._store.json(name, text))
