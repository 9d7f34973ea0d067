"""The summary for CI, as GitHub renders it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants import compare
from nox_variants.limits import Level, Measure
from nox_variants.model import Cause, Verdict
from nox_variants.record import Against, BudgetCheck
from nox_variants.reports import gfm, markdown
from nox_variants.reports.escaping import visible
from nox_variants.results import Outcome, Sizes
from records import FULL, SKIPPED
from rendered import HOSTILE, links, rendered

if TYPE_CHECKING:
    from nox_variants.record import Record

PASSED = replace(
    FULL,
    variant="hello-c(gcc,dynamic)",
    run_image="gcc",
    sizes=Sizes(binary=16_000, content=1_534_000, above_base=16_200),
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
    value=1_534_000,
    limit=1_500_000,
    exceeded=True,
    explanation="size is 1.53 MB, 34 kB more than the 1.5 MB of its budget",
)


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines below each heading, without the empty ones."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            name = line.lstrip("# ")
            found[name] = []
        elif line:
            found.setdefault(name, []).append(line)
    return found


def many(count: int, **changes: Any) -> list[Record]:
    """Return records of variants that passed, in four programs."""
    return [
        replace(
            PASSED,
            variant=f"program-{number * 4 // count}(image-{number},static)",
            program=f"program-{number * 4 // count}",
            run_image=f"image-{number}",
            **changes,
        )
        for number in range(count)
    ]


def test_whole_summary() -> None:
    """A summary says what is broken first, and ends with what to use and what was used."""
    before = compare.side(replace(PASSED, sizes=Sizes(binary=1, content=1_000_000, above_base=1)))
    after = compare.side(PASSED)
    differences = compare.differences([before], [after])
    records = [FULL, replace(PASSED, budget=(WARNED,), shell=True), SKIPPED]  # noqa: S604  # a field

    assert markdown.document(records, differences, title="nox-variants: here") == (
        "## nox-variants: here\n"
        "\n"
        "3 variants: 1 passed, 1 failed, 1 skipped\n"
        "\n"
        "### Broken\n"
        "\n"
        "- **failed** hello-c(scratch,static) (exit-code): expected to work: ended with exit code"
        " 3, not 0\n"
        "  - instead: hello-c(gcc,dynamic) works (1.53 MB&#42;)\n"
        "\n"
        "### Budgets\n"
        "\n"
        "- **warn** hello-c(gcc,dynamic): size is 1.53 MB, 34 kB more than the 1.5 MB of its"
        " budget\n"
        "\n"
        "### Changed\n"
        "\n"
        "1 bigger (+534 kB)\n"
        "\n"
        "| variant | change | before | after | difference |\n"
        "| --- | --- | ---: | ---: | --- |\n"
        "| hello-c(gcc,dynamic) | bigger | 1 MB | 1.53 MB"
        " | +534 kB (+53.4 %): base image +518 kB, own layer +16.2 kB |\n"
        "\n"
        "### Variants\n"
        "\n"
        "| variant | linkage | binary | content | factor | verdict | cause | outcome |\n"
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |\n"
        "| hello-c(scratch,static) | static | 767 kB | 767 kB&#42; | 2x | fails | exit-code"
        " | **failed** |\n"
        "| hello-c(gcc,dynamic) | static | 16 kB | 1.53 MB&#42; | 1x | works |  | passed |\n"
        "| hello-rust(scratch,musl) |  |  |  |  |  |  | skipped |\n"
        "\n"
        "### Skipped\n"
        "\n"
        "- hello-rust(scratch,musl): no source\n"
        "\n"
        "### Which image to use\n"
        "\n"
        "- hello-c: smallest that works, with a shell: hello-c(gcc,dynamic), 1.53 MB&#42;\n"
        "\n"
        "### &#42; Stand-ins\n"
        "\n"
        "- gcc: apt packages gcc libc6-dev, not the image of that name\n"
    )


def test_all_is_well() -> None:
    """Where nothing is wrong or remarkable, there are counts and the table."""
    text = markdown.document([replace(PASSED, images=())], title="x")

    assert list(sections(text)) == ["x", "Variants"]
    assert sections(text)["x"] == ["1 variant: 1 passed"]


def test_no_records() -> None:
    """A run of nothing has a summary, too."""
    assert markdown.document([], title="x") == "## x\n\n0 variants\n"


def test_equal_problems_are_said_once() -> None:
    """Variants with the same cause and explanation share an item; others have their own."""
    broken = [
        replace(FULL, variant="a", reason="why", explanation="why"),
        replace(FULL, variant="b", reason="why", explanation=""),
        replace(FULL, variant="c", reason="", explanation="why", cause=Cause.TIMEOUT),
        replace(FULL, variant="d", reason="", explanation="", outcome=Outcome.ERROR, cause=None),
        replace(FULL, variant="e", outcome=Outcome.XPASSED, reason="works", cause=None),
    ]

    assert sections(markdown.document(broken, title="x"))["Broken"] == [
        "- **failed** a, b (exit-code): why",
        "- **failed** c (timeout): why",
        "- **error** d",
        "- **xpassed** e: works: ended with exit code 3, not 0",
    ]


def test_defects_come_first() -> None:
    """A prediction that was wrong is shown as a defect of ours, also where nothing else is bad."""
    text = markdown.document([replace(PASSED, contradiction="predicted a failure")], title="x")

    assert sections(text)["Broken"] == [
        "- **defect of nox-variants** hello-c(gcc,dynamic): predicted a failure"
    ]


def test_budgets_that_failed_are_said_once() -> None:
    """What a hard budget says is the reason of a failure already; what is kept needs no words."""
    hard = replace(WARNED, level=Level.FAIL, explanation="too big")
    kept = replace(WARNED, exceeded=False, explanation="")
    record = replace(
        PASSED, outcome=Outcome.FAILED, reason="over budget: too big", budget=(hard, kept, WARNED)
    )
    found = sections(markdown.document([record], title="x"))

    assert found["Broken"] == ["- **failed** hello-c(gcc,dynamic): over budget: too big"]
    assert found["Budgets"] == [f"- **warn** hello-c(gcc,dynamic): {WARNED.explanation}"]


def test_repeated_runs_have_their_columns() -> None:
    """Start-up times and memory are shown where they were measured."""
    assert FULL.smoke is not None
    smoke = replace(FULL.smoke, runs=5, startup_ms=1.234, peak_memory=2_000_000)
    ((head, row),) = rendered(markdown.document([replace(PASSED, smoke=smoke)], title="x")).tables

    assert dict(zip(head, row, strict=True))["startup"] == "1.23 ms"
    assert dict(zip(head, row, strict=True))["memory"] == "2 MB"


def test_many_variants_are_folded() -> None:
    """From some forty rows on, each program has a table of its own, below a line that counts."""
    few, more = markdown.document(many(40), title="x"), markdown.document(many(44), title="x")

    assert (len(rendered(few).tables), rendered(few).html) == (1, ())
    assert [len(table) for table in rendered(more).tables] == [12, 12, 12, 12]
    assert rendered(more).html == tuple(
        html
        for number in range(4)
        for html in (
            f"<details><summary>program-{number}: 11 variants: 11 passed</summary>\n",
            "</details>\n",
        )
    )


def test_a_thousand_variants_fit() -> None:
    """Every row of a large matrix is there."""
    text = markdown.document(many(1000), title="x")

    assert sum(len(table) - 1 for table in rendered(text).tables) == 1000
    assert len(text.encode()) < markdown.LIMIT
    assert "Left out" not in text


@pytest.mark.parametrize("limit", [10_000, 60_000])
def test_what_passed_is_left_out_first(limit: int) -> None:
    """Where there is no room for all rows, those that failed stay, and it is said what is gone."""
    passed = many(1000)
    failed = replace(passed[-1], variant="last", outcome=Outcome.XFAILED)
    text = markdown.document([*passed[:-1], failed], title="x", limit=limit)
    rows = [row for table in rendered(text).tables for row in table[1:]]

    assert len(text.encode()) <= limit
    assert len(text.encode()) > limit * 0.8
    assert rows[0][0] == passed[0].variant
    assert rows[-1][0] == "last"
    assert f"Left out, to keep this short: {1000 - len(rows)} variants:" in text


def test_long_lists_are_cut() -> None:
    """Hundreds of different problems with a lot to say leave room for everything else."""
    records = [
        replace(
            each,
            outcome=Outcome.FAILED,
            cause=Cause.BUILD_FAILED,
            reason=f"{number}{'@' * 5000}",
            images=tuple(
                replace(image, name=f"{number}", reference="<" * 5000) for image in each.images
            ),
            budget=(replace(WARNED, explanation="|" * 5000),),
        )
        for number, each in enumerate(many(500))
    ]
    text = markdown.document(records, title="@" * 5000)
    found = sections(text)

    assert len(text.encode()) <= markdown.LIMIT
    assert list(found)[1:] == [
        *("Broken", "Budgets", "Variants", "Which image to use", "&#42; Stand-ins")
    ]
    shown = sum(line.startswith("- **") for line in found["Broken"])
    assert shown > 10
    assert found["Broken"][-1] == f"- and {500 - shown} more problems"
    assert sum(len(table) - 1 for table in rendered(text).tables) == 500


@pytest.mark.parametrize(("room", "count"), [(0, 0), (3, 0), (4, 1), (6, 1), (7, 2), (99, 2)])
def test_lines_that_fit(room: int, count: int) -> None:
    """Lines are taken while there is room for them and their ends, in bytes."""
    assert gfm.fitted(["abc", "é"], room) == ["abc", "é"][:count]


TEXTS = st.text(max_size=30) | st.sampled_from(HOSTILE)


@st.composite
def hostile(draw: st.DrawFn) -> Record:
    """Draw a record in which every text is somebody else's."""
    base = draw(st.sampled_from([FULL, PASSED, SKIPPED]))
    images = tuple(replace(image, name=draw(TEXTS), reference=draw(TEXTS)) for image in base.images)
    return replace(
        base,
        variant=draw(TEXTS),
        program=draw(TEXTS),
        reason=draw(TEXTS),
        explanation=draw(TEXTS),
        contradiction=draw(TEXTS),
        budget=(replace(WARNED, explanation=draw(TEXTS)),),
        images=images,
    )


