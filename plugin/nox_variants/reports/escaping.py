"""Text of others, made harmless for where it goes: a terminal, Markdown, XML. Pure."""

from __future__ import annotations

import re

_APART = "&#8203;"
"""A zero-width space. GitHub looks for mentions, references, addresses and emoji in what it has
rendered, where an escaped ``@`` is a plain one again: only something between its parts helps."""

_LINKED = re.compile(
    r"(?<=@)|(?<=#)(?=\d)|(?<=GH)(?=-\d)|(?<=:)(?=//|[\w+-]+:)|(?<=www)(?=\.)", re.IGNORECASE
)
"""Where a mention, a reference, an address or an emoji comes apart."""

_MARKUP = str.maketrans({char: f"&#{ord(char)};" for char in r"\`*_[]<>&|~$#"})
"""What has a meaning anywhere in a line. Backslashes would not do: a table's cells are told apart
before they count, and inside of HTML they count for nothing."""

_OPEN_EMOJI = re.compile(rf":(?:[\w+-]|{re.escape('&#95;')})+$")
"""What a colon behind it would make an emoji of, in escaped text."""

_OPENING = re.compile(r"([0-9]*)([-+=.)])(?=[-=]*(?: |$))")
"""What begins a list or underlines a heading, at the start of a line."""

_NO_XML = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What XML 1.0 does not have, not even escaped (section 2.2, Char). To compile it takes 3 ms, which
only files of XML need."""


def clean(text: str, *, keep: str = "") -> str:
    r"""Return text with what cannot be seen, or steers a terminal, written out: ``\x1b[31m``.

    Args:
        text: Any text.
        keep: Characters that stay as they are: ends of lines, tabs.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def visible(text: str) -> str:
    r"""Return text in one line, with what cannot be seen written out: ``\x1b[31m``."""
    return clean(" ".join(text.split()))


def escaped(text: str) -> str:
    """Return text that GitHub's Markdown shows as it is: in a line, in a table's cell, in HTML.

    Nothing in it is a mark, a link, an image, a mention or an element; see :func:`visible` for
    white space and what cannot be seen.
    """
    apart = _APART.join(piece.translate(_MARKUP) for piece in _LINKED.split(visible(text)))
    if opening := _OPENING.match(apart):
        number, mark = opening.groups()
        return f"{number}&#{ord(mark)};{apart[opening.end() :]}"
    return apart


def colon(markdown: str) -> str:
    """Return escaped text with a colon behind it."""
    return f"{markdown}{_APART if _OPEN_EMOJI.search(markdown) else ''}: "


def for_xml(text: str) -> str:
    r"""Return text without characters that XML cannot hold: they are written out as ``\x1b``."""
    return re.sub(_NO_XML, lambda found: repr(found[0])[1:-1], text)
