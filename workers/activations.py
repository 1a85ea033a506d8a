"""Activations, the smooth ones with their first two derivatives, the same to the last bit wherever an element lies.

torch's sigmoid, silu, softplus and gelu take a scalar routine for the elements that fill no whole vector register, and
it rounds differently: a trial's last bits would depend on its place in the batch. tanh, exp, erfc and logsigmoid do
not, so the others are built from these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def _sigmoid(a: Tensor) -> Tensor:
    """1/(1 + e⁻ᵃ)."""
    return torch.exp(functional.logsigmoid(a))


def _softplus(a: Tensor) -> Tensor:
    """ln(1 + eᵃ); torch's own also jumps by 2e-9 at a = 20, where it goes over to a straight line."""
    return -functional.logsigmoid(-a)


def _silu(a: Tensor) -> Tensor:
    """a/(1 + e⁻ᵃ)."""
    return a * _sigmoid(a)


def _gelu(a: Tensor) -> Tensor:
    """a·Φ(a), Φ the normal distribution function."""
    return 0.5 * a * torch.erfc(-a / math.sqrt(2))


def _tanh_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.tanh(a)
    return 1 - t * t, -2 * t * (1 - t * t)


def _sigmoid_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    s, complement = _sigmoid(a), _sigmoid(-a)
    return s * complement, s * complement * (complement - s)


def _softplus_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    s = _sigmoid(a)
    return s, s * _sigmoid(-a)


def _silu_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    s, complement = _sigmoid(a), _sigmoid(-a)  # not 1 − s, which cancels
    return s * (1 + a * complement), s * complement * (2 + a * (complement - s))


def _gelu_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    square = (a * a).clamp_max(1e6)  # exp(−5e5) is 0; without the bound 0·∞ where a² overflows
    density = torch.exp(-0.5 * square) / math.sqrt(2 * math.pi)
    return 0.5 * torch.erfc(-a / math.sqrt(2)) + a * density, density * (2 - square)


Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]
#: name → (φ, a ↦ (φ′(a), φ″(a)))
ACTIVATIONS: dict[str, Activation] = {
    "tanh": (torch.tanh, _tanh_derivatives),
    "sigmoid": (_sigmoid, _sigmoid_derivatives),
    "softplus": (_softplus, _softplus_derivatives),
    "silu": (_silu, _silu_derivatives),
    "gelu": (_gelu, _gelu_derivatives),
}


def _relu_derivatives(a: Tensor) -> tuple[Tensor, Tensor]:
    return (a > 0).to(a.dtype), torch.zeros_like(a)


#: φ(a) with a kink at 0, where L has no Hessian; torch takes φ′(0) = 0
KINKED: dict[str, Activation] = {"relu": (torch.relu, _relu_derivatives)}
LINEAR = "linear"  # φ(a) = a


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """φ by its name: smooth, kinked or linear."""
    if name == LINEAR:
        return lambda a: a
    return {**ACTIVATIONS, **KINKED}[name][0]


def pulled_back(name: str, gradient: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """φ′(a) ∘ g, where both a and φ(a) are at hand."""
    if name == LINEAR:
        return gradient
    if name == "tanh":
        return torch.ops.aten.tanh_backward(gradient, after)  # type: ignore[no-any-return]
    return gradient * {**ACTIVATIONS, **KINKED}[name][1](before)[0]
