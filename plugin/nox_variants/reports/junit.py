"""Records as JUnit XML, for what CI systems show of tests. Pure.

The elements and attributes are those of the schema that Jenkins' xunit-plugin checks them with,
which is the strictest: it has no properties of a test case, so that they are their suite's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nox_variants import budgets
from nox_variants.advice import Remedies
from nox_variants.record import OUTPUT_KEPT
from nox_variants.reports.escaping import for_xml
from nox_variants.results import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from junitparser import TestCase, TestSuite
    from junitparser.junitparser import FinalResult

    from nox_variants.record import ImageUsed, Record

_LONGEST = 1e9
"""Seconds; what a record says of more is no time."""

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def document(records: Sequence[Record], *, name: str) -> str:
    """Return JUnit XML: a suite per program, a case per variant.

    Args:
        records: Of one run.
        name: Of all suites together.
    """
    from junitparser import JUnitXml  # noqa: PLC0415  # only this report needs it

    programs: dict[str, list[Record]] = {}
    for record in records:
        programs.setdefault(record.program, []).append(record)
    root = JUnitXml(for_xml(name))
    remedies = Remedies(records)
    suites = [_suite(program, some, remedies) for program, some in programs.items()]
    root.extend(suites)  # type: ignore[no-untyped-call]
    # Its own statistics have `skipped`, which the schema knows of suites only.
    root.tests = sum(suite.tests for suite in suites)
    root.failures = sum(suite.failures for suite in suites)
    root.errors = sum(suite.errors for suite in suites)
    root.time = round(sum(suite.time for suite in suites), 3)
    return f"{_HEAD}{_indented(root.tostring())}\n"  # type: ignore[no-untyped-call]


def _indented(xml: bytes) -> str:
    """Return XML with each element on its own line; text stays as it is."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415

    tree = ET.fromstring(xml)  # noqa: S314  # our own: it has no entities
    ET.indent(tree)
    return ET.tostring(tree, encoding="unicode")


def _suite(program: str, records: Sequence[Record], remedies: Remedies) -> TestSuite:
    from junitparser import TestSuite  # noqa: PLC0415

    suite = TestSuite(for_xml(program))
    for record in records:
        for what, value in _properties(record):
            suite.add_property(for_xml(f"{record.variant}.{what}"), for_xml(value))
    suite.add_testcases([_case(record, remedies) for record in records])
    return suite


def _properties(record: Record) -> Iterator[tuple[str, str]]:
    """Yield what is known of a variant beside its outcome; sizes in bytes."""
    if record.engine:
        yield "engine", f"{record.engine.name} {record.engine.version}"
    if record.linkage:
        yield "linkage", record.linkage.actual
    for what in ("binary", "content", "above_base", "transfer"):
        if (number := getattr(record.sizes, what, None)) is not None:
            yield what, str(number)
    for image in record.images:
        yield f"image.{image.role}", _image(image)


def _image(image: ImageUsed) -> str:
    stand_in = f" (stand-in: {image.source} {image.reference})" if image.stand_in else ""
    return f"{image.name} {image.digest}{stand_in}"


def _case(record: Record, remedies: Remedies) -> TestCase:
    from junitparser import TestCase  # noqa: PLC0415

    case = TestCase(for_xml(record.variant), _class(record), _spent(record))
    if result := _result(record, remedies):
        case.append(result)  # type: ignore[no-untyped-call]
    if record.smoke and record.smoke.stdout:
        case.system_out = _bounded(record.smoke.stdout)
    if beside := "\n".join(_beside(record)):
        case.system_err = beside
    return case


def _spent(record: Record) -> float:
    """Return the seconds that a variant took, as the schema writes them: no sign, no exponent."""
    seconds = record.seconds
    build = None if record.build_cached else seconds.build
    spent = sum(each or 0.0 for each in (build, seconds.assemble, seconds.smoke))
    return round(min(max(0.0, spent), _LONGEST), 3)


def _class(record: Record) -> str:
    """Return the class: a program is its package, so that run images stand below each other.

    A dot in a name would begin another level.
    """
    parts = (record.program, f"{record.build_image}-{record.linking}")
    return for_xml(".".join(part.replace(".", "_") for part in parts))


def _result(record: Record, remedies: Remedies) -> FinalResult | None:
    """Return what a case has that did not simply pass.

    What fails as expected is skipped, as pytest does it: JUnit has no word for it.
    """
    from junitparser import Skipped  # noqa: PLC0415

    if record.outcome.bad:
        return _bad(record, remedies)
    if record.outcome is Outcome.XFAILED:
        cause = f": {record.cause}" if record.cause else ""
        return Skipped(for_xml(f"expected to fail{cause}"), "xfailed")
    if record.outcome is Outcome.SKIPPED:
        return Skipped(for_xml(record.reason), "skipped")
    return None


def _bad(record: Record, remedies: Remedies) -> FinalResult:
    from junitparser import Error, Failure  # noqa: PLC0415

    kind = Error if record.outcome is Outcome.ERROR else Failure
    result = kind(_message(record), record.cause or record.outcome)
    # GitLab shows the text and not the message.
    result.text = for_xml("\n".join(filter(None, _details(record, remedies))))
    return result


def _message(record: Record) -> str:
    return for_xml(record.reason or record.explanation or record.outcome)


def _details(record: Record, remedies: Remedies) -> Iterator[str]:
    """Yield all that is known of why it is bad, and what works instead."""
    yield _message(record)
    if record.explanation not in record.reason:
        yield record.explanation
    if record.contradiction:
        yield f"Defect of nox-variants: {record.contradiction}"
    for remedy in remedies.of(record.variant):
        yield f"Instead: {remedy}"


def _beside(record: Record) -> Iterator[str]:
    """Yield what the program wrote to stderr, and what there is to say of its output and size."""
    if record.smoke and record.smoke.stderr:
        yield _bounded(record.smoke.stderr)
    if record.smoke and record.smoke.truncated:
        yield "nox-variants: output was cut off"
    for _, text in budgets.warnings([record]):
        yield for_xml(f"nox-variants: budget: {text}")


def _bounded(text: str) -> str:
    more = len(text) - OUTPUT_KEPT
    return for_xml(f"{text[:OUTPUT_KEPT]}\n[{more} more characters]" if more > 0 else text)
