"""Budgets: limits, growth and ratchets held against what was measured; growth has an origin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants import budgets
from nox_variants.baseline import Row
from nox_variants.budgets import References
from nox_variants.limits import Growth, Level, Limit, Measure
from nox_variants.model import Cause, Verdict
from nox_variants.record import Against
from nox_variants.results import Outcome, Sizes
from nox_variants.trend import point
from records import FULL

SIZES = Sizes(binary=16_000, content=58_000_000, above_base=16_000)
SMOKE = FULL.smoke
assert SMOKE
WORKS = replace(
    FULL,
    verdict=Verdict.WORKS,
    cause=None,
    outcome=Outcome.PASSED,
    reason="",
    sizes=SIZES,
    smoke=replace(SMOKE, exit_code=0, startup_ms=13.0),
)
BIGGER = replace(WORKS, sizes=Sizes(binary=16_000, content=61_000_000, above_base=16_000))
ROW = Row(verdict=Verdict.WORKS, sizes=SIZES)


def test_within_the_budget() -> None:
    """A limit that is kept is recorded, and says nothing."""
    record = budgets.held(
        WORKS, [Limit(measure=Measure.CONTENT, warn=58e6, fail=60e6)], References()
    )

    assert record.outcome is Outcome.PASSED
    assert [(each.level, each.value, each.limit, each.exceeded) for each in record.budget] == [
        (Level.WARN, 58_000_000, 58e6, False),
        (Level.FAIL, 58_000_000, 60e6, False),
    ]
    assert budgets.warnings([record]) == ()


def test_over_a_hard_limit() -> None:
    """What passed has failed, with the figures."""
    record = budgets.held(WORKS, [Limit(measure=Measure.CONTENT, fail=50e6)], References())

    assert record.outcome is Outcome.FAILED
    assert record.verdict is Verdict.WORKS
    assert record.reason == ("over budget: size is 58 MB, 8 MB more than the 50 MB of its budget")
    assert budgets.warnings([record]) == ()


def test_over_a_soft_limit() -> None:
    """It is said, and the outcome stays."""
    record = budgets.held(WORKS, [Limit(measure=Measure.BINARY, warn=15_000)], References())

    assert record.outcome is Outcome.PASSED
    assert budgets.warnings([record]) == (
        (WORKS.variant, "binary is 16 kB, 1 kB more than the 15 kB of its budget"),
    )


@pytest.mark.parametrize(
    ("measure", "limit", "said"),
    [
        (Measure.ABOVE_BASE, 10_000, "size above the base is 16 kB, 6 kB more than the 10 kB"),
        (Measure.BUILD, 0.15, "build time is 0.20 s, 50 ms more than the 0.15 s of its budget"),
        (Measure.STARTUP, 0.01, "start-up time is 13 ms, 3 ms more than the 10 ms of its budget"),
    ],
)
def test_every_measure(measure: Measure, limit: float, said: str) -> None:
    """Sizes are in bytes, times in seconds."""
    record = budgets.held(WORKS, [Limit(measure=measure, fail=limit)], References())

    assert said in record.reason


@pytest.mark.parametrize("measure", [Measure.TRANSFER, Measure.MEMORY])
def test_what_was_not_measured(measure: Measure) -> None:
    """It is said, and fails nothing."""
    record = budgets.held(WORKS, [Limit(measure=measure, fail=1)], References())

    assert record.outcome is Outcome.PASSED
    ((_, said),) = budgets.warnings([record])
    assert said.endswith("was not measured, and has a budget")


def test_growth_since_the_baseline_and_the_last_run() -> None:
    """Both are held: slow drift is caught by the one, a jump by the other."""
    near = point(replace(WORKS, sizes=replace(SIZES, content=60_900_000)))
    limit = Limit(
        measure=Measure.CONTENT,
        growth_warn=Growth(amount=200_000),
        growth_fail=Growth(ratio=0.05),
    )

    record = budgets.held(BIGGER, [limit], References(baseline=ROW, last=near))

    assert [(each.against, each.level, each.exceeded) for each in record.budget] == [
        (Against.BASELINE, Level.WARN, True),
        (Against.LAST, Level.WARN, False),
        (Against.BASELINE, Level.FAIL, True),
        (Against.LAST, Level.FAIL, False),
    ]
    assert record.reason == (
        "over budget: size is 61 MB, 3 MB (5.2%) more than the 58 MB of the baseline, and may be"
        " 60.9 MB: base image +3 MB, own layer +0 B"
    )


def test_growth_of_the_own_layer() -> None:
    """What the program itself added is told from what its base did."""
    own = replace(WORKS, sizes=replace(SIZES, content=58_100_000, above_base=116_000))
    limit = Limit(measure=Measure.CONTENT, growth_fail=Growth(amount=0))

    record = budgets.held(own, [limit], References(last=point(WORKS)))

    assert record.reason.endswith(
        "of the last good run, and may be 58 MB: base image +0 B, own layer +100 kB"
    )


def test_growth_of_a_time() -> None:
    """The baseline has no times: the last run counts."""
    slower = replace(WORKS, seconds=replace(WORKS.seconds, build=0.4))
    limit = Limit(measure=Measure.BUILD, growth_fail=Growth(ratio=0.5))

    record = budgets.held(slower, [limit], References(baseline=ROW, last=point(WORKS)))

    assert record.reason == (
        "over budget: build time is 0.40 s, 0.20 s (100.0%) more than the 0.20 s of the last good"
        " run, and may be 0.30 s"
    )


def test_growth_from_nothing() -> None:
    """Without a baseline and an earlier run nothing has grown; an empty one has no percentage."""
    limit = Limit(measure=Measure.CONTENT, growth_fail=Growth(ratio=0.05))
    empty = Row(verdict=Verdict.WORKS, sizes=Sizes(binary=0, content=0, above_base=0))

    assert budgets.held(WORKS, [limit], References()).budget == ()
    record = budgets.held(WORKS, [limit], References(baseline=empty))
    assert "58 MB more than the 0 B of the baseline" in record.reason


def test_the_ratchet() -> None:
    """The least that was kept is a limit of its own; without a row there is none yet."""
    limit = Limit(measure=Measure.CONTENT, fail=70e6, ratchet=True)
    row = replace(ROW, ratchet=((Measure.CONTENT, 57e6),))

    record = budgets.held(WORKS, [limit], References(baseline=row))

    assert record.reason == (
        "over budget: size is 58 MB, 1 MB more than the 57 MB that its ratchet keeps"
    )
    assert len(budgets.held(WORKS, [limit], References(baseline=ROW)).budget) == 1


def test_what_fails_has_no_budget() -> None:
    """The size of an image that does not work is nothing to hold anybody to."""
    fails = replace(WORKS, verdict=Verdict.FAILS, cause=Cause.EXIT_CODE, outcome=Outcome.XFAILED)

    assert budgets.held(fails, [Limit(measure=Measure.CONTENT, fail=1)], References()) == fails


def test_what_is_bad_already_keeps_its_reason() -> None:
    """An unexpected success stays one; what it measures is recorded."""
    record = replace(WORKS, outcome=Outcome.XPASSED, reason="expected to fail")

    record = budgets.held(record, [Limit(measure=Measure.CONTENT, fail=1)], References())

    assert (record.outcome, record.reason) == (Outcome.XPASSED, "expected to fail")
    assert record.budget[0].exceeded


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 10))
def test_growth_is_exceeded_exactly_above_its_limit(before: int, after: int, ratio: float) -> None:
    """A value is over when it is more than the reference and what it may grow."""
    limit = Limit(measure=Measure.CONTENT, growth_fail=Growth(ratio=ratio))
    row = Row(verdict=Verdict.WORKS, sizes=Sizes(binary=0, content=before, above_base=0))
    now = replace(WORKS, sizes=Sizes(binary=0, content=after, above_base=0))

    (check,) = budgets.held(now, [limit], References(baseline=row)).budget

    assert check.exceeded == (after > before + before * ratio)
    assert bool(check.explanation) == check.exceeded
