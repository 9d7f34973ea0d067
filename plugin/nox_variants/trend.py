"""A record in numbers: what trends, budgets and pages need of thousands of runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nox_variants.model import Cause, Measure, Verdict
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
