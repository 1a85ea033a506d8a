"""The sweep file: read, validated, compared.

``load`` gives a ``Sweep`` or raises one ``SweepFileError`` that lists every mistake with its dotted key, what was
found, what is allowed and the nearest valid key. The sections are in ``settings``; the grid's cells, each validated
as the configuration that it makes, come from ``configurations``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from landsweep.cluster import grid as grids
from landsweep.cluster import settings, yaml_reader
from landsweep.cluster.changes import FREE, difference
from landsweep.cluster.configuration import Configuration, Settings
from landsweep.cluster.mistakes import Mistake, custom_error, custom_errors, found, has_password, mistakes_of, refusal
from landsweep.cluster.reference_settings import REFERENCES
from landsweep.cluster.sections import AsTuple, Section
from landsweep.workers.record import canonical_json

__all__ = [
    "FREE",
    "MAX_CONFIGURATIONS",
    "MAX_TRIALS",
    "SECTIONS",
    "Seeds",
    "Settings",
    "Sweep",
    "difference",
    "json_schema",
    "load",
    "validate",
    "warnings",
]

MAX_CONFIGURATIONS = 10**5
MAX_TRIALS = 10**7
#: The sections that make a configuration; a grid key lies in one of them.
SECTIONS = ("landscape", "training", "search", "measure")
_TAGS = {"landscape": "name", "training": "optimizer"}  # the key that says which settings its section has


class Seeds(Section):
    """The seeds ``start … stop − 1``; written as a count N for 0 … N − 1."""

    start: int = Field(default=0, ge=0, lt=2**62, description="first seed")
    stop: int = Field(ge=1, lt=2**62, description="one past the last seed")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.stop <= self.start:
            raise custom_error("stop", f"found {self.stop}; allowed: more than start, which is {self.start}")
        return self

    def __len__(self) -> int:
        return self.stop - self.start


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise custom_error("", f"found {value}; allowed: a positive integer N (seeds 0 … N−1), or {{start, stop}}")
        return {"start": 0, "stop": value}
    if not isinstance(value, (Mapping, Seeds)):
        raise custom_error("", f"found {found(value)}; allowed: a positive integer N, or a mapping with start and stop")
    return value


_SeedsInput = Annotated[int, Field(ge=1)] | Seeds


class Sweep(Settings):
    """One sweep file."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="folder of the results: a-z, 0-9, then also . _ -; at most 63 characters",
    )
    seeds: Annotated[Seeds, BeforeValidator(_seeds, json_schema_input_type=_SeedsInput)] = Field(
        description="a positive integer N for the seeds 0 … N−1, or {start: A, stop: B} for A … B−1"
    )
    grid: dict[str, Annotated[tuple[Any, ...], AsTuple]] = Field(
        default={},
        description="dotted key of landscape, training, search or measure → the list of its values; every combination "
        "is a configuration, its values in the place of what the sections say",
    )
    resources: settings.Resources = Field(default=settings.Resources(), description="what a batch may use")
    store: str = Field(default="./runs", min_length=1, description="folder of the results, or s3://bucket/prefix")
    tracking: settings.Tracking = Field(default=settings.Tracking(), description="where runs are logged")
    verdict: settings.Verdict = Field(default=settings.Verdict(), description="the hypothesis test")
    code: Annotated[tuple[str, ...], AsTuple] = Field(
        default=(), description="folders whose modules landscapes may name, importable on driver and workers"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """A key that the grid gives need not stand in its section."""
        axes = data.get("grid") if isinstance(data, Mapping) else None
        if not isinstance(axes, Mapping):
            return data
        usable = {key: values for key, values in axes.items() if isinstance(values, (list, tuple))}
        try:
            return grids.completed(data, {key: axis for key, axis in usable.items() if key.split(".")[0] in SECTIONS})
        except grids.NotAMapping:
            return data  # _cells_are_valid says what is wrong

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str) -> str:
        scheme, separator, rest = store.partition("://")
        if separator and (scheme != "s3" or not rest.strip("/")):
            raise custom_error("", f"found {found(store)}; allowed: a folder, or s3://bucket/prefix")
        if separator and ("@" in rest or has_password(store)):
            raise custom_error("", "found credentials in a location; allowed: s3://bucket/prefix, keys in AWS_*")
        return store

    @field_validator("grid")
    @classmethod
    def _axes_are_lists_of_distinct_values(cls, axes: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        mistakes = [(key, text) for key, values in axes.items() if (text := _axis_mistake(key, values))]
        if mistakes:
            raise custom_errors(mistakes)
        return axes

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        count = grids.size(self.grid)
        if count > MAX_CONFIGURATIONS:
            text = f"found {count:,} configurations; allowed: at most {MAX_CONFIGURATIONS:,}: shorten an axis"
            raise custom_error("grid", text)
        trials = count * len(self.seeds)
        if trials > MAX_TRIALS:
            text = f"found {trials:,} trials ({count:,} configurations); allowed: at most {MAX_TRIALS:,}: fewer seeds"
            raise custom_error("seeds", text)
        landscapes = {complete["landscape"]["name"] for complete, _ in self.configurations()}
        on_cpu = sorted(landscapes & set(REFERENCES))
        if self.resources.num_gpus > 0 and on_cpu:
            text = f"found {self.resources.num_gpus:g} with {on_cpu[0]}; allowed: 0, for it is computed on the CPU"
            raise custom_error("resources.num_gpus", text)
        return self

    def configurations(self) -> Sequence[tuple[dict[str, Any], dict[str, Any]]]:
        """For each cell of the grid its settings, complete with defaults, and its grid values as validated."""
        return self._configurations

    @cached_property
    def _configurations(self) -> Sequence[tuple[dict[str, Any], dict[str, Any]]]:
        base = {key: value for key, value in self.model_dump(exclude_unset=True).items() if key in SECTIONS}
        mistakes: dict[Mistake, str] = {}  # → the first cell that shows it
        result: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for cell in grids.cells(self.grid):
            try:
                complete = Configuration.model_validate(grids.overlay(base, cell)).model_dump(mode="json")
            except ValidationError as error:
                mistakes = {**dict(_cell_mistakes(error, cell)), **mistakes}
                continue
            except grids.NotAMapping as error:
                raise custom_error("grid", str(error)) from error
            identity = canonical_json(complete)
            if identity in result:
                text = f"the cell {_cell_text(cell)} makes the same configuration as another; remove one"
                raise custom_error("grid", text)
            result[identity] = complete, {key: grids.get(complete, key.split(".")) for key in cell}
        if mistakes:
            raise custom_errors([(path, text + note) for (path, text), note in mistakes.items()])
        return tuple(result.values())

    def canonical(self) -> dict[str, Any]:
        """The sweep as plain JSON-able values, complete with defaults; ``validate`` makes the same sweep of it.

        Keys that the grid replaces are left out of their sections, and so are the defaults of a section whose kind
        the grid chooses.
        """
        dump = self.model_dump(mode="json")
        result: dict[str, Any] = {"name": dump["name"], "seeds": dump["seeds"], **dump}
        given = self.model_dump(mode="json", exclude_unset=True)
        for section, tag in _TAGS.items():
            if f"{section}.{tag}" in self.grid:
                result[section] = given[section]
        for key in self.grid:
            result = grids.without(result, key.split("."))
        return result


def _axis_mistake(key: str, values: tuple[Any, ...]) -> str:
    if key.split(".")[0] not in SECTIONS:
        return f"addresses nothing in a configuration; allowed: a dotted key that starts with {', '.join(SECTIONS)}"
    if not values:
        return "found an empty list; allowed: at least one value, or remove the axis"
    try:
        texts = Counter(canonical_json(value) for value in values)
    except (TypeError, ValueError):
        return "found a value that is not finite or not plain; allowed: finite numbers, text, lists, mappings"
    twice = [text for text, count in texts.items() if count > 1]
    return f"found {twice[0]:.60} twice; allowed: distinct values: remove one" if twice else ""


def _cell_text(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={canonical_json(value):.40}" for key, value in cell.items())


def _cell_mistakes(error: ValidationError, cell: Mapping[str, Any]) -> list[tuple[Mistake, str]]:
    """The mistakes of one cell: at the grid's key where that brought the value, else with the cell that shows it."""
    result = []
    for path, text in mistakes_of(error, Configuration, settings.VARIANTS):
        by_grid = any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in cell)
        note = f" (in the cell {_cell_text(cell)})" if cell and not by_grid else ""
        result.append(((f"grid.{path}" if by_grid else path, text), note))
    return result


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Sweep:
    """The sweep of the file ``path`` with ``overrides`` (dotted key → YAML text) in the place of what it says.

    Raises ``SweepFileError`` with one message for everything that is wrong.
    """
    data = yaml_reader.read_file(Path(path))
    if not isinstance(data, dict):
        keys = ", ".join(name for name, field in Sweep.model_fields.items() if field.is_required())
        what = "an empty file" if data is None else found(data)
        raise refusal(str(path), [("", f"found {what}; allowed: a mapping with at least {keys} (`landsweep schema`)")])
    for key, text in (overrides or {}).items():
        data = _override(data, key, text, str(path))
    return validate(data, str(path))


def validate(data: Mapping[str, Any], where: str) -> Sweep:
    """The sweep of plain values, as ``canonical`` gives them; ``where`` opens the message of a ``SweepFileError``."""
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        mistakes = mistakes_of(error, Sweep, settings.VARIANTS)
    axes = data.get("grid") if isinstance(data.get("grid"), Mapping) else {}
    raise refusal(where, [(_origin(path, data, axes or {}), text) for path, text in mistakes])


def _origin(path: str, data: Mapping[str, Any], axes: Mapping[str, Any]) -> str:
    """``path``, or the grid's key where the section does not say it and the grid does."""
    for key in axes:
        if (path == key or path.startswith((f"{key}.", f"{key}["))) and not grids.has(data, key.split(".")):
            return f"grid.{path}"
    return path


def _override(data: dict[str, Any], key: str, text: str, where: str) -> dict[str, Any]:
    flag = f"--set {key}"
    parts = ["grid", key.removeprefix("grid.")] if key.startswith("grid.") else key.split(".")
    if not all(parts):
        raise refusal(flag, [("", "not a dotted key; allowed: section.key=value, as in training.lr=0.1")])
    if isinstance(data.get("grid"), Mapping) and key in data["grid"]:
        raise refusal(flag, [("", f"{where} has a grid axis of that name; set grid.{key}=[…] instead")])
    try:
        return grids.put(data, parts, yaml_reader.read_text(text, flag))
    except grids.NotAMapping as error:
        raise refusal(flag, [("", f"{error}; set it as a whole")]) from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of a sweep file, every key with its description, range and default."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Sweep.model_json_schema()}


def warnings(sweep: Sweep) -> list[str]:
    """What a valid sweep should make its reader think about."""
    result = []
    landscapes = [complete["landscape"] for complete, _ in sweep.configurations()]
    if any(one.get("loss") == "cross_entropy" and one.get("weight_decay") == 0 for one in landscapes):
        result.append(
            "landscape.weight_decay is 0 with cross_entropy: on separable data there is no finite minimum, and such "
            "trials end as not_converged; 1e-3 gives one"
        )
    if sweep.store.startswith("s3://") and sweep.tracking.uri is None:
        result.append("tracking is off: the store is on S3 and tracking.uri is not set")
    return result
