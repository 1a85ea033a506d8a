"""What evaluations of a landscape allocate, measured on few samples and rows: the ground of memory predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from landsweep.workers import dense_native
from landsweep.workers.execution import MINIMUM_ROWS
from landsweep.workers.landscape import Landscape, Scalar
from landsweep.workers.models.columns import ColumnHessian

Batched = Callable[[Tensor], Any]  # of many θ (B, n)

SAMPLES = 256  # at most, on which evaluations are traced: fewer, and what is held of n would hide what is of samples
VECTORS = 5  # with which the products of one row are traced together
PRODUCT = 4.0  # what a product with the Hessian holds at most of most models, in gradients


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that tensors made inside the block hold: ``peak`` is the most at any moment.

    Workspaces inside a kernel are not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._held: dict[int, tuple[Any, int]] = {}  # storages that are alive, with their bytes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's compiler, which nothing here is compiled by, would be imported to be told to skip this: a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._held = {key: value for key, value in self._held.items() if not value[0].expired()}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._held.setdefault(reference.cdata, (reference, storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return result


@dataclass(frozen=True)
class Footprint:
    """Bytes in float64."""

    dim: int  # n
    samples: int  # N
    data: int  # the tensors of training and test set
    value: float  # one row's value, a sample
    gradient: float  # one row's value and gradient, a sample; of the whole objective where there are no samples
    product: float  # one row's product of the Hessian with one vector, likewise
    vector: float  # what each more vector adds to it
    hessian: float  # one row's temporaries of a whole Hessian
    hessian_rows: int  # rows that one chunk of Hessians takes
    chunk_rows: int  # rows that one chunk of other evaluations takes
    chunk_samples: int  # samples that it takes; 1 where there are none
    test_samples: int = 0  # samples that an evaluation on the test set takes


def measured(landscape: Landscape) -> Footprint:
    """The footprint of ``landscape``, traced on at most 256 samples and two rows: quick however large the data are.

    By tensor operations: a compiled program holds less, and a worker may have none.
    """
    with dense_native.tensor_operations():
        return _measured(landscape)


def _measured(landscape: Landscape) -> Footprint:
    gradient = _gradient(landscape)
    try:
        trace = _closed_products if landscape.closed_products else _products
        product, several = (trace(landscape, vectors) for vectors in (1, VECTORS))
        vector = max(0.0, (several - product) / (VECTORS - 1))
    except (RuntimeError, NotImplementedError):  # no forward mode: a closed form has to do, its gradient a measure
        product = vector = PRODUCT * gradient
    known = landscape.supervision
    splits = (known.train, known.test) if known else ()
    samples = max(1, min(landscape.samples, landscape.chunk_samples))
    return Footprint(
        dim=landscape.dim,
        samples=landscape.samples,
        data=sum(tensor.nbytes for split in splits for tensor in split),
        value=_value(landscape) if known else 0.0,
        gradient=gradient,
        product=product,
        vector=vector,
        hessian=_hessian(landscape, product * samples),
        hessian_rows=landscape.hessian_rows,
        chunk_rows=landscape.chunk_rows,
        chunk_samples=samples,
        test_samples=min(len(known.test[0]), landscape.chunk_samples) if known else 0,
    )


def _gradient(landscape: Landscape) -> float:
    """The bytes of one row's gradient and one more sample. By autograd: the first use of torch.func.grad imports
    torch's compiler, which takes a second."""

    def slope(loss: Scalar) -> Batched:
        def evaluate(thetas: Tensor) -> Any:
            thetas.requires_grad_()
            return torch.autograd.grad(vmap(loss)(thetas).sum(), thetas)

        return evaluate

    return _a_sample(landscape, slope)


def _thetas(landscape: Landscape, rows: int) -> Tensor:
    return landscape.init(torch.Generator().manual_seed(0)).to(torch.float64).expand(rows, -1).contiguous()


def _hessian(landscape: Landscape, product: float) -> float:
    """Of one row: as many products as are held at once, or what the closed form states."""
    columns = landscape.dim
    if isinstance(landscape.closed_hessian, ColumnHessian):
        columns = landscape.closed_hessian.columns
    elif landscape.closed_hessian is not None:
        return landscape.hessian_bytes
    return columns * product + 8 * landscape.dim**2


def _closed_products(landscape: Landscape, vectors: int) -> float:
    """The bytes of one row and sample of products with so many vectors, on as many samples as are taken at once."""
    assert landscape.closed_products is not None
    theta = _thetas(landscape, MINIMUM_ROWS)
    with Allocated() as allocated:
        share, product = next(iter(landscape.closed_products(theta)))
        product(theta.unsqueeze(2).expand(-1, -1, vectors))
    peak: int = allocated.peak
    return peak / (MINIMUM_ROWS * share * landscape.samples)


def _products(landscape: Landscape, vectors: int) -> float:
    """Likewise by differentiation, as ``Landscape.hvp`` does it where there is no closed form."""

    def products(loss: Scalar) -> Batched:
        def one(theta: Tensor, vector: Tensor) -> Tensor:
            return jvp(grad(loss), (theta,), (vector,))[1]  # type: ignore[no-any-return]

        return vmap(lambda theta: vmap(one, (None, 0))(theta, theta.new_ones(vectors, 1) * theta))

    return _a_sample(landscape, products)


def _value(landscape: Landscape) -> float:
    """The bytes of one more row and sample of L's values: what does not depend on θ is there once for all rows."""
    two, four = (_samples_of(landscape, vmap, rows) for rows in (MINIMUM_ROWS, 2 * MINIMUM_ROWS))
    return max(0.0, (four - two) / MINIMUM_ROWS)


def _a_sample(landscape: Landscape, evaluated: Callable[[Scalar], Batched]) -> float:
    """The bytes of one row and one more sample."""
    return _samples_of(landscape, evaluated, MINIMUM_ROWS) / MINIMUM_ROWS


def _samples_of(landscape: Landscape, evaluated: Callable[[Scalar], Batched], rows: int) -> float:
    """The bytes of one more sample in so many rows; of all where there are no samples."""
    partial, samples = landscape.minibatch_loss, min(SAMPLES, landscape.samples)
    if partial is None or samples < 2:
        return _peak(landscape, evaluated(landscape.loss), rows)
    device = landscape.init(torch.Generator().manual_seed(0)).device

    def on(count: int) -> Scalar:
        index = torch.arange(count, device=device)
        return lambda theta: partial(theta, index)

    few, many = (_peak(landscape, evaluated(on(count)), rows) for count in (samples // 2, samples))
    return max(0.0, (many - few) / (samples - samples // 2))


def _peak(landscape: Landscape, function: Batched, rows: int) -> int:
    theta = _thetas(landscape, rows)
    with Allocated() as allocated:
        function(theta)
    peak: int = allocated.peak
    return peak
