"""A real MLflow server on loopback, on PostgreSQL or SQLite; both are started here and ended here."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.processes import environment, free_port, serving

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql(prefix: Sequence[str] = ()) -> Iterator[str]:
    """The URI of an empty database. PostgreSQL refuses to run as root, so root runs it as ``postgres``.

    ``prefix`` goes before the command, as in ``taskset -c 1``.
    """
    assert BINARIES, "no PostgreSQL on this machine: install it (Debian: apt-get install postgresql)"
    root = os.getuid() == 0
    name = "postgres" if root else pwd.getpwuid(os.getuid()).pw_name
    port = free_port()

    def control(program: str, *arguments: str) -> None:
        user = ["runuser", "-u", name, "--"] if root else []
        command = [*prefix, *user, str(BINARIES[-1] / program), "-D", f"{folder}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=environment(), timeout=120)

    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        if root:
            shutil.chown(folder, name)
        control("initdb", "--auth=trust", "--no-sync", "-U", name)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        control("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://{name}@127.0.0.1:{port}/postgres"
        finally:
            control("pg_ctl", "-m", "immediate", "stop")


@contextmanager
def mlflow_server(
    folder: Path,
    backend: str,
    *options: str,
    port: int | None = None,
    prefix: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The address of ``mlflow server`` on ``backend`` with its artifacts in ``folder``."""
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*prefix, sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), *options]
    with serving(command, f"{address}/health", folder, patience=240, variables=variables):
        yield address
