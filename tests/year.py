"""A year of nightly runs, generated: records as runs write them, with sizes that drift."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nox_variants.model import LinkMode, Verdict
from nox_variants.results import Outcome, Sizes
from records import FULL
from samples import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nox_variants.model import Settings
    from nox_variants.record import Record

_IMAGES = ("scratch", "alpine", "busybox:glibc", "gcc", "ubuntu")
_START = datetime(2025, 11, 28, 3, 0, tzinfo=UTC)


def settings() -> Settings:
    """Return a file's settings; its programs are not those of the records."""
    return SETTINGS


def records(*, nights: int, variants: int) -> Iterator[Record]:
    """Yield the records of nightly runs, oldest first."""
    chance = random.Random(1)  # noqa: S311  # the same year every time
    sizes = [chance.randrange(10_000, 80_000_000) for _ in range(variants)]
    for night in range(nights):
        began = _START + timedelta(days=night)
        for number in range(variants):
            if chance.random() < 0.05:
                sizes[number] += chance.randrange(-2_000, 5_000)
            yield _record(number, night, began, sizes[number], chance)


def _record(number: int, night: int, began: datetime, size: int, chance: random.Random) -> Record:
    program, run_image = f"program-{number // 10}", _IMAGES[number % 5]
    link = (LinkMode.STATIC, LinkMode.DYNAMIC)[number // 5 % 2]
    works = chance.random() > 0.01
    smoke = FULL.smoke
    return replace(
        FULL,
        run_id=f"{began:%Y%m%dT%H%M%S}000000Z-{night:08x}",
        variant=f"{program}({run_image},{link})",
        program=program,
        run_image=run_image,
        link=link,
        started_at=f"{began + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        verdict=Verdict.WORKS if works else Verdict.FAILS,
        cause=None if works else FULL.cause,
        outcome=Outcome.PASSED if works else Outcome.FAILED,
        sizes=Sizes(binary=size // 2, content=size, above_base=size // 2),
        seconds=replace(FULL.seconds, build=round(0.2 + chance.random(), 6)),
        smoke=smoke and replace(smoke, startup_ms=round(chance.random() * 5, 3)),
    )
