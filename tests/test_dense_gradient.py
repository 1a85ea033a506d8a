"""Closed gradients of fully connected nets, by tensor operations and by the compiled program, against automatic
differentiation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.func import grad, vmap

from landsweep.workers import compiled, dense_native
from landsweep.workers.activations import ACTIVATIONS, KINKED, LINEAR
from landsweep.workers.architecture import Architecture
from landsweep.workers.dense_gradient import dense_gradient, dense_value_and_gradient
from landsweep.workers.landscape import Descent
from landsweep.workers.supervised import LOSSES, data_loss

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS_COMPILER = pytest.mark.skipif(compiled.found_compiler() is None, reason="no C++ compiler")
ROWS, SAMPLES = 5, 23  # more than a vector register holds, and no multiple of it
WIDTHS = [((3, 4), True), ((7, 5, 3), True), ((4, 6, 5, 2), False), ((8, 25, 18), True), ((16, 33, 9, 10), True)]


def case(
    network: Architecture, loss: str, dtype: torch.dtype, samples: int = SAMPLES
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Thetas, inputs, targets, and the indices of each row."""
    generator = torch.Generator().manual_seed(0)
    thetas = torch.randn(ROWS, network.dim, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2 * samples, network.widths[0], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, network.widths[-1], (2 * samples,), generator=generator)
    values = torch.randn(2 * samples, network.widths[-1], generator=generator, dtype=torch.float64)
    index = torch.stack([torch.randperm(2 * samples, generator=generator)[:samples] for _ in range(ROWS)])
    return thetas.to(dtype), inputs.to(dtype), labels if loss == "cross_entropy" else values.to(dtype), index


