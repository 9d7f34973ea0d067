"""Records as the HTML page shows them: in grids, and what needs somebody. Pure.

Nothing is escaped here: the page's template does that with everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nox_variants import budgets
from nox_variants.reports import table
from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nox_variants.record import Record
    from nox_variants.reports.table import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record with its row of the table, and its number on the page."""

    number: int
    record: Record
    row: Row
    baseline: int | None

    @property
    def short(self) -> str:
        """The variant's id without its program: ``alpine, static``."""
        name, start = self.record.variant, f"{self.record.program}("
        if name.startswith(start) and name.endswith(")"):
            return name[len(start) : -1].replace(",", ", ")
        return name

    @property
    def note(self) -> str:
        """Why it is what it is, in sentences."""
        record = self.record
        judged = ": ".join(filter(None, (record.reason, record.explanation)))
        said = (judged, record.contradiction, *self.warned)
        return " ".join(map(sentence, filter(None, dict.fromkeys(said))))

    @property
    def warned(self) -> tuple[str, ...]:
        """What budgets say of it; those that fail it are its reason."""
        return tuple(text for _, text in budgets.warnings([self.record]))

    def cell(self, column: str) -> str:
        """Return the text of a column of the table of all variants."""
        if column == "transfer":
            transfer = self.record.sizes.transfer if self.record.sizes else None
            return "" if transfer is None else table.size(transfer)
        return str(getattr(self.row, column))

    @property
    def orders(self) -> dict[str, float | None]:
        """What columns of numbers are sorted by, where it is not their text."""
        record, content = self.record, self.record.sizes.content if self.record.sizes else None
        smoke = record.smoke if record.smoke and record.smoke.runs > 1 else None
        return {
            "binary": record.sizes.binary if record.sizes else None,
            "content": content,
            "factor": self.baseline / content if self.baseline and content else None,
            "transfer": record.sizes.transfer if record.sizes else None,
            "build": record.seconds.build,
            "smoke": record.seconds.smoke,
            "startup": smoke.startup_ms if smoke else None,
            "memory": smoke.peak_memory if smoke else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a grid: a link mode, and a build image where a program has several."""

    link: str
    build: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of a grid: a run image, and what there is of it in each column."""

    run: str
    cells: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A program's variants: run image by link mode."""

    program: str
    language: str
    builds: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    entries: tuple[Entry, ...]
    baseline: Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A sentence that says what is wrong, and of what."""

    outcome: Outcome
    text: str
    entries: tuple[Entry, ...]


def sentence(text: str) -> str:
    """Return text with a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def moment(started_at: str) -> str:
    """Return a time as people write it: ``23 November 2026, 20:00 UTC``."""
    try:
        at = datetime.fromisoformat(started_at).astimezone(UTC)
    except (ValueError, OverflowError):
        return started_at
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def entries(records: Sequence[Record]) -> tuple[Entry, ...]:
    """Return the records with their rows, in their order."""
    baselines, rows = table.baselines(records), table.rows(records)
    return tuple(
        Entry(number=number, record=record, row=row, baseline=baselines.get(record.program))
        for number, (record, row) in enumerate(zip(records, rows, strict=True))
    )


def grids(shown: Iterable[Entry]) -> tuple[Grid, ...]:
    """Return a grid per program, in their order."""
    programs: dict[str, list[Entry]] = {}
    for entry in shown:
        programs.setdefault(entry.record.program, []).append(entry)
    return tuple(_grid(name, mine) for name, mine in programs.items())


def _grid(program: str, mine: Sequence[Entry]) -> Grid:
    links = list(dict.fromkeys(entry.record.linking for entry in mine))
    pairs = dict.fromkeys((entry.record.linking, entry.record.build_image) for entry in mine)
    columns = sorted(pairs, key=lambda pair: links.index(pair[0]))
    cells: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in mine:
        record = entry.record
        cells.setdefault((record.run_image, record.linking, record.build_image), []).append(entry)
    return Grid(
        program=program,
        language=mine[0].record.language,
        builds=tuple(dict.fromkeys(build for _, build in columns)),
        columns=tuple(Column(link=link, build=build) for link, build in columns),
        lines=tuple(
            Line(run=run, cells=tuple(tuple(cells.get((run, *each), ())) for each in columns))
            for run in dict.fromkeys(entry.record.run_image for entry in mine)
        ),
        entries=tuple(mine),
        baseline=next(
            (each for each in mine if each.record.single_stage and each.row.content), None
        ),
    )


def troubles(shown: Iterable[Entry]) -> tuple[Trouble, ...]:
    """Return what needs somebody, the worst first; equal sentences are said once."""
    found: dict[tuple[Outcome, str], list[Entry]] = {}
    for entry in shown:
        record = entry.record
        if record.outcome.bad or record.reason or record.contradiction or entry.warned:
            found.setdefault((record.outcome, entry.note), []).append(entry)
    made = [
        Trouble(outcome=outcome, text=text, entries=tuple(mine))
        for (outcome, text), mine in found.items()
    ]
    order = list(Outcome)
    return tuple(sorted(made, key=lambda each: (not each.outcome.bad, order.index(each.outcome))))


def searched(entry: Entry) -> str:
    """Return the text that a search looks at."""
    record, row = entry.record, entry.row
    words = (record.language, record.build_image, row.linkage, row.verdict, row.cause)
    return " ".join((record.variant, *words, record.outcome, entry.note))
