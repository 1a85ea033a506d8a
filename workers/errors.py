"""The error tree: everything that landsweep raises on purpose.

    LandsweepError
    ├── RequestError            the request was wrong: exit 2
    │   ├── SweepFileError      the sweep file: which key, what was found, what is allowed
    │   ├── LandscapeError      a landscape, its data or its options cannot be built
    │   ├── QueryError          a --where, --columns or --kind that cannot be answered
    │   └── DependencyError     an optional part is not installed
    ├── StoreError              committed data: missing, unreadable or not what its checksum says: exit 2
    │   ├── ConflictError       a sweep of that name exists with another content
    │   └── UnavailableError    the store has no room or does not answer; what is committed is whole: exit 1
    └── ExecutionError          the work ran and something failed: exit 1

Not converging is no error: it is a status in a result. Errors of other libraries are translated where they
cross into landsweep (``raise … from exc``).
"""

from __future__ import annotations


class LandsweepError(Exception):
    """Base of the tree. ``str(error)`` is one message: what was found, where, what to do."""

    exit_code = 2


class RequestError(LandsweepError):
    """The request was wrong; nothing was written."""


class SweepFileError(RequestError):
    """The sweep file cannot be used; the message names the key, what was found and what is allowed."""


class LandscapeError(RequestError):
    """A landscape, its data or its options cannot be built."""


class QueryError(RequestError):
    """A filter, column or kind that the tables cannot answer."""


class DependencyError(RequestError):
    """An optional dependency is missing; the message names the extra that brings it."""


class StoreError(LandsweepError):
    """Committed data is missing, unreadable or not what its checksum says."""


class ConflictError(StoreError):
    """A sweep of that name exists with other content."""


class UnavailableError(StoreError):
    """The store has no room or does not answer. What is committed is whole, and the same command goes on from there."""

    exit_code = 1


class ExecutionError(LandsweepError):
    """The work ran and something failed."""

    exit_code = 1
