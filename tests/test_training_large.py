"""Training on more samples and rows than fit memory at once: the same numbers, and no more held."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from landsweep.workers import landscape as landscapes
from landsweep.workers.footprint import Allocated, measured
from landsweep.workers.landscape import Landscape
from tests import models
from tests.digits import built
from tests.trained import section, trained

pytestmark = pytest.mark.usefixtures("one_thread")
#: Whole-objective rules and one of mini-batches, these larger than a chunk.
RULES: dict[str, dict[str, Any]] = {
    "gd": {"lr": 0.2},
    "lbfgs": {"lr": 0.5},
    "annealing": {"lr": 0.1, "temperature": 1e-2, "final_temperature": 1e-3},
    "perturbed_gd": {"gradient_threshold": 10.0, "radius": 0.1, "interval": 2},
    "saddle_free_newton": {},
    "sgd": {"batch_size": 17, "momentum": 0.5},
}


def in_chunks(landscape: Landscape, patch: pytest.MonkeyPatch, samples: int) -> None:
    """So few samples at once, of two rows."""
    for limit in ("CHUNK_BYTES", "SAMPLES_BYTES", "MINIBATCH_BYTES"):
        patch.setattr(landscapes, limit, samples * landscapes.MINIMUM_ROWS * landscape.sample_bytes)
    assert (landscape.chunk_samples, landscape.chunk_rows) == (samples, landscapes.MINIMUM_ROWS)


@pytest.mark.parametrize("optimizer", RULES)
def test_chunks_of_samples_and_rows_train_as_all_at_once(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    landscape = models.built("mlp", models.data((5,), 23), loss="mse", weight_decay=0.05)
    landscape = dataclasses.replace(landscape, closed_value_and_gradient=None, closed_descent=None, batched={})
    starts, settings = models.thetas(landscape, 5), section(optimizer, steps=6, **RULES[optimizer])
    whole = trained(landscape, settings, starts).final
    in_chunks(landscape, monkeypatch, 6)
    parts = trained(landscape, settings, starts).final
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    assert not torch.equal(parts, whole), "the sums are taken in another order"
    for rows in (1, 2, 4):
        assert torch.equal(trained(landscape, settings, starts[:rows]).final, parts[:rows])


@pytest.mark.parametrize("batch_size", ["full", 300])
def test_training_holds_a_chunk_of_samples(batch_size: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 rows on 1200 samples or 300, 100 samples of two rows at a time."""
    landscape = built({"name": "mlp", "data": "digits", "hidden": [8], "weight_decay": 1e-3})
    known, starts = measured(landscape), models.thetas(landscape, 16)
    in_chunks(landscape, monkeypatch, 100)
    rows = 8 * starts.numel()
    with Allocated() as allocated:
        trained(landscape, section("sgd", steps=1, batch_size=batch_size), starts)
    chunk = landscapes.MINIMUM_ROWS * 100 * known.gradient
    assert allocated.peak < 20 * rows + 4 * chunk
    whole = 16 * (1200 if batch_size == "full" else 300) * known.gradient
    assert allocated.peak < whole / 3
