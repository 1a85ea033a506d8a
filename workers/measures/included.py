"""Which measures there are, which columns each fills, and all that are asked for at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.measures.capacity import margins, path_norm, quantile, spectral_norm
from landsweep.workers.measures.flatness import sharpness, sharpness_filter
from landsweep.workers.measures.sensitivity import fisher_trace, jacobian_norm, parameter_jacobian_norm

Measured = dict[str, Tensor]  # column → (P,)


def _sharpness(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    return {"sharpness": sharpness(landscape, thetas, keys)}


def _sharpness_filter(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    return {"sharpness_filter": sharpness_filter(landscape, thetas, keys)}


def _jacobian_norm(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    known = landscape.supervision
    return {} if known is None else {
        "jacobian_norm": jacobian_norm(known, thetas, known.train[0]),
        "test_jacobian_norm": jacobian_norm(known, thetas, known.test[0]),
    }  # fmt: skip


def _parameter_jacobian_norm(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    known = landscape.supervision
    return {} if known is None else {
        "parameter_jacobian_norm": parameter_jacobian_norm(known, thetas, known.train[0]),
        "test_parameter_jacobian_norm": parameter_jacobian_norm(known, thetas, known.test[0]),
    }  # fmt: skip


def _fisher_trace(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    known = landscape.supervision
    return {} if known is None else {
        "fisher_trace": fisher_trace(known, thetas, known.train[0]),
        "test_fisher_trace": fisher_trace(known, thetas, known.test[0]),
    }  # fmt: skip


def _path_norm(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    layers = landscape.layers
    return {} if layers is None else {"path_norm": path_norm(layers, thetas, landscape)}


def _spectral_norm(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    layers = landscape.layers
    return {} if layers is None else {"spectral_norm": spectral_norm(layers, thetas, landscape)}


def _margin(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Measured:
    """Smallest and 5 % quantile on the training set, that of the test set, and the quantile divided by Π‖W_l‖₂, as
    Bartlett, Foster & Telgarsky (2017) normalise margins, up to what all points of a data set share."""
    known = landscape.supervision
    if known is None or known.train[1].is_floating_point():
        return {}
    train, test = (margins(known, thetas, split, landscape) for split in (known.train, known.test))
    low = quantile(train)
    columns = {"margin": train.amin(1), "margin_quantile": low, "test_margin_quantile": quantile(test)}
    if landscape.layers is not None:
        columns["margin_normalised"] = low / spectral_norm(landscape.layers, thetas, landscape)
    return columns


#: name in ``measure.include`` → what fills its columns, none where the landscape has no such thing
MEASURES: dict[str, Callable[[Landscape, Tensor, Tensor], Measured]] = {
    "sharpness": _sharpness,
    "sharpness_filter": _sharpness_filter,
    "jacobian_norm": _jacobian_norm,
    "parameter_jacobian_norm": _parameter_jacobian_norm,
    "fisher_trace": _fisher_trace,
    "path_norm": _path_norm,
    "spectral_norm": _spectral_norm,
    "margin": _margin,
}


def measured(landscape: Landscape, thetas: Tensor, keys: Tensor, include: Iterable[str]) -> Measured:
    """The columns of the measures named in ``include`` at each row of ``thetas`` (P, n); NaN where θ is not finite.

    ``keys`` (P,) draw each point's random directions.
    """
    if len(thetas) == 0:
        return {}
    finite = torch.isfinite(thetas).all(1)
    places = torch.where(finite.unsqueeze(1), thetas, 0.0)  # LAPACK refuses NaN
    columns: Measured = {}
    for name in include:
        columns |= MEASURES[name](landscape, places, keys)
    return {name: torch.where(finite, values, torch.nan) for name, values in columns.items()}
