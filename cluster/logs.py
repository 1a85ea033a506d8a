"""Structured logs: one line of JSON an event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from landsweep.cluster.policy import Work
from landsweep.cluster.printable import printable
from landsweep.workers.record import trial_id

_LOGGER = logging.getLogger("landsweep.events")
_LOGGER.propagate = False
_LOGGER.setLevel(logging.WARNING)
MOST_ERROR = 2000  # characters of an error's end that an event holds


class JsonFormatter(logging.Formatter):
    """``{"time": ISO 8601 in UTC, "level", "event", …}`` with the event's facts."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        return printable(json.dumps(head | getattr(record, "facts", {}), ensure_ascii=False, default=str))


def to_json() -> None:
    """From now on, events are lines of JSON on standard error; before, none is shown."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(logging.INFO)


def event(name: str, work: Work | None = None, *, level: int = logging.INFO, **facts: Any) -> None:
    """Something happened, to a batch where ``work`` is given: its id, configuration, attempt and trials are told."""
    if not _LOGGER.isEnabledFor(level):
        return
    if work is not None:
        config, seeds = work.batch.config.id, work.batch.seeds
        trials = {"first_trial": trial_id(config, seeds[0]), "last_trial": trial_id(config, seeds[-1])}
        facts = (
            {"batch": work.batch.id, "config": config, "attempt": work.attempt, "trials": len(seeds)} | trials | facts
        )
    _LOGGER.log(level, name, extra={"facts": facts})
