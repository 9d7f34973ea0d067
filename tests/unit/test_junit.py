"""JUnit XML: what CI systems take, read back, and held against their schema."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.limits import Level, Measure
from nox_variants.model import Cause, Libs, Verdict
from nox_variants.record import OUTPUT_KEPT, Against, BudgetCheck, Seconds
from nox_variants.reports import junit
from nox_variants.reports.escaping import for_xml
from nox_variants.results import Outcome, Role, Sizes
from records import FULL, SKIPPED

if TYPE_CHECKING:
    from nox_variants.record import Record

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("junit-10.xsd"))

PASSED = replace(
    FULL,
    variant="hello-c(gcc,dynamic)",
    run_image="gcc",
    outcome=Outcome.PASSED,
    verdict=Verdict.WORKS,
    cause=None,
    explanation="",
    reason="",
)
WARNED = BudgetCheck(
    measure=Measure.CONTENT,
    against=Against.LIMIT,
    level=Level.WARN,
    value=3,
    limit=2,
    exceeded=True,
    explanation="size is 3 B, 1 B more than the 2 B of its budget",
)


def read(*records: Record) -> ET.Element:
    """Return the root of a document that the schema takes."""
    text = junit.document(records, name="nox-variants")
    SCHEMA.validate(text)
    return ET.fromstring(text)  # noqa: S314  # our own


def case(record: Record, *others: Record) -> ET.Element:
    """Return a record's case, among others."""
    found = read(record, *others).find(".//testcase")
    assert found is not None
    return found


def result(element: ET.Element) -> tuple[str, str | None, str | None]:
    """Return the result of a case: its kind, type and message."""
    (found,) = (each for each in element if each.tag in {"failure", "error", "skipped"})
    return found.tag, found.get("type"), found.get("message")


def test_whole_document() -> None:
    """A document has a suite per program, a case per variant, and the counts of both."""
    assert SKIPPED.images == ()
    assert junit.document([FULL, SKIPPED], name="nox-variants: here") == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<testsuites name="nox-variants: here" tests="2" failures="1" errors="0" time="0.205">\n'
        '  <testsuite name="hello-c" tests="1" errors="0" failures="1" skipped="0" time="0.205">\n'
        "    <properties>\n"
        '      <property name="hello-c(scratch,static).engine" value="embedded 0.11.0" />\n'
        '      <property name="hello-c(scratch,static).linkage" value="static" />\n'
        '      <property name="hello-c(scratch,static).binary" value="767000" />\n'
        '      <property name="hello-c(scratch,static).content" value="767000" />\n'
        '      <property name="hello-c(scratch,static).above_base" value="767000" />\n'
        '      <property name="hello-c(scratch,static).image.build"'
        f' value="gcc sha256:{"1" * 64} (stand-in: apt gcc libc6-dev)" />\n'
        "    </properties>\n"
        '    <testcase name="hello-c(scratch,static)" classname="hello-c.gcc-static"'
        ' time="0.205">\n'
        '      <failure message="expected to work" type="exit-code">expected to work\n'
        "ended with exit code 3, not 0</failure>\n"
        "      <system-out>Hëllo\n"
        "</system-out>\n"
        "    </testcase>\n"
        "  </testsuite>\n"
        '  <testsuite name="hello-rust" tests="1" errors="0" failures="0" skipped="1"'
        ' time="0.0">\n'
        '    <testcase name="hello-rust(scratch,musl)" classname="hello-rust.alpine-rust-musl"'
        ' time="0.0">\n'
        '      <skipped message="no source" type="skipped" />\n'
        "    </testcase>\n"
        "  </testsuite>\n"
        "</testsuites>\n"
    )


