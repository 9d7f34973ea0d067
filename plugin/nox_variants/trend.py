"""A record in numbers: what trends, budgets and pages need of thousands of runs. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.limits import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nox_variants.model import Cause, Verdict
    from nox_variants.record import Record
    from nox_variants.results import EngineName, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One variant in one run, in numbers: bytes and seconds; None for what was not measured.

    Attributes:
        run_id: The run; sorts by time.
        variant: The variant's id.
        program: Its program.
        started_at: UTC, ISO 8601.
        platform: ``linux/amd64``.
        source: Where its images come from (:attr:`Record.source`).
        engine: What built and ran it; None when no engine was usable.
        outcome: The verdict held against the expectation.
        verdict: Whether it worked; None when that was not found out.
        cause: Why it failed.
        content: Regular files over all layers.
        above_base: The same without the base's layers.
        transfer: Compressed layers.
        binary: The artifact.
        build: Of the compile, also where it came from the cache.
        build_cached: Whether nothing had to be compiled.
        startup: From its execution to its end, or to a server's answer.
        memory: Peak resident memory.
    """

    run_id: str
    variant: str
    program: str
    started_at: str
    platform: str
    source: str
    engine: EngineName | None
    outcome: Outcome
    verdict: Verdict | None = None
    cause: Cause | None = None
    content: int | None = None
    above_base: int | None = None
    transfer: int | None = None
    binary: int | None = None
    build: float | None = None
    build_cached: bool | None = None
    startup: float | None = None
    memory: int | None = None

    def measured(self, measure: Measure) -> float | None:
        """Return what was measured, in bytes or seconds."""
        value: float | None = getattr(self, measure.value)
        return value


def point(record: Record) -> Point:
    """Return a record in numbers."""
    sizes, smoke = record.sizes, record.smoke
    startup = smoke.startup_ms if smoke else None
    return Point(
        run_id=record.run_id,
        variant=record.variant,
        program=record.program,
        started_at=record.started_at,
        platform=record.platform,
        source=record.source,
        engine=record.engine.name if record.engine else None,
        outcome=record.outcome,
        verdict=record.verdict,
        cause=record.cause,
        content=sizes.content if sizes else None,
        above_base=sizes.above_base if sizes else None,
        transfer=sizes.transfer if sizes else None,
        binary=sizes.binary if sizes else None,
        build=record.seconds.build,
        build_cached=record.build_cached,
        startup=None if startup is None else startup / 1000,
        memory=smoke.peak_memory if smoke else None,
    )


LEAST_SAMPLES = 5
"""Runs of which a median says something about a time."""

MOST_SAMPLES = 20
"""Newest runs that a median is made of: what changed for good is soon the usual."""

_FACTOR = 1.5
_DEVIATIONS = 4
_FLOORS = {Measure.BUILD: 0.5, Measure.STARTUP: 0.005}
"""Seconds below which a difference is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A time held against those of earlier runs.

    Attributes:
        measure: Build time or start-up time.
        value: Of this run, in seconds.
        median: Of earlier runs on the same engine and platform, with images of the same sources.
        samples: How many these are; with fewer than :data:`LEAST_SAMPLES`, nothing is concluded.
        slower: Whether it is far above what is usual. Times depend on the machine: this never
            fails a run.
    """

    measure: Measure
    value: float
    median: float
    samples: int
    slower: bool


def timings(now: Point, earlier: Sequence[Point]) -> tuple[Timing, ...]:
    """Return how long a variant took, against earlier runs; what came from a cache is left out.

    Args:
        now: Of this run.
        earlier: Of the same variant, oldest first.
    """
    found = []
    for measure in _FLOORS:
        value, before = _time(now, measure), times(now, earlier, measure)
        if value is not None and before:
            found.append(_timing(measure, value, before))
    return tuple(found)


def times(now: Point, points: Sequence[Point], measure: Measure) -> tuple[float, ...]:
    """Return the newest times that can be compared with those of a run, oldest first."""
    found = (_time(each, measure) for each in points if _alike(each, now))
    return tuple(each for each in found if each is not None)[-MOST_SAMPLES:]


def _timing(measure: Measure, value: float, times: Sequence[float]) -> Timing:
    median = statistics.median(times)
    deviation = statistics.median(abs(each - median) for each in times)
    most = max(median * _FACTOR, median + _DEVIATIONS * deviation, median + _FLOORS[measure])
    slower = len(times) >= LEAST_SAMPLES and value > most
    return Timing(measure=measure, value=value, median=median, samples=len(times), slower=slower)


def _alike(one: Point, other: Point) -> bool:
    return (one.engine, one.platform, one.source) == (other.engine, other.platform, other.source)


def _time(each: Point, measure: Measure) -> float | None:
    cached = measure is Measure.BUILD and each.build_cached
    return None if cached else each.measured(measure)
