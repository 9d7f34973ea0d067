"""Records in numbers, times against the usual, and the table of trends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nox_variants import trend
from nox_variants.limits import Measure
from nox_variants.model import Cause, Verdict
from nox_variants.reports import trends
from nox_variants.results import EngineName, Outcome
from nox_variants.trend import Point, point, timings
from records import FULL, SKIPPED

POINT = Point(
    run_id="20261101",
    variant="p(scratch,static)",
    program="p",
    started_at="2026-11-01T00:00:00.000Z",
    platform="linux/amd64",
    source="apt",
    engine=EngineName.EMBEDDED,
    outcome=Outcome.PASSED,
    verdict=Verdict.WORKS,
    content=1000,
    build=2.0,
    build_cached=False,
    startup=0.010,
)


def test_a_record_in_numbers() -> None:
    """Bytes and seconds; what was not measured is None."""
    found = point(FULL)

    assert found.measured(Measure.CONTENT) == 767_000
    assert found.measured(Measure.BUILD) == 0.2
    assert found.measured(Measure.STARTUP) is None
    assert found.source == "apt"
    skipped = point(SKIPPED)
    assert [skipped.measured(each) for each in Measure] == [None] * len(Measure)


def series(*builds: float, **changes: object) -> list[Point]:
    """Return points with these build times."""
    return [replace(POINT, build=each, startup=None, **changes) for each in builds]  # type: ignore[arg-type]


@pytest.mark.parametrize(("now", "slower"), [(2.0, False), (2.9, False), (3.1, True), (0.1, False)])
def test_slower_than_usual(now: float, slower: bool) -> None:  # noqa: FBT001
    """Far above the median of earlier runs is slower; a little is noise, faster is fine."""
    (found,) = timings(replace(POINT, build=now, startup=None), series(2.0, 2.1, 1.9, 2.0, 2.0))

    assert (found.median, found.samples, found.slower) == (2.0, 5, slower)


def test_too_few_samples() -> None:
    """A median of four runs concludes nothing, and says how many there were."""
    (found,) = timings(replace(POINT, build=9.0, startup=None), series(2.0, 2.0, 2.0, 2.0))

    assert (found.samples, found.slower) == (4, False)


def test_noisy_times() -> None:
    """Where times vary widely, one more of them is nothing new."""
    noisy = series(1.0, 5.0, 2.0, 6.0, 1.0, 4.0, 3.0)

    (found,) = timings(replace(POINT, build=8.0, startup=None), noisy)

    assert not found.slower


def test_only_alike_runs_count() -> None:
    """Times of another engine or source, and of a cache, are not comparable."""
    others = [
        *series(2.0, engine=EngineName.DOCKER),
        *series(2.0, source="registry"),
        *series(2.0, platform="linux/arm64"),
        *series(2.0, build_cached=True),
    ]

    assert timings(replace(POINT, startup=None), others) == ()
    assert timings(replace(POINT, startup=None, build_cached=True), series(2.0)) == ()


def test_the_newest_count() -> None:
    """After a change for good, the new time is the usual one."""
    found = trend.times(POINT, series(*[2.0] * 30, *[4.0] * 20), Measure.BUILD)

    assert found == (4.0,) * 20


def test_start_up_times() -> None:
    """They are held against each other as build times are."""
    earlier = [replace(POINT, build=None)] * 5

    (found,) = timings(replace(POINT, build=None, startup=0.05), earlier)

    assert (found.measure, found.slower) == (Measure.STARTUP, True)


# --- the table -----------------------------------------------------------------------------------


def test_rows_of_trends() -> None:
    """A row is what became of a variant: now, since then, how often its verdict flipped."""
    points = [
        POINT,
        replace(POINT, started_at="2026-11-02T00:00:00Z", content=1100),
        replace(
            POINT,
            started_at="2026-11-03T00:00:00Z",
            verdict=Verdict.FAILS,
            cause=Cause.TIMEOUT,
            outcome=Outcome.FAILED,
            content=1100,
        ),
        replace(POINT, started_at="2026-11-04T00:00:00Z", verdict=None, outcome=Outcome.ERROR),
        replace(POINT, started_at="2026-11-05T00:00:00Z", content=1200, startup=None),
    ]

    (row,) = trends.rows(points)

    assert row == trends.Row(
        variant="p(scratch,static)",
        runs="5",
        outcome=Outcome.PASSED,
        flips="2 (last 2026-11-05)",
        content="1.2 kB",
        growth="+20.0%",
        build="2.00 s",
        startup="10 ms (not enough samples: 4)",
    )


def test_a_table_of_trends() -> None:
    """Text in columns, and the same in Markdown; nothing is made up for what never had an image."""
    bare = point(SKIPPED)

    head, *rows = trends.lines([POINT, bare])
    text = trends.markdown([POINT, bare])

    assert "".join(part for part, _ in head).split() == list(trends.COLUMNS)
    assert len(rows) == 2
    assert text.count("\n") == 4
    assert trends.rows([bare])[0].growth == ""
    assert trends.rows([POINT, POINT])[0].growth == "0%"
