"""Where training begins: random labels, parameters of other sweeps, and what lies between two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import landsweep
from landsweep.analysis.sweep import Sweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import Plan, prepare
from landsweep.workers.batch import stream_key
from landsweep.workers.checkpoint import Arrays, Checkpoint
from landsweep.workers.errors import LandscapeError
from landsweep.workers.training_starts import Checkpoints, Start, plain, trained
from tests.digits import built
from tests.evidence_training import ends as ends_of
from tests.toy import small_sweep
from tests.trained import CPU, section

pytestmark = pytest.mark.usefixtures("one_thread")
DIGITS: dict[str, Any] = {
    "name": "mlp", "data": "digits", "hidden": [8], "resize": 4, "train_size": 60, "test_size": 300,
    "weight_decay": 1e-4,
}  # fmt: skip
RELABELLED = {**DIGITS, "random_labels": True, "label_seed": 3, "weight_decay": 0.0}
START = {"kind": "random_labels", "steps": 400, "label_seed": 3, "weight_decay": 0.0}


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def ran(sweep: dict[str, Any]) -> Sweep:
    runs.run(prepare(spec.validate(sweep, "sweep.yaml")), InlineExecutor, lambda progress: None)
    return landsweep.open(f"{sweep['store']}/{sweep['name']}")


def ends(sweep: Sweep, kind: str = "initial") -> dict[int, np.ndarray]:
    """One of the parameters of each seed's point from training."""
    points = sweep.points(where="source == 'training'")
    return {seed: sweep.parameters(point)[kind] for seed, point in zip(points["seed"], points["point"], strict=True)}


# --- random labels -------------------------------------------------------------------------------------------
def pretrained_digits(**changes: Any) -> dict[str, Any]:
    training = {"optimizer": "adam", "lr": 0.03, "steps": 30, "batch_size": 20, "dtype": "float64", "start": START}
    search = {"minima_iterations": 3}
    return {"name": "relabelled", "seeds": 3, "landscape": DIGITS, "training": training, "search": search, **changes}


def test_training_begins_where_random_labels_were_learnt(tmp_path: Path) -> None:
    sweep = ran({**pretrained_digits(), "store": str(tmp_path), "tracking": {"uri": "none"}})
    true, relabelled = built(DIGITS), built(RELABELLED)
    assert true.train_error is not None
    assert relabelled.train_error is not None
    starts = torch.from_numpy(np.stack(list(ends(sweep).values())))
    assert float(relabelled.map(relabelled.train_error, starts).max()) < 0.1
    assert float(true.map(true.train_error, starts).min()) > 0.7  # ten classes
    finals = torch.from_numpy(np.stack(list(ends(sweep, "trained").values())))
    assert bool((true.objective(finals) < true.objective(starts)).all())
    trajectories = sweep.trajectories()
    first = trajectories[trajectories["step"] == 0]
    assert first["distance"].tolist() == [0.0] * 3
    assert first["objective"].tolist() == pytest.approx(true.objective(starts).tolist(), rel=1e-12)


def test_pretraining_is_a_training_of_the_same_kind_with_streams_of_its_own() -> None:
    settings = section("adam", lr=0.03, steps=0, batch_size=20, start=START)
    start = Start(pretraining=built(RELABELLED))
    found = trained(built(DIGITS), settings, "key", [4, 5, 6], CPU, start=start)
    assert found.steps == (0,)
    alone = trained(built(DIGITS), settings, "key", [5], CPU, start=start)
    assert torch.equal(alone.final[0], found.final[1])
    assert torch.equal(found.initial, found.final)
    plainly = trained(built(RELABELLED), {**settings, "steps": 400}, "key", [4, 5, 6], CPU)
    assert not torch.equal(plainly.final, found.initial)  # another data order
    relabelled = built(RELABELLED)
    assert bool((relabelled.objective(found.initial) < 0.3 * relabelled.objective(plainly.initial)).all())


def test_from_random_labels_training_ends_at_minima_that_generalise_worse() -> None:
    found = ends_of(seeds=3, pretraining=500)
    assert all(float(train_error.max()) == 0 for train_error, _ in found.values())
    assert float(found["random labels"][1].min()) > float(found["usual"][1].max())


