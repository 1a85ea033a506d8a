"""Memory: predictions against what a process takes, batches that fit a limit, and what follows where it runs out."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import landsweep
from landsweep.cluster import memory, policy, ray_executor, settings
from landsweep.cluster import run as runs
from landsweep.cluster.execute import Job, Summary
from landsweep.cluster.executors import Completion, InlineExecutor
from landsweep.cluster.plan import Batch, Configuration, batch_id
from landsweep.cluster.policy import FailedTrial, Work
from landsweep.cluster.prepare import prepare
from landsweep.workers import dense_native
from landsweep.workers.errors import LandscapeError, SweepFileError
from landsweep.workers.footprint import Allocated, Footprint, measured
from tests.digits import built
from tests.memory_probe import ROOT, probed, sweep_of
from tests.surfaces import function

pytestmark = pytest.mark.usefixtures("one_thread")

MIB = 2**20
MLP = {"name": "mlp", "data": "digits", "hidden": [5], "train_size": 200, "weight_decay": 1e-3}
KNOWN = Footprint(100, 0, 0, 500.0, 1000.0, 1000.0, 1000.0, 1e6, 10, 100, 1)


def complete(**sections: Any) -> dict[str, Any]:
    """A configuration's settings with their defaults."""
    (one, _), *_ = sweep_of(1, {"landscape": MLP, **sections}).configurations()
    return one


# what is allocated ----------------------------------------------------------------------------------------------------


def test_tensors_that_are_alive_are_counted() -> None:
    with Allocated() as allocated:
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1
        del first
        third = second.view(10, 100)  # no memory of its own
        fourth = torch.cat([third, third])
        del fourth
    assert allocated.peak == 8 * 3000  # second and fourth


def test_a_footprint_is_that_of_an_evaluation_on_all_samples() -> None:
    """From 256 samples, or fewer, to all: what the gradient and the product of two rows hold."""
    landscape = built(MLP)
    known, theta = measured(landscape), torch.randn(2, landscape.dim, dtype=torch.float64)
    for evaluate, a_sample in (
        (lambda: landscape.value_and_gradient(theta), known.gradient),
        (lambda: landscape.hvp(theta, theta.unsqueeze(2)), known.product),
        (lambda: landscape.hvp(theta, theta.unsqueeze(2).repeat(1, 1, 9)), known.product + 8 * known.vector),
    ):
        with Allocated() as compiled:
            evaluate()
        with dense_native.tensor_operations(), Allocated() as allocated:
            evaluate()
        assert 2 * 200 * a_sample == pytest.approx(allocated.peak, rel=0.3)
        assert compiled.peak <= allocated.peak
    assert (known.dim, known.samples, known.data) == (landscape.dim, 200, 8 * 65 * 1797)


@pytest.mark.parametrize("hidden", [[6], [3, 8], [2]])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_closed_hessian_holds_what_it_states(hidden: list[int], loss: str) -> None:
    landscape = built({**MLP, "hidden": hidden, "loss": loss, "train_size": 400})
    assert landscape.closed_hessian is not None
    theta = 0.1 * torch.randn(2, landscape.dim, dtype=torch.float64)
    with Allocated() as allocated:
        landscape.closed_hessian(theta)
    assert 2 * landscape.hessian_bytes == pytest.approx(allocated.peak, rel=0.3)


def test_a_loss_that_torch_cannot_transform_is_refused_with_the_reason() -> None:
    def branching(theta: torch.Tensor) -> torch.Tensor:
        return theta.sum() if theta[0] > 0 else -theta.sum()

    landscape = dataclasses.replace(function(lambda t: (t * t).sum()), loss=branching)
    with pytest.raises(RuntimeError, match="vmap"):
        measured(landscape)


# predictions ----------------------------------------------------------------------------------------------------------


def test_a_prediction_grows_with_what_a_batch_does() -> None:
    plain = memory.batch_bytes(complete(), KNOWN, 8)
    assert memory.batch_bytes(complete(), KNOWN, 16) > plain
    searching = complete(search={"saddles": {"per_trial": 3}})
    assert memory.batch_bytes(searching, KNOWN, 8) > plain
    few = complete(search={"saddles": {"per_trial": 3, "trials": 4}})
    assert plain < memory.batch_bytes(few, KNOWN, 8) < memory.batch_bytes(searching, KNOWN, 8)
    assert memory.batch_bytes(complete(), dataclasses.replace(KNOWN, dim=1000), 8) > 50 * MIB + plain
    assert memory.batch_bytes(complete(), dataclasses.replace(KNOWN, data=10**9), 8) > 10**9


