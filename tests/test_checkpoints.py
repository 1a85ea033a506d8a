"""Checkpoints: a resumed training is the undisturbed one to the bit, and nothing else is ever taken for one."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import landsweep
from landsweep.cluster import checkpoints, spec
from landsweep.cluster import run as runs
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.files import LocalFiles
from landsweep.cluster.prepare import prepare
from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers.checkpoint import Arrays, Checkpoint
from landsweep.workers.training import DTYPES, Trained
from tests import models
from tests.processes import environment
from tests.test_optimizer_grid import chosen
from tests.trained import trained

pytestmark = pytest.mark.usefixtures("one_thread")


class Kept:
    """A keeper that holds what it is given, saves every step, and keeps all."""

    def __init__(self, start: tuple[int, Arrays] | None = None) -> None:
        self.start = start
        self.saved: dict[int, Arrays] = {}

    def load(self) -> tuple[int, Arrays] | None:
        return self.start

    def due(self, ended: bool) -> bool:
        return True

    def save(self, step: int, arrays: Arrays) -> None:
        self.saved[step] = arrays


def same(a: Trained, b: Trained) -> bool:
    tensors = ((a.final, b.final), (a.snapshots, b.snapshots), (a.following, b.following), (a.initial, b.initial))
    return a.steps == b.steps and all(torch.equal(x, y) for x, y in tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_from_any_step_it_is_the_undisturbed_training(optimizer: str, dtype: str) -> None:
    landscape, settings = models.built("mlp"), chosen(optimizer, dtype, steps=9)
    for rows in (1, 3):
        start, whole = models.thetas(landscape, rows), Kept()
        undisturbed = trained(landscape, settings, start, checkpoint=Checkpoint(whole))
        assert list(whole.saved) == list(range(1, 10))
        for step in (1, 4, 9):
            content = checkpoints.packed(step, whole.saved[step], "mine")
            rest = Kept(checkpoints.unpacked(content, "mine"))
            assert same(trained(landscape, settings, start, checkpoint=Checkpoint(rest)), undisturbed)
            assert list(rest.saved) == list(range(step + 1, 10))


def test_a_diverged_trial_is_resumed_too() -> None:
    landscape, settings = models.built("mlp", loss="mse"), chosen("sgd", "float32", lr=1e30, steps=6)
    start, whole = models.thetas(landscape, 2), Kept()
    undisturbed = trained(landscape, settings, start, checkpoint=Checkpoint(whole))
    assert bool(undisturbed.diverged.all())
    rest = Kept((3, whole.saved[3]))
    resumed = trained(landscape, settings, start, checkpoint=Checkpoint(rest))
    assert list(rest.saved) == [4, 5, 6]
    assert torch.equal(resumed.final.isnan(), undisturbed.final.isnan())


def test_what_is_of_another_training_is_not_taken() -> None:
    landscape, settings = models.built("mlp"), chosen("adam", "float64", steps=9)
    start, whole = models.thetas(landscape, 3), Kept()
    undisturbed = trained(landscape, settings, start, checkpoint=Checkpoint(whole))
    good = whole.saved[4]
    others: list[tuple[int, dict[str, Any]]] = [
        (5, dict(good)),  # more snapshots are due by then
        (0, dict(good)),
        (10, dict(good)),
        (4, {**good, "theta": good["theta"].astype(np.float32)}),
        (4, {**good, "theta": good["theta"][:2]}),
        (4, {name: array for name, array in good.items() if name != "state.first"}),
        (4, {**good, "state.third": good["theta"]}),
        (4, {**good, "snapshots": good["snapshots"] + 1e-9}),  # of another start
    ]
    for other in others:
        anew = Kept(other)
        assert same(trained(landscape, settings, start, checkpoint=Checkpoint(anew)), undisturbed)
        assert min(anew.saved) == 1


CONTENT = checkpoints.packed(7, {"theta": np.arange(6.0).reshape(2, 3), "state.a": np.ones((2, 1))}, "mine")


def test_a_file_is_read_back() -> None:
    step, arrays = checkpoints.unpacked(CONTENT, "mine") or (0, {})
    assert step == 7
    assert arrays["theta"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert checkpoints.unpacked(CONTENT, "another's") is None


def test_truncated_files_are_ignored() -> None:
    assert all(checkpoints.unpacked(CONTENT[:length], "mine") is None for length in range(len(CONTENT)))


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_nothing_that_is_taken(place: int, change: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[place] ^= change
    found = checkpoints.unpacked(bytes(damaged), "mine")
    if found is not None:  # the step's digits, or a byte that says nothing
        assert found[1]["theta"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found[0] == 7


@pytest.mark.parametrize(
    ("since", "cost", "interval", "ended", "save"),
    [
        (59.9, 0.0, 60.0, False, False),
        (60.0, 0.0, 60.0, False, True),
        (60.0, 3.1, 60.0, False, False),  # saving would take more than a twentieth of the time
        (62.0, 3.1, 60.0, False, True),
        (5.9, 0.0, 60.0, True, False),  # a short training is sooner repeated
        (6.0, 0.0, 60.0, True, True),
    ],
)
def test_when_to_save(since: float, cost: float, interval: float, ended: bool, save: bool) -> None:
    assert checkpoints.should_save(since, cost, interval, ended) is save


def test_a_store_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / checkpoints.FOLDER).write_text("a file in the folder's place")
    keeper = checkpoints.FileKeeper(LocalFiles(tmp_path), f"{checkpoints.FOLDER}/b.safetensors", "mine", 1e-9)
    landscape, settings = models.built("mlp"), chosen("gd", "float64", steps=3)
    start = models.thetas(landscape, 2)
    result = trained(landscape, settings, start, checkpoint=Checkpoint(keeper))
    assert same(result, trained(landscape, settings, start))


# --- a real kill ---------------------------------------------------------------------------------------------
_MODULE = """
import os
import time
from pathlib import Path