class Kept:
    def __init__(self) -> None:
        self.last: tuple[int, Arrays] | None = None
        self.steps: list[int] = []

    def load(self) -> tuple[int, Arrays] | None:
        return self.last

    def due(self, ended: bool) -> bool:
        return True

    def save(self, step: int, arrays: Arrays) -> None:
        self.last = step, arrays
        self.steps.append(step)


def test_both_trainings_are_resumed() -> None:
    settings = section("sgd", lr=0.1, steps=8, start={**START, "steps": 5})
    start, keepers = Start(pretraining=built(RELABELLED)), (Kept(), Kept())
    kept = Checkpoints(*map(Checkpoint, keepers))
    first = trained(built(DIGITS), settings, "key", [1, 2], CPU, start=start, checkpoints=kept)
    again = trained(built(DIGITS), settings, "key", [1, 2], CPU, start=start, checkpoints=kept)
    assert [keeper.steps for keeper in keepers] == [list(range(1, 6)), list(range(1, 9))]  # the second time, none
    assert torch.equal(first.final, again.final)
    assert torch.equal(first.snapshots, again.snapshots)


def test_options_that_change_nothing_leave_the_streams_alone() -> None:
    bare = {name: value for name, value in section("sgd").items() if name not in ("schedule", "start", "snapshots")}
    assert plain(section("sgd")) == bare
    key = stream_key({"landscape": DIGITS, "training": bare})
    for same in ({}, {"snapshots": 2}):
        assert stream_key({"landscape": DIGITS, "training": section("sgd", **same)}) == key
    for changed in ({"schedule": {"name": "cosine"}}, {"schedule": {"warmup": 3}}, {"start": START}):
        assert stream_key({"landscape": DIGITS, "training": section("sgd", **changed)}) != key


# --- other sweeps --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> tuple[dict[str, Any], Sweep]:
    """A sweep of two configurations and four seeds, and its results."""
    before = list(sys.path)
    folder = tmp_path_factory.mktemp("source")
    sweep = small_sweep(folder, name="source", resources={"batch": 3}, training={"optimizer": "gd", "steps": 4})
    opened = ran(sweep)
    sys.path[:] = before
    return sweep, opened


def follower(source: dict[str, Any], name: str, seeds: Any = 4, **start: Any) -> dict[str, Any]:
    path = f"{source['store']}/{source['name']}"
    places = {key: {"path": path, **start.pop(key)} for key in ("first", "second") if key in start}
    chosen = {**start, **places} if places else {"path": path, **start}
    training = {"optimizer": "gd", "steps": 2, "lr": 0.01, "start": chosen}
    return {**source, "name": name, "seeds": seeds, "training": training, "grid": {}, "resources": {"batch": 2}}


def configs(opened: Sweep) -> list[str]:
    return list(dict.fromkeys(opened.trials()["config"]))


def of_config(opened: Sweep, config: str, kind: str) -> dict[int, np.ndarray]:
    points = opened.points(where=f"source == 'training' and config == '{config}'")
    return {seed: opened.parameters(point)[kind] for seed, point in zip(points["seed"], points["point"], strict=True)}


@pytest.mark.parametrize(("take", "kind"), [("trained", "trained"), ("initial", "initial"), ("polished", "theta")])
def test_training_begins_where_another_sweep_was(source: tuple[dict[str, Any], Sweep], take: str, kind: str) -> None:
    sweep, opened = source
    config = configs(opened)[1]
    found = ends(ran(follower(sweep, f"from-{take}", {"start": 1, "stop": 4}, kind="sweep", config=config, take=take)))
    there = of_config(opened, config, kind)
    assert list(found) == [1, 2, 3]
    for seed, theta in found.items():
        assert theta.tobytes() == there[seed].tobytes()
    if take == "trained":  # polished ones of one basin may be equal
        others = of_config(opened, configs(opened)[0], kind)
        assert found[1].tobytes() not in [there[2].tobytes(), others[1].tobytes()]


