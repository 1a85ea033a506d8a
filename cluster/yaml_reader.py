"""YAML text to plain values, safely, and back.

The YAML 1.2 core scalars (``1e-8`` is a number, ``no`` is text, ``010`` is ten), and nothing that builds an object:
nodes are turned into dict, list, str, int, float, bool and None here, no constructor of the library runs. Refused:
duplicate keys, tags, keys that are not text, text with control characters, integers of more than ``MAX_DIGITS``, and
more than ``MAX_BYTES``, ``MAX_DEPTH`` or, aliases expanded, ``MAX_NODES``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from landsweep.cluster.printable import UNPRINTABLE
from landsweep.workers.errors import SweepFileError

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_NODES = 250_000
MAX_DIGITS = 300  # of an integer: what a float64 may have

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (the library's own name)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Quoted and escaped where a line break or control character would be folded or lost."""
        return self.represent_scalar(_TAG + "str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


def read_file(path: Path) -> Any:
    """The plain value of a YAML file; ``SweepFileError`` where it cannot be read or is not plain YAML."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise SweepFileError(f"{path}: no such file; name an existing sweep file (YAML)") from exc
    except OSError as exc:
        raise SweepFileError(f"{path}: cannot be read ({exc.strerror}); name a readable sweep file (YAML)") from exc
    if len(content) > MAX_BYTES:
        raise SweepFileError(f"{path}: larger than {MAX_BYTES:,} bytes; make it shorter")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SweepFileError(f"{path}: not text: byte {exc.start} is not UTF-8; name a sweep file (YAML)") from exc
    return read_text(text, str(path))


def read_text(text: str, where: str) -> Any:
    """The plain value of YAML ``text``; ``where`` opens the message of a ``SweepFileError``.

    >>> read_text("{lr: 1e-3, seeds: 010, name: no}", "example")
    {'lr': 0.001, 'seeds': 10, 'name': 'no'}
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as exc:
        raise SweepFileError(f"{where}: not YAML: {_reason(exc)}; mend the line or check its indentation") from exc
    except RecursionError as exc:
        raise SweepFileError(f"{where}: nested deeper than {MAX_DEPTH} levels; make it flatter") from exc
    return None if node is None else _Builder(where).build(node, "", 0)


def to_text(value: Any) -> str:
    """YAML that ``read_text`` reads as the same plain value, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _reason(exc: yaml.YAMLError) -> str:
    """The library's reason on one line, without the excerpt."""
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "cannot be parsed"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


class _Builder:
    """Nodes to plain values; counts what it builds, so that aliases cannot multiply without bound."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.nodes = 0

    def build(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise SweepFileError(f"{self.where}: more than {MAX_NODES:,} values once aliases (*name) are expanded")
        if depth > MAX_DEPTH:
            raise SweepFileError(f"{self.where}: nested deeper than {MAX_DEPTH} levels; make it flatter")
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.build(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and tag in ("null", "bool", "int", "float", "str"):
            return self._scalar(tag, node, path)
        text = f"found the YAML tag {node.tag!r:.80}, which would build an object; allowed: plain values: drop the tag"
        raise self._refuse(path, node, text)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _TAG + "str":
                text = f"found the key {key_node.value!r:.60}; allowed: keys that are text (quote it)"
                raise self._refuse(path, key_node, text)
            key = self._text(key_node, path)
            inside = f"{path}.{key}" if path else key
            if key in result:
                raise self._refuse(inside, key_node, "found this key twice; allowed: once: remove one of the two")
            result[key] = self.build(value_node, inside, depth + 1)
        return result

    def _scalar(self, tag: str, node: yaml.ScalarNode, path: str) -> Any:
        text = self._text(node, path)
        if tag == "int" and len(text) > MAX_DIGITS:
            raise self._refuse(
                path, node, f"found {len(text):,} digits; allowed: at most {MAX_DIGITS}: round the number"
            )
        try:
            return _convert(tag, text)
        except ValueError:
            raise self._refuse(path, node, f"found {text!r:.60} under the tag {node.tag!r}; drop the tag") from None

    def _text(self, node: yaml.ScalarNode, path: str) -> str:
        """A scalar's text. Names, paths and grid values end up on terminals and in file names."""
        text: str = node.value
        wrong = UNPRINTABLE.search(text)
        if wrong:
            found = f"found the control character U+{ord(wrong[0]):04X} in {text!r:.60}; allowed: printable text"
            raise self._refuse(path, node, f"{found}: remove it")
        return text

    def _refuse(self, path: str, node: yaml.Node, text: str) -> SweepFileError:
        return SweepFileError(f"{self.where}: {path or 'the file'} (line {node.start_mark.line + 1}): {text}")


def _convert(tag: str, text: str) -> Any:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if tag == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
