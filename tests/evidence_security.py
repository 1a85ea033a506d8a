"""Refusals measured, each a process of its own, and who may talk to the servers.

``python -m tests.evidence_security`` measures the claim, ``… refused`` the refusals alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from landsweep.cluster import commit
from landsweep.cluster.store import SweepStore
from tests import fabricated
from tests.claims import Measured, measured_claims
from tests.malformed import MALFORMED, VALID, content
from tests.processes import free_port, watched
from tests.ray_cluster import ray_cluster
from tests.submitted import refusals
from tests.test_hostile_store import PARAMETERS, POINTS, poisons, put
from tests.test_security import BOMBS
from tests.tracking_server import mlflow_server

SECONDS, BYTES = 60.0, 1e9  # that a refusal may take: all its processes, the start of Python among them
LARGE = 2000  # megabytes that the data files unpack to
_LOADERS = {"npz": "npz", "idx.gz": "idx", "idx header": "idx", "parquet": "parquet", "image": "images"}
_LOADERS |= {"postscript": "images", "pipe": "npz"}


@dataclass(frozen=True)
class Attempt:
    """Something that has to be refused."""

    name: str
    arguments: tuple[str, ...]  # of landsweep
    said: str  # by the one message
    marker: Path | None = None  # nothing may create it


# --- attempts -------------------------------------------------------------------------------------------------------


def specs(folder: Path) -> Iterator[Attempt]:
    """Every malformed sweep file that is large, deep or many; and one of 100 MB."""
    (folder / "large.yaml").write_text(VALID)
    with (folder / "large.yaml").open("ab") as file:
        for _ in range(100):
            file.write(b"# " + b"x" * 999_997 + b"\n")
    yield Attempt("a sweep file of 100 MB", ("plan", "large.yaml"), "1,000,000 bytes")
    names = ["a billion combinations", "aliases without bound", "nested too deeply", "integer of very many digits"]
    names += ["name with ../", "terminal escape in a name", "tag that builds an object", "too many trials"]
    for number, name in enumerate(names):
        text, _, mend = MALFORMED[name]
        (folder / f"{number}.yaml").write_bytes(content(text))
        yield Attempt(name, ("plan", f"{number}.yaml"), mend)
    (folder / "list.yaml").write_text(f"{VALID}code: [{'a,' * 240_000}]\nx: 1\n")
    yield Attempt("a list of 240,000", ("plan", "list.yaml"), "x: unknown key")


def data(folder: Path) -> Iterator[Attempt]:
    """Data files that unpack to 2 GB, or that would run a program."""
    for number, (name, (make, _, _)) in enumerate(BOMBS.items()):
        place = folder / f"data{number}"
        place.mkdir()
        path, loader = make(place, LARGE), _LOADERS[name]
        resize = ", resize: 8" if loader == "images" else ""
        landscape = f"{{name: mlp, hidden: [2], data: '{loader}:{path}'{resize}}}"
        (folder / f"data{number}.yaml").write_text(VALID.replace("{name: mlp, hidden: [2]}", landscape))
        yield Attempt(f"data: {name}", ("plan", f"data{number}.yaml"), "landscape.data: ", place / "run")


def _many_rows(store: SweepStore) -> None:
    table = pa.table({"seed": pa.array([0]).take(pa.array([0] * 10**7))})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for _ in range(LARGE // 80):
            writer.write_table(table, row_group_size=10**7)
    put(store, POINTS, sink.getvalue().to_pybytes())


def _linked(store: SweepStore) -> None:
    place = Path(store.uri) / POINTS
    place.unlink()
    place.symlink_to("/etc/passwd")


def _named(store: SweepStore) -> None:
    entry = json.loads(store.files.read("log/00000000.json")) | {"segment": "../../../etc/passwd"}
    store.files.write("log/00000000.json", json.dumps(entry).encode())


def stores(folder: Path) -> Iterator[Attempt]:
    """Committed results that somebody changed."""
    marker = folder / "unpickled"
    poison = poisons(marker)
    spoil: Mapping[str, tuple[Callable[[SweepStore], object], str]] = {
        "a name that leads outside": (_named, "is not a relative name"),
        "a link": (_linked, "is a link"),
        "an entry of 1 GB": (lambda store: os.truncate(f"{store.uri}/log/00000000.json", 10**9), "1,000,000,000 bytes"),
        "a Parquet file of very many rows": (_many_rows, "rows in"),
        "a pickle as Parquet": (lambda store: put(store, POINTS, poison["pickle"]), "restore it from a copy"),
        "a Parquet file with a pickle in it": (lambda store: put(store, POINTS, poison["parquet"]), "cannot be read"),
        "safetensors announcing 2⁶³ bytes": (
            lambda store: put(store, PARAMETERS, (2**63 - 1).to_bytes(8, "little") + bytes(100)),
            "restore it from a copy",
        ),
    }
    for number, (name, (change, said)) in enumerate(spoil.items()):
        store = SweepStore(folder / f"runs{number}" / "small")
        store.files.write("sweep.yaml", b"name: small\n")
        fabricated.stage(store, "aa", [0, 1])
        commit.gather(store)
        change(store)
        verb = ("parameters",) if "safetensors" in name else ("points", store.uri)
        yield Attempt(f"store: {name}", verb if len(verb) > 1 else ("parameters", store.uri), said, marker)


_PARAMETERS = """
import sys, landsweep
try:
    opened = landsweep.open(sys.argv[1])
    opened.parameters(opened.points()["point"][0])
