"""Random streams: a draw is a function of key, stream and counter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from landsweep.workers import streams

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = st.integers(min_value=0, max_value=10**9)


def splitmix64(state: int) -> int:
    """Steele, Lea & Flood 2014, with Python's unbounded integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(SEEDS, st.integers(min_value=0, max_value=10**6))
def test_bits_are_splitmix64(seed: int, start: int) -> None:
    key = streams.key("configuration", seed, "stream")
    drawn = streams.bits(torch.tensor([key]), torch.arange(start, start + 3))[0].tolist()
    expected = [splitmix64((key + (start + i) * 0x9E3779B97F4A7C15) & (2**64 - 1)) for i in range(3)]
    assert [value % 2**64 for value in drawn] == expected


def test_published_splitmix64_outputs() -> None:
    drawn = streams.bits(torch.tensor([1234567]), torch.arange(3))[0].tolist()
    assert [v % 2**64 for v in drawn] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("bits", [0, 1, -1, -2, 2**63 - 1, -(2**63)])
def test_uniform_is_strictly_inside_the_interval(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "bits", lambda keys, counter: torch.tensor([[bits]]))
    keys = torch.tensor([0])
    assert 0 < float(streams.uniform(keys, 0, 1)) < 1
    assert math.isfinite(float(streams.normal(keys, 0, 1)))


def test_uniform_and_normal_distributions() -> None:
    keys = streams.keys("configuration", range(4), "stream")
    uniform, normal = streams.uniform(keys, 0, 50_000), streams.normal(keys, 0, 50_000)
    assert uniform.dtype == normal.dtype == torch.float64
    for row in range(4):  # fixed keys: the same p-values in every run
        assert stats.kstest(uniform[row].numpy(), "uniform").pvalue > 1e-3
        assert stats.kstest(normal[row].numpy(), "norm").pvalue > 1e-3
    n = normal.numel()
    moments = [float((normal**power).mean()) for power in (1, 2, 3, 4)]
    for moment, expected, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert abs(moment - expected) < 4 * math.sqrt(variance / n)
    lagged = float((normal[:, 1:] * normal[:, :-1]).mean())
    across = float((normal[0] * normal[1]).mean())
    assert abs(lagged) < 4 / math.sqrt(n)
    assert abs(across) < 4 / math.sqrt(n / 4)


@given(st.lists(SEEDS, min_size=1, max_size=6), st.integers(0, 50), st.integers(1, 40))
def test_permutation_is_one(seeds: list[int], epoch: int, size: int) -> None:
    order = streams.permutation(streams.keys("c", seeds, "order"), epoch, size)
    assert order.shape == (len(seeds), size)
    assert torch.equal(order.sort(dim=1).values, torch.arange(size).expand(len(seeds), size))


def test_permutations_are_equally_likely() -> None:
    order = streams.permutation(streams.keys("c", range(6000), "order"), 0, 3)
    counts = torch.unique(order, dim=0, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_epochs_have_their_own_order() -> None:
    keys = streams.keys("c", [1], "order")
    orders = {tuple(streams.permutation(keys, epoch, 20)[0].tolist()) for epoch in range(10)}
    assert len(orders) == 10


@given(st.lists(SEEDS, min_size=1, max_size=8, unique=True), st.data())
def test_draws_do_not_depend_on_batch_mates(seeds: list[int], chosen: st.DataObject) -> None:
    row = chosen.draw(st.integers(0, len(seeds) - 1))
    together, alone = (streams.keys("c", s, "stream") for s in (seeds, [seeds[row]]))
    assert torch.equal(streams.normal(together, 3, 5)[row], streams.normal(alone, 3, 5)[0])
    assert torch.equal(streams.permutation(together, 2, 9)[row], streams.permutation(alone, 2, 9)[0])
    assert torch.equal(streams.uniform(together, 0, 8)[row, 3:], streams.uniform(alone, 3, 5)[0])


def test_distinct_streams_differ() -> None:
    names = [("a", 1, "x"), ("a", 1, "y"), ("a", 2, "x"), ("b", 1, "x"), ("a", 11, "x"), ("a:1", 1, "x")]
    keys = {streams.key(*name) for name in names}
    assert len(keys) == len(names)
    assert all(0 <= key < 2**63 for key in keys)
    first, second = (torch.randn(3, generator=streams.generator("a", 1, s)) for s in ("x", "y"))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.randn(3, generator=streams.generator("a", 1, "x")))
