"""Asked for and got: every link mode against every way to be linked, and the words for it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.linkage import describe, mismatch
from nox_variants.model import LinkMode
from nox_variants.results import FileFacts, Linkage
from samples import C

STATIC = {Linkage.STATIC, Linkage.STATIC_PIE}
DYNAMIC = {Linkage.GLIBC_DYNAMIC, Linkage.MUSL_DYNAMIC, Linkage.OTHER_DYNAMIC}
GO = replace(C, name="go", static_by_nature=True)
GLIBC = FileFacts(
    linkage=Linkage.GLIBC_DYNAMIC,
    interpreter="/lib64/ld-linux-x86-64.so.2",
    needed=("libm.so.6", "libc.so.6"),
)


@pytest.mark.parametrize("linkage", Linkage)
@pytest.mark.parametrize(
    ("requested", "right"),
    [
        (LinkMode.DYNAMIC, DYNAMIC | {Linkage.SCRIPT}),
        (LinkMode.STATIC, STATIC),
        (LinkMode.MUSL, STATIC | {Linkage.MUSL_DYNAMIC}),
    ],
)
def test_what_fits(requested: LinkMode, linkage: Linkage, right: set[Linkage]) -> None:
    """Each link mode takes what it means, and nothing else."""
    assert (mismatch(requested, FileFacts(linkage=linkage), C) is None) == (linkage in right)


@pytest.mark.parametrize("linkage", sorted(STATIC))
def test_static_by_nature(linkage: Linkage) -> None:
    """A dynamic build may come out static in a language that links so, and in no other."""
    facts = FileFacts(linkage=linkage)

    assert mismatch(LinkMode.DYNAMIC, facts, GO) is None
    assert mismatch(LinkMode.DYNAMIC, facts, C) == f"dynamic was asked for, but it is {linkage}"


def test_static_glibc_is_not_musl() -> None:
    """glibc's note tells a static program that was linked with the wrong libc."""
    facts = FileFacts(linkage=Linkage.STATIC, abi_tag=True)

    assert mismatch(LinkMode.STATIC, facts, C) is None
    assert mismatch(LinkMode.MUSL, facts, C) == "musl was asked for, but it is static with glibc"


@pytest.mark.parametrize("requested", [LinkMode.STATIC, LinkMode.MUSL])
def test_hint_for_a_dynamic_program(requested: LinkMode) -> None:
    """A build that comes out dynamic is told what its language can do about it."""
    sentence = (
        f"{requested} was asked for, but it is glibc-dynamic (needs /lib64/ld-linux-x86-64.so.2,"
        " libm.so.6 and libc.so.6)"
    )

    assert mismatch(requested, GLIBC, C) == f"{sentence}: Add -static."
    assert mismatch(requested, GLIBC, replace(C, mismatch_hint="")) == sentence


def test_no_hint_for_other_files() -> None:
    """The hint is about dynamic programs: a script or a data file gets none."""
    script = FileFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh")

    assert mismatch(LinkMode.STATIC, script, C) == (
        "static was asked for, but it is a script for /bin/sh"
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (FileFacts(linkage=Linkage.OTHER), "neither an ELF program nor a script"),
        (FileFacts(linkage=Linkage.SCRIPT), "a script for nothing"),
        (FileFacts(linkage=Linkage.SCRIPT, interpreter="/bin/sh\r"), r"a script for '/bin/sh\r'"),
        (FileFacts(linkage=Linkage.STATIC), "static"),
        (FileFacts(linkage=Linkage.STATIC_PIE, abi_tag=True), "static-pie with glibc"),
        (FileFacts(linkage=Linkage.OTHER_DYNAMIC, interpreter="/l"), "other-dynamic (needs /l)"),
        (FileFacts(linkage=Linkage.SCRIPT, interpreter="x" * 255), f"a script for {'x' * 255}"),
        (FileFacts(linkage=Linkage.SCRIPT, interpreter="x" * 256), f"a script for '{'x' * 255}'"),
        (
            FileFacts(linkage=Linkage.MUSL_DYNAMIC, interpreter="/l", needed=("a", "b", "c")),
            "musl-dynamic (needs /l, a, b and c)",
        ),
        (
            FileFacts(linkage=Linkage.MUSL_DYNAMIC, interpreter="/l", needed=("a", "b", "c", "d")),
            "musl-dynamic (needs /l, a, b and 2 more)",
        ),
    ],
)
def test_words(facts: FileFacts, words: str) -> None:
    """How a file is linked is said in a few words."""
    assert describe(facts) == words


@given(linkage=st.sampled_from(Linkage), names=st.lists(st.text(max_size=5000), max_size=6))
def test_hostile_names(linkage: Linkage, names: list[str]) -> None:
    """Names out of a file are printed on one line, bounded, whatever they hold."""
    words = describe(FileFacts(linkage=linkage, interpreter="".join(names[:1]), needed=(*names,)))

    assert words.isprintable()
    assert len(words) < 4 * 2560 + 100


def test_unknown_linkage_is_a_bug() -> None:
    """Values outside the enumerations are not passed over in silence."""
    with pytest.raises(AssertionError, match="unreachable"):
        describe(replace(GLIBC, linkage=cast("Linkage", "half-static")))
    with pytest.raises(AssertionError, match="unreachable"):
        mismatch(cast("LinkMode", "half"), GLIBC, C)