import torch
from landsweep import Landscape

HERE = Path(__file__).parent
STEPS, KILLED = HERE / "steps", HERE / "killed"


def loss(theta):
    if theta.dtype == torch.float32:  # a step of training: the search is float64
        time.sleep(0.003)
        with STEPS.open("a") as steps:
            steps.write("x")
        taken = STEPS.stat().st_size
        if (HERE / "kill").exists() and not KILLED.exists() and list(HERE.parent.glob("runs/*/checkpoints/*")):
            KILLED.write_text(str(taken))
            os.kill(os.getpid(), 9)
    x, y = theta.unbind()
    return (x**2 - 1) ** 2 + 0.25 * x + 0.5 * y**2


def build():
    return Landscape.from_function(loss, 2, lambda g: torch.randn(2, generator=g, dtype=torch.float64))
"""


def measured(sweep: dict[str, Any]) -> tuple[pd.DataFrame, list[bytes]]:
    opened = landsweep.open(f"{sweep['store']}/{sweep['name']}")
    points = opened.points()
    ends = [opened.parameters(point)["trained"].tobytes() for point in points["point"]]
    return points.drop(columns=["batch", "parameters_row", "sweep", "class_id"]), ends


def test_a_killed_batch_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch's process gets SIGKILL after the first checkpoint; `landsweep run` tries the batch again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, steps, module = tmp_path / "code", 250, f"long_{uuid.uuid4().hex}"
    code.mkdir()
    (code / f"{module}.py").write_text(_MODULE)
    (code / "kill").touch()
    sweep: dict[str, Any] = {
        "name": "killed",
        "seeds": 3,
        "landscape": {"name": f"{module}:build"},
        "training": {"optimizer": "langevin", "temperature": 0.01, "steps": steps, "schedule": {"name": "cosine"}},
        "search": {"minima_iterations": 20},
        "resources": {"batch": 3, "checkpoint": 0.001},
        "store": str(tmp_path / "runs"),
        "tracking": {"uri": "none"},
        "code": [str(code)],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    command = [str(Path(sys.executable).parent / "landsweep"), "run", "sweep.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=environment())
    assert ended.returncode == 0, ended.stderr
    killed, taken = int((code / "killed").read_text()), (code / "steps").stat().st_size
    assert 0 < killed < steps
    assert killed + 1 <= taken < killed + steps, "it began anew"
    trials = landsweep.open(tmp_path / "runs" / "killed").trials()
    assert trials["attempt"].tolist() == [2, 2, 2]
    assert not list((tmp_path / "runs" / "killed").glob("checkpoints/*"))

    undisturbed = {**sweep, "name": "undisturbed", "resources": {"batch": 3, "checkpoint": None}}
    runs.run(prepare(spec.validate(undisturbed, "f")), InlineExecutor, lambda progress: None)
    points, ends = measured(sweep)
    others, other_ends = measured(undisturbed)
    pd.testing.assert_frame_equal(points, others, check_exact=True)
    assert ends == other_ends