def test_training_is_reckoned_a_chunk_at_a_time() -> None:
    """10,000 samples, 500 at a time of 4 rows: 2 MB of gradients, in float32, however many trials there are."""
    known = dataclasses.replace(KNOWN, dim=10, samples=10_000, chunk_rows=4, chunk_samples=500)
    for size, trials, samples in ((5, 3, 15), (5, 1000, 2000), (150, 2, 300), ("full", 2, 1000), ("full", 64, 2000)):
        training = complete(training={"batch_size": size})
        assert memory._training(training, known, trials) == 0.5 * (samples * 1000.0 + 640 * trials)


def test_no_matrices_are_reckoned_where_there_are_none() -> None:
    """n = 20,000: one whole Hessian takes 3.2 GB."""
    large = dataclasses.replace(KNOWN, dim=20_000)
    assert memory.batch_bytes(complete(measure={"spectrum": "lanczos"}), large, 1) < 2**30
    assert memory.batch_bytes(complete(measure={"spectrum": "dense"}), large, 1) > 5 * 3.2e9


def test_a_prediction_is_within_thirty_per_cent() -> None:
    landscape = {**MLP, "hidden": [8], "train_size": 900}
    probe = probed(4, {"landscape": landscape, "training": {"steps": 10}, "search": {"minima_iterations": 1}})
    assert probe.within, probe


# batches that fit -----------------------------------------------------------------------------------------------------


@given(
    base=st.integers(0, 10**9),
    each=st.lists(st.integers(1, 10**9), min_size=1, max_size=3),
    limit=st.integers(2**20, 10**12),
    trials=st.integers(1, 200),
)
def test_an_automatic_batch_is_the_largest_power_of_two_that_fits(
    base: int, each: list[int], limit: int, trials: int
) -> None:
    predictions = [lambda size, slope=slope: base + slope * size for slope in each]
    found = memory.allotted(predictions, "auto", limit, trials, trials)
    assert found.size in {1, 2, 4, 8, 16, 32, 64}
    assert found.size == 1 or base + max(each) * found.size <= memory.SURE * limit
    assert found.size == 64 or base + max(each) * 2 * found.size > memory.SURE * limit
    assert found.peak == base + max(each) * min(found.size, trials)
    assert bool(found.notes) is (found.peak > limit)


def test_a_requested_batch_is_taken_and_one_that_is_too_large_is_said_with_figures() -> None:
    predictions = [lambda trials: trials * 100 * MIB]
    assert memory.allotted(predictions, 7, 2**30, 200, 200) == memory.Allotment(7, 700 * MIB)
    assert memory.allotted(predictions, 64, 2**30, 3, 3) == memory.Allotment(64, 300 * MIB)  # there are three trials
    (note,) = memory.allotted(predictions, 64, 2**30, 200, 200).notes
    assert all(words in note for words in ("a batch of 64", "6,400 MiB", "1,024 MiB", "resources.batch"))
    (note,) = memory.allotted(predictions, "auto", 50 * MIB, 200, 200).notes
    assert "fewer parameters" in note


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GB", 8 * 10**9), ("500MiB", 500 * MIB), ("1.5 GiB", 3 * 2**29), (2**30, 2**30), ("2000kB", 2 * 10**6)],
)
def test_a_limit_is_a_number_or_a_text_with_a_unit(text: Any, count: int) -> None:
    assert settings.Resources(memory=text).memory == count


@pytest.mark.parametrize("text", ["8 apples", "-1GB", "GB", "1e3MB", 1000, True, 1.5])
def test_other_limits_are_refused(text: Any) -> None:
    with pytest.raises(SweepFileError, match=r"resources\.memory"):
        sweep_of(1, {"landscape": MLP, "resources": {"memory": text}})


# out of memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (ValueError("boom"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, is_memory: bool) -> None:
    assert memory.exhausted(error) is is_memory


def test_the_allocator_of_torch_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.exhausted(caught.value)


def test_ray_says_that_its_monitor_ended_a_process() -> None:
    class OutOfMemoryError(Exception):
        pass

    monitor = "Worker exit detail: the worker was killed because the node was running low on memory"
    causes = "There are some potential root causes. (1) The process is killed by SIGKILL by OOM killer"
    assert ray_executor.killed_for_memory(OutOfMemoryError("Task was killed"))
    assert ray_executor.killed_for_memory(RuntimeError(f"The actor died unexpectedly.\n{monitor}"))
    assert not ray_executor.killed_for_memory(RuntimeError(f"The actor died unexpectedly.\n{causes}"))


def test_a_batch_that_ran_out_of_memory_is_halved_at_once_and_a_trial_given_up() -> None:
    def work(*seeds: int) -> Work:
        config = Configuration("c0", {}, {})
        return Work(Batch(batch_id("c0", seeds), config, seeds))

    halves = policy.after_failure(work(1, 2, 3), "memory", "no memory", retries=3)
    assert isinstance(halves, list)
    assert [half.batch.seeds for half in halves] == [(1,), (2, 3)]
    assert isinstance(policy.after_failure(work(1), "memory", "no memory", retries=3), FailedTrial)


