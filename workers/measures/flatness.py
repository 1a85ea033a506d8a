"""How much L rises around a point: at worst in a ball, and on average in directions as large as the filters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape

RADIUS = 0.05  # ρ, as Foret et al. 2021 train with
ASCENT = 20  # projected steps from each start
DIRECTIONS = 16  # filter-normalised ones, each taken both ways
SCALE = 0.1  # α: their length relative to the filters


def sharpness(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Tensor:
    """S = max_{‖v‖₂ ≤ ρ} L(θ+v) − L(θ), ρ = 0.05 (Foret, Kleiner, Mobahi & Neyshabur 2021, equation 1). (P,).

    A lower bound by projected gradient ascent on the sphere: from v = ρ·g/‖g‖ (their first-order solution, equation 2)
    and from a random v, for at a stationary point g is noise, 20 steps v ← ρ·u(v + tρ·u(∇L(θ+v))) with u(x) = x/‖x‖;
    t doubles where L rises, else the step is taken back and t quartered. Where L is quadratic and g = 0, the step with
    t → ∞ is power iteration on H, and S = ½ρ²·max(λ_max, 0). ``keys`` (P,) draw the random starts.
    """
    value, gradient = landscape.value_and_gradient(thetas)
    reached = [
        _ascended(landscape, thetas, RADIUS * _unit(start))
        for start in (gradient, streams.normal(keys, 0, thetas.shape[1]))
    ]
    return (torch.maximum(*reached) - value).clamp_min(0.0)  # v = 0 lies in the ball


def _ascended(landscape: Landscape, thetas: Tensor, step: Tensor) -> Tensor:
    """The highest L(θ+v) met on the way up from v = ``step`` (P, n). (P,)."""
    value, slope = landscape.value_and_gradient(thetas + step)
    length = torch.ones_like(value)
    for _ in range(ASCENT):
        proposal = RADIUS * _unit(step + RADIUS * length.unsqueeze(1) * _unit(slope))
        there, above = landscape.value_and_gradient(thetas + proposal)
        rose = there > value
        value, length = torch.where(rose, there, value), torch.where(rose, 2 * length, 0.25 * length)
        step, slope = (torch.where(rose.unsqueeze(1), new, old) for new, old in ((proposal, step), (above, slope)))
    return value


def _unit(vectors: Tensor) -> Tensor:
    """x/‖x‖ of each row, 0 for 0."""
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return unit


def sharpness_filter(landscape: Landscape, thetas: Tensor, keys: Tensor) -> Tensor:
    """The mean of L(θ ± α·d) − L(θ), α = 0.1, over 16 filter-normalised random directions d, each both ways. (P,).

    d is Gaussian, each filter d_f rescaled to d_f·‖θ_f‖/‖d_f‖, biases left where they are (Li, Xu, Taylor, Studer &
    Goldstein 2018, section 4): rescaling a filter does not change what is measured. To second order it is
    ½α²·mean(dᵀHd). ``keys`` (P,) draw the directions; a landscape without filters is one filter.
    """
    value, n = landscape.objective(thetas), thetas.shape[1]
    rise = torch.zeros_like(value)
    for number in range(1, DIRECTIONS + 1):  # counters from n on: the first n drew a start of ``sharpness``
        direction = filter_normalised(landscape.filters, streams.normal(keys, number * n, n), thetas)
        for sign in (SCALE, -SCALE):
            rise = rise + (landscape.objective(thetas + sign * direction) - value)
    return rise / (2 * DIRECTIONS)


def filter_normalised(filters: Tensor | None, directions: Tensor, thetas: Tensor) -> Tensor:
    """Each filter of ``directions`` (P, n) as long as that of ``thetas`` (P, n), 0 outside of filters.

    ``filters`` (F, w) holds each filter's places in θ, filled up with n where it is shorter; None: all of θ is one.
    """
    if filters is None:
        return torch.mul(_unit(directions), thetas.norm(dim=1, keepdim=True))
    places = filters.to(thetas.device)
    wanted, found = _lengths(thetas, places), _lengths(directions, places)
    ratio = (wanted / found.clamp_min(torch.finfo(found.dtype).tiny)).unsqueeze(2)  # (P, F, 1)
    scaled = torch.zeros_like(_extended(directions))
    scaled[:, places] = ratio * _extended(directions)[:, places]
    return scaled[:, :-1]


def _lengths(vectors: Tensor, places: Tensor) -> Tensor:
    """‖v_f‖ of each filter. (P, F)."""
    lengths: Tensor = _extended(vectors)[:, places].norm(dim=2)
    return lengths


def _extended(vectors: Tensor) -> Tensor:
    """With a column of zeros, to which the places that fill up a short filter point. (P, n + 1)."""
    return torch.cat([vectors, vectors.new_zeros(len(vectors), 1)], 1)


def filter_places(shapes: Iterable[tuple[int, ...]]) -> Tensor | None:
    """Places in θ of each filter, (F, w) filled up with n: the rows w[i, …] of every tensor of at least two dimensions;
    vectors (biases, multipliers) have none. ``shapes`` are those of the tensors that θ holds, in its order.

    >>> filter_places([(2, 3), (2,), (1, 2)]).tolist()
    [[0, 1, 2], [3, 4, 5], [8, 9, 10]]
    """
    places, offset = list[Tensor](), 0
    for shape in map(torch.Size, shapes):
        if len(shape) > 1:
            places += torch.arange(offset, offset + shape.numel()).view(shape[0], -1).unbind()
        offset += shape.numel()
    return torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=offset) if places else None
