"""Norms that bound generalisation, and the margins that they are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape, Layers, Split, Supervision

QUANTILE = 0.05  # of the margins


def path_norm(layers: Layers, thetas: Tensor, landscape: Landscape) -> Tensor:
    """(Σ over paths from an input to an output of Π w_e²)^½ (Neyshabur, Tomioka & Srebro 2015, section 3, p = 2). (P,).

    By dynamic programming: x ← W_l∘W_l·x + b_l∘b_l from x = (1, …, 1), summed at the end; a bias is an edge from a unit
    that is always 1. It does not change when a unit's incoming weights grow and its outgoing ones shrink alike.
    """

    def one(theta: Tensor) -> Tensor:
        weights = layers(theta)
        x = torch.ones_like(weights[0][0][0])
        for weight, bias in weights:
            x = (weight.square() * x).sum(1)
            x = x if bias is None else x + bias.square()
        return x.sum().sqrt()

    return landscape.map(one, thetas)


def spectral_norm(layers: Layers, thetas: Tensor, landscape: Landscape) -> Tensor:
    """Π_l ‖W_l‖₂, a Lipschitz constant of a net whose activations have slopes ≤ 1 (Bartlett, Foster & Telgarsky 2017,
    the first factor of equation 1.2). (P,)."""

    def one(theta: Tensor) -> Tensor:
        return torch.stack([torch.linalg.svdvals(weight)[0] for weight, _ in layers(theta)]).prod()

    return landscape.map(one, thetas)


def margins(supervision: Supervision, thetas: Tensor, split: Split, landscape: Landscape) -> Tensor:
    """z_y − max_{j≠y} z_j of each sample, z the outputs and y the label: negative where misclassified. (P, N)."""
    inputs, labels = split

    def one(theta: Tensor) -> Tensor:
        outputs = supervision.model(theta, inputs)
        own = torch.nn.functional.one_hot(labels, outputs.shape[-1]).to(torch.bool)
        right = outputs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return right - torch.where(own, -torch.inf, outputs).amax(-1)

    return landscape.map(one, thetas)


def quantile(values: Tensor) -> Tensor:
    """The ⌈0.05·N⌉-th smallest of each row, the 5 % quantile without interpolation. (P, N) → (P,)."""
    return values.kthvalue(math.ceil(QUANTILE * values.shape[1]), dim=1).values