def test_training_begins_at_one_point_whatever_the_seed(source: tuple[dict[str, Any], Sweep]) -> None:
    sweep, opened = source
    point = opened.points()["point"][2]
    found = ends(ran(follower(sweep, "from-point", kind="sweep", take=point)))
    assert {theta.tobytes() for theta in found.values()} == {opened.parameters(point)["theta"].tobytes()}
    assert len(found) == 4


def test_training_begins_between_two(source: tuple[dict[str, Any], Sweep]) -> None:
    sweep, opened = source
    config = configs(opened)[0]
    first, second = {"config": config, "take": "initial"}, {"config": config, "take": "trained"}
    asked = follower(sweep, "between", kind="interpolation", first=first, second=second)
    asked["grid"] = {"training.start.fraction": [0.0, 0.25, 1]}
    found = ran(asked)
    a, b = (of_config(opened, config, kind) for kind in ("initial", "trained"))
    points = found.points(where="source == 'training'")
    for point, seed, fraction in zip(points["point"], points["seed"], points["training.start.fraction"], strict=True):
        theta = found.parameters(point)["initial"]
        np.testing.assert_allclose(theta, (1 - fraction) * a[seed] + fraction * b[seed], rtol=1e-15, atol=1e-16)
    assert len(points) == 12


def prepared(sweep: dict[str, Any]) -> Plan:
    return prepare(spec.validate(sweep, "sweep.yaml"))


def test_an_id_follows_from_what_training_begins_at(source: tuple[dict[str, Any], Sweep], tmp_path: Path) -> None:
    """A source of one configuration need not name it; run otherwise under the same name it makes another id."""
    sweep, _ = source
    ids = []
    for lr in (0.05, 0.02):
        one = {**sweep, "store": str(tmp_path / f"{lr}"), "grid": {}, "seeds": 2}
        one["training"] = {**sweep["training"], "lr": lr}
        ran(one)
        asked = follower(one, "after", 2, kind="sweep")
        asked["training"]["start"]["path"] = str(tmp_path / "here")
        (tmp_path / "here").unlink(missing_ok=True)
        (tmp_path / "here").symlink_to(tmp_path / f"{lr}" / "source")
        ids.append(prepared(asked).configurations[0].id)
        assert prepared(asked).configurations[0].id == ids[-1]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"kind": "sweep"}, "more than one configuration.*set config"),
        ({"kind": "sweep", "config": "0" * 16}, "no configuration 0000000000000000; its configurations are"),
        ({"kind": "sweep", "take": f"{'0' * 16}-1-training-0"}, "no parameters of the point 0000000000000000-1"),
        ({"kind": "sweep", "path": "/nowhere/at/all"}, "/nowhere/at/all: there is no sweep"),
    ],
)
def test_what_another_sweep_does_not_have_is_refused(
    source: tuple[dict[str, Any], Sweep], start: dict[str, Any], message: str
) -> None:
    with pytest.raises(LandscapeError, match=f"training.start: .*{message}"):
        prepared(follower(source[0], "refused", **start))
    assert not Path(source[0]["store"], "refused").exists()


def test_a_training_that_diverged_has_no_point_to_begin_at(source: tuple[dict[str, Any], Sweep]) -> None:
    wild = {**source[0], "name": "wild", "grid": {}, "seeds": 2}
    wild["training"] = {"optimizer": "gd", "steps": 20, "lr": 1e6}
    ran(wild)
    with pytest.raises(LandscapeError, match="it has no parameters of the point of seed 0"):
        prepared(follower(wild, "refused", 2, kind="sweep", take="polished"))
    after = ran(follower(wild, "after-wild", 2, kind="sweep", take="trained"))
    assert after.points()["kind"].tolist() == ["diverged"] * 2


def test_seeds_and_sizes_that_do_not_fit_are_refused(source: tuple[dict[str, Any], Sweep]) -> None:
    sweep, opened = source
    config = configs(opened)[0]
    with pytest.raises(LandscapeError, match=r"training.start: .*lacks 2 seeds asked for, as 4"):
        prepared(follower(sweep, "refused", 6, kind="sweep", config=config))
    other = follower(sweep, "refused", kind="sweep", config=config)
    other["landscape"] = DIGITS
    with pytest.raises(LandscapeError, match=r"training.start: found 2 parameters where the landscape has 226"):
        prepared(other)
