"""What works instead, and which image to use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nox_variants import advice
from nox_variants.model import Cause, LinkMode, Verdict
from nox_variants.results import Outcome, Sizes
from records import FULL

if TYPE_CHECKING:
    from nox_variants.record import Record


def record(name: str, content: int = 1000, *, above: int = 0, **changes: Any) -> Record:
    """Return a record of ``hello-c(RUN,LINK)`` that works; ``RUN,LINK`` is its name."""
    run, link = name.split(",")
    made = replace(
        FULL,
        variant=f"hello-c({name})",
        run_image=run,
        link=LinkMode(link),
        images=(),
        verdict=Verdict.WORKS,
        cause=None,
        explanation="",
        outcome=Outcome.PASSED,
        reason="",
        sizes=Sizes(binary=1, content=content, above_base=above),
        shell=False,
    )
    return replace(made, **changes)


def failing(name: str, outcome: Outcome = Outcome.FAILED) -> Record:
    """Return a record of a variant that fails."""
    return record(name, verdict=Verdict.FAILS, cause=Cause.MISSING_LOADER, outcome=outcome)


BROKEN = failing("alpine,dynamic")


def test_nearest_come_first() -> None:
    """First what runs in the same image, then what is linked the same; each by size; three."""
    records = [
        record("ubuntu,static", 1),
        record("gcc,dynamic", 3_000_000),
        record("ubuntu,dynamic", 2_000_000),
        record("alpine,static", 900_000),
        record("alpine,musl", 20_000),
        BROKEN,
    ]

    assert advice.Remedies(records).of(BROKEN.variant) == (
        "hello-c(alpine,musl) works (20 kB)",
        "hello-c(alpine,static) works (900 kB)",
        "hello-c(ubuntu,dynamic) works (2 MB)",
    )


@pytest.mark.parametrize(
    "other",
    [
        record("alpine,static", program="hello-go"),
        record("scratch,static"),
        failing("alpine,static"),
        record("alpine,static", outcome=Outcome.ERROR),
        record("alpine,static", verdict=None, outcome=Outcome.SKIPPED),
        record("alpine,static", sizes=None),
        BROKEN,
    ],
)
def test_what_is_no_remedy(other: Record) -> None:
    """Another program, a variant too far, and one that was not seen to work."""
    assert advice.Remedies([other, BROKEN]).of(BROKEN.variant) == ()


@pytest.mark.parametrize(
    ("outcome", "helped"),
    [
        (Outcome.FAILED, True),
        (Outcome.XFAILED, True),
        (Outcome.ERROR, True),
        (Outcome.PASSED, False),
        (Outcome.XPASSED, False),
        (Outcome.SKIPPED, False),
    ],
)
def test_who_gets_remedies(outcome: Outcome, *, helped: bool) -> None:
    """A variant that works needs none."""
    one = replace(BROKEN, outcome=outcome)

    assert bool(advice.Remedies([one, record("alpine,static")]).of(one.variant)) is helped


def test_stand_ins_are_marked() -> None:
    """A size that a stand-in has a part in has its mark, as in the table."""
    one = record("alpine,static", images=FULL.images)

    found = advice.Remedies([BROKEN, one]).of(BROKEN.variant)
    assert found == ("hello-c(alpine,static) works (1 kB*)",)


def test_remedies_of_several() -> None:
    """Variants with one reason share their remedies, each said once."""
    records = [BROKEN, failing("scratch,dynamic"), record("alpine,static"), record("gcc,dynamic")]

    assert advice.Remedies(records).of(*(each.variant for each in records[:2])) == (
        "hello-c(alpine,static) works (1 kB)",
        "hello-c(gcc,dynamic) works (1 kB)",
    )


SCRATCH = record("scratch,musl", 24_700)
UBUNTU = record("ubuntu,musl", 80_000_000, shell=True)  # noqa: S604  # no process
ALPINE = record("alpine,musl", 2_710_000, shell=True)  # noqa: S604  # no process


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [ALPINE, SCRATCH, UBUNTU],
            (
                "hello-c: smallest that works: hello-c(scratch,musl), 24.7 kB;"
                " smallest with a shell: hello-c(alpine,musl), 2.71 MB"
            ),
        ),
        (
            [ALPINE, failing("scratch,musl")],
            "hello-c: smallest that works, with a shell: hello-c(alpine,musl), 2.71 MB",
        ),
        (
            [SCRATCH, failing("alpine,musl")],
            (
                "hello-c: smallest that works: hello-c(scratch,musl), 24.7 kB;"
                " smallest with a shell: none that works"
            ),
        ),
        (
            [failing("scratch,musl"), failing("alpine,musl", Outcome.XFAILED)],
            "hello-c: none of the 2 variants that ran works",
        ),
        (
            [SCRATCH, replace(ALPINE, sizes=SCRATCH.sizes, outcome=Outcome.ERROR)],
            (
                "hello-c: smallest that works: hello-c(scratch,musl), 24.7 kB;"
                " smallest with a shell: none that works"
            ),
        ),
    ],
)
def test_advice(records: list[Record], said: str) -> None:
    """The smallest that works, and the smallest of those with a shell."""
    assert [str(each) for each in advice.advise(records)] == [said]


@pytest.mark.parametrize(
    ("records", "smallest"),
    [
        ([record("a,musl", 5, above=2), record("b,musl", 5, above=1)], "hello-c(b,musl)"),
        ([record("b,musl", 5, above=1), record("a,musl", 5, above=1)], "hello-c(b,musl)"),
        ([record("b,musl", 6, above=1), record("a,musl", 5, above=9)], "hello-c(a,musl)"),
    ],
)
def test_ties(records: list[Record], smallest: str) -> None:
    """Of equal sizes, fewer bytes above the base count, and then the order of the file."""
    (made,) = advice.advise(records)

    assert made.smallest is not None
    assert made.smallest.variant == smallest


def test_who_is_advised() -> None:
    """Only programs of which more than one variant ran."""
    never = replace(SCRATCH, smoke=None)
    other = replace(SCRATCH, program="other")

    assert advice.advise([SCRATCH, never, other]) == ()
    assert [each.program for each in advice.advise([other, SCRATCH, ALPINE, other])] == [
        "other",
        "hello-c",
    ]
