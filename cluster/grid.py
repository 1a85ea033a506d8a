"""The grid of a sweep file: dotted keys, and the cells that its axes span."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from landsweep.workers.record import canonical_json

Axes = Mapping[str, Sequence[Any]]


class NotAMapping(ValueError):
    """A dotted key leads through a value that is no mapping; ``str(error)`` says so."""


def size(axes: Axes) -> int:
    """The number of cells: the product of the axes' lengths, 1 without axes."""
    return math.prod(len(values) for values in axes.values())


def cells(axes: Axes) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, the last axis fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def overlay(base: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with each value of ``cell`` in the place of its dotted key, the shortest keys first.

    >>> overlay({"training": {"lr": 0.1, "steps": 5}}, {"training.lr": 0.2})
    {'training': {'lr': 0.2, 'steps': 5}}
    """
    result = dict(base)
    for key in sorted(cell, key=lambda key: key.count(".")):
        try:
            result = put(result, key.split("."), cell[key])
        except NotAMapping as error:
            raise NotAMapping(f"{key} addresses nothing: {error}") from error
    return result


def put(data: Mapping[str, Any], parts: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of ``data`` with ``value`` at the path ``parts``; ``NotAMapping`` where the path leads through a value."""
    if len(parts) == 1:
        return {**data, parts[0]: value}
    inner = data.get(parts[0])
    if inner is not None and not isinstance(inner, Mapping):
        raise NotAMapping(f"{parts[0]} is {inner!r:.60}, which has no keys")
    return {**data, parts[0]: put(inner or {}, parts[1:], value)}


def get(data: Mapping[str, Any], parts: Sequence[str]) -> Any:
    """The value at the path ``parts``; ``KeyError`` where there is none."""
    inner: Any = data
    for part in parts:
        if not isinstance(inner, Mapping):
            raise KeyError(part)
        inner = inner[part]
    return inner


def without(data: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` without the path ``parts``."""
    if len(parts) == 1:
        return {key: value for key, value in data.items() if key != parts[0]}
    inner = data.get(parts[0])
    return {**data, parts[0]: without(inner, parts[1:])} if isinstance(inner, Mapping) else dict(data)


def completed(base: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """``base`` with the first value of each axis where ``base`` has nothing: a key of the grid need not be repeated."""
    result = dict(base)
    for key in sorted(axes, key=lambda key: key.count(".")):
        parts = key.split(".")
        if axes[key] and not has(result, parts):
            result = put(result, parts, axes[key][0])
    return result


def has(data: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Whether there is a value at the path ``parts``."""
    try:
        get(data, parts)
    except KeyError:
        return False
    return True


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether every value is a number (true and false are none)."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def identity(value: Any) -> str:
    """One text for equal values, 1 and 1.0 alike."""
    return canonical_json(_floats(value))


def _floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _floats(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value
