"""The history of all variants as compact JSON values, which ``page.js`` unpacks. Pure.

A column of numbers is text: differences to the number before, equal ones in a row once with how
many there are, ``_`` for none: 3, 3, 3, none, 5 is ``3 0x2 _ 2``. What seldom changes takes a few
characters however many runs there are.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nox_variants.trend import Point

COLUMNS = (
    *("run", "outcome", "cause", "source", "engine", "platform"),
    *("content", "above_base", "build", "build_cached", "startup", "memory"),
)
"""Of each variant, in this order after its name and its program's.

``run`` counts in ``runs``; up to ``platform`` the others count in ``words``. Sizes are in bytes,
build times in milliseconds, start-up times in microseconds, memory is in KiB.
"""

ABSENT = "_"


def pack(points: Iterable[Point], clean: Callable[[str], str] = str) -> dict[str, object]:
    """Return points as JSON values: ``runs`` in their order, ``words``, and ``variants``.

    Args:
        points: In any order; of two of one variant and run the last counts.
        clean: What is done to names before they are shown.
    """
    kept = {(point.variant, point.run_id): point for point in points}
    runs = _runs(kept.values())
    at = {run: number for number, run in enumerate(runs)}
    words: dict[str, int] = {}
    return {
        "columns": COLUMNS,
        "runs": [[clean(run), clean(started)] for run, started in runs.items()],
        "variants": [
            [clean(variant), clean(mine[-1].program), *_columns(mine, at, words)]
            for variant, mine in _by_variant(kept.values()).items()
        ],
        "words": [clean(word) for word in words],
    }


def _runs(points: Iterable[Point]) -> dict[str, str]:
    """Return when each run started, in their order."""
    found: dict[str, str] = {}
    for point in points:
        known = found.get(point.run_id)
        if known is None or point.started_at < known:
            found[point.run_id] = point.started_at
    return dict(sorted(found.items()))


def _by_variant(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.variant, []).append(point)
    for mine in found.values():
        mine.sort(key=lambda point: point.run_id)
    return found


def _columns(
    points: Sequence[Point], runs: dict[str, int], words: dict[str, int]
) -> tuple[str, ...]:
    def worded(value: str | None) -> int | None:
        return None if value is None else words.setdefault(str(value), len(words))

    return (
        column(runs[point.run_id] for point in points),
        column(worded(point.outcome) for point in points),
        column(worded(point.cause) for point in points),
        column(worded(point.source) for point in points),
        column(worded(point.engine) for point in points),
        column(worded(point.platform) for point in points),
        column(point.content for point in points),
        column(point.above_base for point in points),
        column(scaled(point.build, 1000) for point in points),
        column(point.build_cached for point in points),
        column(scaled(point.startup, 1_000_000) for point in points),
        column(scaled(point.memory, 1 / 1024) for point in points),
    )


def scaled(value: float | None, by: float) -> int | None:
    """Return a number in another unit, rounded; None where no number is known or left."""
    number = math.nan if value is None else value * by
    return round(number) if math.isfinite(number) else None


def column(values: Iterable[int | None]) -> str:
    """Return numbers as the text of a column."""
    return " ".join(
        f"{each}x{number}" if number > 1 else each
        for each, same in groupby(_steps(values))
        for number in [sum(1 for _ in same)]
    )


def _steps(values: Iterable[int | None]) -> Iterable[str]:
    last = 0
    for value in values:
        if value is None:
            yield ABSENT
        else:
            yield str(value - last)
            last = value
