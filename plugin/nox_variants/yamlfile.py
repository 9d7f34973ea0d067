"""YAML with positions: plain values, where each of them stands, and YAML's traps refused.

Knows nothing of variants. YAML 1.1, as PyYAML reads it, turns ``no`` into a boolean and ``1:30``
into a number: where that would surprise, it is an error that says what to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

Path_ = tuple[str | int, ...]

MOST_BYTES = 4 * 1024 * 1024
MOST_VALUES = 200_000
"""Values after aliases are followed: a file of nested aliases is refused, not unfolded."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MOST_DEPTH = 50
_PLAIN_BOOLEANS = {"true", "false"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the file.

    Attributes:
        path: Where, as keys and indexes.
        text: What, and what to do.
        line: Counted from 1; 0 when the path says it.
        column: Likewise.
        key: Whether the key is meant, not its value.
    """

    path: Path_
    text: str
    line: int = 0
    column: int = 0
    key: bool = False


@dataclass(slots=True)
class Document:
    """A file's values and where they stand.

    Attributes:
        value: Plain Python values; None when the file cannot be read as YAML at all.
        values: Line and column of each value, by path.
        keys: Line and column of each key, by the path of its value.
        problems: What is wrong with the YAML itself.
    """

    value: Any = None
    values: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: Path_, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of a path, or of the nearest thing around it."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))


def read(file: Path) -> Document:
    """Return what a file holds; what is wrong with it is among the problems."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return _refused("no such file. `nox-variants init` writes a first one.")
    except OSError as error:
        return _refused(f"cannot be read: {error.strerror}.")
    if len(data) > MOST_BYTES:
        return _refused(f"is larger than {MOST_BYTES // 1024**2} MiB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _refused("is not UTF-8 text.", line=line)
    return parse(text)


def parse(text: str) -> Document:
    """Return what a text holds."""
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        return _syntax_error(error)
    except RecursionError:
        return _refused("is nested too deeply.")
    if node is None:
        return _refused("is empty. `nox-variants init` writes a first one.")
    document = Document()
    document.value = _Builder(document).build(node, (), 0)
    return document


def _refused(text: str, *, line: int = 1, column: int = 1) -> Document:
    return Document(problems=[Problem((), text, line, column)])


def _syntax_error(error: yaml.YAMLError) -> Document:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    text = str(getattr(error, "problem", None) or error)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "undefined alias" in text:
        text += ". A word that starts with '*' is an alias in YAML: quote a glob, as in \"*musl\""
    elif "'\\t'" in text or "cannot start any token" in text and "\\t" in text:
        text += ". YAML is indented with spaces, not with tabs"
    elif "expected a single document" in text:
        text = "holds more than one YAML document: remove what follows '---'"
    return _refused(f"is not valid YAML: {text}.", line=line, column=column)


class _Builder:
    """Turns nodes into values, counting them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def build(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self._count += 1
        if depth > _MOST_DEPTH or self._count > MOST_VALUES:
            if self._count < 2 * MOST_VALUES:
                self._problem(node, path, "is nested or aliased too deeply")
                self._count = 2 * MOST_VALUES
            return None
        self._document.values.setdefault(path, _place(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.build(child, (*path, number), depth + 1)
                for number, child in enumerate(node.value)
            ]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            inner = (*path, key)
            if key in values:
                first = self._document.keys[inner][0]
                self._problem(key_node, inner, f"key {key!r} is there twice, first in line {first}")
                continue
            self._document.keys[inner] = _place(key_node)
            values[key] = self.build(value_node, inner, depth + 1)
        return values

    def _key(self, node: yaml.Node, path: Path_) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == f"{_TAG}str" or node.value not in {"", "null", "~"}:
                plain = node.tag == f"{_TAG}str" or self._harmless(node)
                if not plain:
                    self._trap(node, (*path, node.value), "name")
                return str(node.value)
        self._problem(node, path, "has a key that is no name")
        return None

    @staticmethod
    def _harmless(node: yaml.ScalarNode) -> bool:
        return node.tag in {f"{_TAG}int", f"{_TAG}float"} and ":" not in node.value

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool" if text.lower() in _PLAIN_BOOLEANS:
                return text.lower() == "true"
            case "int" if re.fullmatch(r"[-+]?[0-9_]+", text) and not re.match(
                r"[-+]?0[0-9]", text
            ):
                return int(text)
            case "float" if ":" not in text:
                return yaml.safe_load(text)
            case _:
                self._trap(node, path, "text")
                return text

    def _trap(self, node: yaml.Node, path: Path_, what: str) -> None:
        kind = node.tag.removeprefix(_TAG)
        words = {"bool": "a boolean", "int": "a number", "float": "a number", "timestamp": "a date"}
        if kind in words:
            quoted = f'"{node.value}"'
            self._problem(
                node,
                path,
                f"YAML reads {node.value} as {words[kind]}: quote it if the {what} {quoted} is meant",
            )
        else:
            self._problem(node, path, f"has the unknown YAML tag {node.tag!r}")

    def _problem(self, node: yaml.Node, path: Path_, text: str) -> None:
        line, column = _place(node)
        self._document.problems.append(Problem(path, f"{text}.", line, column))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
