"""From a network and data to a landscape: what all models have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from landsweep.workers.execution import MINIMUM_ROWS
from landsweep.workers.landscape import CHUNK_BYTES, Field, Landscape
from landsweep.workers.measures.flatness import filter_places
from landsweep.workers.models.columns import ColumnHessian
from landsweep.workers.models.network import Network
from landsweep.workers.supervised import supervised_landscape

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
        filters=filter_places(block.shape for block in network.blocks),
        **known,
    )
    return landscape if landscape.closed_hessian else _with_columns(landscape, len(train[0]))


def _with_columns(landscape: Landscape, samples: int) -> Landscape:
    """With a dense Hessian of as many columns at once as fit a chunk of memory, for as few rows as there may be."""
    kept = landscape.sample_bytes // 2 * min(samples, landscape.chunk_samples)
    product = PRODUCT_FACTOR * (kept + 8 * landscape.dim)
    columns = min(landscape.dim, max(1, CHUNK_BYTES // (MINIMUM_ROWS * product)))
    cost = columns * product + 8 * 3 * landscape.dim**2
    hessian = ColumnHessian(landscape.hvp, columns)
    return dataclasses.replace(landscape, closed_hessian=hessian, hessian_bytes=cost)
