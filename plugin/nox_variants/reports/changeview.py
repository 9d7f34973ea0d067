"""Differences of two runs as the HTML page shows them: alike ones together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.budgets import signed
from nox_variants.compare import Change
from nox_variants.reports import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nox_variants.compare import Difference, Moved, Side

NAMED = 3
"""Of what moved, so many are named before the list is opened."""

_DIGEST = len("sha256:") + 12

_BAD = {Change.BROKE, Change.CAUSE, Change.VANISHED, Change.BIGGER}
_GOOD = {Change.FIXED, Change.SMALLER}
_SIZES = {Change.BIGGER, Change.SMALLER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Variants of which the same became, with the same that moved meanwhile.

    Attributes:
        change: What became of them.
        tone: ``bad``, ``good`` or ``new``.
        variants: Each with what it was and is.
        moved: Where the reason may be, as lines.
    """

    change: Change
    tone: str
    variants: tuple[tuple[str, str], ...]
    moved: tuple[str, ...]

    @property
    def named(self) -> str:
        """What moved, in short: ``image gcc, package libc6 and 12 more``."""
        names = [text.partition(": ")[0] for text in self.moved]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more


def changes(differences: Iterable[Difference]) -> tuple[Changed, ...]:
    """Return differences in groups, in their order: sizes together, others by what moved."""
    groups: dict[tuple[Change, tuple[Moved, ...]], list[Difference]] = {}
    for each in differences:
        moved = () if each.change in _SIZES else each.moved
        groups.setdefault((each.change, moved), []).append(each)
    return tuple(_changed(change, mine) for (change, _), mine in groups.items())


def _changed(change: Change, mine: Sequence[Difference]) -> Changed:
    moved = dict.fromkeys(moved for each in mine for moved in each.moved)
    return Changed(
        change=change,
        tone="bad" if change in _BAD else "good" if change in _GOOD else "new",
        variants=tuple((each.variant, _became(each)) for each in mine),
        moved=tuple(map(_moved, sorted(moved, key=lambda each: each.what.startswith("package ")))),
    )


def _became(each: Difference) -> str:
    """Return what a variant was and is: ``works → fails: missing-loader``."""
    before, after = each.before, each.after
    if before is None or after is None:
        return _state(before or after)
    if before.sizes and after.sizes and each.change in _SIZES:
        old, new = before.sizes.content, after.sizes.content
        part = f", {(new - old) / old:+.1%}" if old else ""
        sizes = f"{table.size(old)} → {table.size(new)} ({signed(new - old)}{part})"
        return f"{sizes}: {_where(*each.grown)}"
    return f"{_state(before)} → {_state(after)}"


def _where(base: int, own: int) -> str:
    """Return what grew: ``base image +3 MB``."""
    parts = (("base image", base), ("own layer", own))
    return ", ".join(f"{name} {signed(number)}" for name, number in parts if number)


def _state(side: Side | None) -> str:
    if side is None or side.verdict is None:
        return "not found out"
    return f"{side.verdict}: {side.cause}" if side.cause else str(side.verdict)


def _moved(moved: Moved) -> str:
    before, after = _short(moved.before), _short(moved.after)
    if before == after:  # they differ further on
        before, after = moved.before, moved.after
    return f"{moved.what}: {before or 'none'} → {after or 'none'}"


def _short(text: str) -> str:
    """Return a digest so that it can still be told from others."""
    if text.startswith("sha256:") and len(text) > _DIGEST:
        return f"{text[:_DIGEST]}…"
    return text
