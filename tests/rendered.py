"""Markdown as GitHub's rules read it: elements, tables, text, and the HTML that was let in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

APART = "\u200b"
"""What keeps GitHub from linking: it is not seen."""

LINKED = re.compile(r"@\w|#\d|GH-\d|://|www\.|:[\w+-]+:", re.IGNORECASE)
"""What GitHub makes a mention, a reference, a link or an emoji of, in rendered text."""

HOSTILE = (
    "a | b || c\\|d \\",
    "`code` ``x",
    "<script>alert(1)</script><img src=x onerror=y> &lt; &amp; <!-- -->",
    "*a* **b** _c_ __d__ ~~e~~ $f$",
    "@everyone @org/team me@example.com",
    "see #123, GH-7, owner/name#4",
    "[text](https://example.com/a) ![image](x.png) [^1] [x]: http://y www.example.com",
    "# heading",
    "heading ##",
    "- item",
    "1. item",
    "---",
    "===",
    "```\ncode\n```\n\n</details>\n\n| x | y |\n|---|---|",
    "    indented\r\n\ttab",
    "\x00\x1b[31mred\x1b[0m \u202ebidi\u200b \udc80",
    ":bug: std::string::npos",
    "<https://example.com>",
)
"""Text that would be more than text if nobody took care."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What Markdown becomes.

    Attributes:
        kinds: The kinds of elements that are in it.
        html: What was HTML before.
        tables: The cells of each table, by rows: their text.
        texts: The text of all that holds some, in order.
    """

    kinds: frozenset[str]
    html: tuple[str, ...]
    tables: tuple[tuple[tuple[str, ...], ...], ...]
    texts: tuple[str, ...]


def rendered(markdown: str) -> Rendered:
    """Read Markdown."""
    tokens = _PARSER.parse(markdown)
    inner = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inner)}
    return Rendered(
        kinds=frozenset(kinds),
        html=tuple(token.content for token in (*tokens, *inner) if token.type.startswith("html_")),
        tables=tuple(_tables(tokens)),
        texts=tuple(text(token) for token in tokens if token.type == "inline"),
    )


def text(inline: Token) -> str:
    """Return what is read."""
    return "".join(child.content for child in inline.children or ()).replace(APART, "")


def links(markdown: str) -> list[str]:
    """Return what GitHub would link in the text."""
    tokens = _PARSER.parse(markdown)
    whole = ("".join(child.content for child in token.children or ()) for token in tokens)
    return [found[0] for each in whole for found in LINKED.finditer(each)]


def _tables(tokens: Iterable[Token]) -> list[tuple[tuple[str, ...], ...]]:
    tables: list[list[list[str]]] = []
    cell = False
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            cell = True
        elif token.type == "inline" and cell:
            tables[-1][-1].append(text(token))
            cell = False
    return [tuple(map(tuple, rows)) for rows in tables]