@given(st.lists(hostile(), min_size=1, max_size=4), TEXTS)
def test_hostile_texts(records: list[Record], title: str) -> None:
    """Whatever names and outputs say, tables keep their shape and nothing else is made of it."""
    differences = compare.differences([], map(compare.side, records))
    text = markdown.document(records, differences, title=title)
    found = rendered(text)
    *_, table = found.tables

    assert found.html == ()
    assert links(text) == []
    assert found.kinds.isdisjoint({"link_open", "image", "em_open", "s_open", "code_inline"})
    assert found.kinds.isdisjoint({"fence", "code_block", "hr", "blockquote_open"})
    assert [row[0] for row in table[1:]] == [visible(record.variant) for record in records]
    assert {row[-1] for row in table[1:]} <= {"passed", "failed", "skipped"}


MANY = many(41)


@given(TEXTS, TEXTS)
def test_hostile_names_in_folded_tables(program: str, variant: str) -> None:
    """In folded tables the only HTML is ours, and a program's name is text in it."""
    records = [
        *MANY,
        replace(PASSED, program=program, variant=variant),
        replace(FULL, program="last", variant=variant),
    ]
    found = rendered(markdown.document(records, title="x"))

    opening = [each for each in found.html if each != "</details>\n"]
    assert len(found.html) == 2 * len(opening) == 2 * len(found.tables) == 2 * (4 + 2)
    assert all(each.startswith("<details><summary>") for each in opening)
    assert all(each.endswith("</summary>\n") for each in opening)
    assert all(each.count("<") == 3 for each in opening)
    assert found.tables[-1][1][0] == visible(variant)
