"""A store whose disk is full: one message, exit 1, nothing half-written is seen, and the next run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

import landsweep
from landsweep.cli import app
from landsweep.cluster import ray_executor
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.progress import damaged
from landsweep.cluster.store import SweepStore
from tests.comparison import doubled, largest_difference
from tests.toy import small_sweep

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 4 * 2**20  # bytes of the disk


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def sweep(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, pd.DataFrame]]:
    """A sweep file, and its points where nothing disturbs it."""
    folder = tmp_path_factory.mktemp("sweep")
    content = small_sweep(folder, resources={"batch": 2}, store=str(disk))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "RayExecutor", lambda *options, **more: InlineExecutor())
        patch.setattr(sys, "path", list(sys.path))
        assert call("run", str(folder / "sweep.yaml"), "--store", str(folder / "runs")).exit_code == 0
        yield str(folder / "sweep.yaml"), landsweep.open(folder / "runs" / "toy").points()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("room", [0, 8, 40, 120, 300])
def test_a_full_disk_costs_no_result(disk: Path, sweep: tuple[str, pd.DataFrame], room: int) -> None:
    """``room`` KiB are left when the run begins; it needs more."""
    file, expected = sweep
    subprocess.run(["rm", "-rf", *disk.iterdir()], check=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    (disk / "filler").write_bytes(b"0" * (free - room * 1024))
    full = call("run", file)
    assert full.exit_code == 1, full.output
    (said,) = (line for line in full.stderr.splitlines() if "No space left on device" in line)
    assert said.startswith("landsweep: ") and "free some space there, and run the same command again" in said
    assert "Traceback" not in full.output and "failed" not in full.stdout
    store = SweepStore(disk / "toy")
    assert damaged(store)[1] == []
    assert doubled(disk / "toy") is None
    (disk / "filler").unlink()
    again = call("run", file)
    assert again.exit_code == 0, again.output
    assert largest_difference(landsweep.open(disk / "toy").points(), expected) == 0.0
    assert damaged(SweepStore(disk / "toy"))[1] == []
    assert store.files.unfinished() == []
