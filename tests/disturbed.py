"""A sweep whose driver is killed, again and again, and run to its end after that."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.comparison import doubled
from tests.processes import environment, reading


class Moment(Protocol):
    """Whether it has come, seen from the sweep's folder."""

    __name__: str

    def __call__(self, sweep: Path) -> bool: ...


def staged(sweep: Path) -> bool:
    """A batch is being staged: its folder is there, its end is not."""
    return any(not (folder / "batch.json").exists() for folder in (sweep / "staged").glob("*"))


def claimed(sweep: Path) -> bool:
    """A segment is claimed and not done."""
    log = sweep / "log"
    return any(not claim.with_suffix(".done").exists() for claim in log.glob("*.json"))


def committed(segments: int) -> Moment:
    """At least so many segments are done."""

    def some_committed(sweep: Path) -> bool:
        return len(list((sweep / "log").glob("*.done"))) >= segments

    return some_committed


def run_killed(
    command: Sequence[str], folder: Path, sweep: Path, moments: Sequence[Moment]
) -> tuple[list[str], list[str]]:
    """Run ``command``; at each moment kill the driver with SIGKILL and run again; then to the end.

    Returns the moments that came, and what a plain pandas reader complained of meanwhile.
    """
    came, pause = [], threading.Event()
    with reading(sweep, lambda: doubled(sweep)) as faults:
        for moment in moments:
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
            )
            while process.poll() is None and not moment(sweep):
                pause.wait(0.002)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                came.append(moment.__name__)
            process.wait()
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment()
        )
    return came, faults
