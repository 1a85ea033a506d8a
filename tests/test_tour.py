"""The notebook in the docs runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]
SWEEP = {
    "name": "tour",
    "seeds": 12,
    "landscape": {"name": "mlp", "resize": 4, "train_size": 300},
    "training": {"optimizer": "adam", "lr": 0.02, "batch_size": 64, "steps": 100},
    "search": {"saddles": {"per_trial": 1, "trials": 6, "max_iterations": 60}},
    "grid": {"landscape.hidden": [[1], [2]]},
}


def cells() -> list[str]:
    notebook = json.loads((ROOT / "docs/tour.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.usefixtures("one_thread")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = prepare(spec.validate({**SWEEP, "store": str(tmp_path)}, "tour"))
    runs.run(planned, InlineExecutor, lambda progress: None)
    monkeypatch.setenv("LANDSWEEP_TOUR", str(tmp_path / "tour"))
    names: dict[str, object] = {}
    sources = cells()
    assert len(sources) >= 10
    for number, source in enumerate(sources):
        exec(compile(source, f"docs/tour.ipynb cell {number}", "exec"), names)
    assert not (tmp_path / "tour/verdict/looks.json").exists()


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = json.loads((ROOT / "docs/tour.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])
