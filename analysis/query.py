"""``--where``: ``column op literal [and …]``, made into a pyarrow expression and never evaluated as code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from landsweep.workers.errors import QueryError

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'[^']*'|"[^"]*")
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<word>[A-Za-z_][\w.\-]*)
      | (?P<sign>==|!=|<=|>=|[<>=\[\],])
    )\s*""",
    re.VERBOSE,
)
_OPERATIONS = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_WORDS = {"true": True, "false": False, "null": None}
MAX_TERMS = 100  # joined by and: pyarrow nests them, and overflows the stack at some thousands
_HELP = (
    "write column op literal [and …] with one of = == != < <= > >= in, and numbers, true, false, null, 'text' or [..], "
    "as in \"objective < 0.6 and kind == 'minimum'\""
)


def parse_where(text: str, schema: pa.Schema) -> pc.Expression:
    """The expression of ``text`` on a table of ``schema``.

    Operators: = == != < <= > >= and ``in [..]``. Literals: numbers, true, false, null and quoted text.

    >>> parse_where("seed < 3 and kind = 'saddle'", pa.schema([("seed", pa.int64()), ("kind", pa.string())]))
    <pyarrow.compute.Expression ((seed < 3) and (kind == "saddle"))>
    """
    return _Parser(text, schema).expression()


def check_columns(columns: Iterable[str], schema: pa.Schema) -> list[str]:
    """``columns`` if the table has them all. Raises QueryError with the nearest name."""
    for column in columns:
        if column not in schema.names:
            near = difflib.get_close_matches(column, schema.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(schema.names)}"
            raise QueryError(f"the table has no column {column!r:.80}{hint}")
    return list(columns)


class _Parser:
    """Reads one term after the other; knows where it is."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text = text
        self.schema = schema
        self.place = 0

    def expression(self) -> pc.Expression:
        result, terms = self._term(), 1
        while self.place < len(self.text):
            terms += 1
            if terms > MAX_TERMS:
                raise QueryError(f"--where: more than {MAX_TERMS} terms; join fewer by and, or use in [..]")
            if self._take("word").lower() != "and":
                self._refuse(self.place)
            result = result & self._term()
        return result

    def _term(self) -> pc.Expression:
        begun, column, operator = self.place, self._take("word"), self._take("sign", "word")
        if operator not in ("in", *_OPERATIONS):
            self._refuse(begun)
        check_columns([column], self.schema)
        if operator == "in":
            return pc.field(column).isin([self._fitting(value, column) for value in self._list()])
        value = self._literal()
        if value is None:
            return self._null(column, operator)
        return _OPERATIONS[operator](pc.field(column), pc.scalar(self._fitting(value, column)))

    def _null(self, column: str, operator: str) -> pc.Expression:
        if operator not in ("=", "==", "!="):
            raise QueryError(f"--where: {self.text!r:.200} orders by null; use == null or != null")
        return ~pc.field(column).is_null() if operator == "!=" else pc.field(column).is_null()

    def _list(self) -> list[Any]:
        values: list[Any] = []
        if self._take("sign") != "[":
            self._refuse(self.place)
        if self._next("sign") == "]":
            self._take("sign")
            return values
        while True:
            values.append(self._literal())
            sign = self._take("sign")
            if sign == "]":
                return values
            if sign != ",":
                self._refuse(self.place)

    def _literal(self) -> Any:
        begun = self.place
        if self._next("number"):
            return _number(self._take("number"))
        if self._next("text"):
            return self._take("text")[1:-1]
        word = self._take("word")
        if word not in _WORDS:
            self._refuse(begun)
        return _WORDS[word]

    def _fitting(self, value: Any, column: str) -> Any:
        kind = self.schema.field(column).type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        fits = (
            (pa.types.is_string(kind) and isinstance(value, str))
            or (pa.types.is_boolean(kind) and isinstance(value, bool))
            or (numeric and isinstance(value, (int, float)) and not isinstance(value, bool))
        )
        if not fits:
            raise QueryError(f"--where: {self.text!r:.200}: the column {column} holds {kind}, found {value!r:.80}")
        return value

    def _next(self, *kinds: str) -> str | None:
        match = _TOKEN.match(self.text, self.place)
        return match[match.lastgroup] if match and match.lastgroup in kinds else None

    def _take(self, *kinds: str) -> str:
        token = self._next(*kinds)
        if token is None:
            self._refuse(self.place)
        match = _TOKEN.match(self.text, self.place)
        self.place = match.end() if match else self.place
        return token

    def _refuse(self, place: int) -> NoReturn:
        rest = self.text[place:].strip()
        where = f"{rest!r:.80} cannot be read" if rest else "it ends too early"
        raise QueryError(f"--where: found {self.text!r:.200}: {where}; {_HELP}")


def _number(text: str) -> int | float:
    """An integer where it is written as one and fits 64 bits."""
    short = len(text) < 20 and text.lstrip("+-").isdigit()
    return int(text) if short and abs(int(text)) < 2**63 else float(text)
