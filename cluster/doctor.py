"""What works on this machine, each part tried, and how to mend what does not."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from landsweep.cluster import ray_adapter
from landsweep.cluster.files import is_remote, open_files
from landsweep.workers.errors import LandsweepError

PATIENCE = 10.0  # seconds for a server to answer


@dataclass(frozen=True)
class Check:
    """One part."""

    part: str
    works: bool
    found: str
    mend: str | None = None  # what to do, where it does not work
    needed: bool = True  # False: sweeps run without it


class Broken(Exception):
    """``str`` is what was found, ``mend`` what to do."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found)
        self.mend = mend


def examine(store: str, address: str | None, tracking_uri: str | None) -> Iterator[Check]:
    """Try each part; one check as soon as it is done."""
    yield _check("torch", torch_works)
    yield _check("devices", devices_work)
    yield _check("compiler", compiler_works, needed=False)
    yield _check("ray", lambda: ray_works(address))
    yield _check("store", lambda: store_works(store))
    yield _check("tracking", lambda: tracking_works(tracking_uri))


def _check(part: str, works: Callable[[], str], needed: bool = True) -> Check:
    try:
        return Check(part, True, works(), None, needed)
    except Broken as exc:
        return Check(part, False, str(exc), exc.mend, needed)
    except LandsweepError as exc:
        return Check(part, False, str(exc), "see the message", needed)
    except OSError as exc:
        return Check(part, False, str(exc), "mend that path, its permissions or the space left there", needed)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as exc:
        raise Broken(f"no {package}", "pip install 'landsweep[run]'") from exc


def torch_works() -> str:
    """A batched gradient against the closed form: ∇(θ²)/2 = θ."""
    version = _version("torch")
    try:
        import torch

        theta = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)
        slope = torch.func.vmap(torch.func.grad(lambda x: (x @ x) / 2))(theta)
    except (ImportError, OSError, RuntimeError) as exc:
        raise Broken(
            f"torch {version} does not run: {exc}", "install it anew: pip install --force-reinstall torch"
        ) from exc
    if not bool(torch.equal(slope, theta)):
        raise Broken(
            f"torch {version} computes wrong gradients", "install it anew: pip install --force-reinstall torch"
        )
    return f"torch {version}"


def devices_work() -> str:
    """The CPUs, and the GPUs that torch can use."""
    _version("torch")
    import torch

    cpus = f"{os.cpu_count()} CPUs"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return f"{cpus}, {', '.join(names)}"
    if Path("/dev/nvidia0").exists():
        raise Broken(
            f"{cpus}; there is an NVIDIA GPU and torch cannot use it", "install its driver and a CUDA build of torch"
        )
    return f"{cpus}, no GPU"


def compiler_works() -> str:
    """A C++ compiler, by whose programs fully connected nets train in about half the time."""
    from landsweep.workers import compiled

    compiler = compiled.found_compiler()
    if compiler is None:
        raise Broken(
            "no C++ compiler: fully connected nets train at half their speed",
            "install one (Debian: apt-get install g++)",
        )
    if compiled.library("dense") is None:
        raise Broken(f"{compiler} does not compile this package's programs", "install g++ 11 or later")
    return compiler


def ray_works(address: str | None) -> str:
    """The cluster at ``address`` answers; or an embedded one starts and its worker greets."""
    _version("ray")
    if address and address.startswith(("http://", "https://")):
        from landsweep.cluster import authentication

        url = authentication.job_address(address)
        authentication.authenticate(url, os.environ)
        return f"ray {_version('ray')}; {url} knows {len(ray_adapter.JobClient(url).jobs())} jobs"
    from landsweep.cluster.ray_executor import RayExecutor

    executor = RayExecutor(1.0, 0.0, address, most=1)
    try:
        for _ in range(60):
            if executor.ready:
                nodes = len(ray_adapter.nodes())
                return (
                    f"ray {_version('ray')}; a worker started, on {'1 node' if nodes == 1 else f'one of {nodes} nodes'}"
                )
            executor.wait(1.0)
    finally:
        executor.close()
    raise Broken("no worker started within 60 s", "look into the logs below /tmp/ray/session_latest/logs")


def store_works(store: str) -> str:
    """A file is written, created only once, read and deleted."""
    folder = f"{store.rstrip('/')}/.doctor-{uuid.uuid4().hex[:8]}"
    files = open_files(folder)
    try:
        once = files.create("probe", b"landsweep")
        if not once or files.create("probe", b"") or files.read("probe") != b"landsweep":
            found = f"{store} creates a file that is there already"
            raise Broken(found, "use a file system or S3 server with exclusive creation (If-None-Match)")
        return f"{store} is written, read and locked"
    finally:
        files.delete("probe")
        if not is_remote(store):
            shutil.rmtree(folder, ignore_errors=True)


def tracking_works(uri: str | None) -> str:
    """MLflow is there, and its server answers where one is named."""
    version = _version("mlflow")
    if not uri or not uri.startswith(("http://", "https://")):
        return f"mlflow {version}"
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PATIENCE):  # noqa: S310  (http or https)
            return f"mlflow {version}; its server answers"
    except urllib.error.HTTPError as exc:
        mend = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if exc.code in (401, 403) else "mend the server"
        )
        raise Broken(f"the tracking server answers {exc.code}", mend) from exc
    except OSError as exc:
        raise Broken(
            f"no tracking server answers ({exc})", "check MLFLOW_TRACKING_URI, and that the server runs"
        ) from exc
