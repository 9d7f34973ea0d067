"""A run against what was before: budgets while it goes, changes and slow times at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants.baseline import Baseline
from nox_variants.compare import Change
from nox_variants.history import History
from nox_variants.limits import Growth, Limit, Measure
from nox_variants.model import Cause, Digest, LinkMode, Verdict
from nox_variants.plan import make_plans
from nox_variants.results import Outcome, Sizes
from nox_variants.standing import Standing
from records import FULL
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.plan import Plan
    from nox_variants.record import Record

SIZES = Sizes(binary=10, content=1000, above_base=10)
WORKS = replace(
    FULL, verdict=Verdict.WORKS, cause=None, outcome=Outcome.PASSED, reason="", sizes=SIZES
)
NOW = replace(
    WORKS,
    run_id="20261130T000000000000Z-00000000",
    started_at="2026-11-30T00:00:00.000Z",
    sizes=replace(SIZES, content=1100, above_base=110),
)
STATIC = variant("scratch", LinkMode.STATIC)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history."""
    with History(tmp_path / "history.sqlite") as opened:
        yield opened


def plan(*limits: Limit) -> Plan:
    """Return the plan of a variant with limits."""
    (made,) = make_plans(SETTINGS, [replace(STATIC, limits=limits)])
    return made


def baseline(record: Record, *limits: Limit) -> Baseline:
    """Return a baseline that a record made."""
    return Baseline().updated([record], [replace(STATIC, limits=limits)])


GROWTH = Limit(measure=Measure.CONTENT, growth_fail=Growth(ratio=0.05), ratchet=True)


def test_growth_is_held_against_the_last_good_run(history: History) -> None:
    """The newest that was as expected, of another run; bad ones do not count."""
    history.add(WORKS)
    bad = replace(NOW, run_id="20261129", outcome=Outcome.FAILED, started_at="2026-11-29")
    history.add(bad)
    history.add(NOW)

    record = Standing(history, Baseline(), NOW.run_id).hold(plan(GROWTH), NOW)

    assert record.outcome is Outcome.FAILED
    assert "more than the 1 kB of the last good run" in record.reason


def test_without_limits_nothing_is_asked(history: History) -> None:
    """The record is the same."""
    standing = Standing(history, Baseline(), NOW.run_id)

    assert standing.hold(plan(), NOW) is NOW
    skipped = replace(NOW, verdict=None)
    assert standing.hold(plan(GROWTH), skipped) is skipped


def test_an_update_of_the_baseline_holds_ratchets_only(history: History) -> None:
    """What is about to be agreed on has not grown from what was; a ratchet is never raised."""
    history.add(WORKS)
    agreed = baseline(WORKS, GROWTH)

    record = Standing(history, agreed, NOW.run_id, updating=True).hold(plan(GROWTH), NOW)

    assert [each.against for each in record.budget] == ["ratchet"]
    assert "1 kB that its ratchet keeps" in record.reason


def test_changes_are_said_once(history: History) -> None:
    """What is said of the baseline is not said again of the last good run."""
    history.add(WORKS)

    alone = Standing(history, Baseline(), NOW.run_id).changes([NOW])
    both = Standing(history, baseline(WORKS), NOW.run_id).changes([NOW])

    assert [each.change for each in alone.last] == [Change.BIGGER]
    assert ([each.change for each in both.baseline], both.last) == ([Change.BIGGER], ())
    assert both.all == both.baseline


def test_a_flip_names_the_image_that_moved(history: History) -> None:
    """The digest is not the one that the baseline was measured with."""
    moved = replace(FULL.images[0], digest=Digest("sha256:" + "9" * 64))
    broken = replace(
        NOW, verdict=Verdict.FAILS, cause=Cause.TIMEOUT, outcome=Outcome.FAILED, images=(moved,)
    )

    (found,) = Standing(history, baseline(WORKS), NOW.run_id).changes([broken]).baseline

    assert found.change is Change.BROKE
    assert [each.what for each in found.moved] == ["image gcc"]


def test_the_last_run_knows_packages(history: History) -> None:
    """Since the last good run, the packages that moved are named, too."""
    history.add(WORKS)
    image = replace(
        FULL.images[0],
        digest=Digest("sha256:" + "9" * 64),
        packages=("gcc=4:12.2.0-3", "libc6=2.37"),
    )

    (found,) = (
        Standing(history, Baseline(), NOW.run_id).changes([replace(NOW, images=(image,))]).last
    )

    assert [each.what for each in found.moved] == ["image gcc", "package libc6"]


def test_nothing_changed(history: History) -> None:
    """The same again is no change, nor is what has no verdict."""
    history.add(WORKS)
    same = replace(WORKS, run_id=NOW.run_id)

    standing = Standing(history, baseline(WORKS), NOW.run_id)

    assert standing.changes([same]).all == ()
    assert standing.changes([replace(same, verdict=None)]).all == ()


def test_slow_builds_are_said(history: History) -> None:
    """A compile that took far longer than usual; one from the cache took no time."""
    for day in range(1, 7):
        history.add(
            replace(WORKS, run_id=f"2026110{day}", started_at=f"2026-11-0{day}", build_cached=False)
        )
    slow = replace(NOW, build_cached=False, seconds=replace(NOW.seconds, build=60.0))
    standing = Standing(history, Baseline(), NOW.run_id)

    ((name, timing),) = standing.changes([slow]).slower

    assert (name, timing.value, timing.samples) == (NOW.variant, 60.0, 6)
    assert standing.changes([replace(slow, build_cached=True)]).slower == ()
