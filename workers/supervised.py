"""Landscapes of supervised learning: a model, a training set, a test set, a loss and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import (
    Batched,
    Descent,
    Landscape,
    Scalar,
    Supervision,
    samples_at_once,
    samples_of_products,
)

Model = Callable[[Tensor, Tensor], Tensor]  # (θ (n,), inputs (N, d)) → outputs (N, c)
#: (thetas (B, n), inputs (N, …), targets (N, …), indices (B, b), loss) → ∇ of each row's mean loss (B, n)
Gradient = Callable[[Tensor, Tensor, Tensor, Tensor, str], Tensor]
#: (thetas (B, n), inputs (N, …), targets (N, …), loss) → what moves them by steps of SGD; None where no program can
Descends = Callable[[Tensor, Tensor, Tensor, str], Callable[[Descent], None] | None]
#: (thetas (B, n), inputs (N, …), targets (N, …), loss) → v ↦ ∇²(mean loss)·v, (B, n, k) → (B, n, k)
Products = Callable[[Tensor, Tensor, Tensor, str], Callable[[Tensor], Tensor]]
#: (thetas (B, n), inputs (N, …), targets (N, …), loss) → the mean loss (B,) and its ∇ (B, n)
ValueAndGradient = Callable[[Tensor, Tensor, Tensor, str], tuple[Tensor, Tensor]]
#: (thetas (B, n), inputs (N, …), targets (N, …), labels (N,) if there are, loss) → mean losses (B,) and shares of wrong
#: labels (B,), both float64; None where nothing closed is at hand
Judged = Callable[[Tensor, Tensor, Tensor, Tensor | None, str], tuple[Tensor, Tensor] | None]
LOSSES = ("cross_entropy", "mse")


class _Split:
    """Inputs and targets of one split, kept in every dtype that was asked for."""

    def __init__(self, inputs: Tensor, targets: Tensor, loss: str) -> None:
        self.labels = targets if not targets.is_floating_point() else None
        self.inputs = inputs.to(torch.float64)
        self.targets = targets if targets.is_floating_point() else targets.to(torch.int64)
        self._loss = loss
        self._cache: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def get(self, dtype: torch.dtype, classes: int) -> tuple[Tensor, Tensor]:
        if dtype not in self._cache:
            targets = self.targets
            if self._loss == "mse" and not targets.is_floating_point():
                targets = functional.one_hot(targets, classes)
            targets = targets if self._loss == "cross_entropy" else targets.to(dtype)
            self._cache[dtype] = (self.inputs.to(dtype), targets)
        return self._cache[dtype]


def in_parts(model: Model, samples: int) -> Model:
    """``model`` evaluated on at most so many ``samples`` at once: what it holds between its layers does not grow with
    the data. Where it is differentiated, the sums are taken in parts (``Landscape.gradient``)."""

    def evaluate(theta: Tensor, inputs: Tensor) -> Tensor:
        if len(inputs) <= samples:
            return model(theta, inputs)
        return torch.cat([model(theta, part) for part in torch.split(inputs, samples)])

    return evaluate


def kept_bytes(model: Model, theta: Tensor, data: tuple[Tensor, Tensor], loss: str) -> int:
    """What the gradient at ``theta`` (n,) keeps of each sample for its way back."""
    inputs, targets = data[0][:1].to(torch.float64), data[1][:1]
    if loss == "mse" and not targets.is_floating_point():
        targets = torch.zeros_like(model(theta, inputs))
    theta = theta.detach().requires_grad_()

    def kept(samples: int) -> int:
        repeated = [torch.cat([tensor] * samples) for tensor in (inputs, targets)]
        return saved_bytes(lambda: data_loss(model(theta, repeated[0]), repeated[1], loss))

    return kept(2) - kept(1)


def saved_bytes(evaluate: Callable[[], Tensor]) -> int:
    """What autograd keeps of an evaluation for the way back, each piece of memory counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = evaluate()
    del result  # the graph held every piece until here, so no address was given out twice
    return sum(kept.values())


