"""Sweeps drawn at random from what the documents say can be combined: each is refused at the plan, with one message, or
runs to the end with everything that it asks for.

Landscape × loss × data × optimiser × start × search × measures × dtype × spectrum, each section drawn without regard to
the others, two steps and two seeds each.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import landsweep
from landsweep.cluster import run, spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.model_settings import MODELS, Activation, Initialisation
from landsweep.cluster.prepare import prepare
from landsweep.cluster.reference_settings import REFERENCES
from landsweep.cluster.settings import MeasureName, Saddles, TrajectoryQuantity
from landsweep.cluster.training_settings import OPTIMIZERS
from landsweep.workers.errors import RequestError
from tests.data_files import idx_files, image_files, npz_arrays, npz_bytes, parquet_bytes, write
from tests.test_model_grid import takes_minibatches

Draw = random.Random
Section = dict[str, Any]

OWN = """
import torch
from landsweep import Landscape


def wells():
    def loss(theta):
        return ((theta**2 - 1) ** 2).sum() + 0.1 * theta[0]

    return Landscape.from_function(loss, 3, lambda g: torch.randn(3, generator=g, dtype=torch.float64))


def net(loss="cross_entropy", weight_decay=1e-3, norm=False):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 3, generator=g, dtype=torch.float64), torch.arange(24) % 2

    def module():
        middle = [torch.nn.LayerNorm(2)] if norm else []
        return torch.nn.Sequential(torch.nn.Linear(3, 2), *middle, torch.nn.Tanh(), torch.nn.Linear(2, 2))

    return Landscape.from_module(module, (x[:16], y[:16]), (x[16:], y[16:]), loss=loss, weight_decay=weight_decay)
"""


# --- drawing -------------------------------------------------------------------------------------------------------
def _some(draw: Draw, options: Mapping[str, list[Any]], share: float = 0.4) -> Section:
    """Some of the keys, each with one of its values; the others keep their defaults."""
    return {key: draw.choice(values) for key, values in options.items() if draw.random() < share}


DATA: dict[str, list[Any]] = {
    "train_size": [11, 5000], "test_size": [5, 10**5], "split_seed": [0, 3], "subset_per_class": [1, 400],
    "standardise": [False], "label_noise": [0.2], "random_labels": [True], "label_seed": [1],
    "loss": ["cross_entropy", "mse"], "weight_decay": [0.0, 1e-2], "init_scale": [0.5], "resize": [4, 5, 6],
}  # fmt: skip
MODEL: dict[str, dict[str, list[Any]]] = {
    "mlp": {"hidden": [[2], [3, 2]], "bias": [False]},
    "cnn": {"channels": [[2], [2, 2]], "kernel": [1, 2, 3], "stride": [1, 2], "padding": ["same", "valid"],
            "pool": [1, 2], "hidden": [[2]]},
    "resnet": {"depth": [8, 9, 14]},
    "rnn": {"hidden": [2]},
    "autoencoder": {"hidden": [[2], [3, 2]], "tied": [True], "bias": [False]},
    "deep_linear": {"hidden": [[2], [3, 2]]},
}  # fmt: skip
SMALL: dict[str, Section] = {
    "mlp": {"hidden": [2]}, "cnn": {"channels": [2]}, "resnet": {"width": 1}, "rnn": {"hidden": 2},
    "autoencoder": {"hidden": [2]}, "deep_linear": {"hidden": [2]},
}  # fmt: skip
SETS: list[Any] = [
    "digits", "digits", {"name": "mnist1d", "samples": 60}, {"name": "gaussian_mixture", "samples": 60},
    {"name": "teacher_student", "samples": 60, "inputs": 3}, "idx:idx", "npz:x.npz", "parquet:x.parquet",
    "images:grey", "images:colour",
]  # fmt: skip
REFERENCE: dict[str, Section] = {
    "linear_autoencoder": {"k": 3, "p": 2}, "matrix_factorisation": {"n": 3, "rank": 2},
    "deep_factorisation": {"widths": [2, 2, 2]}, "phase_retrieval": {"n": 3}, "ica": {"n": 3},
    "tensor_decomposition": {"n": 3, "order": 4}, "spherical_spin": {"n": 4}, "student_teacher": {"students": 2,
    "teachers": 2}, "random_field": {"n": 1},
}  # fmt: skip
OPTIMIZER: dict[str, dict[str, list[Any]]] = {
    "sgd": {"momentum": [0.9], "nesterov": [True]}, "saddle_free_newton": {"krylov_dimension": [2]},
    "perturbed_gd": {"interval": [1]}, "annealing": {"final_temperature": [1e-3, 1.0]},
    "adam": {"betas": [[0.5, 0.9]]},
}  # fmt: skip


def landscape(draw: Draw) -> Section:
    """Of a model on data (most often), a reference landscape, or one of the user's own."""
    family = draw.choices(("model", "reference", "own"), (6, 2, 1))[0]
    if family == "reference":
        name = draw.choice(sorted(REFERENCES))
        return {"name": name, **REFERENCE.get(name, {})}
    if family == "own":
        return draw.choice([{"name": "own_combinations:wells"},
                            {"name": "own_combinations:net", **_some(draw, {"loss": ["mse"], "weight_decay": [0.0],
                                                                            "norm": [True]})}])  # fmt: skip
    name = draw.choice(sorted(MODELS))
    images = [data for data in SETS if str(data).startswith(("digits", "idx", "images"))]
    data = draw.choice(images if name in ("cnn", "resnet") and draw.random() < 0.9 else SETS)
    common: Section = {"train_size": 20, "test_size": 10} if data == "digits" else {}
    shaped: Section = {"resize": draw.choice([5, 6])} if data in ("images:grey", "images:colour") else {}
    shaped |= {"resize": 4} if data == "digits" and name != "resnet" else {}
    phi = _some(draw, {"activation": list(get_args(Activation)), "initialisation": list(get_args(Initialisation))}, 0.3)
    phi = {key: value for key, value in phi.items() if (name, key) != ("deep_linear", "activation")}
    rare = _some(draw, DATA, 0.05)
    return {
        "name": name,
        "data": data,
        **SMALL[name],
        **common,
        **shaped,
        **_some(draw, MODEL[name], 0.25),
        **phi,
        **rare,
    }