def by_autograd(network: Architecture, loss: str, *given: torch.Tensor) -> torch.Tensor:
    thetas, inputs, targets, index = given
    one = grad(lambda theta, x, y: data_loss(network(theta, x), y, loss))
    return vmap(one)(thetas, inputs[index], targets[index])


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest ‖g − g′‖/‖g′‖ of a row."""
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
@pytest.mark.parametrize(("widths", "bias"), WIDTHS)
def test_it_is_that_of_automatic_differentiation(
    widths: tuple[int, ...], bias: bool, activation: str, loss: str
) -> None:
    network = Architecture(widths, activation, bias)
    for samples in (1, SAMPLES, 700):  # 700 is more than one chunk
        given = case(network, loss, torch.float64, samples)
        wanted = by_autograd(network, loss, *given)
        found = dense_gradient(network, *given, loss)
        assert error(found, wanted) < 1e-13
        if samples == SAMPLES:
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
def test_single_precision_is_as_near_as_its_rounding(activation: str, loss: str) -> None:
    network = Architecture((64, 25, 10), activation)
    given = case(network, loss, torch.float32, 128)
    exact = by_autograd(network, loss, *(t.double() if t.is_floating_point() else t for t in given))
    assert error(dense_gradient(network, *given, loss), exact) < 1e-6


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
def test_values_and_gradients_on_all_samples(activation: str, loss: str) -> None:
    network = Architecture((7, 5, 3), activation)
    thetas, inputs, targets, _ = case(network, loss, torch.float64, 300)
    value, gradient = dense_value_and_gradient(network, thetas, inputs, targets, loss)
    wanted = vmap(lambda theta: data_loss(network(theta, inputs), targets, loss))(thetas)
    slope = vmap(grad(lambda theta: data_loss(network(theta, inputs), targets, loss)))(thetas)
    torch.testing.assert_close(value, wanted, rtol=1e-13, atol=0)
    assert error(gradient, slope) < 1e-13


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *KINKED, LINEAR])
def test_a_row_does_not_depend_on_its_mates(activation: str, dtype: torch.dtype) -> None:
    network = Architecture((7, 5, 3), activation)
    for loss in LOSSES:
        thetas, inputs, targets, index = case(network, loss, dtype)
        whole = dense_gradient(network, thetas, inputs, targets, index, loss)
        for rows in ([0, 1], [3, 2, 1], [4, 0]):
            alone = dense_gradient(network, thetas[rows], inputs, targets, index[rows], loss)
            assert torch.equal(alone, whole[rows])


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_and_alone(value: float) -> None:
    for activation in (*ACTIVATIONS, *KINKED, LINEAR):
        network = Architecture((7, 5, 3), activation)
        thetas, inputs, targets, index = case(network, "cross_entropy", torch.float32)
        clean = dense_gradient(network, thetas, inputs, targets, index, "cross_entropy")
        thetas[2, -1] = value  # the bias of an output
        found = dense_gradient(network, thetas, inputs, targets, index, "cross_entropy")
        assert not torch.isfinite(found[2]).all()
        others = [0, 1, 3, 4]
        assert torch.equal(found[others], clean[others])


@NEEDS_COMPILER
def test_threads_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, inputs, targets, index = case(network, "cross_entropy", torch.float32)
    one = dense_native.gradient(network, thetas, inputs, targets, index, "cross_entropy")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(dense_native.gradient(network, thetas, inputs, targets, index, "cross_entropy"), one)


@NEEDS_COMPILER
def test_strided_indices_and_wrong_labels() -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, inputs, labels, index = case(network, "cross_entropy", torch.float64)
    wide = torch.cat([index, index], 1)[:, : index.shape[1]]  # as a minibatch is part of an epoch's order
    torch.testing.assert_close(
        dense_native.gradient(network, thetas, inputs, labels, wide, "cross_entropy"),
        dense_native.gradient(network, thetas, inputs, labels, index, "cross_entropy"), rtol=0, atol=0,
    )  # fmt: skip


@NEEDS_COMPILER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_wrong_labels(dtype: torch.dtype) -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, inputs, labels, _ = case(network, "cross_entropy", dtype, 300)
    outputs = torch.stack([network(theta, inputs) for theta in thetas])
    wanted = (outputs.argmax(-1) != labels).double().mean(1)
    for loss, targets in (("cross_entropy", labels), ("mse", torch.nn.functional.one_hot(labels, 3).to(dtype))):
        found = dense_native.judged(network, thetas, inputs, targets, labels, loss)
        assert found is not None
        exact = torch.stack(
            [data_loss(z, targets.double() if loss == "mse" else targets, loss) for z in outputs.double()]
        )
        torch.testing.assert_close(found[0], exact, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)
        assert torch.equal(found[1], wanted)
    assert dense_native.judged(network, thetas, inputs, targets, None, "mse")[1].isnan().all()  # type: ignore[index]
    assert dense_native.judged(Architecture((7, 5, 3), "gelu"), thetas, inputs, targets, None, "mse") is None


def test_without_a_compiler_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiled.library.cache_clear()
    try:
        network = Architecture((7, 5, 3), "tanh")
        assert not dense_native.serves(network, torch.zeros(2, network.dim))
        assert not dense_native.serves(network, torch.zeros(2, network.dim))
    finally:
        compiled.library.cache_clear()
    assert [record.message[:15] for record in caplog.records] == ["no C++ compiler"]


@NEEDS_COMPILER
def test_a_source_that_does_not_compile_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "bad.cpp").write_text("int main( {")
    monkeypatch.setattr(compiled, "SOURCES", tmp_path)
    monkeypatch.setenv(compiled.FOLDER, str(tmp_path / "made"))
    assert compiled.library("bad") is None
    assert "cannot compile bad.cpp" in caplog.text


@NEEDS_COMPILER
def test_a_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(compiled, "SOURCES", tmp_path)
    monkeypatch.setenv(compiled.FOLDER, str(tmp_path / "made"))
    found = compiled.library("one")
    assert found is not None and found.one() == 1
    (made,) = (tmp_path / "made").iterdir()
    compiled.library.cache_clear()
    monkeypatch.setattr(compiled, "FLAGS", ("--never",))  # another identity: it would have to compile
    assert compiled.library("one") is None
    compiled.library.cache_clear()
    assert (tmp_path / "made").iterdir().__next__() == made


@NEEDS_COMPILER
def test_a_folder_that_others_may_write_to_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv(compiled.FOLDER, str(shared))
    assert compiled._folder() != shared
    shared.chmod(0o700)
    assert compiled._folder() == shared


@pytest.mark.skipif(compiled.found_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "bias"), [((7, 5, 3), True), ((4, 6, 5, 2), False), ((33, 30, 18), True)])
def test_steps_are_those_of_torch_optim(widths: tuple[int, ...], bias: bool, loss: str, nesterov: bool) -> None:
    """Each net with a momentum, a weight decay and learning rates of its own, the last minibatch ragged; to the bit
    however the steps are divided among calls and whichever nets are beside it."""
    network = Architecture(widths, "tanh", bias)
    starts, inputs, targets, index = case(network, loss, torch.float64)
    size, steps = 5, -(-SAMPLES // 5)
    rates = torch.linspace(0.05, 0.2, steps * ROWS, dtype=torch.float64).view(steps, ROWS)
    momentum, decay = (torch.linspace(low, high, ROWS, dtype=torch.float64) for low, high in ((0.5, 0.9), (0.0, 0.1)))

    def ours(rows: slice, *ends: int) -> torch.Tensor:
        thetas = starts[rows].clone()
        velocities, first = torch.zeros_like(thetas), 0
        run = dense_native.descent(network, thetas, inputs, targets, loss)
        assert run is not None
        for last in (*ends, steps):
            part = index[rows, first * size : last * size]
            run(Descent(velocities, part, size, rates[first:last, rows], momentum[rows], decay[rows], nesterov))
            first = last
        return thetas

    whole = ours(slice(None))
    assert torch.equal(ours(slice(None), 1, 3), whole)
    assert torch.equal(torch.cat([ours(slice(row, row + 1)) for row in range(ROWS)]), whole)
    for row in range(ROWS):
        theta = starts[row].clone().requires_grad_()
        options = {"momentum": float(momentum[row]), "weight_decay": float(decay[row]), "nesterov": nesterov}
        optimizer = torch.optim.SGD([theta], lr=1.0, **options)
        for step, some in enumerate(index[row].split(size)):
            optimizer.param_groups[0]["lr"] = float(rates[step, row])
            optimizer.zero_grad()
            data_loss(network(theta, inputs[some]), targets[some], loss).backward()
            optimizer.step()
        torch.testing.assert_close(whole[row], theta.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.skipif(compiled.found_compiler() is None, reason="no C++ compiler")
def test_steps_for_which_minibatches_are_missing_are_refused() -> None:
    network = Architecture((7, 5, 3), "tanh")
    thetas, inputs, targets, index = case(network, "mse", torch.float64)
    run = dense_native.descent(network, thetas, inputs, targets, "mse")
    assert run is not None
    ones = torch.ones(ROWS, dtype=torch.float64)
    steps = Descent(torch.zeros_like(thetas), index, SAMPLES, ones.expand(2, ROWS), ones, ones, False)
    with pytest.raises(ValueError, match="2 steps cannot be taken"):
        run(steps)
    speeds = steps.velocities
    for changes in (
        {"index": index[:2]},
        {"velocities": speeds[:2]},
        {"velocities": speeds.float()},
    ):
        with pytest.raises(ValueError, match="shape"):
            run(dataclasses.replace(steps, rates=steps.rates[:1], **changes))
