"""What tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

#: Ray runs its workers at niceness 15: beside a second test process on the same cores they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")

#: The same examples in every run, however loaded the machine is; `--hypothesis-profile default` draws new ones.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")


@pytest.fixture(scope="session")
def one_thread() -> None:
    """The execution mode of one worker process: one thread, full precision."""
    from landsweep.workers import execution

    execution.prepare(1)