def training(draw: Draw) -> Section:
    optimizer = draw.choice(sorted(OPTIMIZERS))
    section: Section = {"optimizer": optimizer, "steps": draw.choices((2, 0), (9, 1))[0]}
    size = [5, 10**6] if takes_minibatches(optimizer) else ["full"]
    section |= _some(draw, {"batch_size": [*size, "full"]}, 0.5)
    section |= _some(draw, {"dtype": ["float64"], "schedule": [{"warmup": 1}, {"name": "cosine", "final": 0.1}]})
    start = draw.choices(["initialisation", "random_labels", "sweep", "interpolation"], (6, 1, 1, 1))[0]
    origin = {"path": "runs/origin"}
    starts: dict[str, Section] = {
        "random_labels": {"steps": 2}, "sweep": {**origin, "take": draw.choice(["trained", "polished", "initial"])},
        "interpolation": {"first": origin, "second": {**origin, "take": "initial"}},
    }  # fmt: skip
    section["start"] = {"kind": start, **starts.get(start, {})}
    return section | _some(draw, OPTIMIZER.get(optimizer, {}))


def search(draw: Draw) -> Section:
    section: Section = {"minima_iterations": 2, **_some(draw, {"minima": [False]}, 0.15)}
    if draw.random() < 0.6:
        methods = list(get_args(Saddles.model_fields["method"].annotation))
        starts = [["trajectory"], ["noise"], ["initialisation", "noise"]]
        options = {"starts": starts, "method": methods, "trials": [1], "connections": [True, False]}
        section["saddles"] = {"max_iterations": 4, **_some(draw, options, 0.6)}
    return section


