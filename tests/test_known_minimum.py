"""A landscape's known global minimum comes from the worker to the verdict, which needs neither torch nor its code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import landsweep
from landsweep.cluster import run, spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare

pytestmark = pytest.mark.usefixtures("one_thread")
OWN = """
import torch
from landsweep import Landscape


def build(told=True):
    def loss(theta):
        return (theta**2).sum() - 3

    return Landscape.from_function(loss, 2, lambda g: torch.randn(2, generator=g), test_loss=loss,
                                   global_minimum=-3.5 if told else None)
"""


def test_a_verdict_takes_the_known_minimum_of_each_landscape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_with_minimum.py").write_text(OWN)
    sweep: dict[str, Any] = {
        "name": "known", "seeds": 3, "store": str(tmp_path / "runs"), "code": [str(tmp_path)],
        "landscape": {"name": "own_with_minimum:build"}, "training": {"optimizer": "gd", "steps": 1},
        "grid": {"landscape": [{"name": "own_with_minimum:build", "told": told} for told in (True, False)]},
        "measure": {"include": []}, "tracking": {"uri": "none"},
    }  # fmt: skip
    run.run(prepare(spec.validate(sweep, "known")), InlineExecutor, lambda progress: None)
    found = landsweep.open(tmp_path / "runs/known")
    trials = found.trials()
    assert trials.groupby("config")["known_minimum"].first().dropna().tolist() == [-3.5]
    answer = found.verdict(record_look=False)
    assert answer.reference_source == "found and known"
    assert isinstance(answer.reference, dict)
    assert sorted(answer.reference.values()) == pytest.approx([-3.5, -3.0])