except landsweep.LandsweepError as error:
    print(f"landsweep: {error}")
    sys.exit(2)
"""


def tried(attempt: Attempt, folder: Path) -> tuple[str, float, float]:
    """What is wrong with a refusal, or nothing; its seconds, and its peak in bytes."""
    if attempt.arguments[0] == "parameters":
        command = [sys.executable, "-c", _PARAMETERS, *attempt.arguments[1:]]
    else:
        command = [sys.executable, "-m", "landsweep", *attempt.arguments]
    ended = watched(command, folder, every=0.1)
    faults = [f"exit {ended.code}"] if ended.code != 2 else []
    faults += ["another message"] if attempt.said not in ended.output else []
    faults += ["a traceback"] if "Traceback" in ended.output else []
    faults += [f"{ended.seconds:.0f} s"] if ended.seconds > SECONDS else []
    faults += [f"{ended.peak_bytes / 1e6:.0f} MB"] if ended.peak_bytes > BYTES else []
    faults += ["something was run"] if attempt.marker and attempt.marker.exists() else []
    if faults:
        print(ended.output[-1500:], flush=True)
    return ", ".join(faults), ended.seconds, ended.peak_bytes


def refused() -> Measured:
    """Every attempt, its seconds and memory."""
    faults, most, largest, count = list[str](), 0.0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="landsweep-security-") as name:
        folder = Path(name)
        for attempts in (specs, data, stores):
            for attempt in attempts(folder):
                wrong, seconds, peak = tried(attempt, folder)
                print(f"    {attempt.name}: {wrong or 'refused'}, {seconds:.1f} s, {peak / 1e6:.0f} MB", flush=True)
                faults += [f"{attempt.name}: {wrong}"] if wrong else []
                most, largest, count = max(most, seconds), max(largest, peak), count + 1
    text = f"{count - len(faults)} of {count} refused in one message, exit 2; at most {most:.1f} s and "
    return text + f"{largest / 1e6:.0f} MB, the start of Python among them{f'; {faults}' if faults else ''}", not faults


# --- servers --------------------------------------------------------------------------------------------------------


def _status(url: str, method: str = "GET", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def mlflow_refusals(folder: Path) -> dict[str, int]:
    """What MLflow with its user management answers without credentials."""
    users, port = folder / "users.ini", free_port()
    users.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
        "admin_username = admin\nadmin_password = a-long-password-1\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(users), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret"}
    options = ("--app-name", "basic-auth")
    with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db", *options, port=port, variables=variables) as uri:
        search = json.dumps({"experiment_ids": ["0"], "max_results": 1}).encode()
        return {
            "MLflow's page": _status(uri),
            "search runs": _status(f"{uri}/api/2.0/mlflow/runs/search", "POST", search),
            "create run": _status(f"{uri}/api/2.0/mlflow/runs/create", "POST", b'{"experiment_id": "0"}'),
            "artifacts": _status(f"{uri}/api/2.0/mlflow-artifacts/artifacts"),
        }


def servers() -> Measured:
    """The jobs API of a Ray cluster, and MLflow."""
    with ray_cluster(1) as cluster:
        found = refusals(cluster.dashboard)
    with tempfile.TemporaryDirectory() as folder:
        found |= mlflow_refusals(Path(folder))
    return ", ".join(f"{name}: {code}" for name, code in found.items()), set(found.values()) <= {401, 403}


def no_pickle() -> Measured:
    """No module that unpickles, none that runs text as code; and files that would do so if they were unpickled."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "unpickle or unsafe"]
    root = Path(__file__).resolve().parents[1]
    files = ["tests/test_layout.py", "tests/test_hostile_store.py"]
    ended = subprocess.run([*command, *files], cwd=root, capture_output=True, text=True)
    return ended.stdout.strip().splitlines()[-1].strip("= "), ended.returncode == 0


def security() -> Measured:
    """All of it."""
    parts = [refused(), servers(), no_pickle()]
    return "; ".join(text for text, _ in parts), all(holds for _, holds in parts)


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "security": (
        "jobs API and MLflow answer 401 or 403 without credentials; hostile sweep files, data and stores are refused "
        f"in one message within {SECONDS:.0f} s and {BYTES / 1e9:g} GB; nothing unpickles",
        security,
    ),
}


if __name__ == "__main__":
    if sys.argv[1:] == ["refused"]:
        print(refused()[0])
    else:
        sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
