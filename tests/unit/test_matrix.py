"""Expansion is pure, deterministic and complete; selection says when it means nothing."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants import matrix
from nox_variants.errors import ConfigError, UsageError
from nox_variants.model import (
    Cause,
    Expectation,
    Inclusion,
    Libs,
    LinkMode,
    Location,
    Program,
    Selector,
    Settings,
    VariantId,
    Verdict,
)
from samples import SETTINGS, variant

RUNS = ("gcc", "scratch", "alpine", "busybox:glibc")
BUILDS = ("gcc", "alpine-gcc")
HERE = Location(file="variants.yaml", line=7, column=3, path="programs.hello-c.exclude[0]")
(HELLO,) = SETTINGS.programs


def settings(**changes: Any) -> Settings:
    """Return settings with one changed program."""
    program: Program = replace(HELLO, **changes)
    return replace(SETTINGS, programs=(program,))


def ids(of: Settings) -> list[str]:
    """Return the ids of all variants."""
    return [each.id for each in matrix.expand(of).variants]


def test_product_is_run_by_link() -> None:
    """Every run image with every link mode, in the file's order, built as the language says."""
    assert ids(settings()) == [
        "hello-c(gcc,dynamic)",
        "hello-c(gcc,static)",
        "hello-c(scratch,dynamic)",
        "hello-c(scratch,static)",
        "hello-c(alpine,dynamic)",
        "hello-c(alpine,static)",
    ]


def test_other_build_images_are_part_of_the_id() -> None:
    """The default build image is not named, any other is."""
    found = ids(settings(run=("scratch",), link=(LinkMode.STATIC,), build=("alpine-gcc", "gcc")))

    assert found == ["hello-c(scratch,static,alpine-gcc)", "hello-c(scratch,static)"]


def test_adding_a_row_renames_none() -> None:
    """Ids stay when the file grows."""
    before = ids(settings())
    after = ids(settings(run=("ubuntu", *HELLO.run), build=None))

    assert set(before) < set(after)


def test_include_comes_last_and_exclude_is_accounted_for() -> None:
    """An excluded combination is no variant; the rule that dropped it is known."""
    of = settings(
        exclude=(Selector(run=("g*",), link=("static",), location=HERE),),
        include=(Inclusion(run="alpine", link=LinkMode.DYNAMIC, build="alpine-gcc"),),
    )

    expansion = matrix.expand(of)

    assert "hello-c(gcc,static)" not in ids(of)
    assert ids(of)[-1] == "hello-c(alpine,dynamic,alpine-gcc)"
    assert [(one.id, one.rule) for one in expansion.dropped] == [("hello-c(gcc,static)", HERE)]


def test_libraries_are_an_axis_of_dynamic_variants() -> None:
    """A static program has none to bring, and a build image has them all."""
    both = (Libs.NONE, Libs.BUNDLE)

    assert ids(settings(run=("gcc", "scratch"), libs=both)) == [
        "hello-c(gcc,dynamic)",
        "hello-c(gcc,static)",
        "hello-c(scratch,dynamic)",
        "hello-c(scratch,dynamic+libs)",
        "hello-c(scratch,static)",
    ]
    included = Inclusion(run="scratch", link=LinkMode.DYNAMIC, libs=Libs.BUNDLE)
    assert "hello-c(scratch,dynamic+libs)" in ids(settings(include=(included,)))


def test_libraries_that_are_there_already() -> None:
    """To bring libraries into the image that has them is a mistake."""
    included = Inclusion(run="gcc", link=LinkMode.DYNAMIC, libs=Libs.BUNDLE, location=HERE)

    with pytest.raises(ConfigError, match=r"runs where it was built, with all its libraries\."):
        matrix.expand(settings(include=(included,)))


def test_selectors_tell_libraries_apart() -> None:
    """`dynamic` is without libraries, `dynamic+libs` with, a glob may match both."""
    alone, both = (
        Expectation(selector=Selector(link=(glob,)), verdict=Verdict.FAILS)
        for glob in ("dynamic", "dynamic*")
    )
    libs = (Libs.NONE, Libs.BUNDLE)

    found = [
        [
            each.id
            for each in matrix.expand(
                settings(run=("scratch",), libs=libs, expect=(rule,))
            ).variants
            if each.expected.verdict is Verdict.FAILS
        ]
        for rule in (alone, both)
    ]

    one, other = "hello-c(scratch,dynamic)", "hello-c(scratch,dynamic+libs)"
    assert found == [[one], [one, other]]


