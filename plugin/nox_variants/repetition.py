"""A smoke run that is repeated: one verdict, and medians. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nox_variants.results import Finding, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """What came of it.

    Attributes:
        seen: What was seen of the run that counts: the one that went wrong, else the first.
        finding: The judgement on it.
        runs: How many there were.
        startup: Median of the start-up times that were seen, in seconds; None where none was.
        peak_memory: Median of the peaks that were seen, in bytes; None where none was.
    """

    seen: Observation
    finding: Finding
    runs: int
    startup: float | None
    peak_memory: int | None


def repeat(
    times: int, run: Callable[[], Observation], judge: Callable[[Observation], Finding]
) -> Repeated:
    """Run a program several times, until it goes wrong: one that works only now and then does not.

    Args:
        times: How often, at most.
        run: Runs it once.
        judge: Says what is to be thought of a run.
    """
    made = [run()]
    counts, finding = made[0], judge(made[0])
    while len(made) < times and finding.verdict is Verdict.WORKS:
        made.append(run())
        found = judge(made[-1])
        if found.verdict is not Verdict.WORKS:
            counts, finding = made[-1], found
    peak = _median(seen.peak_memory for seen in made)
    return Repeated(
        seen=counts,
        finding=finding,
        runs=len(made),
        startup=_median(seen.startup for seen in made),
        peak_memory=None if peak is None else round(peak),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    middle = len(known) // 2
    if not known:
        return None
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
