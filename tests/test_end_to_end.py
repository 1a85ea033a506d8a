"""The main job in small: a real sweep of digits through embedded Ray, killed, resumed, tracked and shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import disturbed
from tests.comparison import doubled, largest_difference, points_of
from tests.processes import CHROMIUM, environment, free_port, mlflow_pages, serving

SWEEP = """
name: small
seeds: 8
landscape: {name: mlp, data: digits, resize: 4, activation: tanh, loss: cross_entropy, weight_decay: 1.0e-3}
training: {optimizer: sgd, lr: 0.1, momentum: 0.9, batch_size: 128, steps: 150}
search: {saddles: {per_trial: 1, trials: 4, max_iterations: 60}}
grid: {landscape.hidden: [[1], [2]]}
resources: {batch: 2}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "landsweep", "run", "small.yaml", *arguments]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the sweep file and its undisturbed run, and what the run printed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.yaml").write_text(SWEEP)
    ended = subprocess.run(command(), cwd=folder, capture_output=True, text=True, env=environment(), timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder, ended.stdout


def test_a_sweep_runs_to_a_verdict(finished: tuple[Path, str]) -> None:
    folder, output = finished
    points = points_of(folder / "runs/small")
    trained = points[points["source"] == "training"]
    assert sorted(trained["seed"]) == sorted([*range(8)] * 2)
    assert (trained["kind"] == "minimum").mean() >= 0.9
    assert (points["source"] == "trajectory").sum() == 8
    assert "Verdict" in output
    assert (folder / "runs/small/report.html").stat().st_size > 10_000
    assert not any((folder / "runs/small/tmp").iterdir())
    assert not any((folder / "runs/small/staged").iterdir())


def test_a_killed_driver_loses_and_repeats_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    store = folder / "killed"
    moments = [disturbed.staged, disturbed.claimed]
    arguments = command("--store", str(store), "--tracking-uri", "none")
    came, faults = disturbed.run_killed(arguments, folder, store / "small", moments)
    assert "staged" in came  # a claim is open so shortly that it may pass unseen
    assert not faults
    assert doubled(store / "small") is None
    assert largest_difference(points_of(folder / "runs/small"), points_of(store / "small")) <= 1e-9


def test_more_seeds_run_only_the_new_trials(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    store = folder / "grown"
    before = command("--store", str(store), "--tracking-uri", "none", "--set", "seeds=2")
    subprocess.run(before, cwd=folder, check=True, capture_output=True, env=environment(), timeout=280)
    segments = {path: path.read_bytes() for path in (store / "small/points").iterdir()}
    after = [*before[:-1], "seeds=3"]
    ended = subprocess.run(
        after, cwd=folder, check=True, capture_output=True, text=True, env=environment(), timeout=280
    )
    assert "6 trials, 4 done; 2 batches" in ended.stdout
    assert all(path.read_bytes() == content for path, content in segments.items())
    grown, full = points_of(store / "small"), points_of(folder / "runs/small")
    wanted = full[full["seed"] < 3].reset_index(drop=True)
    assert largest_difference(wanted, grown) == 0.0
    again = subprocess.run(
        after, cwd=folder, check=True, capture_output=True, text=True, env=environment(), timeout=280
    )
    assert "all 6 trials are done; no batch to run" in again.stdout


def test_the_mlflow_ui_shows_the_runs(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    port = free_port()
    server = [sys.executable, "-m", "landsweep", "ui", "./runs", "--port", str(port)]
    with serving(server, f"http://127.0.0.1:{port}/health", folder):
        if CHROMIUM is None:
            pytest.skip("no chromium on this machine; `make evidence` says so too")
        listing, page, name = mlflow_pages(f"http://127.0.0.1:{port}")
    assert ">small<" in listing
    assert name in ("hidden=[1]", "hidden=[2]")
    assert name in page
    assert "test_loss.mean" in page
