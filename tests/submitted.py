"""A sweep on a real cluster: submitted, its client killed, followed, stopped, submitted again; another has culprits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.ray_cluster import TOKEN, RayCluster

_MODULE = """
import json
import os
import resource
import time
from pathlib import Path

import torch
from landsweep import Landscape

BAD = Path(__file__).with_name("bad.json")  # first coordinate of a start → what becomes of its process


def loss(theta):
    x, y = theta.unbind()
    return (x**2 - 1) ** 2 + 0.25 * x + 0.5 * y**2


def run_out_of_memory():
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, before[1]))
    try:
        torch.ones(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def init(generator):
    theta = torch.randn(2, generator=generator, dtype=torch.float64)
    kind = json.loads(BAD.read_text()).get(repr(float(theta[0]))) if BAD.exists() else None
    if kind == "killed":
        os.kill(os.getpid(), 9)
    if kind == "raised":
        raise ValueError("boom")
    if kind == "memory":
        run_out_of_memory()
    if kind == "hangs" and not (hung := BAD.with_name("hung")).exists():
        hung.touch()
        time.sleep(600)
    return theta


def build():
    return Landscape.from_function(loss, 2, init)
"""


def write_sweep(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A sweep of the toy, its module in ``folder``/code, its file ``folder``/sweep.yaml."""
    code = folder / "code"
    code.mkdir(exist_ok=True)
    module = f"wells_{uuid.uuid4().hex}"
    (code / f"{module}.py").write_text(_MODULE)
    sweep = {
        "name": name,
        "seeds": 4,
        "landscape": {"name": f"{module}:build"},
        "training": {"optimizer": "gd", "lr": 0.05, "steps": 5},
        "search": {"minima_iterations": 20},
        "resources": {"batch": 1},
        "store": str(folder / "runs"),
        "tracking": {"uri": "none"},
        "code": [str(code)],
        **changes,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return sweep


def spoil(sweep: dict[str, Any], culprits: dict[int, str]) -> None:
    """Let trials of these seeds end badly: seed → killed, raised, memory, or hangs (once)."""
    import torch

    from landsweep.cluster import prepare, spec
    from landsweep.workers import builtin, training
    from landsweep.workers.batch import stream_key

    bad = {}
    planned = prepare.prepare(spec.validate(sweep, "sweep"))
    for configuration in planned.configurations:
        landscape = builtin.build(configuration.settings["landscape"], torch.device("cpu"))
        key = stream_key(configuration.settings)
        starts = training.initial_parameters(landscape, key, list(culprits), torch.device("cpu"))[:, 0].tolist()
        bad |= {repr(start): kind for start, kind in zip(starts, culprits.values(), strict=True)}
    (Path(sweep["code"][0]) / "bad.json").write_text(json.dumps(bad))


@dataclass
class Clients:
    """Client processes of one cluster, each its own; what they printed is kept."""

    cluster: RayCluster
    folder: Path
    printed: list[str] = field(default_factory=list)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "landsweep", *arguments, "--address", self.cluster.dashboard]

    def run(self, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            self._command(*arguments),
            cwd=self.folder,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        self.printed += [ended.stdout, ended.stderr]
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self._command(*arguments), cwd=self.folder, env=self.cluster.environment, **quiet)  # type: ignore[call-overload,no-any-return]

    def status(self) -> dict[str, Any] | None:
        """None while there is no job."""
        ended = self.run("status", "--json")
        return json.loads(ended.stdout) if ended.stdout.startswith("{") else None

    def until(self, reached: Callable[[dict[str, Any]], bool], seconds: float = 240) -> dict[str, Any]:
        """The first status that is so."""
        end, pause = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < end:
            found = self.status()
            if found is not None and reached(found):
                return found
            assert found is None or found["state"] != "FAILED", self.run("logs").stdout[-3000:]
            pause.wait(0.3)
        raise AssertionError(f"not within {seconds:.0f} s; last: {found}\n{self.run('logs').stdout[-3000:]}")


def done(found: dict[str, Any]) -> int:
    """Trials committed, as a status says."""
    return int(found["progress"]["done"]) if found["progress"] else 0


@dataclass(frozen=True)
class Stopped:
    """How a sweep went that was submitted, stopped and submitted again."""

    ids: tuple[str, str]
    at_stop: dict[str, Any]  # the status once the first job had ended
    stop_log: str
    at_end: dict[str, Any]
    end_log: str
    code: int  # of the last status


def submit_stop_submit(clients: Clients, trials: int) -> Stopped:
    """Submit and kill the client; follow from others; stop after some ``trials``; submit again and wait for the end."""
    client = clients.start("submit", "sweep.yaml")
    clients.until(lambda found: True)
    client.kill()
    client.wait()
    follower = clients.start("logs", "--follow")
    clients.until(lambda found: done(found) >= trials)
    follower.kill()
    follower.wait()
    assert clients.run("stop").returncode == 0
    stop_log = clients.run("logs", "--follow").stdout
    at_stop = clients.until(lambda found: found["state"] not in ("PENDING", "RUNNING"))
    again = clients.run("submit", "sweep.yaml")
    assert again.returncode == 0, again.stderr
    end_log = clients.run("logs", "--follow").stdout
    at_end = clients.until(lambda found: found["state"] not in ("PENDING", "RUNNING"))
    ids, code = (at_stop["id"], again.stdout.strip()), clients.run("status").returncode
    return Stopped(ids, at_stop, stop_log, at_end, end_log, code)


def refusals(dashboard: str) -> dict[str, int]:
    """The HTTP status of calls to the jobs API that show no token, and another one."""
    wrong = {"Authorization": f"Bearer {TOKEN[::-1]}"}
    calls = {
        "list, no token": ("GET", "/api/jobs/", {}),
        "list, wrong token": ("GET", "/api/jobs/", wrong),
        "submit, no token": ("POST", "/api/jobs/", {}),
        "submit, wrong token": ("POST", "/api/jobs/", wrong),
        "package, no token": ("PUT", "/api/packages/gcs/_ray_pkg_0.zip", {}),
    }
    return {name: _status(f"{dashboard}{path}", method, headers) for name, (method, path, headers) in calls.items()}


def _status(url: str, method: str, headers: dict[str, str]) -> int:
    body = b'{"entrypoint": "touch /tmp/never"}' if method != "GET" else None
    content = {"Content-Type": "application/json"} if body else {}
    request = urllib.request.Request(url, body, {**headers, **content}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def marked(clients: Clients) -> list[str]:
    """Where the cluster's token can be read that should not be: what clients printed, files below their folder."""
    places = [f"output {number}" for number, text in enumerate(clients.printed) if TOKEN in text]
    files = (path for path in clients.folder.rglob("*") if path.is_file())
    return places + [str(path) for path in files if TOKEN.encode() in path.read_bytes()]
