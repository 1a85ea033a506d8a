"""Initialisations by name: what each draws for a weight, as a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """One tensor of θ: a weight, which is drawn, or a bias or multiplier, which starts at a constant."""

    name: str
    shape: tuple[int, ...]  # a weight's: (out, in, …); what follows is the kernel's window
    constant: float | None = None  # where a bias (0) or a multiplier (1) starts; None: a weight
    damping: float = 1.0  # the factor of ``fixup``

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Inputs of one unit: in · window."""
        return math.prod(self.shape[1:])

    @property
    def fan_out(self) -> int:
        """Units that one input reaches: out · window."""
        return self.shape[0] * math.prod(self.shape[2:])


Draw = Callable[[Block, torch.Generator, float], Tensor]  # (block, generator, scale) → float64 of the block's size


def _normal(block: Block, generator: torch.Generator, deviation: float) -> Tensor:
    return deviation * torch.randn(block.size, generator=generator, dtype=torch.float64)


def _uniform(block: Block, generator: torch.Generator, deviation: float) -> Tensor:
    """Uniform with the standard deviation given: in ±√3 · deviation."""
    draw = (2 * torch.rand(block.size, generator=generator, dtype=torch.float64) - 1) * math.sqrt(3)
    return deviation * draw


def _xavier(block: Block) -> float:
    return math.sqrt(2 / (block.fan_in + block.fan_out))


def xavier_normal(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """w ~ N(0, s²·2/(fan_in + fan_out)) (Glorot & Bengio 2010, equation 12: the variance)."""
    return _normal(block, generator, scale * _xavier(block))


def xavier_uniform(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """w ~ U[−a, a], a = s·√(6/(fan_in + fan_out)) (Glorot & Bengio 2010, equation 16)."""
    return _uniform(block, generator, scale * _xavier(block))


def he_normal(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """w ~ N(0, s²·2/fan_in) (He, Zhang, Ren & Sun 2015, equation 10)."""
    return _normal(block, generator, scale * math.sqrt(2 / block.fan_in))


def he_uniform(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """w ~ U[−a, a], a = s·√(6/fan_in): the variance of ``he_normal`` (He, Zhang, Ren & Sun 2015)."""
    return _uniform(block, generator, scale * math.sqrt(2 / block.fan_in))


def orthogonal(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """W = s·Q, Q (out, fan_in) uniform among matrices with QᵀQ = I or QQᵀ = I, whichever can be (Saxe, McClelland &
    Ganguli 2014, section 3): the QR decomposition of a Gaussian matrix with diag(R) > 0 (Mezzadri 2007).
    """
    rows, columns = block.shape[0], block.fan_in
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    weight: Tensor = scale * (q if rows >= columns else q.mT)
    return weight.reshape(-1)


def scaled(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """w ~ N(0, s²), whatever the layer's size."""
    return _normal(block, generator, scale)


def uniform_cube(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """θ ~ U[−s, s]ⁿ, biases and multipliers included: random starts that know nothing of the layers."""
    return (2 * torch.rand(block.size, generator=generator, dtype=torch.float64) - 1) * scale


def fixup(block: Block, generator: torch.Generator, scale: float) -> Tensor:
    """``he_normal`` times the block's damping: L^(−1/2) in the first layer of each of the L residual branches, 0 in
    their second and in the classifier, 1 elsewhere (Zhang, Dauphin & Ma 2019, section 3.2, with m = 2).
    """
    return block.damping * he_normal(block, generator, scale)


INITIALISATIONS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (xavier_normal, xavier_uniform, he_normal, he_uniform, orthogonal, scaled, uniform_cube, fixup)
}


def drawn(block: Block, generator: torch.Generator, scheme: str, scale: float) -> Tensor:
    """The block's initial values (size,), float64: drawn by ``scheme``, or its constant."""
    if block.constant is not None and scheme != "uniform_cube":
        return torch.full((block.size,), block.constant, dtype=torch.float64)
    return INITIALISATIONS[scheme](block, generator, scale)
