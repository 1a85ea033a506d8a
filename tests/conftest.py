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


#: The files that take longest, first: two processes take files in turn, and one that began last would be waited for.
LONGEST = (
    "test_chaos.py", "test_ray_jobs.py", "test_end_to_end.py", "test_ray.py", "test_cli.py", "test_model_grid.py",
    "test_s3_sweeps.py", "test_tracking.py", "test_tour.py", "test_browser.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))  # stable: the rest stays as it is


@pytest.fixture(scope="session")
def one_thread() -> None:
    """The execution mode of one worker process: one thread, full precision."""
    from landsweep.workers import execution

    execution.prepare(1)
