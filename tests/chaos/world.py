"""What fails: a Ray cluster with three raylets, an S3 server behind a proxy, a small disk, a tracking server that is
not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.chaos.schedule import Event, Store
from tests.fault_proxy import NONE, FaultProxy, Faults
from tests.processes import free_port, free_ports
from tests.ray_cluster import RayCluster, ray_cluster
from tests.s3_server import ENVIRONMENT, client, s3_server
from tests.toy import small_sweep, spoil

RAYLETS = 3
DISK_BYTES = 8 * 2**20
BUCKET = "results"
CULPRIT = 3  # seed whose trials raise, until mended
BROKEN = Faults(error=0.04, slow_down=0.04, delay=0.04, cut=0.04, lost=0.04, torn=0.04, seconds=0.5)
SWEEP: dict[str, Any] = {
    "seeds": 16,
    "training": {"optimizer": "gd", "steps": 200},
    "search": {"minima_iterations": 20, "saddles": {"per_trial": 1, "starts": "trajectory"}},
    "resources": {"batch": 2, "checkpoint": 0.1},
}


@dataclass
class Server:
    """An S3 server that can be killed and comes back with what it had."""

    folder: Path
    ports: Sequence[int] = field(default_factory=lambda: free_ports(8))
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> str:
        return self._running.enter_context(s3_server(self.folder, self.ports))

    def kill(self) -> None:
        self._running.close()


@dataclass
class World:
    """Everything that can fail, and how it is made to."""

    folder: Path
    cluster: RayCluster
    proxy: FaultProxy
    server: Server
    disk: Path  # a file system of DISK_BYTES
    sweep: dict[str, Any]
    culprits: str  # content of the file that makes trials raise
    raylets: list[int] = field(default_factory=lambda: list(range(RAYLETS)))

    @property
    def environment(self) -> dict[str, str]:
        """Of drivers and readers."""
        return {**self.cluster.environment, **ENVIRONMENT, "AWS_ENDPOINT_URL": self.proxy.endpoint}

    @property
    def bad(self) -> Path:
        """While it is there, trials raise."""
        return Path(self.sweep["code"][0]) / "bad"

    def store(self, kind: Store, run: int) -> str:
        """An empty store."""
        if kind == "s3":
            return f"s3://{BUCKET}/run-{run}"
        if kind == "disk":
            subprocess.run(["rm", "-rf", *self.disk.iterdir()], check=True)
            return str(self.disk)
        return str(self.folder / f"run-{run}")

    def strike(self, event: Event, driver: int) -> bool:
        """Let it happen; whether there was anything to strike."""
        if event.kind == "worker killed":
            return self._kill_worker(event.draw)
        strikes: dict[str, Callable[[], object]] = {
            "raylet killed": lambda: self._kill_raylet(event.draw),
            "driver killed": lambda: os.kill(driver, signal.SIGKILL),
            "trial raises": lambda: self.bad.write_text(self.culprits),
            "tracking down": lambda: None,  # nobody ever listened there
            "disk full": lambda: self._fill(event.draw),
            "S3 killed": lambda: self._restart_server(event.draw),
            "S3 requests broken": lambda: setattr(self.proxy, "faults", BROKEN),
        }
        strikes[event.kind]()
        return True

    def mend(self) -> None:
        """Let everything work again."""
        self.proxy.faults = NONE
        self.bad.unlink(missing_ok=True)
        (self.disk / "filler").unlink(missing_ok=True)

    def _kill_worker(self, draw: float) -> bool:
        """Of the workers, one that runs a batch if any does."""
        below = psutil.Process(self.cluster.process.pid).children(recursive=True)
        titles = {process: _title(process) for process in below}
        workers = [process for process, title in titles.items() if title.startswith("ray::Worker")]
        busy = [process for process in workers if titles[process].startswith("ray::Worker.run")] or workers
        if busy:
            busy[int(draw * len(busy))].kill()
        return bool(busy)

    def _kill_raylet(self, draw: float) -> None:
        gone = self.raylets.pop(int(draw * len(self.raylets)))
        self.cluster.tell(f"kill {gone}")
        self.cluster.tell("add")
        self.raylets.append(max([gone, *self.raylets]) + 1)

    def _fill(self, draw: float) -> None:
        """Up to 64 KiB are left, less what the sweep writes meanwhile: there may be no room for all of the filler."""
        found = os.statvfs(self.disk)
        room = int(draw * 64) * 1024
        try:
            (self.disk / "filler").write_bytes(b"0" * max(0, found.f_bavail * found.f_bsize - room))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def _restart_server(self, draw: float) -> None:
        """Away for up to 4 s, and the time that it takes to start."""
        self.server.kill()
        threading.Event().wait(4 * draw)
        self.server.start()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended
        return ""


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """All of it, started; ended by process id. Skips where no file system can be mounted."""
    sweep = small_sweep(folder, **SWEEP)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    bad = spoil(sweep, CULPRIT)
    culprits = bad.read_text()
    bad.unlink()
    server = Server(_made(folder / "s3"))
    with ExitStack() as stack:
        disk = stack.enter_context(_small_disk(folder / "disk"))
        stack.callback(server.kill)
        proxy = stack.enter_context(FaultProxy(server.start(), seed=0).running())
        client(proxy.endpoint).create_bucket(Bucket=BUCKET)
        variables = {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.endpoint}
        stack.enter_context(_environment(variables))
        cluster = stack.enter_context(ray_cluster(RAYLETS, variables))
        yield World(folder, cluster, proxy, server, disk, sweep, culprits)


def unused_uri() -> str:
    """Of a tracking server that is not there."""
    return f"http://127.0.0.1:{free_port()}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(_made(folder))]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
