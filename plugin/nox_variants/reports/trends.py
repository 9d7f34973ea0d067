"""Records of many runs to a table of trends: a line per variant. Pure."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants import trend
from nox_variants.limits import Measure
from nox_variants.reports import gfm, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nox_variants.reports.table import Line
    from nox_variants.results import Outcome
    from nox_variants.trend import Point

COLUMNS = ("variant", "runs", "outcome", "flips", "content", "growth", "build", "startup")
"""Columns of the table, as their heads say."""

_NUMBERS = {"runs", "flips", "content", "growth", "build", "startup"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a variant over some runs, as text.

    Attributes:
        variant: The variant's id.
        runs: How many runs had it.
        outcome: Of the newest.
        flips: How often its verdict or cause changed, and when it last did.
        content: Its newest size.
        growth: Since the first of them; empty where that had images of other sources.
        build: The median of its compile times, with how many there are where these are few.
        startup: Likewise, of its start-up times.
    """

    variant: str
    runs: str
    outcome: Outcome
    flips: str
    content: str
    growth: str
    build: str
    startup: str


def rows(points: Iterable[Point]) -> tuple[Row, ...]:
    """Return a row per variant.

    Args:
        points: Oldest first.
    """
    variants: dict[str, list[Point]] = {}
    for each in points:
        variants.setdefault(each.variant, []).append(each)
    return tuple(_row(found) for found in variants.values())


def _row(points: Sequence[Point]) -> Row:
    now = points[-1]
    sized = [each for each in points if each.content is not None and each.source == now.source]
    content, growth = "", ""
    if sized and (newest := sized[-1].content) is not None and (first := sized[0].content):
        content = table.size(newest)
        growth = f"{(newest - first) / first:+.1%}" if newest != first else "0%"
    return Row(
        variant=now.variant,
        runs=str(len(points)),
        outcome=now.outcome,
        flips=_flips(points),
        content=content,
        growth=growth,
        build=_median(points, Measure.BUILD),
        startup=_median(points, Measure.STARTUP),
    )


def _flips(points: Sequence[Point]) -> str:
    judged = [each for each in points if each.verdict]
    flips = [
        new.started_at[:10]
        for old, new in itertools.pairwise(judged)
        if (old.verdict, old.cause) != (new.verdict, new.cause)
    ]
    return f"{len(flips)} (last {flips[-1]})" if flips else "0"


def _median(points: Sequence[Point], measure: Measure) -> str:
    times = trend.times(points[-1], points, measure)
    if not times:
        return ""
    few = "" if len(times) >= trend.LEAST_SAMPLES else f" (not enough samples: {len(times)})"
    return f"{table.duration(statistics.median(times))}{few}"


def lines(points: Iterable[Point]) -> list[Line]:
    """Return the table: a header, and a line per variant."""
    shown = rows(points)
    cells = [[str(getattr(row, name)) for name in COLUMNS] for row in shown]
    return table.aligned(COLUMNS, cells, [row.outcome for row in shown], _NUMBERS)


def markdown(points: Iterable[Point]) -> str:
    """Return the table in Markdown."""
    cells = [[gfm.brief(str(getattr(row, name))) for name in COLUMNS] for row in rows(points)]
    return "\n".join([*gfm.head(COLUMNS, _NUMBERS), *map(gfm.row, cells), ""])