def measure(draw: Draw) -> Section:
    def several(names: tuple[str, ...]) -> list[str]:
        return sorted(draw.sample(names, draw.randint(0, 2)))

    section = _some(draw, {"spectrum": ["auto", "dense", "lanczos", "none"], "lanczos_steps": [3]}, 0.6)
    return section | {"include": several(get_args(MeasureName)), "trajectory": several(get_args(TrajectoryQuantity))}


def drawn(seed: int) -> Section:
    """The sweep of this number: a section is drawn without regard to the others."""
    draw = Draw(seed)
    sections = {
        "landscape": landscape(draw),
        "training": training(draw),
        "search": search(draw),
        "measure": measure(draw),
    }
    return {"name": f"drawn-{seed}", "seeds": 2, **sections, "store": "runs", "tracking": {"uri": "none"}}


# --- judging -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What became of a drawn sweep."""

    refused: str | None = None  # the plan's message
    fault: str | None = None  # what is wrong with a sweep that the plan let pass


def files(folder: Path) -> None:
    """The data sets and the module that drawn sweeps name, in ``folder``."""
    table = npz_arrays(24)
    columns = {"a": table["inputs"][:, 0], "b": table["inputs"][:, 1], "label": table["labels"]}
    write(folder / "idx", idx_files(24, 12))
    write(folder / "grey", image_files())
    write(folder / "colour", image_files(colour=True))
    write(
        folder, {"x.npz": npz_bytes(**table), "x.parquet": parquet_bytes(columns), "own_combinations.py": OWN.encode()}
    )


def outcome(sections: Section) -> Outcome:
    """Plan a sweep in the working directory, which holds :func:`files`, and run it if the plan lets it pass."""
    start = sections["training"]["start"]["kind"]
    try:
        if start in ("sweep", "interpolation"):
            _run({**sections, "name": "origin", "training": {"steps": 2}, "measure": {"include": []}})
        planned = prepare(spec.validate(sections, "drawn"))
    except RequestError as exc:
        return Outcome(refused=str(exc))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            progress = run.run(planned, InlineExecutor, lambda progress: None)
    except Exception as exc:
        return Outcome(fault=f"{type(exc).__name__}: {exc}")
    if progress.failed:
        return Outcome(fault=progress.failed[0][1])
    return Outcome(fault=_missing(sections))


def _run(sections: Section) -> None:
    run.run(prepare(spec.validate(sections, "drawn")), InlineExecutor, lambda progress: None)


#: asked for → a column that it fills wherever a finite point, or a snapshot with a step after it, is there
POINT_COLUMNS = [name for name in get_args(MeasureName) if name != "escape_time"]  # of saddles, which few trials find
ALONG_COLUMNS = {"curvature": "eig_max", "alignment": "aligned_stable", "prediction": "predicted_change"}


def _missing(sections: Section) -> str | None:
    """What the results lack of what the sweep asks for."""
    sweep = landsweep.open(f"runs/{sections['name']}")
    trials, points, along = sweep.trials(), sweep.points(), sweep.trajectories()
    if list(trials["status"]) != ["done"] * 2 or set(points["trial"]) != set(trials["trial"]):
        return f"trials {list(trials['status'])}, {len(points)} points"
    finite = points[points["kind"] != "diverged"]
    idle = {"path_norm", "spectral_norm", "margin"}  # null, as documented, where there are no layers or no labels
    for name in sections["measure"]["include"]:
        if name in POINT_COLUMNS and name not in idle and len(finite) and finite[name].isna().all():
            return f"measure.include: {name} is null at every point"
    for name, column in ALONG_COLUMNS.items():
        if name in sections["measure"]["trajectory"] and len(finite) and along[column].isna().all():
            return f"measure.trajectory: {name} is null at every snapshot"
    return None


def outcomes(seeds: range, report: Callable[[int, Outcome], None] = lambda seed, found: None) -> dict[int, Outcome]:
    """Of the sweeps with these numbers, each in a folder of its own."""
    found = {}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sys, "path", list(sys.path))
        for seed in seeds:
            place = Path(folder) / str(seed)
            files(place)
            patch.chdir(place)
            found[seed] = outcome(drawn(seed))
            report(seed, found[seed])
    return found
