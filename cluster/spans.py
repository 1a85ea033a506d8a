"""Sets of seeds as runs of consecutive ones: how a log of millions of trials is written and compared."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Run = tuple[int, int]  # start … stop − 1


@dataclass(frozen=True)
class Spans:
    """A set of seeds.

    >>> Spans.of([3, 1, 2, 9]) - Spans.of([2])
    Spans(runs=((1, 2), (3, 4), (9, 10)))
    """

    runs: tuple[Run, ...] = ()  # ascending, none empty, none touches another

    @classmethod
    def of(cls, seeds: Iterable[int]) -> Spans:
        """The set of ``seeds``, in any order."""
        return cls.joined((seed, seed + 1) for seed in seeds)

    @classmethod
    def joined(cls, runs: Iterable[Run]) -> Spans:
        """The union of ``runs``, in any order, overlapping or not."""
        merged: list[Run] = []
        for start, stop in sorted(runs):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], stop)
            elif start < stop:
                merged.append((start, stop))
        return cls(tuple(merged))

    @classmethod
    def union(cls, sets: Iterable[Spans]) -> Spans:
        return cls.joined(run for one in sets for run in one.runs)

    @classmethod
    def from_json(cls, value: Any) -> Spans:
        """What :meth:`to_json` wrote. Raises ValueError or TypeError for anything else."""
        pairs = [(entry, entry + 1) if isinstance(entry, int) else map(int, entry) for entry in value]
        runs = [(start, stop) for start, stop in pairs]
        if any(start >= stop for start, stop in runs):
            raise ValueError("a run of seeds that ends before it starts")
        return cls.joined(runs)

    def to_json(self) -> list[int | list[int]]:
        """Single seeds, and runs of more as [start, stop].

        >>> Spans.of([5, 0, 1, 2]).to_json()
        [[0, 3], 5]
        """
        return [start if stop == start + 1 else [start, stop] for start, stop in self.runs]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.runs)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __iter__(self) -> Iterator[int]:
        """Ascending."""
        return (seed for run in self.runs for seed in range(*run))

    def __contains__(self, seed: object) -> bool:
        if not isinstance(seed, int):
            return False
        place = bisect_right(self.runs, (seed, 2**63)) - 1
        return place >= 0 and seed < self.runs[place][1]

    def holds(self, seeds: np.ndarray) -> np.ndarray:
        """Which of ``seeds`` (N,) it holds. bool (N,)"""
        starts, stops = np.array([(-1, -1), *self.runs], dtype=np.int64).T
        held: np.ndarray = seeds < stops[np.searchsorted(starts, seeds, side="right") - 1]
        return held

    def __or__(self, other: Spans) -> Spans:
        return Spans.union((self, other))

    def __sub__(self, other: Spans) -> Spans:
        return Spans(tuple(_difference(self.runs, other.runs)))

    def cut(self, size: int) -> Iterator[Spans]:
        """Its parts between the multiples of ``size``, ascending; empty ones are left out.

        >>> [list(part) for part in Spans.joined([(2, 7)]).cut(4)]
        [[2, 3], [4, 5, 6]]
        """
        part: list[Run] = []
        for start, stop in _cut_runs(self.runs, size):
            if part and start // size != part[-1][0] // size:
                yield Spans(tuple(part))
                part = []
            part.append((start, stop))
        if part:
            yield Spans(tuple(part))

    def parts(self, size: int) -> int:
        """How many :meth:`cut` gives."""
        blocks = [(start // size, (stop - 1) // size) for start, stop in self.runs]
        shared = sum(before[1] == after[0] for before, after in pairwise(blocks))
        return sum(last - first + 1 for first, last in blocks) - shared


def _difference(runs: Sequence[Run], taken: Sequence[Run]) -> Iterator[Run]:
    place = 0
    for start, stop in runs:
        while place < len(taken) and taken[place][1] <= start:
            place += 1
        over = place
        while over < len(taken) and taken[over][0] < stop:
            if start < taken[over][0]:
                yield start, taken[over][0]
            start = taken[over][1]
            over += 1
        if start < stop:
            yield start, stop


def _cut_runs(runs: Iterable[Run], size: int) -> Iterator[Run]:
    for start, stop in runs:
        while start < stop:
            end = min(stop, (start // size + 1) * size)
            yield start, end
            start = end
