"""YAML with positions: plain values, where each of them stands, and YAML's traps refused.

Knows nothing of variants. YAML 1.1, as PyYAML reads it, turns ``no`` into a boolean and ``1:30``
into a number: where that would surprise, it is an error that says what to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from nox_variants.model import Location, Problem

if TYPE_CHECKING:
    from pathlib import Path

Keys = tuple[str | int, ...]
"""The way to a value: keys of mappings and indexes of lists."""

MOST_BYTES = 4 * 1024 * 1024
MOST_VALUES = 200_000
"""Values after aliases are followed: a file of nested aliases is refused, not unfolded."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_MOST_DEPTH = 50
_INDICATORS = "[{-?:"
"""Each collection takes one of these to begin (YAML 1.1, "Indicators")."""
_SAFE_DEPTH = 5000
"""A depth that the C composer, which recurses, stands for sure."""
_PLAIN_BOOLEANS = {"true", "false"}
_PLAIN_KEY = re.compile(r"[\w.:/+@*-]+")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,20}(_[0-9]{1,20}){0,9})")
"""What Python reads too, and quickly: YAML takes ``1_``, and numbers of any length."""
_FLOAT = re.compile(r"[-+]?(([0-9][0-9_]*)?\.[0-9_]*(e[-+][0-9]+)?|\.inf|\.nan)", re.IGNORECASE)
_KINDS = {"bool": "a boolean", "int": "a number", "float": "a number", "timestamp": "a date"}


@dataclass(slots=True)
class Document:
    """A file's values and where they stand.

    Attributes:
        file: The file, as the user named it.
        value: Plain Python values; None when the file cannot be read as YAML at all.
        problems: What is wrong with the YAML itself.
        nodes: The node of each value.
        key_nodes: The node of each key, by the way to its value.
        lines: Its text.
    """

    file: str
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    nodes: dict[Keys, yaml.Node] = field(default_factory=dict)
    key_nodes: dict[Keys, yaml.Node] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def location(self, keys: Keys, *, key: bool = False) -> Location:
        """Return where a value stands, or the nearest thing around it.

        Args:
            keys: The way to the value.
            key: Whether the key is meant, not its value.
        """
        if key and keys in self.key_nodes:
            return self.place(self.key_nodes[keys], keys)
        while keys and keys not in self.nodes:
            keys = keys[:-1]
        return self.place(self.nodes[keys], keys)

    def place(self, node: yaml.Node, keys: Keys) -> Location:
        """Return where a node stands."""
        mark = node.start_mark
        return Location(
            file=self.file,
            line=mark.line + 1,
            column=mark.column + 1,
            path=dotted(keys),
            text=self.lines[mark.line].strip() if mark.line < len(self.lines) else "",
        )


def dotted(keys: Keys) -> str:
    """Return a way as text: ``programs.hello-c.run[2]``."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{key!r}]"
    return text


def read(file: Path) -> Document:
    """Return what a file holds; what is wrong with it is among the problems."""
    name = str(file)
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return _refused(name, "no such file. `nox-variants init` writes a first one.")
    except OSError as error:
        return _refused(name, f"cannot be read: {error.strerror}.")
    if len(data) > MOST_BYTES:
        return _refused(name, f"is larger than {MOST_BYTES // 1024**2} MiB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _refused(name, "is not UTF-8 text.", line=line)
    return parse(text, name)


def parse(text: str, name: str) -> Document:
    """Return what a text holds.

    Args:
        text: YAML.
        name: The file that it stands in.
    """
    try:
        if deep := _too_deep(text):
            return _refused(name, "is nested too deeply.", line=deep)
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError as error:
        return _syntax_error(name, error)
    if node is None:
        return _refused(name, "is empty. `nox-variants init` writes a first one.")
    document = Document(name, lines=text.split("\n"))
    document.value = _Builder(document).build(node, (), 0)
    return document


def _too_deep(text: str) -> int:
    """Return the line where nesting gets too deep, or 0.

    Found without recursion: composing would overflow the stack.
    """
    if sum(map(text.count, _INDICATORS)) < _SAFE_DEPTH:
        return 0
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MOST_DEPTH:
                return int(event.start_mark.line) + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return 0


def _refused(name: str, text: str, *, line: int = 1, column: int = 1) -> Document:
    return Document(name, problems=[Problem(Location(file=name, line=line, column=column), text)])


def _syntax_error(name: str, error: yaml.YAMLError) -> Document:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "expected a single document" in str(error):
        said = "holds more than one document. Remove what follows '---'"
    else:
        said = f"is not valid YAML: {said}{_syntax_hint(said)}"
    return _refused(name, f"{said}.", line=line, column=column)


def _syntax_hint(said: str) -> str:
    if "undefined alias" in said or "did not find expected alphabetic" in said:
        return ". A word that starts with '*' is an alias in YAML: quote a glob, as in \"*musl\""
    if "cannot start any token" in said:
        return ". Indent with spaces, not with tabs, and quote what starts with @ or `"
    return ""


class _Builder:
    """Turns nodes into values, counting them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = document.nodes
        self._key_nodes = document.key_nodes
        self._left = MOST_VALUES

    def build(self, node: yaml.Node, keys: Keys, depth: int) -> Any:
        self._left -= 1
        self._nodes[keys] = node
        if depth > _MOST_DEPTH or self._left <= 0:
            if self._left >= 0:
                self._problem(node, keys, "is nested or aliased too deeply.")
                self._left = -1
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, depth)
        if isinstance(node, yaml.SequenceNode):
            children = enumerate(node.value)
            return [self.build(child, (*keys, at), depth + 1) for at, child in children]
        return self._scalar(node, keys, "text")

    def _mapping(self, node: yaml.MappingNode, keys: Keys, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, keys, "has a key that is no name.")
                continue
            if key_node.tag == f"{_TAG}merge":
                self._problem(key_node, keys, "has a merge key '<<', which is not supported.")
                continue
            name = str(key_node.value)
            inner = (*keys, name)
            if inner in self._key_nodes:
                first = self._key_nodes[inner].start_mark.line + 1
                self._problem(
                    key_node, inner, f"key {name!r} is there twice, first in line {first}."
                )
                continue
            self._key_nodes[inner] = key_node
            if key_node.tag != f"{_TAG}str":
                self._scalar(key_node, inner, "name")
            values[name] = self.build(value_node, inner, depth + 1)
        return values

    def _scalar(self, node: yaml.Node, keys: Keys, meant: str) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        match kind:
            case "str":
                return text
            case "null" if meant == "text":
                return None
            case "bool" if text.lower() in _PLAIN_BOOLEANS and meant == "text":
                return text.lower() == "true"
            case "int" if _DECIMAL.fullmatch(text):
                return int(text)
            case "float" if _FLOAT.fullmatch(text):
                return yaml.safe_load(text)
            case _:
                self._trap(node, keys, meant)
                return text

    def _trap(self, node: yaml.Node, keys: Keys, meant: str) -> None:
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            self._problem(node, keys, f"YAML reads {node.value or 'an empty key'} as nothing.")
        elif kind in _KINDS:
            quoted = f'"{node.value}"'
            self._problem(
                node,
                keys,
                f"YAML reads {node.value} as {_KINDS[kind]}. Quote it if the {meant} {quoted}"
                " is meant.",
            )
        else:
            self._problem(node, keys, f"has the unknown YAML tag {node.tag!r}.")

    def _problem(self, node: yaml.Node, keys: Keys, text: str) -> None:
        self._document.problems.append(Problem(self._document.place(node, keys), text))
