"""Processes for tests: run and watch a command, free ports, headless Chromium."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    seconds: float
    peak_bytes: int  # the largest sum of its processes' proportional memory
    output: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would point a command at this checkout or at another service."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_AUTH_MODE")
    return {key: value for key, value in os.environ.items() if key not in dropped} | dict(extra or {})


def memory(process: psutil.Process) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def watched(command: Sequence[str], folder: Path, every: float | None = 0.5) -> Ended:
    """Run ``command`` in ``folder`` to its end, sampling the memory of all its processes; ``every`` None: not sampling,
    which takes a tenth of a core and holds up what it looks at."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment()
        )
        peak, handle = 0, psutil.Process(process.pid)
        while True:
            try:
                process.wait(every)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, memory(handle))
        output.seek(0)
        return Ended(process.returncode, time.monotonic() - started, peak, output.read())


@contextmanager
def reading(path: Path, read: object) -> Iterator[list[str]]:
    """Call ``read()`` over and over in a thread; yields the list of what it complained of."""
    assert callable(read)
    faults: list[str] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.05):
            try:
                complaint = read()
            except Exception as exc:  # whatever a reader meets is a fault
                complaint = f"{type(exc).__name__}: {exc}"
            if complaint:
                faults.append(str(complaint))

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        stop.set()
        thread.join()


#: Below the ports that Linux gives to whoever asks for any (32768 and above; gRPC servers share theirs with one that
#: binds it later), above those of Ray's workers: nobody takes one of these before its server starts, or starts again.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, at random: other tests run beside these."""
    return list(islice(filter(_free, random.SystemRandom().sample(PORTS, len(PORTS))), count))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """One of :func:`free_ports`."""
    return free_ports(1)[0]


@contextmanager
def serving(
    command: Sequence[str], url: str, folder: Path, patience: float = 90, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server, once ``url`` answers; ended with its children by process id."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(variables)
    )
    try:
        _answering(url, process, patience)
        yield
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
        process.wait()


def _answering(url: str, process: subprocess.Popen[bytes], patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        assert process.poll() is None, f"the server of {url} ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            threading.Event().wait(0.2)
    raise AssertionError(f"{url} did not answer within {patience:.0f} s")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def browse(url: str, *, size: tuple[int, int] = (1280, 900), image: Path | None = None, wait_ms: int = 15_000) -> str:
    """The page at ``url`` after ``wait_ms`` of its own time, as headless Chromium has it: its DOM, and an image."""
    assert CHROMIUM, "no chromium on this machine: install it (Debian: apt-get install chromium)"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        window = f"--window-size={size[0]},{size[1]}"
        base = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", window, f"--virtual-time-budget={wait_ms}"]
        if image is not None:
            shot = [*base, f"--screenshot={image}", url]
            subprocess.run(shot, check=True, capture_output=True, timeout=120, env=environment())
        dump = subprocess.run(
            [*base, "--dump-dom", url], check=True, capture_output=True, timeout=120, env=environment()
        )
        return dump.stdout.decode(errors="replace")


def configuration_runs(server: str, most: int) -> list[dict[str, Any]]:
    """The runs of configurations that the MLflow server at ``server`` has of its first sweep, at most so many."""
    query = {"experiment_ids": ["1"], "filter": "tags.`landsweep.level` = 'configuration'", "max_results": most}
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/search", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["runs"]
    return found


def mlflow_pages(server: str, image: Path | None = None) -> tuple[str, str, str]:
    """What the MLflow UI at ``server`` shows of its first sweep: the runs page, one configuration's page, its name."""
    run = configuration_runs(server, 1)[0]["info"]
    listing = browse(f"{server}/#/experiments/1/runs", size=(1500, 900), image=image)
    page = browse(f"{server}/#/experiments/1/runs/{run['run_id']}", size=(1500, 900))
    return listing, page, str(run["run_name"])