def test_what_was_excluded_can_be_included() -> None:
    """Include is applied after exclude."""
    of = settings(
        exclude=(Selector(run=("gcc",)),),
        include=(Inclusion(run="gcc", link=LinkMode.DYNAMIC),),
    )

    assert [name for name in ids(of) if "gcc" in name] == ["hello-c(gcc,dynamic)"]


def test_last_expectation_counts() -> None:
    """Of two rules for one variant the later one is meant; all others are expected to work."""
    rules = (
        Expectation(selector=Selector(run=("scratch",)), verdict=Verdict.FAILS),
        Expectation(
            selector=Selector(run=("scratch",), link=("dynamic",), location=HERE),
            verdict=Verdict.FAILS,
            cause=Cause.MISSING_LOADER,
        ),
    )

    found = {str(each.id): each.expected for each in matrix.expand(settings(expect=rules)).variants}

    assert found["hello-c(scratch,dynamic)"].cause is Cause.MISSING_LOADER
    assert found["hello-c(scratch,dynamic)"].location == HERE
    assert found["hello-c(scratch,static)"].cause is None
    assert found["hello-c(scratch,static)"].verdict is Verdict.FAILS
    assert found["hello-c(gcc,static)"].verdict is Verdict.WORKS


def test_all_dead_rules_are_reported() -> None:
    """Each glob that matches nothing is one problem, of all programs at once."""
    rule = Selector(run=("ubuntu", "alpine"), link=("musl",), location=HERE)
    elsewhere = replace(HERE, line=9)
    broken = replace(HELLO, exclude=(rule,))
    other = replace(HELLO, name="other", exclude=(replace(rule, location=elsewhere),))

    with pytest.raises(ConfigError) as caught:
        matrix.expand(replace(SETTINGS, programs=(broken, other)))

    assert caught.value.problems == tuple(
        f"variants.yaml:{line}:3: programs.hello-c.exclude[0]: {text}"
        for line in (7, 9)
        for text in (
            "run 'ubuntu' matches none of gcc, scratch, alpine.",
            "link 'musl' matches none of dynamic, static.",
        )
    )


SHARED = Selector(run=("alpine", "scratch"), link=("static",), location=HERE)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([("alpine", "gcc"), ("scratch", "gcc"), ("gcc",)], ()),
        ([("alpine", "gcc"), ("gcc",)], ("run 'scratch' matches none of alpine, gcc.",)),
        (
            [("gcc",), ("gcc",)],
            ("run 'alpine' matches none of gcc.", "run 'scratch' matches none of gcc."),
        ),
    ],
)
def test_rule_of_several_programs(runs: list[tuple[str, ...]], said: tuple[str, ...]) -> None:
    """Each part of a rule of the defaults has to fit one program; if not, that is said once."""
    programs = [
        replace(HELLO, name=f"p{at}", run=run, exclude=(SHARED,)) for at, run in enumerate(runs)
    ]

    assert tuple(problem.text for problem in matrix.check(programs)) == said


def test_rule_of_several_programs_that_selects_nothing() -> None:
    """Where each part fits some program, but all of them together none, that is said once."""
    rule = replace(SHARED, run=("alpine",))
    programs = [
        replace(HELLO, name=name, run=run, link=link, exclude=(rule,))
        for name, run, link in (
            ("a", ("alpine",), (LinkMode.DYNAMIC,)),
            ("b", ("scratch",), (LinkMode.STATIC,)),
        )
    ]

    (problem,) = matrix.check(programs)

    assert problem.text == "matches no variant. Correct it or leave it out."


def test_inclusion_of_several_programs() -> None:
    """A combination that the defaults add is left alone where a program has it already."""
    rule = Inclusion(run="alpine", link=LinkMode.STATIC, location=HERE)
    one, other = (
        replace(HELLO, name=name, run=(run,), include=(rule,))
        for name, run in (("one", "alpine"), ("other", "scratch"))
    )

    found = matrix.expand(replace(SETTINGS, programs=(one, other))).variants

    assert [each.id for each in found].count(VariantId("one(alpine,static)")) == 1
    assert "other(alpine,static)" in [each.id for each in found]
    (problem,) = matrix.check([one])
    assert problem.text == "one(alpine,static) is there already. Leave it out."


