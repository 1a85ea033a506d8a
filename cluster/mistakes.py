"""A validation error of a sweep file as lines that a reader can act on: key, what was found, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from landsweep.workers.errors import SweepFileError

Mistake = tuple[str, str]  # dotted key, what was found and what is allowed
Variants = Mapping[str, Mapping[str, type[BaseModel]]]  # section → the models that it may be, by tag

MAX_LINES = 20
_CUSTOM = "mistakes"
_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_ALLOWED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a mapping (indented key: value lines)",
    "dict_type": "a mapping (indented key: value lines)",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
_SECRET = re.compile(r"://[^\s'\"]*@|((?:password|passwd|pwd|token|secret)\w*=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """``text`` without the user part of any URI and without passwords in a query.

    >>> masked("postgresql://me:hunter2@host/db")
    'postgresql://***@host/db'
    """
    return _SECRET.sub(lambda match: f"{match[1]}***" if match[1] else "://***@", text)


def has_password(uri: str) -> bool:
    """Whether a URI carries a password: ``user:password@`` or a secret in its query."""
    return bool(re.search(r"://[^\s/@]*:[^\s]*@", uri)) or any(match[1] for match in _SECRET.finditer(uri))


def found(value: Any) -> str:
    """``value`` as a message shows it: short, and with its type."""
    value = list(value) if isinstance(value, tuple) else value
    text = {None: "null", True: "true", False: "false"}.get(value) if _is_word(value) else repr(value)
    text = str(text) if len(str(text)) <= 60 else f"{str(text)[:57]}…"
    return text if _is_word(value) else f"{text} ({_KINDS.get(type(value), type(value).__name__)})"


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` or nothing.

    >>> nearest("momentun", ["momentum", "lr"])
    '; did you mean momentum?'
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def custom_error(key: str, text: str) -> PydanticCustomError:
    """An error to raise in a validator: ``key`` below the place of the validator."""
    return custom_errors([(key, text)])


def custom_errors(mistakes: Sequence[Mistake]) -> PydanticCustomError:
    summary = "; ".join(f"{key}: {text}" for key, text in mistakes).replace("{", "(").replace("}", ")")
    return PydanticCustomError(_CUSTOM, summary, {"mistakes": list(mistakes)})  # type: ignore[arg-type, unused-ignore]


def refusal(where: str, mistakes: Sequence[Mistake]) -> SweepFileError:
    """One message of all ``mistakes``, each on its own line, passwords masked."""
    lines = [f"{key}: {text}" if key else text for key, text in mistakes]
    if len(lines) == 1:
        return SweepFileError(masked(f"{where}: {lines[0]}"))
    shown = lines[:MAX_LINES] + [f"and {len(lines) - MAX_LINES} more"] * (len(lines) > MAX_LINES)
    return SweepFileError(masked("\n  ".join([f"{where}: {len(lines)} mistakes", *shown])))


def mistakes_of(error: ValidationError, model: type[BaseModel], variants: Variants) -> list[Mistake]:
    """The mistakes of a validation of ``model``, one for each key; ``variants`` names a section's models by tag."""
    reader = _Reader(model, variants)
    merged: dict[str, list[ErrorDetails]] = {}
    result: list[Mistake] = []
    for details in error.errors(include_url=False):
        place = reader.place(details["loc"])
        if details["type"] == _CUSTOM:
            mistakes = details["ctx"]["mistakes"]
            result += [(".".join(filter(None, (place.path, key))), text) for key, text in mistakes]
        elif details["type"] == "extra_forbidden":
            result.append((place.path, reader.unknown(place)))
        elif not _follows_from_items(details):
            merged.setdefault(place.path, []).append(details)
    result += [(path, _range(group, reader.place(group[0]["loc"]))) for path, group in merged.items()]
    return result


class _Place:
    """Where in the file a location of a validation error is."""

    def __init__(self, path: str, model: Any, key: str, description: str) -> None:
        self.path = path
        self.model = model  # the model that holds ``key``
        self.key = key
        self.description = description


class _Reader:
    """Follows the locations of validation errors through the models."""

    def __init__(self, model: type[BaseModel], variants: Variants) -> None:
        self.model = model
        self.variants = variants

    def place(self, location: Sequence[int | str]) -> _Place:
        """The dotted key of ``location``, without the tags of unions that pydantic puts in."""
        path: list[str] = []
        holder: Any = self.model
        current: Any = self.model  # the model at the end of the path, None below a plain value
        variants: Mapping[str, Any] | None = None
        description = ""
        for part in location:
            if isinstance(part, int):
                path[-1] += f"[{part}]"
            elif variants is not None and part in variants:
                current, variants = variants[part], None
            elif current is not None:
                holder = current
                path.append(part)
                field = holder.model_fields.get(part)
                description = field.description or "" if field else ""
                variants = self.variants.get(part) if holder is self.model else None
                current = None if variants or field is None else _model_of(field.annotation)
            elif path[-1] == "grid":
                path.append(part)
        return _Place(".".join(path), holder, path[-1] if path else "", description)

    def unknown(self, place: _Place) -> str:
        """The text for a key that its model does not have."""
        known = list(place.model.model_fields)
        hint = nearest(place.key, known) or self._elsewhere(place.key)
        section = place.path.split(".")[0]
        owners = [tag for tag, model in self.variants.get(section, {}).items() if place.key in model.model_fields]
        tags = [tag for tag, model in self.variants.get(section, {}).items() if model is place.model]
        if owners and tags:
            return (
                f"{tags[0]} has no such setting ({', '.join(owners)} has); allowed with {tags[0]}: {', '.join(known)}"
            )
        return f"unknown key{hint}; allowed: {', '.join(known)}"

    def _elsewhere(self, key: str) -> str:
        """Where a key that was put on the wrong level belongs."""
        for name, field in self.model.model_fields.items():
            inner = _model_of(field.annotation)
            models = [*self.variants.get(name, {}).values(), *([inner] if inner else [])]
            if any(key in model.model_fields for model in models):
                return f"; did you mean {name}.{key}?"
        return ""


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The one model of an annotation ``Model`` or ``Model | None``."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _range(group: Sequence[ErrorDetails], place: _Place) -> str:
    """What was found and what is allowed; a union's errors share one path and are joined by "or"."""
    if group[0]["type"] == "missing":
        return f"missing; give {place.description or 'a value'}"
    allowed = " or ".join(dict.fromkeys(_allowed(details) for details in group))
    value = group[0]["input"]
    hint = nearest(value, re.findall(r"'([^']+)'", allowed)) if isinstance(value, str) else ""
    if isinstance(value, str) and re.fullmatch(r"[-+0-9.eE]+|true|false", value):
        hint = "; write it without quotes"
    description = f" ({place.description})" if place.description else ""
    return f"found {found(value)}; allowed: {allowed}{description}{hint}"


def _follows_from_items(details: ErrorDetails) -> bool:
    """Whether a list is called too short only because its items are wrong, which is said of them."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _allowed(details: ErrorDetails) -> str:
    if details["type"] == "string_pattern_mismatch":
        return f"text that matches {details['ctx']['pattern']}"
    if details["type"] in _BOUNDS:
        bound = next(value for key, value in details["ctx"].items() if key in ("gt", "ge", "lt", "le"))
        return f"{_BOUNDS[details['type']]} {bound:g}"
    if details["type"] in ("too_short", "too_long"):
        few = details["type"] == "too_short"
        return f"a list of at {'least' if few else 'most'} {details['ctx']['min_length' if few else 'max_length']}"
    return _ALLOWED.get(details["type"]) or details["msg"].removeprefix("Input should be ")
