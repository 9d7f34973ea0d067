"""Records to the series' closing table: pure text, and the style of its parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from nox_variants.record import Record

Line = tuple[tuple[str, str], ...]
"""A line in parts, each with its style, as rich names it: nothing for plain text."""

STAND_IN = "*"
"""Marks what was built or run with a stand-in of an image."""

LAYOUTS = (
    (
        *("variant", "linkage", "binary", "content", "factor"),
        *("build", "smoke", "verdict", "cause", "outcome"),
    ),
    ("variant", "linkage", "binary", "content", "factor", "verdict", "cause", "outcome"),
    ("variant", "content", "factor", "result"),
)
"""Columns of the table, from all of them to those that 80 characters hold."""

MEASURED = ("startup", "memory")
"""Columns of what smoke runs are repeated for, before what came of them."""

_RESULTS = ("verdict", "result")
_NUMBERS = {"binary", "content", "factor", "build", "smoke", *MEASURED}
_GAP = "  "
_STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.XFAILED: "cyan",
    Outcome.XPASSED: "bold red",
    Outcome.ERROR: "bold magenta",
    Outcome.SKIPPED: "yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, as text."""

    variant: str
    linkage: str
    binary: str
    content: str
    factor: str
    build: str
    smoke: str
    startup: str
    memory: str
    verdict: str
    cause: str
    outcome: Outcome

    @property
    def result(self) -> str:
        """Outcome and cause in one."""
        return f"{self.outcome} ({self.cause})" if self.cause else str(self.outcome)


def size(number: int) -> str:
    """Return bytes in decimal units with three digits, as `docker images` does: ``94.2 kB``."""
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:  # noqa: PLR2004  # 999.5 would be shown as 1000
            break
        value, unit = value / 1000, larger
    return f"{number} B" if unit == "B" else f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time with a fitting unit: ``3 ms``, ``0.42 s``, ``12.3 s``."""
    if seconds < 0.0995:  # noqa: PLR2004
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"  # noqa: PLR2004


def measured(record: Record) -> tuple[str, str]:
    """Return start-up time and peak memory of a smoke run that was repeated, as far as known."""
    if record.smoke is None or record.smoke.runs == 1:
        return "", ""
    startup, memory = record.smoke.startup_ms, record.smoke.peak_memory
    return "" if startup is None else _milliseconds(startup), "" if memory is None else size(memory)


def _milliseconds(number: float) -> str:
    """Return a time with three digits: ``0.931 ms``, ``12.3 ms``, ``1.23 s``."""
    return f"{number:.3g} ms" if number < 999.5 else duration(number / 1000)  # noqa: PLR2004


def content(record: Record) -> str:
    """Return the content size, with :data:`STAND_IN` when a stand-in had a part in it."""
    if record.sizes is None:
        return ""
    mark = STAND_IN if any(image.stand_in for image in record.images) else ""
    return size(record.sizes.content) + mark


def _factor(number: float) -> str:
    """Return a factor with three digits: ``1.07x``, ``358x``, ``17,100x``."""
    if number < 1000:  # noqa: PLR2004
        return f"{number:.3g}x"
    return f"{float(f'{number:.3g}'):,.0f}x"


def rows(records: Sequence[Record]) -> tuple[Row, ...]:
    """Return one row per record; factors are against the single-stage image of each program."""
    single = baselines(records)
    return tuple(_row(record, single.get(record.program)) for record in records)


def baselines(records: Iterable[Record]) -> dict[str, int]:
    """Return the content size of each program's first single-stage image."""
    found: dict[str, int] = {}
    for record in records:
        if record.single_stage and record.sizes is not None:
            found.setdefault(record.program, record.sizes.content)
    return found


def _row(record: Record, baseline: int | None) -> Row:
    sizes, seconds = record.sizes, record.seconds
    startup, memory = measured(record)
    return Row(
        variant=record.variant,
        linkage=record.linkage.actual.value if record.linkage else "",
        binary=size(sizes.binary) if sizes else "",
        content=content(record),
        factor=_factor(baseline / sizes.content) if sizes and baseline and sizes.content else "",
        build=_build_time(record),
        smoke="" if seconds.smoke is None else duration(seconds.smoke),
        startup=startup,
        memory=memory,
        verdict=record.verdict.value if record.verdict else "",
        cause=record.cause.value if record.cause else "",
        outcome=record.outcome,
    )


