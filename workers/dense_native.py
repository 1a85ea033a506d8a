"""Fully connected nets by a program of our own: ``native/dense.cpp`` does in a core's cache what ``dense_gradient``
does by a dozen tensor operations."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from landsweep.workers import compiled
from landsweep.workers.activations import LINEAR
from landsweep.workers.architecture import Architecture
from landsweep.workers.landscape import Descent

_ACTIVATIONS = {LINEAR: 0, "tanh": 1, "relu": 2, "sigmoid": 3, "silu": 4}
_LOSSES = {"cross_entropy": 0, "mse": 1}
_SUFFIXES = {torch.float32: "float32", torch.float64: "float64"}


_forbidden = ContextVar("forbidden", default=False)


@contextmanager
def tensor_operations() -> Iterator[None]:
    """Inside, no program serves: as on a machine without a compiler."""
    token = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(token)


def serves(network: Architecture, thetas: Tensor) -> bool:
    """Whether there is a program for nets like this, where ``thetas`` are."""
    known = network.activation in _ACTIVATIONS and thetas.dtype in _SUFFIXES and thetas.device.type == "cpu"
    return known and not _forbidden.get() and compiled.library("dense") is not None


def gradient(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, index: Tensor, loss: str
) -> Tensor:
    """∇ of the mean loss of each net on the samples of its ``index``: thetas (B, n), inputs (N, d), targets (N,) labels
    or (N, c), index (B, b) int64 → (B, n). Raises MemoryError."""
    found = torch.empty_like(thetas, memory_format=torch.contiguous_format)
    _evaluate(_Nets(network, thetas, inputs, targets, loss), index, found, None, None)
    return found


def descent(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
) -> Callable[[Descent], None] | None:
    """What moves ``thetas`` (B, n), contiguous, and the velocities in place by steps on the mean loss of minibatches,
    a net's steps one after the other in a core's cache: inputs (N, d), targets (N,) labels or (N, c); None where no
    program :func:`serves`. A net's numbers depend neither on the others nor on how its steps are divided among calls.
    """
    if not serves(network, thetas):
        return None
    nets, function = _Nets(network, thetas, inputs, targets, loss), _function("descend", thetas.dtype)

    def run(steps: Descent) -> None:
        """Raises ValueError for shapes that do not fit, MemoryError."""
        index = _checked(steps.index, len(thetas))
        numbers = [tensor.to(thetas.dtype).contiguous() for tensor in (steps.rates, steps.momentum, steps.decay)]
        rates, momentum, decay = numbers
        count, left = len(rates), index.shape[1]
        fits = thetas.is_contiguous() and steps.velocities.is_contiguous() and steps.velocities.dtype == thetas.dtype
        if not (fits and steps.velocities.shape == thetas.shape and (count - 1) * steps.size < left):
            shapes = [tuple(tensor.shape) for tensor in (thetas, steps.velocities, rates, index)]
            raise ValueError(f"θ, velocities, rates and indices of shapes {shapes}: {count} steps cannot be taken")

        def part(rows: slice) -> int:
            own = index[rows].data_ptr(), index.stride(0), steps.velocities[rows].data_ptr()
            rule = rates[:, rows].data_ptr(), rates.stride(0), momentum[rows].data_ptr(), decay[rows].data_ptr()
            return int(function(*nets.of(rows, left), *own, *rule, int(steps.nesterov), steps.size, count))

        _each(part, len(thetas))

    return run


def evaluate(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
) -> tuple[Tensor, Tensor]:
    """The mean loss of each net and its ∇, all on the same samples: thetas (B, n), inputs (N, d), targets (N,) labels
    or (N, c) → (B,) and (B, n) of θ's type. Raises MemoryError."""
    losses = torch.empty(len(thetas), dtype=torch.float64)
    found = torch.empty_like(thetas, memory_format=torch.contiguous_format)
    _evaluate(_Nets(network, thetas, inputs, targets, loss), None, found, losses, None)
    return losses.to(thetas.dtype), found


def judged(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, labels: Tensor | None, loss: str
) -> tuple[Tensor, Tensor] | None:
    """The mean loss of each net and the share of samples whose largest output is not at the label (NaN without labels),
    all on the same samples: thetas (B, n), inputs (N, d), targets (N,) labels or (N, c), labels (N,) → (B,), (B,)
    float64; None where no program :func:`serves`. Raises MemoryError."""
    if not serves(network, thetas):
        return None
    losses, wrong = (torch.full((len(thetas),), torch.nan, dtype=torch.float64) for _ in range(2))
    _evaluate(
        _Nets(network, thetas, inputs, targets, loss, labels), None, None, losses, wrong if labels is not None else None
    )
    return losses, wrong


def products(
    network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str, vectors: Tensor
) -> Tensor:
    """∇² of the mean loss of each net times each of its vectors, all nets on the same samples: thetas (B, n), inputs
    (N, d), targets (N,) labels or (N, c), vectors (B, n, k) → (B, n, k), each product contiguous. Raises MemoryError.
    """
    nets, along = _Nets(network, thetas, inputs, targets, loss), vectors.mT.contiguous()
    found = torch.empty_like(along)
    function = _function("multiply", thetas.dtype)
    _each(
        lambda rows: function(*nets.of(rows), along[rows].data_ptr(), along.shape[1], found[rows].data_ptr()),
        len(thetas),
    )
    return found.mT


