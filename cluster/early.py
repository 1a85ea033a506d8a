"""Workers that come up while the sweep is planned: Ray and its processes take as long as the plan, on another core."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from landsweep.cluster import grid, memory
from landsweep.cluster.files import is_remote
from landsweep.cluster.prepare import Plan, location
from landsweep.cluster.spec import Sweep
from landsweep.cluster.store import SWEEP_FILE

if TYPE_CHECKING:
    from landsweep.cluster.ray_executor import RayExecutor

#: Of data sets that an early start has room for in the object store; for more Ray is started anew.
DATA_BYTES = 128 * 2**20
SETTLE_SECONDS = 20.0


class Early:
    """An executor on an embedded Ray that is being made; whoever takes it closes it."""

    def __init__(self, made: Future[RayExecutor]) -> None:
        self._made: Future[RayExecutor] | None = made

    def take(self, planned: Plan) -> RayExecutor | None:
        """The executor, for the batches of the plan; None where it does not suffice, or is taken. Raises what making it
        raised."""
        if self._made is None or planned.data.nbytes > DATA_BYTES:
            return None
        made, self._made = self._made.result(), None
        made.serve(len(planned.batches))
        return made

    def give_up(self) -> None:
        """Close the executor, once it is made, unless it is taken. Waits for nothing: :func:`settle` does."""
        if self._made is None:
            return
        closed = threading.Event()
        _ending.append(closed)

        def close(made: Future[RayExecutor]) -> None:
            try:
                if made.exception() is None:
                    made.result().close()
            finally:
                closed.set()

        self._made.add_done_callback(close)


_ending: list[threading.Event] = []


def settle() -> bool:
    """Wait for what was given up to be closed, whatever is pressed meanwhile: with this process Ray would end under it,
    which then waits for a minute. Of the main thread. False where it does not close: an import that is interrupted can
    leave others waiting for ever."""
    if _ending:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return all(closed.wait(SETTLE_SECONDS) for closed in _ending)


@contextmanager
def workers(sweep: Sweep, address: str | None) -> Iterator[Early | None]:
    """An executor for a sweep that has not begun, of as many workers as it surely has batches for; None for one that
    has, of which nothing may be left, and where a cluster runs it."""
    begun = is_remote(sweep.store) or (Path(location(sweep)) / SWEEP_FILE).exists()
    if address or begun:
        yield None
        return
    resources = sweep.resources
    most = memory.fewest_batches(resources.batch, len(sweep.seeds), grid.size(sweep.grid))

    def make() -> RayExecutor:
        from landsweep.cluster import ray_executor

        return ray_executor.RayExecutor(resources.num_cpus, resources.num_gpus, None, None, DATA_BYTES, most)

    pool, early = ThreadPoolExecutor(1), None
    try:
        early = Early(pool.submit(make))
        pool.shutdown(wait=False)
        yield early
    finally:
        if early is not None:
            early.give_up()
