"""Data sets that are taken in parts, because all samples at once would not fit memory: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch.func import hessian, vmap

from landsweep.workers import landscape as landscapes
from landsweep.workers import mlp as mlps
from landsweep.workers import supervised
from landsweep.workers.landscape import Landscape
from tests.models import SHAPES, built, data, losses, thetas

pytestmark = pytest.mark.usefixtures("one_thread")
#: The resnet has ten times the parameters of the others and takes the same path as the cnn.
CASES = [(model, loss) for model in SHAPES if model != "resnet" for loss in losses(model)]


def small_parts(model: str, loss: str, patch: pytest.MonkeyPatch) -> Landscape:
    """A landscape on 23 samples that are evaluated and summed at most 5 at a time, the last part ragged."""
    dataset = data(SHAPES[model], 23)
    held = built(model, dataset, loss=loss).sample_bytes
    patch.setattr(landscapes, "CHUNK_BYTES", 5 * 2 * held)
    patch.setattr(landscapes, "SAMPLES_BYTES", 5 * 2 * held)
    patch.setattr(mlps, "PART_BYTES", 3_000)
    found = built(model, dataset, loss=loss)
    assert len(found._parts()) == 5
    return found


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_parts_of_the_samples_give_what_all_at_once_give(
    model: str, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built(model, data(SHAPES[model], 23), loss=loss)
    theta = thetas(whole, 3)
    vectors = thetas(whole, 6, seed=2).view(3, 2, -1).mT.contiguous()
    exact = vmap(hessian(whole.loss))(theta)
    parts = small_parts(model, loss, monkeypatch)
    for ours, theirs in (
        (parts.hessian(theta), exact),
        (parts.hvp(theta, vectors), exact @ vectors),
        (parts.gradient(theta), whole.gradient(theta)),
        (parts.objective(theta), whole.objective(theta)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for name in ("train_loss", "test_loss", "train_error", "test_error", "outputs"):
        one, other = getattr(parts, name), getattr(whole, name)
        if one is not None:
            torch.testing.assert_close(parts.map(one, theta), whole.map(other, theta), rtol=1e-12, atol=1e-14)


def test_a_model_is_never_given_more_samples_than_fit() -> None:
    seen: list[int] = []

    def model(theta: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return inputs * theta

    outputs = supervised.in_parts(model, 4)(torch.tensor(2.0), torch.arange(10.0))
    assert seen == [4, 4, 2]
    assert outputs.tolist() == [2.0 * value for value in range(10)]
