"""Differences of two runs as a short table, and below it what moved meanwhile. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from nox_variants.budgets import attribution, signed
from nox_variants.compare import Change
from nox_variants.model import Verdict
from nox_variants.reports import gfm, table
from nox_variants.reports.escaping import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.compare import Difference, Moved, Side
    from nox_variants.reports.table import Line

NOTHING = "Nothing changed."
"""What there is to say of no differences."""

LIMIT = 60_000
"""Bytes of Markdown: a comment on a pull request may have 65,536 characters."""

_NOTES = 200
"""Bytes kept for what is said of what was left out."""

PACKAGES = 10
"""Packages of an image that are named before it is said how many more moved."""

_COLUMNS = ("variant", "change", "before", "after", "difference")
_NUMBERS = ("before", "after")
_PACKAGE = "package "
_SHORT = {"image": len("sha256:") + 12, "source": 12}
"""Characters of a digest and of a commit, by the first word of what moved."""

_STYLES = {
    Change.BROKE: "bold red",
    Change.CAUSE: "red",
    Change.VANISHED: "yellow",
    Change.BIGGER: "yellow",
    Change.FIXED: "green",
    Change.SMALLER: "green",
    Change.APPEARED: "cyan",
}
_COUNTED = {
    Change.BROKE: "broke",
    Change.CAUSE: "with another cause",
    Change.FIXED: "fixed",
    Change.BIGGER: "bigger",
    Change.SMALLER: "smaller",
    Change.VANISHED: "vanished",
    Change.APPEARED: "appeared",
}
"""The words of the headline, in its order: verdicts, sizes, then the matrix itself."""

_RESIZED = {Change.BIGGER, Change.SMALLER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What moved, and the variants of which all of it is true: sentences, and their ids."""

    variants: tuple[str, ...]
    sentences: tuple[str, ...]


def headline(differences: Iterable[Difference]) -> str:
    """Return the counts in a line: ``2 broke, 1 fixed, 3 bigger (+4.2 MB), 1 appeared``."""
    counts: Counter[Change] = Counter()
    grown: Counter[Change] = Counter()
    for each in differences:
        counts[each.change] += 1
        grown[each.change] += sum(each.grown)
    parts = [
        f"{counts[change]} {words}" + (f" ({signed(grown[change])})" * (change in _RESIZED))
        for change, words in _COUNTED.items()
        if counts[change]
    ]
    return ", ".join(parts) or "nothing changed"


def lines(differences: Sequence[Difference]) -> list[Line]:
    """Return the table and what moved, for a terminal."""
    if not differences:
        return [((NOTHING, ""),)]
    cells = [tuple(map(visible, _cells(each))) for each in differences]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    made: list[Line] = [((_aligned(_COLUMNS, widths).rstrip(), "bold"),)]
    for each, texts in zip(differences, cells, strict=True):
        made.append(((_aligned(texts, widths).rstrip(), _STYLES[each.change]),))
    for group in groups(differences):
        made += [(), ((f"{gfm.named(group.variants, visible)}:", "bold"),)]
        made += [((f"  {visible(sentence)}", ""),) for sentence in group.sentences]
    return made


def markdown(differences: Sequence[Difference], *, limit: int = LIMIT) -> str:
    """Return the same in GitHub's Markdown, the least bad ones left out where it gets too long.

    Args:
        differences: The worst first.
        limit: Bytes that it may take.
    """
    if not differences:
        return f"{NOTHING}\n"
    head = [headline(differences), "", *gfm.head(_COLUMNS, _NUMBERS)]
    rows = [gfm.row(map(gfm.brief, _cells(each))) for each in differences]
    room = limit - sum(map(gfm.size, head)) - _NOTES
    shown = gfm.fitted(rows, room * 2 // 3)
    room -= sum(map(gfm.size, shown))
    below = _below(groups(differences), room)
    return "\n".join([*head, *shown, *_left(rows, shown, "differences"), *below, ""])


def groups(differences: Iterable[Difference]) -> tuple[Group, ...]:
    """Return what moved; equal lists are said once, for all variants that share them."""
    found: dict[tuple[Moved, ...], list[str]] = {}
    for each in differences:
        if each.moved:
            found.setdefault(each.moved, []).append(each.variant)
    return tuple(
        Group(variants=tuple(names), sentences=tuple(_sentences(moved)))
        for moved, names in found.items()
    )


def _below(moved: Sequence[Group], room: int) -> list[str]:
    """Return what moved as items of a list, a group in one piece."""
    items = [
        "\n".join([f"- {gfm.named(each.variants)}", *_nested(each.sentences)]) for each in moved
    ]
    if not items:
        return []
    shown = gfm.fitted(items, room)
    return ["", *shown, *_left(items, shown, "lists of what moved")]


def _nested(sentences: Iterable[str]) -> Iterator[str]:
    return (f"  - {gfm.brief(sentence)}" for sentence in sentences)


def _left(rows: Sequence[str], shown: Sequence[str], what: str) -> list[str]:
    left = len(rows) - len(shown)
    return ["", f"{left} more {what} are not shown."] if left else []


def _aligned(texts: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(
        text.rjust(room) if name in _NUMBERS else text.ljust(room)
        for name, text, room in zip(_COLUMNS, texts, widths, strict=True)
    )


def _cells(each: Difference) -> tuple[str, ...]:
    """Return a row of the table, as text."""
    before, after = _state(each, each.before), _state(each, each.after)
    return each.variant, each.change, before, after, _difference(each)


def _state(each: Difference, side: Side | None) -> str:
    """Return what a side says: its verdict where that changed, else its size."""
    if side is None:
        return ""
    if side.verdict is Verdict.FAILS:
        return f"fails ({side.cause})" if side.cause else "fails"
    if side.verdict is None:
        return side.outcome or "not known"
    if each.change in {Change.BROKE, Change.FIXED} or side.sizes is None:
        return "works"
    return table.size(side.sizes.content)


def _difference(each: Difference) -> str:
    """Return how much it grew, and which part of it did; nothing where that is not the news."""
    before, after = each.before, each.after
    if each.change not in _RESIZED or not (before and after and before.sizes and after.sizes):
        return ""
    grown = sum(each.grown)
    part = f" ({100 * grown / before.sizes.content:+.1f} %)" if before.sizes.content else ""
    return f"{signed(grown)}{part}: {attribution(before.sizes, after.sizes)}"


def _sentences(moved: Iterable[Moved]) -> Iterator[str]:
    """Yield a sentence for each thing that moved; of a long run of packages, the first ones."""
    for packages, run in groupby(moved, key=lambda each: each.what.startswith(_PACKAGE)):
        some = list(run)
        most = PACKAGES if packages else len(some)
        yield from map(_sentence, some[:most])
        if some[most:]:
            yield f"and {len(some) - most} more"


def _sentence(each: Moved) -> str:
    kind = each.what.partition(" ")[0]
    before, after = each.before[: _SHORT.get(kind)], each.after[: _SHORT.get(kind)]
    if not before:
        return f"{each.what} is new: {after}"
    if not after:
        return f"{each.what} is gone: {before}"
    return f"{each.what} moved: {before} -> {after}"
