"""All that is known of a variant, as the HTML page shows it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nox_variants.reports import table
from nox_variants.reports.pageview import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nox_variants.record import BudgetCheck, Record
    from nox_variants.reports.pageview import Entry

Pairs = tuple[tuple[str, str], ...]
"""Terms and what they are; what is empty is not shown."""


def facts(entry: Entry) -> tuple[tuple[str, Pairs], ...]:
    """Return all that is known of a variant in groups, but for images, budgets and output."""
    record = entry.record
    made = (
        ("Verdict", _verdict(record)),
        ("Sizes", _sizes(entry)),
        ("Linkage", _linkage(record)),
        ("Times", _times(record)),
        ("Smoke run", _smoke(record)),
        ("Made by", _origin(record)),
    )
    groups = ((title, tuple(pair for pair in pairs if pair[1])) for title, pairs in made)
    return tuple((title, pairs) for title, pairs in groups if pairs)


def _verdict(record: Record) -> Iterator[tuple[str, str]]:
    yield "verdict", str(record.verdict or "not found out")
    yield "cause", str(record.cause or "")
    yield "explanation", record.explanation
    yield "expected", _judged(record.expected.verdict, record.expected.cause)
    if record.predicted:
        yield "predicted", _judged(record.predicted.verdict, record.predicted.cause)
    yield "defect of nox-variants", record.contradiction
    yield "outcome", str(record.outcome)
    yield "reason", record.reason
    yield "shell", "" if record.shell is None else ("yes" if record.shell else "no")


def _judged(verdict: str, cause: str | None) -> str:
    return f"{verdict}: {cause}" if cause else verdict


def _sizes(entry: Entry) -> Iterator[tuple[str, str]]:
    sizes = entry.record.sizes
    if sizes is None:
        return
    yield "content", f"{entry.row.content} ({sizes.content:,} bytes)"
    yield "factor", entry.row.factor
    yield "above the base", f"{table.size(sizes.above_base)} ({sizes.above_base:,} bytes)"
    yield "binary", f"{table.size(sizes.binary)} ({sizes.binary:,} bytes)"
    if sizes.transfer is not None:
        yield "transfer", f"{table.size(sizes.transfer)} ({sizes.transfer:,} bytes)"


def _linkage(record: Record) -> Iterator[tuple[str, str]]:
    yield "asked for", record.linking
    if record.linkage is None:
        return
    yield "is", str(record.linkage.actual)
    yield "loader", record.linkage.interpreter
    yield "needs", ", ".join(record.linkage.needed)
    yield "glibc", record.linkage.glibc
    yield "compiler", record.linkage.compiler


def _times(record: Record) -> Iterator[tuple[str, str]]:
    seconds = record.seconds
    yield "images", _time(seconds.images)
    cached = ", this time from the cache" if record.build_cached else ""
    yield "build", _time(seconds.build) and _time(seconds.build) + cached
    yield "assembly", _time(seconds.assemble)
    yield "smoke run", _time(seconds.smoke)
    startup, memory = table.measured(record)
    yield "start-up", startup
    yield "peak memory", memory


def _time(seconds: float | None) -> str:
    return "" if seconds is None else table.duration(seconds)


def _smoke(record: Record) -> Iterator[tuple[str, str]]:
    smoke = record.smoke
    if smoke is None:
        return
    yield "runs", str(smoke.runs) if smoke.runs > 1 else ""
    yield "exit code", "" if smoke.exit_code is None else str(smoke.exit_code)
    yield "signal", "" if smoke.signal is None else str(smoke.signal)
    yield "timed out", "yes" if smoke.timed_out else ""
    yield "output", "cut off" if smoke.truncated else ""
    if smoke.service:
        listened = f"after {_time(smoke.service.seconds)}" if smoke.service.listened else "never"
        yield "listened", listened
        yield "status", str(smoke.service.status or "")
        yield "error", smoke.service.error
        stopped = f"after {_time(smoke.service.stop_seconds)}" if smoke.service.stopped else "no"
        yield "stopped by SIGTERM", stopped


def _origin(record: Record) -> Iterator[tuple[str, str]]:
    yield "engine", f"{record.engine.name} {record.engine.version}" if record.engine else "none"
    yield "platform", record.platform
    yield "started", moment(record.started_at)
    yield "commit", record.git_commit or ""
    yield "tools", ", ".join(f"{name} {version}" for name, version in record.tools.items())
    if record.image:
        yield "image", record.image.tag
        yield "image id", record.image.config_digest
        yield "layout", record.image.path
        yield "published", ", ".join(record.image.published)


def outputs(record: Record) -> Pairs:
    """Return what the program printed, and what its server answered."""
    smoke = record.smoke
    if smoke is None:
        return ()
    body = smoke.service.body if smoke.service else ""
    made = (("stdout", smoke.stdout), ("stderr", smoke.stderr), ("answer", body))
    return tuple(pair for pair in made if pair[1])


def checked(check: BudgetCheck) -> tuple[str, str, str, str, str]:
    """Return a check of a budget as a row: measure, against, value, limit, result."""
    write = table.duration if check.measure.timed else lambda number: table.size(round(number))
    result = f"exceeded ({check.level})" if check.exceeded else "kept"
    return (
        check.measure.value.replace("_", " "),
        check.against.value,
        "not measured" if check.value is None else write(check.value),
        write(check.limit),
        "" if check.value is None else result,
    )
