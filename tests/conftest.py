"""What tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

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


@pytest.fixture(params=["compiled", "tensor operations"])
def program(request: pytest.FixtureRequest) -> Iterator[str]:
    """By what fully connected nets are evaluated."""
    from landsweep.workers import compiled, dense_native

    if request.param == "compiled" and compiled.found_compiler() is None:
        pytest.skip("no C++ compiler")
    with dense_native.tensor_operations() if request.param != "compiled" else nullcontext():
        yield request.param
