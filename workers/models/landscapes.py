"""From a network and data to a landscape: what all models have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from landsweep.workers.execution import MINIMUM_ROWS
from landsweep.workers.landscape import CHUNK_BYTES, Field, Landscape
from landsweep.workers.models.columns import ColumnHessian
from landsweep.workers.models.network import Network
from landsweep.workers.supervised import data_loss, supervised_landscape

Split = tuple[Tensor, Tensor]  # inputs (N, …), labels (N,) or targets (N, c)

#: A Hessian-vector product holds at most this many times what a gradient keeps for its way back: 1.3 to 3.9 measured,
#: the most for a long rnn.
PRODUCT_FACTOR = 4


def model_landscape(
    name: str,
    network: Network,
    train: Split,
    test: Split,
    *,
    loss: str,
    weight_decay: float,
    initialisation: str,
    init_scale: float,
    symmetries: list[Field],
    **known: Any,
) -> Landscape:
    """L(θ) = mean loss of ``network`` + λ/2·‖θ‖²; ``known`` are further fields of :class:`Landscape`.

    Its dense Hessian is made column by column unless ``known`` holds a closed one.
    """
    landscape = supervised_landscape(
        name=name,
        dim=network.dim,
        model=network,
        init=lambda generator: network.initialise(generator, initialisation, init_scale),
        train=train,
        test=test,
        loss=loss,
        weight_decay=weight_decay,
        symmetries=tuple(symmetries),
        kink_distance=network.kink_distance(train[0]),
        **known,
    )
    _convert_data(landscape, train[0].device)
    landscape = dataclasses.replace(landscape, sample_bytes=2 * kept_bytes(network, train, loss))
    return landscape if landscape.closed_hessian else _with_columns(landscape, network, train, loss)


def _convert_data(landscape: Landscape, device: torch.device) -> None:
    """Have the training set made float64 now: targets that are first made inside two transforms of ``torch.func`` stay
    bound to them, and cannot be used again."""
    theta = landscape.init(torch.Generator().manual_seed(0)).to(device)
    if landscape.minibatch_loss is not None:
        landscape.minibatch_loss(theta, torch.zeros(1, dtype=torch.int64, device=device))


def _with_columns(landscape: Landscape, network: Network, train: Split, loss: str) -> Landscape:
    """With a dense Hessian of as many columns at once as fit a chunk of memory, for as few rows as there may be."""
    product = product_bytes(network, train, loss)
    columns = min(landscape.dim, max(1, CHUNK_BYTES // (MINIMUM_ROWS * product)))
    cost = columns * product + 8 * 3 * landscape.dim**2
    hessian = ColumnHessian(landscape.loss, columns)
    return dataclasses.replace(landscape, closed_hessian=hessian, hessian_bytes=cost)


def product_bytes(network: Network, train: Split, loss: str) -> int:
    """A bound of what one Hessian-vector product holds, from what the gradient keeps for a further sample."""
    return PRODUCT_FACTOR * (kept_bytes(network, train, loss) * len(train[0]) + 8 * network.dim)


def kept_bytes(network: Network, train: Split, loss: str) -> int:
    """What the gradient of one network keeps of each sample for its way back."""
    theta = network.initialise(torch.Generator().manual_seed(0), "scaled", 0.1).requires_grad_()
    inputs = train[0][:1].to(dtype=torch.float64, device="cpu")
    targets = train[1][:1].cpu()
    if loss == "mse" and not targets.is_floating_point():
        targets = torch.zeros_like(network(theta, inputs))

    def kept(samples: int) -> int:
        repeated = [torch.cat([tensor] * samples) for tensor in (inputs, targets)]
        return saved_bytes(lambda: data_loss(network(theta, repeated[0]), repeated[1], loss))

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
