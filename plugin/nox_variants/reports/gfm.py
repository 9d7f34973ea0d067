"""Parts of a document in GitHub-flavoured Markdown, each within the bytes it may take. Pure.

What goes into them has been escaped, or is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nox_variants.reports.escaping import escaped, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

SENTENCE = 1000
"""Characters of a name or a sentence of others that are shown."""

NAMES = 20
"""Names that are listed before it is said how many more there are."""


def brief(text: str) -> str:
    """Return text escaped, and cut off where it is far too long."""
    text = visible(text)
    return escaped(text if len(text) <= SENTENCE else f"{text[:SENTENCE]}...")


def named(names: Sequence[str], said: Callable[[str], str] = brief) -> str:
    """Return some names, and how many more there are.

    Args:
        names: All of them.
        said: What makes one harmless.
    """
    shown = ", ".join(map(said, names[:NAMES]))
    return f"{shown} and {more} more" if (more := len(names) - NAMES) > 0 else shown


def size(text: str) -> int:
    """Return the bytes that a line takes."""
    return len(text.encode()) + 1


def fitted(lines: Iterable[str], room: int) -> list[str]:
    """Return the first lines, as many as there is room for."""
    taken = []
    for line in lines:
        room -= size(line)
        if room < 0:
            break
        taken.append(line)
    return taken


def row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def head(columns: Sequence[str], numbers: Collection[str] = ()) -> list[str]:
    """Return the head of a table.

    Args:
        columns: Their headings.
        numbers: Those that are set to the right.
    """
    return [row(columns), row("---:" if name in numbers else "---" for name in columns)]


def unfolded_by(label: str) -> tuple[str, ...]:
    """Return what begins lines that a click unfolds; the empty line lets Markdown begin again."""
    return f"<details><summary>{label}</summary>", ""


FOLDED_END = ("", "</details>", "")
"""What ends them."""


def section(heading: str, lines: Sequence[str], room: int, what: str) -> list[str]:
    """Return lines below a heading, and how many had no room; nothing for no lines.

    Args:
        heading: Of the section.
        lines: Each a paragraph's, or a list's item.
        room: Bytes that they may take.
        what: What one of them is about, in the plural.
    """
    if not lines:
        return []
    shown = fitted(lines, room)
    left = len(lines) - len(shown)
    return [f"### {heading}", "", *shown, *([f"- and {left} more {what}"] if left else []), ""]
