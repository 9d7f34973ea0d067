"""What to do instead, and which image to use. Pure: records in, sentences out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.model import Verdict
from nox_variants.reports import table
from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nox_variants.model import Variant
    from nox_variants.record import Record

MOST = 3
"""Remedies that are named for one variant."""

_RIGHT = frozenset({Outcome.PASSED, Outcome.XPASSED, Outcome.SKIPPED})
"""Outcomes that nothing has to be done about, or nothing can be said about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Which images to use for a program, out of those that were tried.

    Attributes:
        program: The program.
        tried: How many of its variants ran.
        smallest: The smallest that works; None when none does.
        with_shell: The smallest that works and has a shell to look around with.
    """

    program: str
    tried: int
    smallest: Record | None
    with_shell: Record | None

    def __str__(self) -> str:
        if self.smallest is None:
            return f"{self.program}: none of the {self.tried} variants that ran works"
        if self.smallest is self.with_shell:
            return f"{self.program}: smallest that works, with a shell: {_named(self.smallest)}"
        shell = _named(self.with_shell) if self.with_shell else "none that works"
        smallest = f"{self.program}: smallest that works: {_named(self.smallest)}"
        return f"{smallest}; smallest with a shell: {shell}"


def advise(records: Iterable[Record]) -> tuple[Advice, ...]:
    """Return the advice for each program of which more than one variant ran, in their order.

    Args:
        records: Of one run, in the order of the file, which decides between equal sizes.
    """
    programs: dict[str, list[Record]] = {}
    for record in records:
        if record.smoke is not None:
            programs.setdefault(record.program, []).append(record)
    return tuple(_advice(name, ran) for name, ran in programs.items() if len(ran) > 1)


class Remedies:
    """What works instead of variants that do not.

    Args:
        records: All of one run, or the last of each variant.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records: dict[str, Record] = {}
        self._programs: dict[str, list[Record]] = {}
        for record in records:
            self._records[record.variant] = record
            self._programs.setdefault(record.program, []).append(record)

    def of(self, *names: str) -> tuple[str, ...]:
        """Return what works instead of variants that have one reason to fail, as sentences.

        Args:
            names: Their ids; nothing works instead of one that does.
        """
        found = (each for name in names for each in self._of(self._records[name]))
        return tuple(dict.fromkeys(found))[:MOST]

    def _of(self, record: Record) -> tuple[str, ...]:
        if record.outcome in _RIGHT:
            return ()
        return alternatives(record.variant, record, self._programs[record.program])


def alternatives(name: str, of: Record | Variant, records: Iterable[Record]) -> tuple[str, ...]:
    """Return a variant's neighbours that work, nearest first, as sentences.

    Nearest are those that run in the same image, then those that are linked the same way; among
    them, the smallest come first.

    Args:
        name: The variant's id, which is not among its neighbours.
        of: The variant.
        records: Of any variants.
    """
    near = [
        record
        for record in records
        if record.variant != name and _works(record) and is_near(of, record)
    ]
    near.sort(key=lambda record: (record.run_image != of.run_image, *_size(record)))
    return tuple(f"{each.variant} works ({table.content(each)})" for each in near[:MOST])


def is_near(one: Record | Variant, other: Record | Variant) -> bool:
    """Tell whether two variants of a program share a run image or a link mode."""
    same = one.run_image == other.run_image or one.link is other.link
    return same and one.program == other.program


def _advice(program: str, ran: list[Record]) -> Advice:
    works = sorted(filter(_works, ran), key=_size)
    return Advice(
        program=program,
        tried=len(ran),
        smallest=next(iter(works), None),
        with_shell=next((record for record in works if record.shell), None),
    )


def _works(record: Record) -> bool:
    """Tell whether a variant was seen to work in an image whose size is known."""
    works = record.verdict is Verdict.WORKS and record.outcome is not Outcome.ERROR
    return works and record.sizes is not None


def _size(record: Record) -> tuple[int, int]:
    sizes = record.sizes
    return (sizes.content, sizes.above_base) if sizes else (0, 0)


def _named(record: Record) -> str:
    return f"{record.variant}, {table.content(record)}"
