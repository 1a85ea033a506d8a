"""Where nothing is searched and no curvature asked for, Hessians are looked at only where a point may be critical."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from landsweep.workers import execution
from landsweep.workers.batch import BatchTask, run_batch
from landsweep.workers.landscape import Landscape
from tests.trained import section

DEVICE = execution.prepare(1)


def settings(**training: Any) -> dict[str, Any]:
    search = {"tolerance": 1e-8, "minima": False, "minima_iterations": 100, "saddles": None}
    measure = {"spectrum": "none", "include": (), "trajectory": (), "lanczos_steps": 75}
    descent = section("gd", **{"lr": 0.1, "steps": 10, "dtype": "float64", **training})
    return {"landscape": {"name": "toy"}, "training": descent, "search": search, "measure": measure}


def bowl() -> Landscape:
    """A quadratic bowl, from starts of which every second is its minimum."""

    def init(generator: torch.Generator) -> torch.Tensor:
        start = torch.randn(3, generator=generator, dtype=torch.float64)
        return start * (start[0] > 0)

    return Landscape.from_function(lambda t: ((1 + torch.arange(3)) * t**2).sum(), 3, init)


def rows(chosen: dict[str, Any], seeds: Sequence[int] = range(8)) -> dict[str, list[Any]]:
    task = BatchTask("toy", "0" * 16, "0" * 16, chosen, {}, tuple(seeds))
    return run_batch(task, bowl(), DEVICE).tables["points"]


def test_kinds_are_those_of_a_look_everywhere() -> None:
    quick = settings()
    everywhere = copy.deepcopy(quick)
    everywhere["measure"]["trajectory"] = ("curvature",)
    found, expected = rows(quick), rows(everywhere)
    assert set(found["kind"]) == {"minimum", "not_converged"}
    for name in set(found) - {"newton_step", "reason"}:
        assert found[name] == expected[name], name
    for kind, step, reason, of, said in zip(
        *(found[name] for name in ("kind", "newton_step", "reason")), expected["newton_step"], expected["reason"],
        strict=True,
    ):  # fmt: skip
        assert (step, reason) == (of, said) if kind == "minimum" else (step is None and said.startswith(reason))


def test_no_hessian_is_formed_where_no_gradient_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a Hessian was looked at")

    table = rows(settings())
    away = [seed for seed, kind in zip(table["seed"], table["kind"], strict=True) if kind == "not_converged"]
    monkeypatch.setattr(Landscape, "hessian", refuse)
    monkeypatch.setattr(Landscape, "hvp", refuse)
    assert rows(settings(), away)["kind"] == ["not_converged"] * len(away)
    with pytest.raises(AssertionError, match="looked at"):
        rows(settings())
