"""Random streams: every draw is a function of (key, stream, counter), so that it never depends on batch mates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

CACHED_BYTES = 2**19  # of the orders that are drawn at once on a CPU
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def key(configuration: str, seed: int, stream: str) -> int:
    """A 63-bit key for one trial's stream: sha256 of ``configuration:seed:stream``."""
    digest = hashlib.sha256(f"{configuration}:{seed}:{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def keys(configuration: str, seeds: Sequence[int], stream: str, device: torch.device | None = None) -> Tensor:
    """Keys of many trials. Returns int64 (B,)."""
    return torch.tensor([key(configuration, seed, stream) for seed in seeds], dtype=torch.int64, device=device)


def generator(configuration: str, seed: int, stream: str) -> torch.Generator:
    """A torch generator (CPU) for one trial's stream."""
    return torch.Generator().manual_seed(key(configuration, seed, stream))


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def bits(stream_keys: Tensor, counter: Tensor) -> Tensor:
    """splitmix64 of key + counter·φ (Steele, Lea & Flood 2014). Keys (B,), ``counter`` (m,) → int64 (B, m)."""
    z = stream_keys[:, None] + (counter[None, :] + 1) * _GOLDEN
    shifted = torch.empty_like(z)
    for by, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        torch.bitwise_right_shift(z, by, out=shifted)  # arithmetic: the mask makes it logical
        z.bitwise_xor_(shifted.bitwise_and_((1 << (64 - by)) - 1)).mul_(factor)
    return z


def uniform(stream_keys: Tensor, start: int, count: int) -> Tensor:
    """Uniform numbers strictly inside (0, 1), float64 (B, count): (52 bits of counters start … + ½)/2⁵²."""
    counter = torch.arange(start, start + count, device=stream_keys.device)
    drawn = _shift_right(bits(stream_keys, counter), 12).to(torch.float64)
    return torch.mul(drawn + 0.5, 2.0**-52)


def normal(stream_keys: Tensor, start: int, count: int) -> Tensor:
    """Standard normal numbers, float64 (B, count), by the inverse distribution function."""
    drawn: Tensor = torch.special.ndtri(uniform(stream_keys, start, count))
    return drawn


def permutation(stream_keys: Tensor, epoch: int, size: int) -> Tensor:
    """A random order of 0 … size−1 for each trial and epoch. Returns int64 (B, size).

    Numbers are sorted whose low bits hold their places: no two are equal, and sorting alone takes half the time of
    sorting with places.
    """
    if stream_keys.device.type != "cpu":
        return _permutation(stream_keys, epoch, size)
    found = stream_keys.new_empty(len(stream_keys), size)
    rows = max(1, CACHED_BYTES // (8 * size))
    for some, place in zip(torch.split(stream_keys, rows), torch.split(found, rows), strict=True):
        place.copy_(_permutation(some, epoch, size))
    return found


def _permutation(stream_keys: Tensor, epoch: int, size: int) -> Tensor:
    counter = torch.arange(epoch * size, (epoch + 1) * size, device=stream_keys.device)
    places = (1 << (size - 1).bit_length()) - 1
    drawn = bits(stream_keys, counter).bitwise_and_(~places).bitwise_or_(counter - epoch * size)
    if drawn.device.type == "cpu":
        drawn.numpy().sort(axis=1)  # by vector instructions, which torch's does not use
    else:
        drawn = torch.sort(drawn, dim=1).values
    return drawn.bitwise_and_(places)
