"""Plans: what a variant needs done, and which of them share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nox_variants.model import (
    CopiedFile,
    Image,
    ImageSource,
    Libs,
    LinkMode,
    Recipe,
    Smoke,
    SourceKind,
)
from nox_variants.plan import WORKDIR, BuildStage, Plan, RunStage, make_plans
from samples import APT, SETTINGS, C, variant

GCC = Image(name="gcc", sources=(APT,))
SCRATCH = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))


def test_two_stages() -> None:
    """A plan names both stages in full, with the program's name in its commands and paths."""
    static = variant("scratch", LinkMode.STATIC)

    assert make_plans(SETTINGS, [static]) == (
        Plan(
            variant=static,
            language=C,
            build=BuildStage(
                image=GCC,
                source=Path("examples/hello-c"),
                workdir=WORKDIR,
                commands=("cc static -o /out/hello-c",),
                env=(),
                caches=(),
                artifacts=("/out/hello-c",),
                network=True,
            ),
            run=RunStage(
                image=SCRATCH,
                files=(CopiedFile(source="/out/hello-c", target="/hello-c"),),
                env=(),
                workdir="/",
                cmd=("/hello-c",),
                bundle=False,
                single_stage=False,
            ),
            smoke=Smoke(stdout="Hello, world!\n"),
        ),
    )


def test_single_stage() -> None:
    """Where build and run image are one, nothing is copied: the artifact runs where it was made."""
    (plan,) = make_plans(SETTINGS, [variant("gcc", LinkMode.DYNAMIC)])

    assert plan.run == RunStage(
        image=GCC,
        files=(),
        env=(),
        workdir=WORKDIR,
        cmd=("/out/hello-c",),
        bundle=False,
        single_stage=True,
    )


@pytest.mark.parametrize(
    ("cmd", "copied", "single"),
    [
        (None, ("/hello-c",), ("/out/hello-c",)),
        (
            ("java", "-cp", "{artifact}"),
            ("java", "-cp", "/hello-c"),
            ("java", "-cp", "/out/hello-c"),
        ),
        (("{program}",), ("hello-c",), ("hello-c",)),
        (
            "{artifact} | cat ${artifact}",
            ("/bin/sh", "-c", "/hello-c | cat ${artifact}"),
            ("/bin/sh", "-c", "/out/hello-c | cat ${artifact}"),
        ),
    ],
)
def test_command(
    cmd: tuple[str, ...] | str | None, copied: tuple[str, ...], single: tuple[str, ...]
) -> None:
    """A command has two forms, and names the artifact wherever that is in the image."""
    (program,) = SETTINGS.programs
    settings = replace(SETTINGS, programs=(replace(program, cmd=cmd),))
    variants = [variant("scratch", LinkMode.STATIC), variant("gcc", LinkMode.STATIC)]

    assert [plan.run.cmd for plan in make_plans(settings, variants)] == [copied, single]


def test_bundle() -> None:
    """Libraries are asked for where the variant says so; which they are, the build tells."""
    (plan,) = make_plans(SETTINGS, [variant("scratch", LinkMode.DYNAMIC, libs=Libs.BUNDLE)])

    assert plan.run.bundle
    assert plan.run.files == (CopiedFile(source="/out/hello-c", target="/hello-c"),)


def test_language_and_program_reach_the_build() -> None:
    """Environment, caches and the leave to use the network come from the file."""
    recipe = Recipe(link=LinkMode.STATIC, image="gcc", commands=("make",), env=(("CC", "cc"),))
    language = replace(C, recipes=(recipe,), caches=("/root/.cache",))
    program = replace(SETTINGS.programs[0], language=language, network=False)

    (plan,) = make_plans(
        replace(SETTINGS, programs=(program,)), [variant("scratch", LinkMode.STATIC)]
    )

    assert plan.language is language
    assert plan.build.commands == ("make",)
    assert plan.build.env == (("CC", "cc"),)
    assert plan.build.caches == ("/root/.cache",)
    assert not plan.build.network


def test_equal_stages_are_equal_values() -> None:
    """Variants that compile the same way share one stage; image and link mode part them."""
    plans = make_plans(
        SETTINGS,
        [
            variant("scratch", LinkMode.STATIC),
            variant("alpine", LinkMode.STATIC),
            variant("gcc", LinkMode.STATIC),
            variant("scratch", LinkMode.MUSL),
            variant("scratch", LinkMode.STATIC, "alpine-gcc"),
        ],
    )

    stages = [plan.build for plan in plans]
    assert len({plan.run.image for plan in plans}) == 3
    assert stages[0] == stages[1] == stages[2]
    assert len(set(stages)) == 3


def test_order_is_kept() -> None:
    """Plans come in the order of the selection, whatever the file's is."""
    selection = [variant(run, LinkMode.STATIC) for run in ("scratch", "gcc", "alpine")]

    assert [plan.variant for plan in make_plans(SETTINGS, selection)] == selection
    assert make_plans(SETTINGS, []) == ()


def test_link_mode_without_recipe_is_a_bug() -> None:
    """A variant that the configuration should have refused is not planned in silence."""
    program = replace(SETTINGS.programs[0], language=replace(C, recipes=()))
    settings = replace(SETTINGS, programs=(program,))

    with pytest.raises(AssertionError, match=r"hello-c\(scratch,static\)"):
        make_plans(settings, [variant("scratch", LinkMode.STATIC)])
