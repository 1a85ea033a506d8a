"""What tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def one_thread() -> None:
    """The execution mode of one worker process: one thread, full precision."""
    from landsweep.workers import execution

    execution.prepare(1)
