"""What is measured of a variant, and what it may come to: frozen values, without I/O.

Imports nothing of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    """What is measured of a variant and may have a budget."""

    CONTENT = "content"
    ABOVE_BASE = "above_base"
    TRANSFER = "transfer"
    BINARY = "binary"
    BUILD = "build"
    STARTUP = "startup"
    MEMORY = "memory"

    @property
    def timed(self) -> bool:
        """Whether it is in seconds; all others are in bytes."""
        return self in {Measure.BUILD, Measure.STARTUP}


class Level(StrEnum):
    """What comes of a budget that is exceeded."""

    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How much more than before something may be: a part of it, or an amount.

    Attributes:
        ratio: ``0.05`` for 5 %; None where it is an amount.
        amount: In bytes, or in seconds for times; None where it is a ratio.
    """

    ratio: float | None = None
    amount: float | None = None

    def limit(self, reference: float) -> float:
        """Return the most that may come after a reference."""
        return reference + (self.amount or 0) + reference * (self.ratio or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one measure may be: bytes, or seconds for times. None is no limit.

    Attributes:
        measure: What is measured.
        warn: More is said.
        fail: More fails the run.
        growth_warn: Growth beyond this, since the baseline or since the last good run, is said.
        growth_fail: Likewise, and it fails the run.
        ratchet: Whether what the baseline keeps as the least ever measured is a limit, too.
    """

    measure: Measure
    warn: float | None = None
    fail: float | None = None
    growth_warn: Growth | None = None
    growth_fail: Growth | None = None
    ratchet: bool = False
