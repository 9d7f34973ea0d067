"""Records as a summary for CI: GitHub-flavoured Markdown. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants import advice
from nox_variants.reports import comparison, gfm, table
from nox_variants.reports.escaping import colon, escaped
from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.compare import Difference
    from nox_variants.record import Record

LIMIT = 1024 * 1024
"""Bytes that GitHub takes of one step; of a longer summary it takes nothing."""

FOLDED = 40
"""Rows above which each program's table is folded."""

_SHARE = 8
"""No list gets more than an eighth of the bytes, so that tables get three eighths at least."""

_NUMBERS = frozenset({"binary", "content", "factor", *table.MEASURED})
_NOTE = 500
"""Bytes kept for headings, and for saying what was left out."""


def document(
    records: Sequence[Record],
    differences: Sequence[Difference] = (),
    *,
    title: str,
    limit: int = LIMIT,
) -> str:
    """Return a summary: what is broken, budgets, what changed, all variants, which image to use.

    Args:
        records: Of one run, in the order of the table.
        differences: From an earlier one, the worst first.
        title: Its heading.
        limit: Bytes that it may take, from some 10,000 on: rows of what passed are left out first.
    """
    share = limit // _SHARE
    above = [
        *(f"## {gfm.brief(title)}", "", table.summary(records), ""),
        *gfm.section("Broken", list(_broken(records)), share, "problems"),
        *gfm.section("Budgets", list(_budgets(records)), share, "of them"),
        *_changed(differences, share),
    ]
    instead = [f"- {gfm.brief(str(each))}" for each in advice.advise(records)]
    stand_ins = [f"- {gfm.brief(text)}" for text in table.stand_ins(records)]
    below = [
        *gfm.section("Skipped", list(_skipped(records)), share // 2, "reasons"),
        *gfm.section("Which image to use", instead, share, "programs"),
        *gfm.section(f"{escaped(table.STAND_IN)} Stand-ins", stand_ins, share // 2, "stand-ins"),
    ]
    room = limit - sum(map(gfm.size, [*above, *below])) - _NOTE
    return "\n".join([*above, *_variants(records, room), *below])


def _broken(records: Sequence[Record]) -> Iterator[str]:
    """Yield an item per problem: equal ones are said once, with what works instead."""
    for record in records:
        if record.contradiction:
            said = f"{colon(gfm.brief(record.variant))}{gfm.brief(record.contradiction)}"
            yield f"- **defect of nox-variants** {said}"
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record.outcome.bad:
            what = (record.outcome, record.cause or "", _why(record))
            found.setdefault(what, []).append(record.variant)
    remedies = advice.Remedies(records)
    for (outcome, cause, why), names in found.items():
        head = f"- **{outcome}** {gfm.named(names)}" + (f" ({cause})" if cause else "")
        nested = (f"  - instead: {gfm.brief(remedy)}" for remedy in remedies.of(*names))
        yield "\n".join([f"{colon(head)}{gfm.brief(why)}" if why else head, *nested])


def _why(record: Record) -> str:
    """Return why an outcome is bad: the reason repeats the explanation, or is more than it."""
    if record.explanation in record.reason:
        return record.reason
    return ": ".join(filter(None, (record.reason, record.explanation)))


def _budgets(records: Iterable[Record]) -> Iterator[str]:
    """Yield an item per limit that is exceeded, or was not measured, and is no failure above."""
    for record in records:
        for check in record.budget:
            if check.explanation and check.explanation not in record.reason:
                name = colon(gfm.brief(record.variant))
                yield f"- **{check.level}** {name}{gfm.brief(check.explanation)}"


def _changed(differences: Sequence[Difference], room: int) -> list[str]:
    if not differences:
        return []
    return ["### Changed", "", comparison.markdown(differences, limit=room)]


def _skipped(records: Sequence[Record]) -> Iterator[str]:
    for outcome, text, names in table.notes(records):
        if outcome is Outcome.SKIPPED:
            yield f"- {colon(gfm.named(names))}{gfm.brief(text)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A table: the places of its records among all, and the lines above and below its rows."""

    places: tuple[int, ...]
    above: tuple[str, ...]
    below: tuple[str, ...]


def _variants(records: Sequence[Record], room: int) -> list[str]:
    """Return the table: of all programs, or of many variants a folded one for each program."""
    if not records:
        return []
    columns = table.layouts(records)[1]
    rows = [_row(row, columns) for row in table.rows(records)]
    parts = _parts(records, gfm.head(columns, _NUMBERS))
    kept = _kept(records, rows, parts, room)
    made: list[str] = []
    for part in parts:
        if shown := [rows[place] for place in part.places if place in kept]:
            made += [*part.above, *shown, *part.below]
    left = [record for place, record in enumerate(records) if place not in kept]
    return ["### Variants", "", *made, *_left_out(left)]


def _parts(records: Sequence[Record], head: Sequence[str]) -> list[_Part]:
    if len(records) <= FOLDED:
        every = tuple(range(len(records)))
        return [_Part(places=every, above=(*head,), below=("",))]
    programs: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        programs.setdefault(record.program, []).append(place)
    return [
        _Part(
            places=tuple(places),
            above=(*gfm.unfolded_by(_label(name, [records[each] for each in places])), *head),
            below=gfm.FOLDED_END,
        )
        for name, places in programs.items()
    ]


def _label(program: str, records: Sequence[Record]) -> str:
    return f"{colon(gfm.brief(program))}{table.summary(records)}"


def _kept(
    records: Sequence[Record], rows: Sequence[str], parts: Iterable[_Part], room: int
) -> set[int]:
    """Return the places of rows that there is room for; those of what passed come last."""
    frames = {place: part for part in parts for place in part.places}
    opened: set[_Part] = set()
    kept: set[int] = set()
    for place in sorted(frames, key=lambda each: (records[each].outcome is Outcome.PASSED, each)):
        part = frames[place]
        frame = () if part in opened else (*part.above, *part.below)
        cost = sum(map(gfm.size, (rows[place], *frame)))
        if cost > room:
            break
        room -= cost
        opened.add(part)
        kept.add(place)
    return kept


def _left_out(records: Sequence[Record]) -> list[str]:
    """Return a paragraph about rows that there was no room for."""
    if not records:
        return []
    return [f"Left out, to keep this short: {table.summary(records)}.", ""]


def _row(row: table.Row, columns: Iterable[str]) -> str:
    cells = {name: gfm.brief(str(getattr(row, name))) for name in columns}
    if row.outcome.bad:
        cells["outcome"] = f"**{cells['outcome']}**"
    return gfm.row(cells.values())
