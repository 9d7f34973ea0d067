"""Repeated smoke runs: how many there are, which one counts, and the medians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nox_variants.model import Cause, Verdict
from nox_variants.repetition import repeat
from nox_variants.results import Finding, Observation

if TYPE_CHECKING:
    from nox_variants.repetition import Repeated


def seen(code: int = 0, startup: float | None = None, peak: int | None = None) -> Observation:
    """Return what is seen of a run."""
    return Observation(started=True, exit_code=code, startup=startup, peak_memory=peak)


def judge(run: Observation) -> Finding:
    """Return what is thought of it."""
    if run.exit_code == 0:
        return Finding(verdict=Verdict.WORKS)
    return Finding(verdict=Verdict.FAILS, cause=Cause.EXIT_CODE, explanation=f"{run.exit_code}")


def repeated(*runs: Observation, times: int = 0) -> Repeated:
    """Return what comes of some runs, in this order."""
    return repeat(times or len(runs), iter(runs).__next__, judge)


@pytest.mark.parametrize(
    ("codes", "counts", "runs"),
    [
        pytest.param([0], 0, 1, id="one"),
        pytest.param([0, 0, 0], 0, 3, id="all work"),
        pytest.param([3, 0, 0], 3, 1, id="the first fails"),
        pytest.param([0, 0, 4, 5], 4, 3, id="a flaky program fails"),
    ],
)
def test_verdict(codes: list[int], counts: int, runs: int) -> None:
    """The first run that goes wrong is the last, and counts; else the first does."""
    made = [seen(code, startup=float(number)) for number, code in enumerate(codes)]
    found = repeated(*made)

    assert (found.seen.exit_code, found.finding, found.runs) == (counts, judge(seen(counts)), runs)
    assert found.seen is made[0 if counts == 0 else runs - 1]


def test_no_more_than_asked_for() -> None:
    """A program that works is run as often as is asked for, and no more."""
    assert repeated(*map(seen, [0] * 9), times=4).runs == 4


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([5], 5),
        ([9, 1, 2], 2),
        ([4, 1, 2, 90], 3),
        ([None, 7, None, 3, 8], 7),
        ([None, None], None),
    ],
)
def test_medians(values: list[int | None], median: float | None) -> None:
    """Medians are those of what was seen; nothing is made up where nothing was."""
    found = repeated(*(seen(startup=value, peak=value) for value in values))

    assert (found.startup, found.peak_memory) == (median, median)


def test_bytes_are_whole() -> None:
    """The median of two peaks is a number of bytes."""
    assert isinstance(repeated(seen(peak=4), seen(peak=7)).peak_memory, int)
