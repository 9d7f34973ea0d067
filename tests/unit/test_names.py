"""Names that become tags, files and identifiers: valid where they go, and never mixed up."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nox_variants import names
from nox_variants.model import Libs, LinkMode
from samples import variant

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/:+@-]{0,99}", fullmatch=True)
"""Image names as `variants.yaml` takes them."""

TRICKY = st.lists(
    st.sampled_from(["a", "_", ":", "/", "+", "@", ".", "-", "-static", ".d", "_.c", "-musl."]),
    max_size=6,
).map(lambda parts: "a" + "".join(parts))
"""Image names out of what tags are made of."""

IMAGES = TRICKY | NAMES
LINKS = st.sampled_from(LinkMode)


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("busybox:glibc", "busybox_glibc"),
        ("hello-c", "hello_c"),
        ("c++", "c__"),
        ("1password", "_1password"),
        ("ünï", "_n_"),
        ("gcc", "gcc"),
    ],
)
def test_identifier(name: str, identifier: str) -> None:
    """A name becomes an identifier that still looks like it."""
    assert names.identifier(name) == identifier


@given(name=st.text(min_size=1))
def test_identifier_is_one(name: str) -> None:
    """Whatever the name, Python takes it for an identifier, and it is ASCII."""
    identifier = names.identifier(name)

    assert identifier.isidentifier()
    assert identifier.isascii()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hello-c", "hello-c"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a\0b", "a%00b"),
        ("ü", "%C3%BC"),
    ],
)
def test_file_name(name: str, file: str) -> None:
    """A name becomes one visible path component."""
    assert names.file_name(name) == file


@given(one=st.text(min_size=1), other=st.text(min_size=1))
@example(one=".", other="%2E")
def test_file_name_is_safe_and_one_to_one(one: str, other: str) -> None:
    """No file name leads anywhere else, and two names have two."""
    file = names.file_name(one)

    assert re.fullmatch(r"[A-Za-z0-9_~%-][A-Za-z0-9_.~%-]*", file)
    assert (file == names.file_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("build", "run", "tag"),
    [
        ("gcc", "scratch", "gcc-static.scratch"),
        ("alpine-gcc", "busybox:glibc", "alpine-gcc-static.busybox_glibc"),
        ("golang:1.25", "ubuntu:24.04", "golang_1.25-static.ubuntu_24.04"),
        ("a_b", "ghcr.io/c", "a__b-static.ghcr.io_-c"),
        ("a+b@c", "d:", "a_.pb_.ac-static.d_.c"),
        ("a-static.b", "c", "a-static_.db-static.c"),
    ],
)
def test_image_tag(build: str, run: str, tag: str) -> None:
    """A tag reads like the names that it is made of."""
    assert names.image_tag(variant(run, LinkMode.STATIC, build)) == tag


@given(
    one=st.tuples(IMAGES, LINKS, IMAGES),
    other=st.tuples(IMAGES, LINKS, IMAGES),
    shared=st.sets(st.integers(0, 2)),
)
@example(one=("a_:b", "static", "c"), other=("a:_b", "static", "c"), shared=set())
@example(one=("a:-b", "static", "c"), other=("a/b", "static", "c"), shared=set())
@example(one=("a/-b", "static", "c"), other=("a@b", "static", "c"), shared=set())
@example(one=("a-static.b", "static", "c"), other=("a", "static", "b-static.c"), shared=set())
@example(one=("a/static.b", "musl", "c"), other=("a:", "static", "b-musl.c"), shared=set())
@example(one=("a" * 99 + "b", "musl", "c"), other=("a" * 99 + "b", "musl", "d"), shared=set())
@example(one=("a" * 100, "musl", "b" * 99), other=("a" * 100, "musl", "b" * 98), shared=set())
def test_image_tag_is_valid_and_one_to_one(
    one: tuple[str, LinkMode, str], other: tuple[str, LinkMode, str], shared: set[int]
) -> None:
    """Any image names make a tag that registries take, and two variants have two."""
    other = (
        one[0] if 0 in shared else other[0],
        one[1] if 1 in shared else other[1],
        one[2] if 2 in shared else other[2],
    )

    tags = [names.image_tag(variant(run, link, build)) for build, link, run in (one, other)]

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tags[0])
    assert (tags[0] == tags[1]) == (one == other)


def test_long_image_tag_is_cut() -> None:
    """A tag of more than 128 characters keeps its beginning, and ends in a digest of all of it."""
    tags = {names.image_tag(variant(run, LinkMode.MUSL, "a" * 100)) for run in ("b" * 99, "b" * 98)}

    assert {tag[:112] for tag in tags} == {"a" * 100 + "-musl." + "b" * 6}
    assert all(re.fullmatch(r"[0-9a-f]{16}", tag[112:]) for tag in tags)
    assert len(tags) == 2

    longest = variant("b" * (128 - len("aaa-musl.")), LinkMode.MUSL, "aaa")
    assert names.image_tag(longest) == "aaa-musl." + "b" * 119


def decoded(tag: str) -> tuple[str, str, str]:
    """Return build image, link mode and run image of a tag that was not cut off."""
    found = re.fullmatch(r"(.*?)-(dynamic(?:-libs)?|static|musl)\.(.*)", tag)
    assert found
    codes = {"__": "_", "_-": "/", "_.c": ":", "_.p": "+", "_.a": "@", "_.d": ".", "_": ":"}
    build, run = (
        re.sub(r"__|_-|_\.[cpad]|_", lambda code: codes[code[0]], part)
        for part in found.group(1, 3)
    )
    return build, found[2], run


@given(build=TRICKY, link=LINKS, run=TRICKY, libs=st.sampled_from(Libs))
@example(build="a-dynamic-libs.b", link=LinkMode.DYNAMIC, run="c", libs=Libs.NONE)
@example(build="a", link=LinkMode.DYNAMIC, run="libs.c", libs=Libs.NONE)
def test_image_tag_can_be_read_back(build: str, link: LinkMode, run: str, libs: Libs) -> None:
    """Nothing of a variant is lost in its tag: it can be told from the tag alone."""
    libs = libs if link is LinkMode.DYNAMIC else Libs.NONE
    made = variant(run, link, build, libs=libs)
    tag = names.image_tag(made)

    linking = made.linking.replace("+", "-")
    assert len(tag) == names.TAG_LENGTH or decoded(tag) == (build, linking, run)
