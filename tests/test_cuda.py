"""The same batch on a GPU: the CUDA paths, wherever there is one."""

from __future__ import annotations

import pytest
import torch

from landsweep.workers import batch
from landsweep.workers.execution import prepare
from tests.digits import built

LANDSCAPE = {
    "name": "mlp", "data": "digits", "resize": 4, "train_size": 300, "hidden": [2], "activation": "tanh",
    "loss": "cross_entropy", "weight_decay": 1e-3,
}  # fmt: skip
SETTINGS = {
    "landscape": LANDSCAPE,
    "training": {"optimizer": "adam", "lr": 0.01, "batch_size": 64, "steps": 50, "dtype": "float32"},
    "search": {
        "tolerance": 1e-8, "minima": True, "minima_iterations": 100,
        "saddles": {
            "per_trial": 1, "trials": 2, "starts": ["trajectory", "noise", "initialisation"],
            "method": "eigenvector_following", "max_iterations": 20, "connections": True,
        },
    },
    "measure": {"spectrum": "auto"},
}  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_batch_on_cuda_reaches_minima() -> None:
    device = prepare(gpu=True)
    assert device.type == "cuda"
    task = batch.BatchTask("s", "b", "c", SETTINGS, {}, (0, 1, 2, 3))
    result = batch.run_batch(task, built(LANDSCAPE, device), device)
    points, trials = result.tables["points"], result.tables["trials"]
    trained = [kind for kind, source in zip(points["kind"], points["source"], strict=True) if source == "training"]
    assert trained == ["minimum"] * 4
    assert set(trials["device"]) == {"cuda"}
    assert all(
        norm <= 1e-8 for norm, kind in zip(points["grad_norm"], points["kind"], strict=True) if kind == "minimum"
    )