class Products:
    """:func:`products` of the same nets with one set of vectors after another, to the bit: from the second call on what
    a pass over the samples leaves is kept, 8 to 10 numbers a unit and sample."""

    def __init__(
        self, network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str
    ) -> None:  # fmt: skip
        self._given = network, thetas, inputs, targets, loss
        self._nets: _Nets | None = None
        self._held: int | None = None  # the address of what is kept

    def __call__(self, vectors: Tensor) -> Tensor:
        """(B, n, k) → (B, n, k), each product contiguous. Raises MemoryError."""
        if self._nets is None:
            self._nets = _Nets(*self._given)
            return products(*self._given, vectors)
        dtype, along = self._nets.thetas.dtype, vectors.mT.contiguous()
        if (
            along.shape != (len(self._nets.thetas), vectors.shape[2], self._nets.thetas.shape[1])
            or along.dtype != dtype
        ):
            raise ValueError(f"vectors of shape {tuple(vectors.shape)} and {vectors.dtype} for {len(along)} nets")
        if self._held is None:
            self._held = _function("hold", dtype)(*self._nets.of(slice(None)))
            if self._held is None:
                raise MemoryError("no memory for what a pass over the samples leaves")
            weakref.finalize(self, _function("release", dtype), self._held)
        found, function = torch.empty_like(along), _function("multiply_held", dtype)
        many, dim = along.shape[1:]

        def part(rows: slice) -> int:
            some = along[rows]
            return int(function(self._held, rows.start, len(some), some.data_ptr(), dim, many, found[rows].data_ptr()))

        _each(part, len(along))
        return found.mT


class _Nets:
    """Nets and samples as the program takes them; keeps what it points to."""

    def __init__(
        self, network: Architecture, thetas: Tensor, inputs: Tensor, targets: Tensor, loss: str,
        labels: Tensor | None = None,
    ) -> None:  # fmt: skip
        """``labels`` are those that wrong ones are counted by, where ``targets`` are none. Raises ValueError where
        shapes or types do not fit: memory is read where they say."""
        kept = labels if targets.is_floating_point() else targets
        fits = thetas.shape[1:] == (network.dim,) and inputs.shape == (len(targets), network.widths[0])
        same = inputs.dtype == thetas.dtype and (kept is None or (kept.dtype, len(kept)) == (torch.int64, len(inputs)))
        if not (fits and same):
            shapes = [tuple(tensor.shape) for tensor in (thetas, inputs, targets)]
            raise ValueError(f"a net of widths {network.widths} cannot be evaluated on shapes {shapes}")
        self.thetas, self._inputs, self._targets = thetas.contiguous(), inputs.contiguous(), targets.contiguous()
        self._labels = None if kept is None else kept.contiguous()
        self._widths = (ctypes.c_int64 * len(network.widths))(*network.widths)
        self._options = int(network.bias), _ACTIVATIONS[network.activation], _LOSSES[loss]
        self._depth = network.depth

    def of(self, rows: slice, count: int | None = None) -> tuple[Any, ...]:
        """Arguments for some of the nets, on ``count`` samples each: all, unless it is said."""
        some, values = self.thetas[rows], self._targets if self._targets.is_floating_point() else None
        return (
            len(some), some.data_ptr(), some.shape[1], self._depth, self._widths, *self._options,
            self._inputs.data_ptr(), _address(self._labels), _address(values),
            len(self._inputs) if count is None else count,
        )  # fmt: skip


def _evaluate(
    nets: _Nets, index: Tensor | None, found: Tensor | None, losses: Tensor | None, wrong: Tensor | None
) -> None:
    """Fill ``found`` (B, n), ``losses`` and ``wrong`` (B,), where they are wanted."""
    index = None if index is None else _checked(index, len(nets.thetas))
    function = _function("evaluate", nets.thetas.dtype)

    def part(rows: slice) -> int:
        own, count = (None, None) if index is None else (index[rows], index.shape[1])
        stride = 0 if own is None else own.stride(0)
        places = [_address(None if tensor is None else tensor[rows]) for tensor in (found, losses, wrong)]
        return int(function(*nets.of(rows, count), _address(own), stride, *places))

    _each(part, len(nets.thetas))


def _checked(index: Tensor, rows: int) -> Tensor:
    """Indices of so many nets, each net's contiguous."""
    if index.dtype != torch.int64 or len(index) != rows:
        raise ValueError(f"indices of shape {tuple(index.shape)} and {index.dtype} for {rows} nets")
    return index if index.stride(1) == 1 else index.contiguous()


def _each(part: Callable[[slice], int], rows: int) -> None:
    """``part`` of all rows, a share of them in each of torch's threads: ctypes lets the interpreter go."""
    size = -(-rows // max(1, min(torch.get_num_threads(), rows)))
    shares = [slice(first, first + size) for first in range(0, rows, max(1, size))]
    if any(map(part, shares) if len(shares) == 1 else _threads(len(shares)).map(part, shares)):
        raise MemoryError("no memory for the rows of a net")


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Any:
    function = getattr(compiled.library("dense"), f"{name}_{_SUFFIXES[dtype]}")
    number, whole, place = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    nets = [whole, place, whole, whole, place, number, number, number, place, place, place, whole]
    signatures = {
        "evaluate": ([*nets, place, whole, place, place, place], number),
        "descend": ([*nets, place, whole, place, place, whole, place, place, number, whole, whole], number),
        "multiply": ([*nets, place, whole, place], number),
        "hold": (nets, place),
        "multiply_held": ([place, whole, whole, place, whole, whole, place], number),
        "release": ([place], None),
    }
    function.argtypes, function.restype = signatures[name]
    return function