def test_a_completion_says_how_it_failed() -> None:
    job = Job(Work(Batch("b", Configuration("c", {}, {}), (1,))), "store", "sweep", {})
    assert Completion(job, None, "gone").failure == "lost"
    assert Completion(job, None, "gone", exhausted=True).failure == "memory"
    assert Completion(job, Summary(None, error="boom")).failure == "error"
    assert Completion(job, Summary(None, error="boom", exhausted=True)).failure == "memory"


def test_a_batch_under_a_real_limit_is_halved_and_finishes(tmp_path: Path) -> None:
    """A process that may not address more than 400 MiB beside what it holds: a batch of 16 does not fit, 4 do."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.test_memory import limited; limited({str(tmp_path)!r}, {400 * MIB})"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["done"], said["failed"], said["size"]) == (16, [], 16)
    assert said["retried"] >= 1
    sweep = landsweep.open(tmp_path / "runs" / "greedy")
    trials, points = sweep.trials(), sweep.points()
    assert sorted(trials["seed"]) == list(range(16))
    assert set(trials["status"]) == {"done"}
    assert trials["attempt"].min() > 1
    assert set(points["kind"]) == {"minimum"}


GREEDY = """
import torch
from landsweep import Landscape


def loss(theta):
    return ((theta[0] - 1) ** 2 * torch.ones(300_000, dtype=theta.dtype)).mean() + theta[1] ** 2


def build():
    return Landscape.from_function(loss, 2, lambda g: torch.randn(2, generator=g, dtype=torch.float64))
"""


def greedy(folder: Path, text: str = GREEDY, **resources: Any) -> dict[str, Any]:
    """A sweep whose every evaluation takes 2.4 MB a row, several times over."""
    module = f"greedy_{uuid.uuid4().hex}"  # a module is imported once a process
    (folder / f"{module}.py").write_text(text)
    return {
        "name": "greedy",
        "seeds": 16,
        "landscape": {"name": f"{module}:build"},
        "training": {"optimizer": "gd", "steps": 3, "dtype": "float64"},
        "search": {"minima_iterations": 10},
        "measure": {"include": []},
        "resources": resources,
        "store": str(folder / "runs"),
        "tracking": {"uri": "none"},
        "code": [str(folder)],
    }


def limited(folder: str, beside: int) -> None:
    """Run the greedy sweep in this process, its address space limited to ``beside`` bytes more than it has now."""
    from landsweep.cluster import spec
    from landsweep.workers import batch, execution  # noqa: F401

    execution.prepare(1)
    planned = prepare(spec.validate(greedy(Path(folder), batch=16), "greedy"))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + beside, resource.RLIM_INFINITY))
    progress = runs.run(planned, InlineExecutor, lambda progress: None)
    said = {"done": progress.done, "failed": progress.failed, "retried": progress.retried, "size": planned.size}
    print(json.dumps(said))


def test_automatic_batches_keep_below_the_limit(tmp_path: Path) -> None:
    """64 trials would take several times the limit."""
    sweep = {**greedy(tmp_path), "seeds": 64}
    limit = 500 * MIB
    checked = sweep_of(64, {**sweep, "resources": {"memory": limit}})
    planned = prepare(checked)
    assert 1 < planned.size < 64
    assert planned.notes == ()
    assert planned.batch_bytes is not None and 0.4 * limit < planned.batch_bytes <= memory.SURE * limit
    probe = probed(planned.size, sweep)
    assert probe.measured < limit / MIB
    assert probe.within, probe


def test_a_plan_warns_of_a_batch_that_is_too_large(tmp_path: Path) -> None:
    planned = prepare(sweep_of(64, greedy(tmp_path, batch=64, memory="500MB")))
    assert planned.size == 64
    assert planned.batch_bytes is not None and planned.batch_bytes > 500 * 10**6
    (note,) = planned.notes
    assert "477 MiB" in note and f"{planned.batch_bytes / MIB:,.0f} MiB" in note


def test_a_landscape_that_cannot_be_differentiated_is_refused_by_the_plan(tmp_path: Path) -> None:
    sweep = greedy(tmp_path, GREEDY.replace("    return (", "    if theta[0] > 0: theta = -theta\n    return ("))
    with pytest.raises(LandscapeError, match="vmap"):
        prepare(sweep_of(2, sweep))


def test_a_landscape_without_forward_mode_is_reckoned_by_its_gradient() -> None:
    class Squared(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: torch.Tensor) -> torch.Tensor:
            return x * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * slope

    smooth = function(lambda theta: (theta * theta).sum())
    landscape = dataclasses.replace(smooth, loss=lambda theta: Squared.apply(theta).sum())
    known = measured(landscape)
    assert known.product == known.vector == 4 * known.gradient > 0