def data_loss(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """The mean loss: torch's cross_entropy on labels, or its mse_loss (mean over samples and outputs) on targets."""
    if loss == "cross_entropy":
        chosen = torch.log_softmax(outputs, dim=-1).gather(-1, targets.unsqueeze(-1))
        return -chosen.mean()
    return ((outputs - targets) ** 2).mean()


def _check_inputs(split: str, data: tuple[Tensor, Tensor]) -> None:
    inputs, targets = data
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise LandscapeError(f"{split} data: found {len(inputs)} inputs and {len(targets)} targets; give equally many")
    if not bool(torch.isfinite(inputs).all()):
        raise LandscapeError(f"{split} data: inputs hold NaN or infinity; clean them first")


def _check_targets(split: str, targets: Tensor, loss: str, outputs: tuple[int, ...]) -> None:
    """``outputs`` is the shape of the model's output for one sample."""
    if not targets.is_floating_point():
        lowest, highest = int(targets.min()), int(targets.max())
        if targets.dim() != 1 or lowest < 0 or highest >= outputs[-1]:
            found = f"labels {lowest} … {highest} of shape {tuple(targets.shape)}"
            raise LandscapeError(f"{split} data: found {found}; give (N,) labels 0 … {outputs[-1] - 1}, one per output")
    elif loss == "cross_entropy":
        raise LandscapeError(f"{split} data: cross_entropy takes integer labels, found {targets.dtype}")
    elif targets.shape[1:] != outputs:
        shapes = f"targets of shape {tuple(targets.shape[1:])} and outputs of shape {outputs}"
        raise LandscapeError(f"{split} data: found {shapes} per sample; mse compares equal shapes")
    elif not bool(torch.isfinite(targets).all()):
        raise LandscapeError(f"{split} data: targets hold NaN or infinity; clean them first")


def supervised_landscape(
    *,
    name: str,
    dim: int,
    model: Model,
    init: Callable[[torch.Generator], Tensor],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    loss: str,
    weight_decay: float,
    gradient: Gradient | None = None,
    descent: Descends | None = None,
    products: Products | None = None,
    value_and_gradient: ValueAndGradient | None = None,
    judged: Judged | None = None,
    **known: Any,
) -> Landscape:
    """L(θ) = mean loss over ``train`` + λ/2·‖θ‖², with λ = ``weight_decay``.

    ``train`` and ``test`` are (inputs (N, …), labels (N,) or targets (N, c)); ``gradient`` is a closed formula for
    minibatches, ``descent`` takes steps on them, ``products``, ``value_and_gradient`` and ``judged`` are closed forms
    for all samples. ``known`` are further fields of :class:`Landscape`. Raises LandscapeError for data that cannot be
    used.
    """
    if loss not in LOSSES:
        raise LandscapeError(f"loss: found {loss!r}; allowed are {', '.join(LOSSES)}")
    given = {"train": train, "test": test}
    for split, data in given.items():
        _check_inputs(split, data)
    splits = {"train": _Split(*train, loss), "test": _Split(*test, loss)}
    theta = init(torch.Generator().manual_seed(0)).to(train[0].device)
    with torch.no_grad():
        probe = model(theta, train[0][:1].to(torch.float64))
    classes = probe.shape[-1]
    for split, (_, targets) in given.items():
        _check_targets(split, targets, loss, tuple(probe.shape[1:]))
        splits[split].get(torch.float64, classes)  # made inside transforms of torch.func it would stay bound to them
    if gradient is not None:
        splits["train"].get(torch.float32, classes)
    sample_bytes = 2 * max(1, kept_bytes(model, theta, train, loss))
    model = in_parts(model, samples_at_once(sample_bytes))

    def loss_on(split: str) -> Callable[[Tensor], Tensor]:
        def evaluate(theta: Tensor) -> Tensor:
            inputs, targets = splits[split].get(theta.dtype, classes)
            return data_loss(model(theta, inputs), targets, loss)

        return evaluate

    def error_on(split: str) -> Callable[[Tensor], Tensor] | None:
        labels = splits[split].labels
        if labels is None:
            return None

        def evaluate(theta: Tensor) -> Tensor:
            inputs, _ = splits[split].get(theta.dtype, classes)
            return torch.ne(model(theta, inputs).argmax(-1), labels).to(torch.float64).mean()

        return evaluate

    train_loss = loss_on("train")

    def minibatch_loss(theta: Tensor, index: Tensor) -> Tensor:
        inputs, targets = splits["train"].get(theta.dtype, classes)
        return data_loss(model(theta, inputs[index]), targets[index], loss)

    def minibatch_gradient(thetas: Tensor, index: Tensor) -> Tensor:
        assert gradient is not None
        inputs, targets = splits["train"].get(thetas.dtype, classes)
        return gradient(thetas, inputs, targets, index, loss)

    def minibatch_descent(thetas: Tensor) -> Callable[[Descent], None] | None:
        assert descent is not None
        return descent(thetas, *splits["train"].get(thetas.dtype, classes), loss)

    def in_shares(dtype: torch.dtype) -> Iterator[tuple[float, Tensor, Tensor]]:
        whole = splits["train"].get(dtype, classes)
        for some, theirs in zip(*(torch.split(one, samples_of_products(sample_bytes)) for one in whole), strict=True):
            yield len(some) / len(whole[0]), some, theirs

    def data_products(thetas: Tensor) -> Iterator[tuple[float, Callable[[Tensor], Tensor]]]:
        assert products is not None
        for share, inputs, targets in in_shares(thetas.dtype):
            yield share, products(thetas, inputs, targets, loss)

    def data_value_and_gradient(thetas: Tensor) -> tuple[Tensor, Tensor]:
        assert value_and_gradient is not None
        value, slope = torch.zeros_like(thetas[:, 0]), torch.zeros_like(thetas)
        for share, inputs, targets in in_shares(thetas.dtype):
            some_value, some_slope = value_and_gradient(thetas, inputs, targets, loss)
            value.add_(some_value, alpha=share)
            slope.add_(some_slope, alpha=share)
        return value, slope

    def outputs(theta: Tensor) -> Tensor:
        inputs, _ = splits["train"].get(theta.dtype, classes)
        values = model(theta, inputs)
        return (torch.log_softmax(values, -1) if loss == "cross_entropy" else values).reshape(-1)

    train_error, test_loss, test_error = error_on("train"), loss_on("test"), error_on("test")

    def objective(theta: Tensor) -> Tensor:
        return train_loss(theta) + 0.5 * weight_decay * (theta * theta).sum()

    def closed(split: str, of: int, decay: float = 0.0) -> Batched:
        def evaluate(thetas: Tensor) -> Tensor | None:
            assert judged is not None
            found = judged(thetas, *splits[split].get(thetas.dtype, classes), splits[split].labels, loss)
            return None if found is None else found[of].to(thetas.dtype) + 0.5 * decay * (thetas * thetas).sum(1)

        return evaluate

    batched: dict[Scalar, Batched] = {}
    if judged is not None:
        batched = {objective: closed("train", 0, weight_decay), train_loss: closed("train", 0)}
        batched |= {test_loss: closed("test", 0)}
        batched |= {f: closed(s, 1) for f, s in ((train_error, "train"), (test_error, "test")) if f is not None}

    def separated(theta: Tensor) -> Tensor:
        return torch.eq(train_error(theta), 0) if train_error else theta.new_zeros((), dtype=torch.bool)

    train_split, test_split = ((split.inputs, split.targets) for split in splits.values())
    return Landscape(
        name=name,
        dim=dim,
        loss=objective,
        init=init,
        samples=len(train[0]),
        sample_bytes=sample_bytes,
        minibatch_loss=minibatch_loss,
        closed_minibatch_gradient=minibatch_gradient if gradient else None,
        closed_descent=minibatch_descent if descent else None,
        closed_products=data_products if products else None,
        closed_value_and_gradient=data_value_and_gradient if value_and_gradient else None,
        weight_decay=weight_decay,
        train_loss=train_loss,
        test_loss=test_loss,
        train_error=train_error,
        test_error=test_error,
        batched=batched,
        outputs=outputs,
        separable=separated if loss == "cross_entropy" and weight_decay == 0 else None,
        supervision=Supervision(model, train_split, test_split, loss),
        **known,
    )