def _build_time(record: Record) -> str:
    if record.seconds.build is None:
        return ""
    return "cached" if record.build_cached else duration(record.seconds.build)


def stand_ins(records: Iterable[Record]) -> tuple[str, ...]:
    """Return a note per image that only stood in for the one it is named after."""
    used = {image.name: image for record in records for image in record.images if image.stand_in}
    return tuple(
        f"{name}: {image.source} packages {image.reference}, not the image of that name"
        for name, image in sorted(used.items())
    )


def summary(records: Sequence[Record]) -> str:
    """Return the line that counts: ``24 variants: 17 passed, 5 xfailed, 2 skipped``."""
    counts = Counter(record.outcome for record in records)
    parts = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
    noun = "variant" if len(records) == 1 else "variants"
    return f"{len(records)} {noun}: {', '.join(parts)}" if parts else f"0 {noun}"


def deaf(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the variants whose server works and had to be killed."""
    return tuple(
        record.variant
        for record in records
        if record.smoke
        and record.smoke.service
        and record.smoke.service.listened
        and not record.smoke.service.stopped
    )


def notes(records: Iterable[Record]) -> tuple[tuple[Outcome, str, tuple[str, ...]], ...]:
    """Return outcome, sentence and ids for what needs words; equal sentences are said once."""
    found: dict[tuple[Outcome, str], list[str]] = {}
    for record in records:
        text = record.reason or (record.explanation if record.outcome.bad else "")
        if text:
            found.setdefault((record.outcome, text), []).append(record.variant)
    return tuple((outcome, text, tuple(ids)) for (outcome, text), ids in found.items())


def layouts(records: Iterable[Record]) -> tuple[tuple[str, ...], ...]:
    """Return columns for some records: :data:`LAYOUTS`, the first ones with what was measured."""
    if not any(any(measured(record)) for record in records):
        return LAYOUTS
    return (*map(_with_measured, LAYOUTS), LAYOUTS[-1])


def _with_measured(columns: tuple[str, ...]) -> tuple[str, ...]:
    at = next(place for place, name in enumerate(columns) if name in _RESULTS)
    return (*columns[:at], *MEASURED, *columns[at:])


def lines(records: Sequence[Record], columns: Sequence[str] = LAYOUTS[0]) -> list[Line]:
    """Return the table: a header, a line per record, an empty one between programs.

    Args:
        records: In the order of the rows.
        columns: Names of :class:`Row`'s fields: one of :func:`layouts`.
    """
    shown = rows(records)
    cells = [[str(getattr(row, name)) for name in columns] for row in shown]
    head, *rest = aligned(columns, cells, [row.outcome for row in shown], _NUMBERS)
    made = [head]
    previous = ""
    for record, line in zip(records, rest, strict=True):
        if previous not in {"", record.program}:
            made.append(())
        previous = record.program
        made.append(line)
    return made


def aligned(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    outcomes: Sequence[Outcome],
    numbers: Container[str],
) -> list[Line]:
    """Return a header and a line per row, in columns; the last has its outcome's style.

    Args:
        columns: The header.
        cells: A row each.
        outcomes: Of each row.
        numbers: Columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def padded(texts: Sequence[str]) -> list[str]:
        return [
            text.rjust(room) if name in numbers else text.ljust(room)
            for name, text, room in zip(columns, texts, widths, strict=True)
        ]

    made: list[Line] = [((_GAP.join(padded(columns)).rstrip(), "bold"),)]
    for texts, outcome in zip(cells, outcomes, strict=True):
        *before, last = padded(texts)
        made.append(((_GAP.join([*before, ""]), ""), (last.rstrip(), _STYLES[outcome])))
    return made


def width(made: Iterable[Line]) -> int:
    """Return how many columns of a terminal a table takes."""
    return max(sum(len(text) for text, _ in line) for line in made)
