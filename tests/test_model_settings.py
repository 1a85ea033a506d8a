"""The models' sections of a sweep file: what is refused at the plan and why, and the parameters that are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from landsweep.cluster import model_settings, spec
from landsweep.cluster.data.library import Library
from landsweep.cluster.prepare import prepare
from landsweep.workers import builtin
from landsweep.workers.activations import ACTIVATIONS, KINKED
from landsweep.workers.errors import LandscapeError, RequestError, SweepFileError
from landsweep.workers.models.initialisation import INITIALISATIONS
from landsweep.workers.models.rnn import rnn
from tests.models import data


def sweep(tmp_path: Path, **landscape: Any) -> spec.Sweep:
    return spec.validate({"name": "small", "seeds": 3, "landscape": landscape, "store": str(tmp_path)}, "sweep.yaml")


def counted(**landscape: Any) -> int:
    """n, as the plan counts it."""
    complete = spec.validate({"name": "small", "seeds": 1, "landscape": landscape}, "sweep.yaml").configurations()[0][0]
    return builtin.facts(complete["landscape"], Library().samples(complete["landscape"])).dim


@pytest.mark.parametrize(
    ("landscape", "key", "reason"),
    [
        ({"name": "cnn", "kernel": 2}, "landscape.kernel", "an odd number, or padding: valid"),
        ({"name": "cnn", "max_pool": 2}, "landscape.max_pool", "not smooth"),
        ({"name": "cnn", "batch_norm": True}, "landscape.batch_norm", "no stationary point"),
        ({"name": "resnet", "normalisation": "batch"}, "landscape.normalisation", "w·g = λ‖w‖²"),
        ({"name": "resnet", "depth": 10}, "landscape.depth", "8 or 14"),
        ({"name": "resnet", "depth": 7}, "landscape.depth", "at least 8"),
        ({"name": "mlp", "initialisation": "fixup"}, "landscape.initialisation", "'he_normal'"),
        ({"name": "mlp", "activation": "linear"}, "landscape.activation", "'tanh'"),
        ({"name": "mlp", "channels": [2]}, "landscape.channels", "cnn has"),
        ({"name": "rnn", "hidden": [4]}, "landscape.hidden", "an integer"),
        ({"name": "autoencoder", "loss": "cross_entropy"}, "landscape.loss", "no classes"),
        ({"name": "autoencoder", "random_labels": True}, "landscape.random_labels", "does not use labels"),
        ({"name": "autoencoder", "label_noise": 0.5}, "landscape.label_noise", "does not use labels"),
        ({"name": "deep_linear", "loss": "cross_entropy"}, "landscape.loss", "one-hot"),
        ({"name": "deep_linear", "activation": "tanh"}, "landscape.activation", "deep_linear has no such setting"),
        ({"name": "deep_linear", "bias": True}, "landscape.bias", "deep_linear has no such setting"),
        ({"name": "resnt"}, "landscape.name", "did you mean resnet?"),
    ],
)
def test_sections_that_cannot_be_are_refused(landscape: dict[str, Any], key: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SweepFileError) as caught:
        sweep(tmp_path, **landscape)
    assert key in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("landscape", "key", "reason"),
    [
        ({"name": "cnn", "data": "mnist1d"}, "landscape.name", "needs images"),
        ({"name": "resnet", "data": "gaussian_mixture"}, "landscape.name", "needs images"),
        ({"name": "cnn", "kernel": 9, "padding": "valid", "channels": [2]}, "landscape.kernel", "8×8 pixels"),
        ({"name": "cnn", "channels": [2, 2, 2, 2]}, "landscape.pool", "convolution 4 gives has 1×1 pixels"),
        ({"name": "cnn", "pool": 4, "channels": [2, 2]}, "landscape.pool", "2×2 pixels"),
        ({"name": "resnet", "resize": 4}, "landscape.resize", "at least 5×5"),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused_at_the_plan(
    landscape: dict[str, Any], key: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as caught:
        prepare(sweep(tmp_path, **landscape))
    assert key in str(caught.value)
    assert reason in str(caught.value)


def test_sequences_cannot_be_colour_images() -> None:
    with pytest.raises(LandscapeError, match=r"found rnn on inputs of shape \(3, 4, 4\); it needs sequences"):
        rnn(data((3, 4, 4)))
    assert rnn(data((4, 4)), hidden=2).dim == 2 * 4 + 2 * 2 + 2 + 2 * 3 + 3


@pytest.mark.parametrize(
    ("landscape", "n"),
    [
        ({"name": "mlp", "hidden": [5]}, 65 * 5 + 6 * 10),
        ({"name": "mlp", "hidden": [5], "bias": False}, 64 * 5 + 5 * 10),
        ({"name": "cnn", "channels": [2, 3], "hidden": [4]}, 2 * 10 + 3 * 19 + 4 * 13 + 10 * 5),
        ({"name": "cnn", "channels": [2], "kernel": 4, "padding": "valid", "stride": 2}, 2 * 17 + 10 * 3),
        ({"name": "rnn", "hidden": 3, "data": "mnist1d"}, 3 + 9 + 3 + 3 * 10 + 10),
        ({"name": "rnn", "hidden": 3}, 3 * 8 + 9 + 3 + 3 * 10 + 10),
        ({"name": "autoencoder", "hidden": [6, 2]}, 65 * 6 + 7 * 2 + 3 * 6 + 7 * 64),
        ({"name": "autoencoder", "hidden": [6, 2], "tied": True}, 64 * 6 + 6 * 2 + 6 + 2 + 6 + 64),
        ({"name": "deep_linear", "hidden": [6, 2]}, 64 * 6 + 12 + 20),
        ({"name": "resnet", "width": 2}, 18 + 1 + (72 + 5) + (216 + 5) + (864 + 5) + 1 + 80 + 10),
    ],
)
def test_plan_counts_the_parameters(landscape: dict[str, Any], n: int) -> None:
    assert counted(**landscape) == n


def test_sections_and_workers_name_the_same_models_and_options() -> None:
    assert set(model_settings.MODELS) == set(builtin.SUPERVISED)
    assert set(get_args(model_settings.Initialisation)) | {"fixup"} == set(INITIALISATIONS)
    assert set(get_args(model_settings.Activation)) == set(ACTIVATIONS) | set(KINKED)
