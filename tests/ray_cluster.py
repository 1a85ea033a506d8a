"""A Ray cluster for tests: a head with a dashboard and token authentication, and raylets, all on this machine.

``python -m tests.ray_cluster FOLDER RAYLETS`` starts it, prints its addresses as JSON and lives until its input ends;
a line ``kill N`` kills raylet N with its workers, ``add`` starts another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.processes import environment, free_port

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "landsweep-marker-4f1d9be1c0a24c5f8a7be0c0ffee0001"  # nothing that is printed may hold it


@dataclass(frozen=True)
class RayCluster:
    """A cluster that runs."""

    dashboard: str  # http://127.0.0.1:PORT
    gcs: str  # 127.0.0.1:PORT
    folder: Path  # of its token and its sessions
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to talk to it."""
        return _environment(self.folder)

    def tell(self, command: str) -> Any:
        """``kill N`` or ``add``; the answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def _environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    own["RAY_TMPDIR"] = str(folder)  # Ray leaves a cluster's address in RAY_TMPDIR/ray: not where other clusters do
    return environment({**token, **own, **(extra or {})})


@contextmanager
def ray_cluster(raylets: int, extra: Mapping[str, str] | None = None) -> Iterator[RayCluster]:
    """A head without CPUs and so many raylets of one CPU, with ``extra`` in their environment; ended by process id."""
    with tempfile.TemporaryDirectory(prefix="lr", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "ray").mkdir()
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        command = [sys.executable, "-m", "tests.ray_cluster", name, str(raylets)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (folder / "errors").open("w") as errors:
            process = subprocess.Popen(command, cwd=ROOT, env=_environment(folder, extra), stderr=errors, **pipes)  # type: ignore[call-overload]
        try:
            line = process.stdout.readline()
            assert line, f"no Ray cluster: {(folder / 'errors').read_text()[-2000:]}"
            yield RayCluster(**json.loads(line), folder=folder, process=process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """The cluster ends with its input; what is left of it is killed."""
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in started:
        if one.is_running():
            one.kill()


def _main(folder: str, raylets: int) -> None:
    from ray.cluster_utils import Cluster

    port = free_port()
    ports = {"dashboard_port": port, "dashboard_agent_listen_port": free_port(), "gcs_server_port": free_port()}
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "temp_dir": folder, **ports}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    _record(cluster, folder)
    nodes = [_add(cluster, folder, number) for number in range(raylets)]
    print(json.dumps({"dashboard": f"http://127.0.0.1:{port}", "gcs": cluster.address}), flush=True)
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        if command == "kill":
            cluster.remove_node(nodes[int(number)], allow_graceful=False)
        else:
            nodes.append(_add(cluster, folder, len(nodes)))
        print(json.dumps(len(cluster.worker_nodes)), flush=True)
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
    cluster.remove_node(cluster.head_node, allow_graceful=False)


def _add(cluster: Any, folder: str, number: int) -> Any:
    """A raylet with a folder of its own, as on a machine of its own: what is shipped to it lies there."""
    node = cluster.add_node(num_cpus=1, temp_dir=f"{folder}/{number}")
    _record(cluster, f"{folder}/{number}")
    return node


def _record(cluster: Any, folder: str) -> None:
    """Leave the address where ``ray start`` does: a job joins any cluster of this machine where it finds none."""
    from ray._private.utils import write_ray_address

    write_ray_address(cluster.address, folder)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
