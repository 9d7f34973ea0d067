"""Two runs held against each other: what changed, and what moved meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nox_variants import compare
from nox_variants.compare import Change, Difference, ImageSeen, Moved, Side, side
from nox_variants.model import Cause, Digest, Verdict
from nox_variants.results import Sizes
from records import FULL, SKIPPED

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
SIZES = Sizes(binary=10, content=100, above_base=20)
WORKS = Side(
    variant="p(scratch,static)",
    platform="linux/amd64",
    source="apt",
    verdict=Verdict.WORKS,
    sizes=SIZES,
    images=(ImageSeen(name="gcc", digest=A, packages=("gcc=1", "libc6=2")),),
    commit="1" * 40,
    compiler="GCC 12",
    tool="0.1.0",
)
FAILS = replace(WORKS, verdict=Verdict.FAILS, cause=Cause.MISSING_LOADER)
BIGGER = replace(WORKS, sizes=Sizes(binary=10, content=150, above_base=40))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (WORKS, WORKS, None),
        (FAILS, FAILS, None),
        (WORKS, FAILS, Change.BROKE),
        (FAILS, WORKS, Change.FIXED),
        (FAILS, replace(FAILS, cause=Cause.TIMEOUT), Change.CAUSE),
        (WORKS, BIGGER, Change.BIGGER),
        (BIGGER, WORKS, Change.SMALLER),
        (None, WORKS, Change.APPEARED),
        (WORKS, None, Change.VANISHED),
        (WORKS, replace(FAILS, verdict=None), None),
        (replace(FAILS, verdict=None), WORKS, None),
        (WORKS, replace(BIGGER, source="registry"), None),
        (WORKS, replace(BIGGER, sizes=None), None),
        (FAILS, replace(FAILS, sizes=BIGGER.sizes), None),
    ],
)
def test_changes(old: Side | None, new: Side | None, change: Change | None) -> None:
    """Verdicts, causes and sizes change; problems of the infrastructure, and other sources, not."""
    before, after = ([each] if each else [] for each in (old, new))

    found = compare.differences(before, after)

    assert [each.change for each in found] == ([change] if change else [])


def test_the_worst_comes_first() -> None:
    """Then the order of the second run, and what is gone last of its kind."""
    names = ["a", "b", "c", "d"]
    before = [replace(WORKS, variant=name) for name in names]
    after = [
        replace(BIGGER, variant="a"),
        replace(FAILS, variant="c"),
        replace(FAILS, variant="b"),
        replace(WORKS, variant="e"),
    ]

    found = compare.differences(before, after)

    assert [(each.variant, each.change) for each in found] == [
        ("c", Change.BROKE),
        ("b", Change.BROKE),
        ("d", Change.VANISHED),
        ("a", Change.BIGGER),
        ("e", Change.APPEARED),
    ]


def test_where_growth_comes_from() -> None:
    """The base image's part, and the own layer's; nothing where a side has no image."""
    (bigger,) = compare.differences([WORKS], [BIGGER])

    assert bigger.grown == (30, 20)
    gone = Difference(variant="x", change=Change.VANISHED, before=WORKS, after=None)
    assert gone.grown == (0, 0)


def test_what_moved() -> None:
    """Images with their packages, then the compiler, the source and this tool."""
    now = replace(
        WORKS,
        images=(
            ImageSeen(name="gcc", digest=B, packages=("gcc=1", "libc6=3", "zlib=1")),
            ImageSeen(name="alpine", digest=B),
        ),
        commit="2" * 40,
        compiler="GCC 13",
        tool="0.2.0",
    )

    assert compare.moved(WORKS, now) == (
        Moved(what="image gcc", before=A, after=B),
        Moved(what="package libc6", before="2", after="3"),
        Moved(what="package zlib", before="", after="1"),
        Moved(what="compiler", before="GCC 12", after="GCC 13"),
        Moved(what="source commit", before="1" * 40, after="2" * 40),
        Moved(what="nox-variants", before="0.1.0", after="0.2.0"),
    )


def test_what_one_side_does_not_know_has_not_moved() -> None:
    """A baseline knows no packages, no compiler and no commit."""
    row = Side(
        variant=WORKS.variant,
        platform=WORKS.platform,
        source="apt",
        verdict=Verdict.WORKS,
        images=(ImageSeen(name="gcc", digest=B),),
    )

    assert compare.moved(row, WORKS) == (Moved(what="image gcc", before=B, after=A),)


def test_a_record_is_a_side() -> None:
    """All that is compared is taken from it; a skipped one has little."""
    found = side(FULL)

    assert (found.variant, found.verdict, found.cause) == (FULL.variant, FULL.verdict, FULL.cause)
    assert (found.sizes, found.source, found.commit) == (FULL.sizes, "apt", FULL.git_commit)
    assert found.images[0].packages == FULL.images[0].packages
    assert side(SKIPPED).verdict is None


def test_an_image_of_both_roles_moves_once() -> None:
    """A single-stage variant is built and run in the same image."""
    record = replace(FULL, images=(FULL.images[0], replace(FULL.images[0])))

    assert len(side(record).images) == 1
