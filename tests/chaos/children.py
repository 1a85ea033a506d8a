"""The processes of a run, forked from one that has imported everything: drivers and readers."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

SEGMENT_ROWS = 30  # gathered at once: many segments of a small sweep, as in a sweep of millions
PAUSE = 0.3  # seconds between two reads
_IMPORTED = ["landsweep.cli", "landsweep.analysis.sweep", "landsweep.analysis.figures", "landsweep.cluster.prepare"]
_IMPORTED += ["landsweep.cluster.run", "landsweep.cluster.ray_executor", "landsweep.workers.batch", "matplotlib.pyplot"]
_IMPORTED += ["torch", "pandas", "boto3", "scipy.stats", "tests.chaos.children"]
Read = Callable[[], str | None]  # what is wrong with what was read


@functools.cache
def context() -> ForkServerContext:
    """Forks start in milliseconds where an interpreter with all its imports takes seconds.

    Ray is not among the imports: it reads the way to its token when it is imported.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_IMPORTED)
    return found


def drive(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path) -> None:
    """``landsweep …`` as a process of its own."""
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(environment)
    os.chdir(folder)
    from landsweep.cli import app
    from landsweep.cluster import policy

    policy.SEGMENT_ROWS = SEGMENT_ROWS
    app(list(arguments))


def reader(make: Callable[[str], Read], uri: str, environment: Mapping[str, str], told: Connection) -> None:
    """Read again and again until told to end; answers the number of reads and what was wrong."""
    os.environ.update(environment)
    faults: list[str] = []
    count, read = 0, make(uri)
    while not told.poll(PAUSE):
        count += 1
        try:
            wrong = read()
        except Exception as exc:  # whatever a reader meets is a fault
            wrong = f"{type(exc).__name__}: {exc}"
        if wrong:
            faults.append(f"{time.strftime('%X')} {make.__name__}: {wrong}")
    told.send((count, faults))


def plain(uri: str) -> Read:
    """Plain pandas on a folder: no point twice, none that was there is gone."""
    from tests.comparison import points_of

    before: set[str] = set()

    def read() -> str | None:
        folder = Path(uri) / "points"
        if not folder.is_dir() or not any(folder.iterdir()):
            return "all points are gone" if before else None
        found = points_of(Path(uri))["point"]
        gone = before.difference(found)
        before.update(found)
        return _wrong(int(found.duplicated().sum()), "points", gone)

    return read


def opened(uri: str) -> Read:
    """``landsweep.open``: no trial or point twice, none that was there is gone, every done trial with its points."""
    import landsweep
    from landsweep.cluster.store import SweepStore
    from landsweep.workers.errors import UnavailableError

    before: set[str] = set()
    store = SweepStore(uri)

    def read() -> str | None:
        try:
            if not before and not store.exists():
                return None
            sweep = landsweep.open(uri)
            rows, trials, points = store.table("trials", ["trial", "attempt"]), sweep.trials(), sweep.points()
        except UnavailableError:  # the server is away, and the message says so
            return None
        gone = before.difference(trials["trial"])
        before.update(trials["trial"])
        bare = set(trials.loc[trials["status"] != "failed", "trial"]).difference(points["trial"])
        doubled = rows.to_pandas().duplicated().sum()  # `trials()` takes the last attempt of each
        twice = int(doubled + trials.duplicated("trial").sum() + points["point"].duplicated().sum())
        return _wrong(twice, "trials or points", gone) or (f"{len(bare)} trials have no point" if bare else None)

    return read


def _wrong(twice: int, what: str, gone: set[str]) -> str | None:
    if twice:
        return f"{twice} {what} twice"
    return f"{len(gone)} {what} are gone, {sorted(gone)[:3]}" if gone else None


class Readers:
    """Reader processes of one sweep."""

    def __init__(self, uri: str, environment: Mapping[str, str], makes: Sequence[Callable[[str], Read]]) -> None:
        self._running: list[tuple[ForkServerProcess, Connection]] = []
        for make in makes:
            ours, theirs = context().Pipe()
            process = context().Process(target=reader, args=(make, uri, dict(environment), theirs), daemon=True)
            process.start()
            self._running.append((process, ours))

    def end(self, patience: float) -> tuple[int, list[str]]:
        """The number of reads, and what was wrong with any."""
        for _, told in self._running:
            told.send(None)
        reads, faults, end = 0, list[str](), time.monotonic() + patience
        for process, told in self._running:
            if told.poll(max(0.0, end - time.monotonic())):
                count, found = told.recv()
                reads, faults = reads + count, faults + found
            else:
                faults.append(f"a reader does not end within {patience:.0f} s")
                process.kill()
            process.join()
        return reads, faults