def test_no_records() -> None:
    """A run of nothing is a document, too."""
    assert dict(read().attrib) == {
        "name": "nox-variants",
        "tests": "0",
        "failures": "0",
        "errors": "0",
        "time": "0",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"outcome": Outcome.FAILED}, ("failure", "exit-code", "expected to work")),
        (
            {"outcome": Outcome.FAILED, "reason": ""},
            ("failure", "exit-code", "ended with exit code 3, not 0"),
        ),
        (
            {"outcome": Outcome.FAILED, "cause": None, "reason": "over budget: x"},
            ("failure", "failed", "over budget: x"),
        ),
        (
            {"outcome": Outcome.XPASSED, "cause": None, "reason": "works, but"},
            ("failure", "xpassed", "works, but"),
        ),
        (
            {"outcome": Outcome.ERROR, "cause": None, "reason": "", "explanation": ""},
            ("error", "error", "error"),
        ),
        ({"outcome": Outcome.SKIPPED, "reason": "no image"}, ("skipped", "skipped", "no image")),
        ({"outcome": Outcome.XFAILED}, ("skipped", "xfailed", "expected to fail: exit-code")),
        ({"outcome": Outcome.XFAILED, "cause": None}, ("skipped", "xfailed", "expected to fail")),
    ],
)
def test_outcomes(changes: dict[str, object], expected: tuple[str, str, str]) -> None:
    """Every outcome but the good one is what CI systems know that is nearest."""
    assert result(case(replace(FULL, **changes))) == expected  # type: ignore[arg-type]


def test_counts() -> None:
    """The counts of suites and of the whole agree with the cases."""
    records = [
        replace(FULL, variant=f"{outcome}-{number}", outcome=outcome)
        for number, outcome in enumerate((*Outcome, Outcome.ERROR))
    ]
    root = read(*records, replace(PASSED, program="other"))
    first, other = root.findall("testsuite")

    assert [first.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
        *("7", "2", "2", "2")
    ]
    assert [other.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
        *("1", "0", "0", "0")
    ]
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["8", "2", "2"]
    assert len(root.findall(".//testcase")) == 8


def test_what_passed_has_no_result() -> None:
    """A case that passed has its output only."""
    assert [each.tag for each in case(PASSED)] == ["system-out"]


def test_details_of_a_failure() -> None:
    """A failure's text, which GitLab shows, has all that is known, and what works instead."""
    record = replace(FULL, contradiction="predicted that it works")
    text = case(record, PASSED).findtext("failure")

    assert text == (
        "expected to work\n"
        "ended with exit code 3, not 0\n"
        "Defect of nox-variants: predicted that it works\n"
        "Instead: hello-c(gcc,dynamic) works (767 kB*)"
    )


def test_explanations_are_said_once() -> None:
    """A reason that repeats the explanation is the whole text."""
    record = replace(FULL, reason="expected x: ended badly", explanation="ended badly")

    assert case(record).findtext("failure") == "expected x: ended badly"


@pytest.mark.parametrize(
    ("seconds", "cached", "time"),
    [
        (Seconds(images=9, build=1, assemble=0.25, smoke=0.125), False, "1.375"),
        (Seconds(images=9, build=1, assemble=0.25, smoke=0.125), True, "0.375"),
        (Seconds(), None, "0.0"),
        (Seconds(smoke=0.00001), None, "0.0"),
        (Seconds(smoke=1e300), None, "1000000000.0"),
        (Seconds(smoke=-1), None, "0.0"),
        (Seconds(smoke=float("nan")), None, "0.0"),
    ],
)
def test_times(seconds: Seconds, cached: bool | None, time: str) -> None:  # noqa: FBT001
    """A case took what was done for it: not preparing images, no compile out of the cache."""
    assert case(replace(PASSED, seconds=seconds, build_cached=cached)).get("time") == time


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "hello-c.gcc-static"),
        ({"libs": Libs.BUNDLE}, "hello-c.gcc-static+libs"),
        ({"program": "a.b", "build_image": "x.y/python:3.12"}, "a_b.x_y/python:3_12-static"),
    ],
)
def test_classes(changes: dict[str, object], name: str) -> None:
    """A class is how a program was built; its program is the only package."""
    assert case(replace(PASSED, **changes)).get("classname") == name  # type: ignore[arg-type]


