"""``--where``: ``column op literal [and …]``, made into a pyarrow expression and never evaluated as code."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from landsweep.workers.errors import QueryError

_TERM = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(==|!=|<=|>=|<|>|=|\bin\b)\s*(.+?)\s*", re.DOTALL)
_AND = re.compile(r"""\s+and\s+(?=(?:[^'"]*(?:'[^']*'|"[^"]*"))*[^'"]*$)""", re.IGNORECASE)
_HELP = "write column op literal [and …], as in \"objective < 0.6 and kind == 'minimum'\""


def parse_where(text: str, schema: pa.Schema) -> pc.Expression:
    """The expression of ``text`` on a table of ``schema``.

    Operators: = == != < <= > >= and ``in [..]``. Literals: numbers, true, false, null and quoted text.

    >>> parse_where("seed < 3 and kind = 'saddle'", pa.schema([("seed", pa.int64()), ("kind", pa.string())]))
    <pyarrow.compute.Expression ((seed < 3) and (kind == "saddle"))>
    """
    expression = None
    for term in _AND.split(text.strip()):
        one = _term(term, schema)
        expression = one if expression is None else expression & one
    return expression


def check_columns(columns: Iterable[str], schema: pa.Schema) -> list[str]:
    """``columns`` if the table has them all. Raises QueryError with the nearest name."""
    for column in columns:
        if column not in schema.names:
            near = difflib.get_close_matches(column, schema.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(schema.names)}"
            raise QueryError(f"the table has no column {column!r}{hint}")
    return list(columns)


def _term(text: str, schema: pa.Schema) -> pc.Expression:
    match = _TERM.fullmatch(text)
    if match is None:
        raise QueryError(f"--where: {text!r} cannot be read; {_HELP}")
    column, operator, written = match.groups()
    check_columns([column], schema)
    value, kind, field = _literal(written), schema.field(column).type, pc.field(column)
    if value is None:
        if operator not in ("=", "==", "!="):
            raise QueryError(f"--where: {text!r} orders by null; use == null or != null")
        return field.is_null() if operator != "!=" else ~field.is_null()
    for one in value if isinstance(value, list) else [value]:
        _check_type(one, kind, text)
    if operator == "in":
        if not isinstance(value, list):
            raise QueryError(f"--where: {text!r}: after `in` comes a list, as in seed in [1, 2]")
        return field.isin(value)
    if isinstance(value, list):
        raise QueryError(f"--where: {text!r} compares with a list; use `in`")
    operations = {"=": pc.equal, "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal}
    operations |= {">": pc.greater, ">=": pc.greater_equal}
    return operations[operator](field, pc.scalar(value))


def _literal(text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] == "'" and "'" not in text[1:-1]:
        return text[1:-1]
    try:
        value = json.loads(text.replace("'", '"') if text.startswith("[") else text)
    except ValueError as exc:
        known = "numbers, true, false, null, 'text', [..]"
        raise QueryError(f"--where: {text!r} is no literal ({known}); {_HELP}") from exc
    if isinstance(value, dict) or (isinstance(value, float) and value != value):
        raise QueryError(f"--where: {text!r} is no literal; {_HELP}")
    return value


def _check_type(value: Any, kind: pa.DataType, text: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = (
        (pa.types.is_string(kind) and isinstance(value, str))
        or (pa.types.is_boolean(kind) and isinstance(value, bool))
        or ((pa.types.is_integer(kind) or pa.types.is_floating(kind)) and is_number)
    )
    if not fits:
        raise QueryError(f"--where: {text!r}: the column holds {kind}, found {value!r}")
