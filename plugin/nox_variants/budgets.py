"""Limits held against what was measured: absolute ones, growth, ratchets. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nox_variants.compare import growth
from nox_variants.limits import Level, Measure
from nox_variants.model import Verdict
from nox_variants.record import Against, BudgetCheck
from nox_variants.reports import table
from nox_variants.results import Outcome, Sizes
from nox_variants.trend import point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nox_variants.baseline import Row
    from nox_variants.limits import Growth, Limit
    from nox_variants.record import Record
    from nox_variants.trend import Point

_NAMES = {
    Measure.CONTENT: "size",
    Measure.ABOVE_BASE: "size above the base",
    Measure.TRANSFER: "transfer size",
    Measure.BINARY: "binary",
    Measure.BUILD: "build time",
    Measure.STARTUP: "start-up time",
    Measure.MEMORY: "peak memory",
}
_REFERENCES = {Against.BASELINE: "the baseline", Against.LAST: "the last good run"}


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a record may have grown from.

    Attributes:
        baseline: Its row in ``variants.lock``.
        last: Of the last good run with images of the same sources.
    """

    baseline: Row | None = None
    last: Point | None = None


def held(record: Record, limits: Iterable[Limit], references: References) -> Record:
    """Return a record with its budgets' checks: over a hard one, what passed has failed.

    Only what works has a budget.
    """
    if record.verdict is not Verdict.WORKS:
        return record
    checks = tuple(check for limit in limits for check in _checks(record, limit, references))
    record = replace(record, budget=checks)
    over = [each for each in checks if each.exceeded and each.level is Level.FAIL]
    if not over or record.outcome is not Outcome.PASSED:
        return record
    said = tuple(dict.fromkeys(each.explanation for each in over))
    return replace(record, outcome=Outcome.FAILED, reason=f"over budget: {'; '.join(said)}")


def warnings(records: Iterable[Record]) -> tuple[tuple[str, str], ...]:
    """Return the variants and the sentences of soft limits that are exceeded."""
    return tuple(
        (record.variant, check.explanation)
        for record in records
        for check in record.budget
        if check.explanation and not (check.exceeded and check.level is Level.FAIL)
    )


def _checks(record: Record, limit: Limit, references: References) -> Iterator[BudgetCheck]:
    value = point(record).measured(limit.measure)
    blank = BudgetCheck(
        measure=limit.measure, against=Against.LIMIT, level=Level.FAIL, value=value, limit=0
    )
    for level, most in ((Level.WARN, limit.warn), (Level.FAIL, limit.fail)):
        if most is not None:
            yield _absolute(replace(blank, level=level, limit=most))
    row, last = references.baseline, references.last
    if limit.ratchet and row and (least := dict(row.ratchet).get(limit.measure)) is not None:
        yield _absolute(replace(blank, against=Against.RATCHET, limit=least))
    for level, grown in ((Level.WARN, limit.growth_warn), (Level.FAIL, limit.growth_fail)):
        if grown is not None:
            for against, before in _before(limit.measure, row, last):
                check = replace(blank, against=against, level=level, reference=before)
                sizes = row.sizes if row and against is Against.BASELINE else _sizes(last)
                yield _growth(record, check, grown, before, sizes)


def _before(
    measure: Measure, row: Row | None, last: Point | None
) -> Iterator[tuple[Against, float]]:
    """Yield what there is to have grown from."""
    size: int | None = getattr(row.sizes, measure, None) if row and row.sizes else None
    if size is not None:
        yield Against.BASELINE, size
    earlier = last.measured(measure) if last else None
    if earlier is not None:
        yield Against.LAST, earlier


def _absolute(check: BudgetCheck) -> BudgetCheck:
    name, said = _NAMES[check.measure], _said(check.measure)
    if check.value is None:
        return replace(check, explanation=f"{name} was not measured, and has a budget")
    if check.value <= check.limit:
        return check
    of = "that its ratchet keeps" if check.against is Against.RATCHET else "of its budget"
    text = (
        f"{name} is {said(check.value)}, {said(check.value - check.limit)} more than the"
        f" {said(check.limit)} {of}"
    )
    return replace(check, exceeded=True, explanation=text)


def _growth(
    record: Record, check: BudgetCheck, allowed: Growth, before: float, sizes: Sizes | None
) -> BudgetCheck:
    check = replace(check, limit=allowed.limit(before))
    if check.value is None or check.value <= check.limit:
        return check
    said = _said(check.measure)
    part = f" ({(check.value - before) / before:.1%})" if before else ""
    text = (
        f"{_NAMES[check.measure]} is {said(check.value)}, {said(check.value - before)}{part} more"
        f" than the {said(before)} of {_REFERENCES[check.against]}, and may be"
        f" {said(check.limit)}"
    )
    if check.measure in {Measure.CONTENT, Measure.TRANSFER} and sizes and record.sizes:
        text += f": {attribution(sizes, record.sizes)}"
    return replace(check, exceeded=True, explanation=text)


def attribution(before: Sizes, after: Sizes) -> str:
    """Return where content came from: ``base image +3 MB, own layer +0 B``."""
    base, own = growth(before, after)
    return f"base image {signed(base)}, own layer {signed(own)}"


def signed(number: int) -> str:
    """Return bytes that were added or taken away: ``+3 MB``, ``-12 kB``, ``+0 B``."""
    return f"{'-' if number < 0 else '+'}{table.size(abs(number))}"


def _sizes(last: Point | None) -> Sizes | None:
    if last is None or last.content is None or last.above_base is None or last.binary is None:
        return None
    return Sizes(
        binary=last.binary,
        content=last.content,
        above_base=last.above_base,
        transfer=last.transfer,
    )


def _said(measure: Measure) -> Callable[[float], str]:
    return table.duration if measure.timed else lambda number: table.size(round(number))
