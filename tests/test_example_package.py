"""A package of a user's own, with its module, its data and its sweep file, outside the tree: swept as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

import landsweep
from tests.processes import environment

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLE = Path(__file__).with_name("example_package")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder elsewhere that holds a copy of the package, swept there by ``landsweep run``."""
    folder = tmp_path_factory.mktemp("elsewhere") / "ringnets"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    command = [sys.executable, "-m", "landsweep", "run", "sweep.yaml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_trial_is_a_row_and_its_objective_falls(swept: Path) -> None:
    sweep = landsweep.open(swept / "runs/rings")
    points, along = sweep.points(), sweep.trajectories()
    sources = Counter(points["source"])
    assert (sources["training"], sources["trajectory"]) == (6, 6)
    assert set(points["landscape.hidden"]) == {2, 3}
    assert (points["kind"] == "minimum").sum() >= 5
    ends = along.sort_values("step").groupby("trial")["objective"].agg(["first", "last"])
    assert len(ends) == 6
    assert (ends["last"] < 0.8 * ends["first"]).all()
    assert points["test_error"].notna().all()


def test_points_are_those_of_the_packages_own_module(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objective, test loss and gradient of a stored minimum, by the package's module and its file read anew."""
    monkeypatch.setattr(sys, "path", [str(swept / "src"), *sys.path])
    from ringnets.model import Gated  # type: ignore[import-not-found]

    sweep = landsweep.open(swept / "runs/rings")
    points = sweep.points()
    point = points[(points["kind"] == "minimum") & (points["landscape.hidden"] == 3)].iloc[0]
    module = Gated(2, 3, 2).double()
    nn.utils.vector_to_parameters(torch.tensor(sweep.parameters(point["point"])["theta"]), module.parameters())
    table = pd.read_csv(swept / "src/ringnets/rings.csv")
    x = torch.from_numpy(table[["x", "y"]].to_numpy())
    y = torch.from_numpy(table["ring"].to_numpy())
    train, test = functional.cross_entropy(module(x[:100]), y[:100]), functional.cross_entropy(module(x[100:]), y[100:])
    objective = train + 0.5e-3 * sum((p**2).sum() for p in module.parameters())
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(objective, list(module.parameters()))])
    assert float(objective) == pytest.approx(point["objective"], abs=1e-12)
    assert float(test) == pytest.approx(point["test_loss"], abs=1e-12)
    assert float(gradient.norm()) <= 1e-8


def test_it_installs_with_its_data(tmp_path: Path) -> None:
    """As a wheel its landscape builds from site-packages alone, in a folder without its sources."""
    copy = tmp_path / "source"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(site), str(copy)], check=True, env=environment(), capture_output=True, timeout=200)
    code = "from ringnets.landscape import gated; found = gated(4); print(found.dim, found.samples)"
    surroundings = environment({"PYTHONPATH": str(site)})
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=100
    )
    assert ended.stdout.split() == ["34", "100"], ended.stderr