def test_tag_of_libraries() -> None:
    """`nox -t libs` runs what brings its libraries."""
    assert "libs" in matrix.tags(variant("scratch", LinkMode.DYNAMIC, libs=Libs.BUNDLE))
    assert "libs" not in matrix.tags(variant("scratch", LinkMode.DYNAMIC))


def test_tags_are_identifiers() -> None:
    """What Nox selects by are identifiers, each once."""
    found = matrix.tags(variant("busybox:glibc", LinkMode.STATIC))

    assert found == ("variant", "hello_c", "c", "busybox_glibc", "gcc", "static")
    assert matrix.tags(variant("gcc", LinkMode.STATIC)).count("gcc") == 1
    assert all(tag.isidentifier() for tag in found)


def test_select_by_globs() -> None:
    """`--only` keeps what matches any glob, `--skip` drops what matches any."""
    every = matrix.expand(settings()).variants

    only = matrix.select(every, only=("*scratch*", "hello-c(gcc,static)"))
    rest = matrix.select(every, only=("*static)",), skip=("*alpine*",))

    assert [each.id for each in only] == [
        "hello-c(gcc,static)",
        "hello-c(scratch,dynamic)",
        "hello-c(scratch,static)",
    ]
    assert [each.id for each in rest] == ["hello-c(gcc,static)", "hello-c(scratch,static)"]
    assert matrix.select(every) == every
    assert matrix.select(every, only=("hello-c(scratch, static)",)) == (every[3],)


@pytest.mark.parametrize(
    ("only", "skip", "said"),
    [
        (("hello-c(scratch,statik)",), (), "Did you mean 'hello-c(scratch,static)'?"),
        (("zzz",), (), "`nox-variants list` shows all ids."),
        ((), ("zzz",), "no variant matches 'zzz'"),
        (("*static)",), ("*",), "no variant is left. Skip less."),
    ],
)
def test_selecting_nothing_is_a_mistake(
    only: tuple[str, ...], skip: tuple[str, ...], said: str
) -> None:
    """A glob that matches nothing is never silently an empty run."""
    with pytest.raises(UsageError) as caught:
        matrix.select(matrix.expand(settings()).variants, only=only, skip=skip)

    assert said in str(caught.value)


subsets = st.lists(st.sampled_from(RUNS), min_size=1, unique=True).map(tuple)
link_modes = st.lists(st.sampled_from(list(LinkMode)), min_size=1, unique=True).map(tuple)
build_images = st.none() | st.lists(st.sampled_from(BUILDS), min_size=1, unique=True).map(tuple)
globs = st.none() | st.sampled_from(["*", "g*", "alpine", "*:*", "dynamic", "?tatic"]).map(
    lambda glob: (glob,)
)
selectors = st.builds(Selector, run=globs, link=globs)


@given(run=subsets, link=link_modes, build=build_images, exclude=st.lists(selectors, max_size=2))
def test_expansion_is_the_product_without_what_is_excluded(
    run: tuple[str, ...],
    link: tuple[LinkMode, ...],
    build: tuple[str, ...] | None,
    exclude: list[Selector],
) -> None:
    """Variants and dropped combinations are the product, each once, and split by the rules."""
    program = Program(
        name="p",
        language=HELLO.language,
        source=HELLO.source,
        run=run,
        link=link,
        build=build,
        exclude=tuple(exclude),
    )
    of = replace(SETTINGS, programs=(program,))
    if matrix.check((program,)):
        with pytest.raises(ConfigError):
            matrix.expand(of)
        return
    expansion = matrix.expand(of)

    kept = [each.id for each in expansion.variants]
    dropped = [each.id for each in expansion.dropped]
    assert len(kept) + len(dropped) == len(set(kept + dropped))
    assert len(kept) + len(dropped) == len(run) * len(link) * len(build or (None,))
    assert matrix.expand(of) == expansion
    for each in expansion.variants:
        assert not any(_matches(rule, each.run_image, each.link) for rule in exclude)
    for dropped_one in expansion.dropped:
        run_image, mode = dropped_one.id[2:-1].split(",")[:2]
        assert any(_matches(rule, run_image, mode) for rule in exclude)


def _matches(rule: Selector, run: str, link: str) -> bool:
    return all(
        patterns is None or any(fnmatchcase(value, pattern) for pattern in patterns)
        for patterns, value in ((rule.run, run), (rule.link, link))
    )
