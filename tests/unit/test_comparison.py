"""Differences as a table: for a terminal, and for a comment on a pull request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants import compare
from nox_variants.compare import Change, Difference, ImageSeen, Moved, Side
from nox_variants.model import Cause, Digest, Verdict
from nox_variants.reports import comparison
from nox_variants.results import Outcome, Sizes
from rendered import HOSTILE, links, rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

OLD, NEW = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)

WORKS = Side(
    variant="hello-c(gcc,dynamic)",
    platform="linux/amd64",
    source="registry",
    verdict=Verdict.WORKS,
    sizes=Sizes(binary=16_000, content=58_000_000, above_base=16_000),
)
FAILS = replace(WORKS, verdict=Verdict.FAILS, cause=Cause.MISSING_LOADER)
GROWN = replace(WORKS, sizes=Sizes(binary=16_000, content=61_100_000, above_base=116_000))


def difference(change: Change, before: Side | None, after: Side | None) -> Difference:
    """Return a difference without anything that moved."""
    return Difference(variant="v", change=change, before=before, after=after)


def plain(differences: Sequence[Difference]) -> list[str]:
    """Return the lines for a terminal without their styles."""
    return ["".join(text for text, _ in line) for line in comparison.lines(differences)]


def test_nothing_changed() -> None:
    """Of no differences there is one sentence, everywhere."""
    assert comparison.markdown(()) == "Nothing changed.\n"
    assert plain(()) == ["Nothing changed."]
    assert comparison.headline(()) == "nothing changed"


@pytest.mark.parametrize(
    ("change", "before", "after", "cells"),
    [
        (Change.BROKE, WORKS, FAILS, ("works", "fails (missing-loader)", "")),
        (Change.FIXED, replace(FAILS, cause=None), WORKS, ("fails", "works", "")),
        (
            Change.CAUSE,
            FAILS,
            replace(FAILS, cause=Cause.TIMEOUT),
            ("fails (missing-loader)", "fails (timeout)", ""),
        ),
        (
            Change.BIGGER,
            WORKS,
            GROWN,
            ("58 MB", "61.1 MB", "+3.1 MB (+5.3 %): base image +3 MB, own layer +100 kB"),
        ),
        (
            Change.SMALLER,
            GROWN,
            WORKS,
            ("61.1 MB", "58 MB", "-3.1 MB (-5.1 %): base image -3 MB, own layer -100 kB"),
        ),
        (
            Change.BIGGER,
            replace(WORKS, sizes=Sizes(binary=0, content=0, above_base=0)),
            replace(WORKS, sizes=Sizes(binary=5, content=5, above_base=5)),
            ("0 B", "5 B", "+5 B: base image +0 B, own layer +5 B"),
        ),
        (Change.VANISHED, WORKS, None, ("58 MB", "", "")),
        (Change.APPEARED, None, replace(WORKS, sizes=None), ("", "works", "")),
        (Change.APPEARED, None, replace(WORKS, verdict=None), ("", "not known", "")),
        (
            Change.APPEARED,
            None,
            replace(WORKS, verdict=None, outcome=Outcome.SKIPPED),
            ("", "skipped", ""),
        ),
    ],
)
def test_cells(
    change: Change, before: Side | None, after: Side | None, cells: tuple[str, ...]
) -> None:
    """A row says what changed: verdicts with their causes, or sizes and where they come from."""
    ((head, row),) = rendered(comparison.markdown([difference(change, before, after)])).tables

    assert head == ("variant", "change", "before", "after", "difference")
    assert row == ("v", change.value, *cells)


def test_headline() -> None:
    """The headline counts, verdicts first, and sums up what grew and shrank."""
    sides: list[tuple[Change, Side | None, Side | None]] = [
        (Change.BROKE, WORKS, FAILS),
        (Change.BROKE, WORKS, FAILS),
        (Change.CAUSE, FAILS, FAILS),
        (Change.VANISHED, WORKS, None),
        (Change.BIGGER, WORKS, GROWN),
        (Change.BIGGER, WORKS, GROWN),
        (Change.FIXED, FAILS, WORKS),
        (Change.SMALLER, GROWN, WORKS),
        (Change.APPEARED, None, WORKS),
    ]

    assert comparison.headline([difference(*each) for each in sides]) == (
        "2 broke, 1 with another cause, 1 fixed, 2 bigger (+6.2 MB), 1 smaller (-3.1 MB),"
        " 1 vanished, 1 appeared"
    )


def test_every_change_is_counted_and_coloured() -> None:
    """A new kind of change needs its words and its colour."""
    for change in Change:
        each = difference(change, WORKS, WORKS)
        assert comparison.headline([each]).startswith("1 ")
        assert comparison.lines([each])[1][0][1]


def test_lines_for_a_terminal() -> None:
    """On a terminal the table is aligned, the worst first as given, and what moved is below it."""
    moved = (
        Moved(what="image gcc", before=OLD, after=NEW),
        Moved(what="package libc6", before="2.36-9", after="2.36-10"),
        Moved(what="package new", before="", after="1"),
        Moved(what="package old", before="1", after=""),
        Moved(what="compiler", before="GCC: 1", after="GCC: 2"),
        Moved(what="source commit", before="1" * 40, after="2" * 40),
        Moved(what="nox-variants", before="0.1.0", after="0.2.0"),
    )
    broke = difference(Change.BROKE, WORKS, FAILS)
    differences = [
        replace(broke, variant="a", moved=moved),
        replace(difference(Change.BIGGER, WORKS, GROWN), variant="bb", moved=moved[-1:]),
        replace(broke, variant="c\x1b[31m", moved=moved),
        replace(broke, variant="d"),
    ]

    said = "+3.1 MB (+5.3 %): base image +3 MB, own layer +100 kB"

    assert plain(differences) == [
        "variant    change  before                   after  difference",
        "a          broke    works  fails (missing-loader)",
        f"bb         bigger   58 MB                 61.1 MB  {said}",
        r"c\x1b[31m  broke    works  fails (missing-loader)",
        "d          broke    works  fails (missing-loader)",
        "",
        r"a, c\x1b[31m:",
        "  image gcc moved: sha256:111111111111 -> sha256:222222222222",
        "  package libc6 moved: 2.36-9 -> 2.36-10",
        "  package new is new: 1",
        "  package old is gone: 1",
        "  compiler moved: GCC: 1 -> GCC: 2",
        "  source commit moved: 111111111111 -> 222222222222",
        "  nox-variants moved: 0.1.0 -> 0.2.0",
        "",
        "bb:",
        "  nox-variants moved: 0.1.0 -> 0.2.0",
    ]


def test_many_variants_that_share_what_moved() -> None:
    """Where many variants share a list, the first ones are named."""
    moved = (Moved(what="compiler", before="1", after="2"),)
    broke = replace(difference(Change.BROKE, WORKS, FAILS), moved=moved)
    many = [replace(broke, variant=f"v_{number}") for number in range(23)]

    assert plain(many)[25].startswith("v_0, v_1, ")
    assert plain(many)[25].endswith(", v_18, v_19 and 3 more:")
    assert "v&#95;18, v&#95;19 and 3 more\n" in comparison.markdown(many)


def test_many_packages() -> None:
    """Of many packages of an image the first ones are named; of another image again."""

    def image(name: str, digest: Digest, version: str, count: int) -> ImageSeen:
        packages = tuple(f"{name}{number:02}={version}" for number in range(count))
        return ImageSeen(name=name, digest=digest, packages=packages)

    before = replace(WORKS, images=(image("gcc", OLD, "1", 22), image("ubuntu", OLD, "1", 11)))
    after = replace(GROWN, images=(image("gcc", NEW, "2", 22), image("ubuntu", NEW, "2", 11)))
    (group,) = comparison.groups(compare.differences([before], [after]))

    assert group.variants == ("hello-c(gcc,dynamic)",)
    assert len(group.sentences) == 2 * (1 + 10 + 1)
    assert group.sentences[10:13] == (
        "package gcc09 moved: 1 -> 2",
        "and 12 more",
        "image ubuntu moved: sha256:111111111111 -> sha256:222222222222",
    )
    assert group.sentences[-1] == "and 1 more"


def test_many_images() -> None:
    """Whatever is no package is named, however many there are."""
    moved = tuple(Moved(what=f"image {number}", before=OLD, after=NEW) for number in range(12))
    (group,) = comparison.groups([replace(difference(Change.BROKE, WORKS, FAILS), moved=moved)])

    assert len(group.sentences) == 12


def test_markdown() -> None:
    """A comment has the counts, the table, and what moved as lists, with names escaped."""
    moved = (Moved(what="image gcc", before=OLD, after=NEW),)
    grown = replace(difference(Change.BIGGER, WORKS, GROWN), variant="b(x_y)", moved=moved)

    assert comparison.markdown([grown]) == (
        "1 bigger (+3.1 MB)\n"
        "\n"
        "| variant | change | before | after | difference |\n"
        "| --- | --- | ---: | ---: | --- |\n"
        "| b(x&#95;y) | bigger | 58 MB | 61.1 MB"
        " | +3.1 MB (+5.3 %): base image +3 MB, own layer +100 kB |\n"
        "\n"
        "- b(x&#95;y)\n"
        "  - image gcc moved: sha256:111111111111 -&#62; sha256:222222222222\n"
    )


def test_long_comments_are_cut() -> None:
    """A comment stays within what GitHub takes; what is left out is counted."""
    many = [
        replace(
            difference(Change.BROKE, WORKS, FAILS),
            variant=f"hello-{number}({'x' * 100})",
            moved=(Moved(what="compiler", before=f"GCC {number}", after="GCC"),),
        )
        for number in range(1000)
    ]
    text = comparison.markdown(many)
    ((_, *rows),) = rendered(text).tables

    assert len(text.encode()) <= comparison.LIMIT
    assert len(rows) > 200
    assert rows[0][0].startswith("hello-0(")
    assert f"{1000 - len(rows)} more differences are not shown." in text
    shown = text.count("- compiler moved")
    assert 50 < shown < 1000
    assert f"{1000 - shown} more lists of what moved are not shown." in text


@given(st.lists(st.text() | st.sampled_from(HOSTILE), min_size=4, max_size=4))
def test_hostile_names(texts: list[str]) -> None:
    """No name, version or compiler is more than text."""
    variant, what, before, after = texts
    moved = (Moved(what=what, before=before, after=after),)
    broke = replace(difference(Change.BROKE, WORKS, FAILS), variant=variant, moved=moved)
    text = comparison.markdown([broke])
    found = rendered(text)

    assert [tuple(map(len, table)) for table in found.tables] == [(5, 5)]
    assert found.tables[0][1][1:] == ("broke", "works", "fails (missing-loader)", "")
    assert found.html == ()
    assert found.kinds.isdisjoint({"link_open", "image", "em_open", "strong_open", "code_inline"})
    assert links(text) == []
    lines = comparison.lines([broke])
    assert all(part.isprintable() for line in lines for part, _ in line)
