"""The driver's side of tracking: starts the process that logs the sweep, and waits for it at the end, not for long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from landsweep.cluster import follow
from landsweep.cluster.mistakes import masked
from landsweep.cluster.prepare import Plan
from landsweep.cluster.tracked import TrackedSweep

PATIENCE_SECONDS = 120.0  # that the end of a run waits for the server


class Tracker:
    """A process that follows the sweep's store and logs it at ``uri``."""

    def __init__(self, planned: Plan, uri: str) -> None:
        self._sweep, self._uri = TrackedSweep.of(planned), uri
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "landsweep.cluster.follow"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which tells it
        )
        self._say(follow.task_line(self._sweep, self._uri))

    def finish(self, artifacts: Path) -> str | None:
        """Have the rest logged, with the files of ``artifacts``; why it was not, if so."""
        if self._process is None:
            self.start()
        assert self._process is not None
        self._say(follow.end_line(artifacts))
        try:
            answer, _ = self._process.communicate(timeout=PATIENCE_SECONDS)
            return json.loads(answer.splitlines()[-1])["failure"]  # type: ignore[no-any-return]
        except subprocess.TimeoutExpired:
            return self._failure(f"did not take everything within {PATIENCE_SECONDS:.0f} s")
        except (IndexError, ValueError):
            return self._failure(f"was not reached: the process that logs ended with {self._process.returncode}")

    def close(self) -> None:
        """End the process: it keeps what was not sent."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it ended: its answer is missing, which is said where it is waited for

    def _failure(self, found: str) -> str:
        return f"tracking: {masked(self._uri)} {found}; `landsweep run` sends the rest"
