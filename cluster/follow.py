"""The process that logs a sweep to MLflow while it runs: it reads the store and nothing else, so that no server,
however slow, holds up the driver that started it.

The driver writes two lines of JSON to its standard input: what to follow, and at the end where the artifacts are. It
answers the second with one line, and leaves when its input ends.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from landsweep.cluster import status, tracked
from landsweep.cluster.mistakes import masked
from landsweep.cluster.spans import Spans
from landsweep.cluster.spool import Spool, thinned
from landsweep.cluster.store import SWEEP_FILE, SweepStore
from landsweep.cluster.tracked import Artifacts, TrackedSweep
from landsweep.cluster.tracking import Moment, Server, TrackingError, import_no_absent
from landsweep.workers.errors import LandsweepError

RETRY_SECONDS = 30.0  # a server that did not answer is left alone for so long
SWEEP_FOLDER, VERDICT = "sweep", "verdict.json"  # among the artifacts; the other folders are configurations'


def pause(age: float) -> float:
    """Seconds between two looks at a sweep that has run for ``age`` seconds: 10, or 1 % of its age."""
    return max(10.0, 0.01 * age)


class Follower:
    """Logs what is new at every look."""

    def __init__(self, sweep: TrackedSweep, uri: str, store: SweepStore) -> None:
        self._sweep, self._uri, self._store = sweep, uri, store
        self._spool = Spool(store, time.time())
        self._moments = self._spool.moments()
        self._server: Server | None = None
        self._sent: dict[str, tuple[int, int]] = {}  # configuration → its trials and its failed ones when it was sent
        self._failed: tuple[float, str] | None = None  # when the server did not take something, and what was said
        before = status.written(store)
        self._seen = before.time if before else 0.0  # of the last status that was read

    def look(self) -> None:
        """Log what was done since the last look; what the server does not take is spooled."""
        self._note(status.written(self._store))
        if self._failed is None or time.monotonic() - self._failed[0] >= RETRY_SECONDS:
            self._try(lambda: self._log({}))
        self._spool.keep(self._moments)

    def end(self, folder: Path) -> str | None:
        """Log the rest, with the artifacts in ``folder``; why it was not, if so."""
        self._note(status.written(self._store))
        if self._failed is None or time.monotonic() - self._failed[0] >= RETRY_SECONDS:
            self._try(lambda: self._log_all(_artifacts(folder)))
        self.leave()
        return self._failed[1] if self._failed else None

    def leave(self) -> None:
        """Keep what was not sent; let others log."""
        self._spool.keep(self._moments)
        self._spool.release()

    def _note(self, found: status.Status | None) -> None:
        if found is not None and found.time > self._seen:
            self._seen = found.time
            figures = {f"progress.{sample.flat}": sample.value for sample in found.samples()}
            self._moments = thinned([*self._moments, Moment(found.time, found.done, figures)])

    def _try(self, log: Callable[[], object]) -> None:
        self._failed = None
        try:
            log()
        except (LandsweepError, OSError) as error:
            self._server = None  # what it holds is looked up again
            self._failed = (time.monotonic(), str(error))

    def _log(self, artifacts: dict[str, Artifacts]) -> Server:
        if not self._spool.hold(time.time()):
            raise TrackingError("tracking: another run of this sweep logs it now; `landsweep run` completes it")
        if self._server is None:
            self._server = Server(self._uri, self._sweep.name, self._sweep.store)
            self._sent = {}
        if not self._server.has(self._sweep.key()):
            self._server.send(tracked.begun(self._sweep, self._store.text(SWEEP_FILE) or ""))
        if self._moments:
            self._server.progress(self._sweep.key(), self._moments)
            self._moments = []
        self._log_configurations(self._server, artifacts)
        return self._server

    def _log_configurations(self, server: Server, artifacts: dict[str, Artifacts]) -> None:
        """The runs of configurations that are complete and not sent as they are, or have artifacts now."""
        snapshot, (first, stop) = self._store.snapshot(), self._sweep.seeds
        failed, wanted = snapshot.failed(), Spans(((first, stop),))
        states = {
            config: (len(wanted) - len(wanted - seeds), len(failed.get(config, ())))
            for config, seeds in snapshot.trials().items()
            if config in self._sweep.grids
        }
        new = [
            config
            for config, state in states.items()
            if state[0] == len(wanted) and (self._sent.get(config) != state or config in artifacts)
        ]
        if not new:
            return
        points = self._rows("points", tracked.POINT_COLUMNS, new)
        trials = self._rows("trials", tracked.TRIAL_COLUMNS, new)
        for run in tracked.configuration_runs(self._sweep, new, points, trials, artifacts):
            self._spool.hold(time.time())
            server.send(run)
        self._sent |= {config: states[config] for config in new}

    def _log_all(self, artifacts: dict[str, Artifacts]) -> None:
        server = self._log({config: files for config, files in artifacts.items() if config != SWEEP_FOLDER})
        kinds = pa.compute.value_counts(self._store.table("points", ["kind"]).column("kind")).to_pylist()
        trials = sum(len(seeds) for seeds in self._store.snapshot().trials().values())
        files = artifacts.get(SWEEP_FOLDER, {})
        verdict = json.loads(files.get(VERDICT, b"{}"))
        counts = {entry["values"]: entry["counts"] for entry in kinds}
        server.send(tracked.ended(self._sweep, counts, trials, verdict, files))

    def _rows(self, table: str, columns: Sequence[str], configs: Sequence[str]) -> Any:
        wanted = pa.compute.field("config").isin(list(configs))
        return self._store.table(table, list(columns), wanted).to_pandas()


def _artifacts(folder: Path) -> dict[str, Artifacts]:
    """Folder → file → content."""
    found = {inner.name: {file.name: file.read_bytes() for file in inner.iterdir()} for inner in folder.iterdir()}
    return dict(found)


def task_line(sweep: TrackedSweep, uri: str) -> str:
    """The first line that the process reads."""
    return json.dumps({"uri": uri, "sweep": asdict(sweep)})


def end_line(folder: Path) -> str:
    """The second."""
    return json.dumps({"artifacts": str(folder)})


def _read(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    lines.put("")


def main() -> None:
    import_no_absent()
    task = json.loads(sys.stdin.readline())
    sweep = TrackedSweep(**{**task["sweep"], "seeds": tuple(task["sweep"]["seeds"])})
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        last = _follow(Follower(sweep, task["uri"], SweepStore(sweep.location)), lines)
    except Exception as error:  # a fault of this process is told like one of the server: no result is lost
        last = f"tracking: {type(error).__name__}: {masked(str(error))}; `landsweep run` sends the rest"
    sys.stdout.write(json.dumps({"failure": last}) + "\n")


def _follow(follower: Follower, lines: queue.SimpleQueue[str]) -> str | None:
    """Look again and again until told to end; why not everything was logged, if so."""
    started = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=pause(time.monotonic() - started))
        except queue.Empty:
            follower.look()
            continue
        if line:
            return follower.end(Path(json.loads(line)["artifacts"]))
        follower.leave()
        return None


if __name__ == "__main__":
    main()
