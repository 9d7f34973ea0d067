"""The history in a page: all that was measured comes back, and takes little room."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import pagedata
from nox_variants.model import Cause, Verdict
from nox_variants.reports import html, packed
from nox_variants.results import EngineName, Outcome
from nox_variants.trend import Point


def unpack(text: str) -> list[int | None]:
    """Return the numbers of a column, as ``charts.js`` does."""
    found: list[int | None] = []
    last = 0
    for token in text.split(" ") if text else []:
        step, _, times = token.partition("x")
        for _ in range(int(times or 1)):
            if step != packed.ABSENT:
                last += int(step)
            found.append(None if step == packed.ABSENT else last)
    return found


def unpacked(data: Any) -> set[tuple[object, ...]]:
    """Return the points that a page has."""
    found = set()
    for variant, program, *columns in data["variants"]:
        numbers = dict(zip(data["columns"], map(unpack, columns), strict=True))
        for at, run in enumerate(numbers["run"]):
            assert run is not None
            each = {name: values[at] for name, values in numbers.items()}
            words = [
                None if (word := each[name]) is None else data["words"][word]
                for name in ("outcome", "cause", "source", "engine", "platform")
            ]
            rest = [each[name] for name in packed.COLUMNS[6:]]
            found.add((data["runs"][run][0], variant, program, *words, *rest))
    return found


def expected(point: Point) -> tuple[object, ...]:
    """Return what a page is to have of a point."""
    return (
        *(point.run_id, point.variant, point.program),
        *(point.outcome.value, point.cause and point.cause.value, point.source),
        *(point.engine and point.engine.value, point.platform),
        *(point.content, point.above_base),
        packed.scaled(point.build, 1000),
        point.build_cached,
        packed.scaled(point.startup, 1_000_000),
        packed.scaled(point.memory, 1 / 1024),
    )


NUMBERS = st.none() | st.integers(0, 2**53)
TIMES = st.none() | st.floats(0, 1e5)
POINTS = st.lists(
    st.builds(
        Point,
        run_id=st.sampled_from([f"2026{number:03}" for number in range(40)]),
        variant=st.sampled_from(["a", "b(c,d)", "x _ 0x2"]),
        program=st.just("p"),
        started_at=st.sampled_from(["2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"]),
        platform=st.sampled_from(["linux/amd64", "linux/arm64"]),
        source=st.sampled_from(["apt", "registry"]),
        engine=st.none() | st.sampled_from(EngineName),
        outcome=st.sampled_from(Outcome),
        verdict=st.none() | st.sampled_from(Verdict),
        cause=st.none() | st.sampled_from(Cause),
        content=NUMBERS,
        above_base=NUMBERS,
        build=TIMES,
        build_cached=st.none() | st.booleans(),
        startup=TIMES,
        memory=NUMBERS,
    ),
    unique_by=lambda point: (point.run_id, point.variant),
)


@given(POINTS)
def test_points_come_back(points: list[Point]) -> None:
    """What is packed for the page is what was measured: sizes exactly, times rounded."""
    data = json.loads(html.embedded(packed.pack(points)))

    assert unpacked(data) == set(map(expected, points))
    assert [run for run, _ in data["runs"]] == sorted({point.run_id for point in points})


@given(st.lists(st.none() | st.integers()))
def test_columns_come_back(values: list[int | None]) -> None:
    """Any numbers are the same after packing."""
    assert unpack(packed.column(values)) == values


def test_columns_are_short() -> None:
    """What does not change takes a few characters."""
    assert packed.column([3, 3, 3, None, 5]) == "3 0x2 _ 2"
    assert packed.column([7] * 365) == "7 0x364"
    assert packed.column([]) == ""


def test_last_of_two_points_counts() -> None:
    """A variant is once in a run, and a run has started when its first variant did."""
    (one,) = pagedata.points(1, 1)
    data: Any = packed.pack(
        [
            one,
            replace(one, content=1, started_at="2026-01-01T00:00:00Z"),
            replace(one, content=2, startup=math.nan),
        ]
    )

    assert unpacked(data) == {expected(replace(one, content=2, startup=None))}
    assert data["runs"] == [[one.run_id, one.started_at]]