def test_properties() -> None:
    """A suite says of each variant what was measured, and which images it is of."""
    (build,) = FULL.images
    run = replace(build, name="ubuntu", role=Role.RUN, stand_in=False)
    sizes = Sizes(binary=1, content=3, above_base=2, transfer=4)
    root = read(replace(PASSED, variant="v", images=(build, run), sizes=sizes, linkage=None))
    found = {each.get("name"): each.get("value") for each in root.iterfind(".//property")}

    assert found == {
        "v.engine": "embedded 0.11.0",
        "v.binary": "1",
        "v.content": "3",
        "v.above_base": "2",
        "v.transfer": "4",
        "v.image.build": f"gcc sha256:{'1' * 64} (stand-in: apt gcc libc6-dev)",
        "v.image.run": f"ubuntu sha256:{'1' * 64}",
    }


def test_output() -> None:
    """Output is bounded, and what there is to say beside it goes to stderr."""
    assert PASSED.smoke is not None
    smoke = replace(
        PASSED.smoke, stdout="x" * (OUTPUT_KEPT + 5), stderr="a < b & \x1b[31m\n", truncated=True
    )
    found = case(replace(PASSED, smoke=smoke, budget=(WARNED,)))

    assert found.findtext("system-out") == "x" * OUTPUT_KEPT + "\n[5 more characters]"
    assert found.findtext("system-err") == (
        "a < b & \\x1b[31m\n\n"
        "nox-variants: output was cut off\n"
        "nox-variants: budget: size is 3 B, 1 B more than the 2 B of its budget"
    )


def test_no_output() -> None:
    """What did not run, or said nothing, has no output."""
    assert PASSED.smoke is not None
    silent = replace(PASSED, smoke=replace(PASSED.smoke, stdout=""))

    assert list(case(silent)) == list(case(replace(PASSED, smoke=None))) == []


TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    [
        "]]><x/>",
        "\x00\x08\x0b\x1b[0m",
        "\ud800\udfff\ufffe\uffff",
        "&lt; <!-- -- --> <?xml ?>",
        "\r\n\t\r",
        "'\"",
        "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    ]
)


@st.composite
def hostile(draw: st.DrawFn) -> Record:
    """Draw a record in which every text is somebody else's."""
    assert FULL.smoke is not None
    smoke = replace(FULL.smoke, stdout=draw(TEXTS), stderr=draw(TEXTS))
    return replace(
        FULL,
        variant=draw(TEXTS),
        program=draw(TEXTS),
        build_image=draw(TEXTS),
        outcome=draw(st.sampled_from(Outcome)),
        cause=draw(st.none() | st.sampled_from(Cause)),
        reason=draw(TEXTS),
        explanation=draw(TEXTS),
        contradiction=draw(TEXTS),
        images=tuple(replace(image, reference=draw(TEXTS)) for image in FULL.images),
        smoke=smoke,
        seconds=Seconds(build=draw(st.floats() | st.none()), smoke=draw(st.floats())),
        budget=(replace(WARNED, explanation=draw(TEXTS)),),
    )


@given(st.lists(hostile(), min_size=1, max_size=4), TEXTS)
def test_hostile_texts(records: list[Record], name: str) -> None:
    """Whatever programs print: the document is valid, and a case is where its variant is."""
    text = junit.document(records, name=name)
    SCHEMA.validate(text)
    root = ET.fromstring(text)  # noqa: S314  # what is tested

    shown = sorted(each.get("name", "") for each in root.iterfind(".//testcase"))
    assert shown == sorted(for_xml(record.variant) for record in records)
    if len(records) == 1 and records[0].smoke:
        output = root.findtext(".//system-out") or ""
        assert output == re.sub("\r\n?", "\n", for_xml(records[0].smoke.stdout))


def test_the_schema_refuses() -> None:
    """The schema is one that can refuse: properties of a case are none of its elements."""
    text = junit.document([PASSED], name="x").replace("<system-out>", "<properties /><system-out>")

    with pytest.raises(xmlschema.XMLSchemaValidationError):
        SCHEMA.validate(text)
