"""A run held against what was before: the baseline, the last good run, the usual times.

Reads the history while records come in; what is made of it is pure
(:mod:`~nox_variants.budgets`, :mod:`~nox_variants.compare`, :mod:`~nox_variants.trend`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nox_variants import budgets, compare, trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nox_variants.baseline import Baseline
    from nox_variants.compare import Difference
    from nox_variants.history import History
    from nox_variants.plan import Plan
    from nox_variants.record import Record
    from nox_variants.trend import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is not what it was.

    Attributes:
        baseline: Since the baseline.
        last: Since the last good run of each variant, as far as that is not said already.
        slower: Variants whose times are far above the usual.
    """

    baseline: tuple[Difference, ...] = ()
    last: tuple[Difference, ...] = ()
    slower: tuple[tuple[str, Timing], ...] = ()

    @property
    def all(self) -> tuple[Difference, ...]:
        """All differences, those of the baseline first."""
        return (*self.baseline, *self.last)


class Standing:
    """What a run is held against.

    Args:
        history: The project's records.
        baseline: Of ``variants.lock``.
        run_id: The run; what is before it counts.
        updating: Whether the baseline is about to take what the run measures: then nothing has
            grown from it, and its ratchets still hold.
    """

    def __init__(
        self, history: History, baseline: Baseline, run_id: str, *, updating: bool = False
    ) -> None:
        self._history = history
        self._baseline = baseline
        self._run_id = run_id
        self._updating = updating

    def hold(self, plan: Plan, record: Record) -> Record:
        """Return the record with its budgets' checks."""
        limits = plan.variant.limits
        if not limits or record.verdict is None:
            return record
        row = self._baseline.row(record)
        if row and self._updating:
            row = replace(row, sizes=None)
        last = None
        if any(each.growth_warn or each.growth_fail for each in limits) and not self._updating:
            last = self._history.last_good_point(
                record.variant, record.platform, record.source, self._run_id
            )
        return budgets.held(record, limits, budgets.References(baseline=row, last=last))

    def changes(self, records: Sequence[Record]) -> Changes:
        """Return what is not what it was."""
        judged = [record for record in records if record.verdict]
        rows = {record.variant: row for record in judged if (row := self._baseline.side(record))}
        since = compare.differences(
            rows.values(), [compare.side(each) for each in judged if each.variant in rows]
        )
        said = {(each.variant, each.change) for each in since}
        last, slower = self._since_earlier(judged)
        new = (each for each in last if (each.variant, each.change) not in said)
        return Changes(baseline=since, last=tuple(new), slower=slower)

    def _since_earlier(
        self, records: Iterable[Record]
    ) -> tuple[tuple[Difference, ...], tuple[tuple[str, Timing], ...]]:
        before, after, slower = [], [], []
        for record in records:
            earlier = self._history.trend(
                record.variant, before=self._run_id, most=2 * trend.MOST_SAMPLES
            )
            if not earlier:
                continue
            now = trend.point(record)
            slower += [(record.variant, timing) for timing in _slower(now, earlier)]
            last = self._last_good(record, now)
            if last is not None:
                before.append(compare.side(last))
                after.append(compare.side(record))
        return compare.differences(before, after), tuple(slower)

    def _last_good(self, record: Record, now: trend.Point) -> Record | None:
        """Return the last good record of a variant, if it is not as it is now."""
        key = (record.variant, record.platform, record.source, self._run_id)
        point = self._history.last_good_point(*key)
        return None if point is None or _same(point, now) else self._history.last_good(*key)


def _slower(now: trend.Point, earlier: Sequence[trend.Point]) -> Iterable[Timing]:
    if now.build_cached and now.startup is None:
        return ()
    return (timing for timing in trend.timings(now, earlier) if timing.slower)


def _same(one: trend.Point, other: trend.Point) -> bool:
    return (one.verdict, one.cause, one.content) == (other.verdict, other.cause, other.content)
